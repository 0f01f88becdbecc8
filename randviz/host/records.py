"""Records of a study: appended one by one, gone on with, never mixed with those of others."""

import json
import pathlib
import zlib
from collections.abc import Iterable, Mapping
from typing import Any

from randviz.host.images import explain_failure, write_text
from randviz.host.runs import as_json, describe_machine, write_record
from randviz.types import UserError

Trial = dict[str, Any]  # names one measurement, plain values
Record = dict[str, Any]  # what was measured, and its trial under "trial"


def name_trial(trial: Trial) -> str:
    """A trial as text, for messages.

    Example:
      >>> name_trial({"network": 3, "layer": "pool1"})
      'network 3 pool1'
    """
    return " ".join(
        value if isinstance(value, str) else f"{name} {value}" for name, value in trial.items()
    )


class Records:
    """The records of a folder, `records.jsonl`, beside what they depend on, `run.json`.

    Attributes:
      folder: where.
      metadata: everything that the records depend on, plain values as JSON reads them.
      records: all of them so far, in the order they were measured.
    """

    def __init__(self, folder: str | pathlib.Path, metadata: Mapping[str, Any]):
        """Reads the records that there are; a new folder is made with the first one.

        Args:
          folder: any.
          metadata: everything that the records depend on, plain values.

        Raises:
          UserError: if the folder holds records of other settings, records without settings, or
            damaged ones.
        """
        self.folder = pathlib.Path(folder)
        # As it will be read back: tuples are lists.
        self.metadata = json.loads(json.dumps(metadata))
        self._path, self._run = self.folder / "records.jsonl", self.folder / "run.json"
        self.records: list[Record] = []
        if self._path.exists():
            self._read()

    def _read(self) -> None:
        try:
            found = json.loads(self._run.read_text())
            found.keys()  # or it is no dictionary
        except (OSError, ValueError, AttributeError, RecursionError) as error:
            raise UserError(
                f"{self._run}, which says what {self._path.name} is of, is missing or damaged; put"
                " it back, or choose another --out_dir."
            ) from error
        different = [name for name in self.metadata if found.get(name) != self.metadata[name]]
        if different:
            raise UserError(
                f"{self.folder} holds records of other settings ({self._name(different, found)};"
                f" see {self._run}); choose another --out_dir."
            )
        lines = self._path.read_text(errors="replace").splitlines()
        for number, line in enumerate(lines, 1):
            try:
                record = parse_record(line, must_be_checked=bool(found.get("checked")))
            except (ValueError, KeyError, TypeError, RecursionError) as error:
                if number == len(lines):
                    break  # the process was killed while it wrote this one
                raise UserError(
                    f"line {number} of {self._path} is damaged; remove it and those after it, which"
                    " are then measured again, or choose another --out_dir."
                ) from error
            self.records.append(record)
        if len(self.records) < len(lines):
            write_text(self._path, "".join(map(_format, self.records)))

    def _name(self, different: list[str], found: dict[str, Any]) -> str:
        """The settings that differ, by name where both sides have names."""
        names = []
        for name in different:
            old, new = found.get(name), self.metadata[name]
            if isinstance(old, dict) and isinstance(new, dict):
                names += [key for key in new if old.get(key) != new[key]] or [name]
            else:
                names.append(name)
        return ", ".join(names)

    def missing(self, trials: Iterable[Trial]) -> list[Trial]:
        """Those of the trials, in their order, that have no record."""
        done = {json.dumps(record["trial"]) for record in self.records}
        return [trial for trial in trials if json.dumps(trial) not in done]

    def append(self, record: Record) -> None:
        """Adds a record, on disk and in memory.

        Raises:
          UserError: if it cannot be written.
        """
        record = as_json(record)
        # With the first record and not before, so that a mistake in the settings costs nothing.
        if not self.records:
            run = {**self.metadata, **describe_machine(), "checked": True}
            write_record(self._run, run)
        try:
            with self._path.open("a") as file:
                file.write(_format(record))
        except OSError as error:
            raise UserError(
                f"{self._path} cannot be written ({explain_failure(error)}); mend that, and the"
                " same command goes on after the last record."
            ) from error
        self.records.append(record)


def _format(record: Record) -> str:
    """A record's line, with a checksum of what else it says."""
    return json.dumps({**record, "check": _add_up(record)}) + "\n"


def parse_record(line: str, *, must_be_checked: bool) -> Record:
    """The record of a line of records.jsonl.

    Args:
      line: of the file.
      must_be_checked: whether one without a checksum is damaged too.

    Raises:
      ValueError, KeyError, TypeError, RecursionError: if it is damaged.
    """
    record = json.loads(line)
    record["trial"]
    # Earlier versions wrote no checksum.
    if ("check" in record or must_be_checked) and record.pop("check") != _add_up(record):
        raise ValueError("its checksum is another")
    return record


def _add_up(record: Record) -> int:
    return zlib.crc32(json.dumps(record).encode())
