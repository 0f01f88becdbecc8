"""Measurements kept as rows: appended one by one, gone on with, never mixed with others'."""

import json
import pathlib
from collections.abc import Iterable, Mapping
from typing import Any

from randviz.host.images import replace_atomically
from randviz.host.runs import describe_machine, prepare_folder, write_record
from randviz.types import UserError

Row = dict[str, Any]


class Rows:
    """The rows of a folder, `rows.jsonl`, beside the settings they depend on, `run.json`.

    Attributes:
      folder: where.
      metadata: everything that the rows depend on, plain values as JSON reads them.
      rows: all rows measured so far, in the order they were measured.
    """

    def __init__(self, folder: str | pathlib.Path, metadata: Mapping[str, Any]):
        """Opens a folder, new or with rows of the same metadata.

        Args:
          folder: made if it is missing.
          metadata: everything that the rows depend on, plain values.

        Raises:
          UserError: if the folder cannot be written, holds rows of other settings, or rows without
            their settings.
        """
        self.folder = prepare_folder(folder)
        self.metadata = json.loads(
            json.dumps(metadata)
        )  # as it will be read back: tuples are lists
        self._path, self._record = self.folder / "rows.jsonl", self.folder / "run.json"
        self.rows: list[Row] = []
        if self._path.exists():
            self._read()

    def _read(self) -> None:
        try:
            found = json.loads(self._record.read_text())
        except (OSError, ValueError):
            found = {}
        different = [name for name in self.metadata if found.get(name) != self.metadata[name]]
        if different:
            raise UserError(
                f"{self.folder} holds rows of other settings ({self._name(different, found)}; see"
                f" {self._record}); choose another --out_dir."
            )
        for line in self._path.read_text().splitlines():
            try:
                self.rows.append(json.loads(line))
            except ValueError:
                break  # the process was killed while it wrote this one
        with replace_atomically(self._path) as temporary:
            temporary.write_text("".join(json.dumps(row) + "\n" for row in self.rows))

    def _name(self, different: list[str], found: Row) -> str:
        """The settings that differ, by name where both sides have names."""
        names = []
        for name in different:
            old, new = found.get(name), self.metadata[name]
            if isinstance(old, dict) and isinstance(new, dict):
                names += [key for key in new if old.get(key) != new[key]]
            else:
                names.append(name)
        return ", ".join(names)

    def missing(self, cells: Iterable[Row]) -> list[Row]:
        """Those of the cells, in their order, that no row has under "cell"."""
        done = [row["cell"] for row in self.rows]
        return [cell for cell in cells if cell not in done]

    def append(self, row: Row) -> None:
        """Adds a row, in memory and on disk."""
        # With the first row and not before, so that a mistake in the settings costs nothing.
        if not self.rows:
            write_record(self._record, {**self.metadata, **describe_machine()})
        with self._path.open("a") as file:
            file.write(json.dumps(row) + "\n")
        self.rows.append(row)
