"""An experiment as a command: cells are measured one by one, kept as rows, and drawn from them.

A cell is the smallest piece worth losing: its row is kept as soon as it is measured, so an
experiment can be stopped at any moment and goes on after its last good row.
"""

import pathlib
from collections.abc import Callable, Sequence
from typing import Any, NamedTuple

from randviz.rows import Row, Rows
from randviz.settings import list_values, run_command


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
        cells = experiment.cells(settings)
        kept = Rows(
            settings.out_dir,
            {"experiment": experiment.name, "settings": list_values(settings, "out_dir")},
        )
        for cell in kept.missing(cells):
            words = " ".join(str(value) for value in cell.values())
            print(f"{experiment.name}: {len(kept.rows) + 1}/{len(cells)} {words}", flush=True)
            kept.append({"cell": cell, **experiment.measure(settings, cell)})
        in_order = sorted(kept.rows, key=lambda row: cells.index(row["cell"]))
        experiment.draw(settings, in_order, pathlib.Path(settings.out_dir))

    name = f"randviz.experiments.{experiment.name}"
    return run_command(name, experiment.settings_class, run, argv, doc)
