"""An experiment as a command: cells are measured one by one, kept as rows, and drawn from them.

A cell is the smallest piece worth losing. Each one's row is appended to `rows.jsonl` as soon as it
is measured, so an experiment can be stopped at any moment and goes on after its last good row.
"""

import dataclasses
import json
import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from randviz.images import replace_atomically
from randviz.runs import describe_machine, prepare_folder, write_record
from randviz.settings import run_command
from randviz.types import UserError

Row = dict[str, Any]


class Experiment(NamedTuple):
    """An experiment's parts.

    Attributes:
      name: its module's name.
      settings_class: data class of `setting` fields, `out_dir` among them.
      cells: settings → what is to be measured, each a dictionary of plain values.
      measure: (settings, cell) → the row's facts, plain values too.
      draw: (settings, rows, folder) → None; reads rows only, and may print.
    """

    name: str
    settings_class: type
    cells: Callable[[Any], list[Row]]
    measure: Callable[[Any, Row], Row]
    draw: Callable[[Any, list[Row], pathlib.Path], None]


def run_experiment(experiment: Experiment, argv: Sequence[str], doc: str) -> int:
    """Runs an experiment from its words; returns its exit code."""

    def run(settings: Any) -> None:
        folder = pathlib.Path(settings.out_dir)
        cells = experiment.cells(settings)
        facts = _state_settings(experiment, settings)
        rows = _open_rows(facts, prepare_folder(folder))
        done = [row["cell"] for row in rows]
        for index, cell in enumerate(cells, 1):
            if cell in done:
                continue
            print(f"{experiment.name}: {index}/{len(cells)} {_describe(cell)}", flush=True)
            row = {"cell": cell, **experiment.measure(settings, cell)}
            # With the first row and not before, so that a mistake in the settings costs nothing.
            if not rows:
                write_record(folder / "run.json", {**facts, **describe_machine()})
            with (folder / "rows.jsonl").open("a") as file:
                file.write(json.dumps(row) + "\n")
            rows.append(row)
        in_order = sorted(rows, key=lambda row: cells.index(row["cell"]))
        experiment.draw(settings, in_order, folder)

    name = f"randviz.experiments.{experiment.name}"
    return run_command(name, experiment.settings_class, run, argv, doc)


def _describe(cell: Row) -> str:
    return " ".join(str(value) for value in cell.values())


def _state_settings(experiment: Experiment, settings: Any) -> Row:
    values = {k: v for k, v in dataclasses.asdict(settings).items() if k != "out_dir"}
    # As it will be read back: tuples are lists in JSON.
    return json.loads(json.dumps({"experiment": experiment.name, "settings": values}))


def _open_rows(facts: Row, folder: pathlib.Path) -> list[Row]:
    """The rows measured before under the same settings.

    Raises:
      UserError: if the folder holds rows of other settings, or rows without their settings.
    """
    path, record = folder / "rows.jsonl", folder / "run.json"
    if not path.exists():
        return []
    try:
        found = json.loads(record.read_text())
    except (OSError, ValueError):
        found = {}
    if {key: found.get(key) for key in facts} != facts:
        raise UserError(
            f"{folder} holds rows of other settings (see {record}); choose another --out_dir."
        )
    rows = []
    for line in path.read_text().splitlines():
        try:
            rows.append(json.loads(line))
        except ValueError:
            break  # the process was killed while it wrote this one
    with replace_atomically(path) as temporary:
        temporary.write_text("".join(json.dumps(row) + "\n" for row in rows))
    return rows
