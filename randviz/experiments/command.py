"""An experiment as a command: cells are measured one by one, kept as rows, and drawn from them.

A cell is the smallest piece worth losing: its row is kept as soon as it is measured, so an
experiment can be stopped at any moment and goes on after its last good row. What the rows say of
the paper's sentences goes to claims.json.
"""

import pathlib
from collections.abc import Callable, Sequence
from types import ModuleType
from typing import Any, NamedTuple

from randviz.descent.solver import Objective
from randviz.experiments.claims import Claim
from randviz.host.estimate import check_resources
from randviz.host.records import Row, Rows
from randviz.host.runs import write_record
from randviz.host.settings import list_values, run_command
from randviz.types import Image, UserError

# Which file trained weights come from stands in the rows of those weights.
EXCLUDED_FIELDS = ("out_dir", "trained_weights", "alexnet_weights")


class Descent(NamedTuple):
    """The largest descent of an experiment, by which its memory and time are estimated.

    Attributes:
      make_objective: makes its objective.
      start: [H, W, 3], where it starts.
      num_steps: of all of the experiment's descents together.
    """

    make_objective: Callable[[], Objective]
    start: Image
    num_steps: int


def claim_nothing(settings: Any, rows: list[Row]) -> list[Claim]:
    """What an experiment says of the paper if it is not about a sentence of it."""
    del settings, rows
    return []


class Experiment(NamedTuple):
    """An experiment's parts.

    Attributes:
      name: its module's name.
      settings_class: data class of `setting` fields, `out_dir` among them.
      cells: settings → what is to be measured, each a dictionary of plain values.
      measure: (settings, cell) → the row's metadata, plain values too.
      plot: (settings, rows, folder) → None; reads rows and what `measure` left in the folder, and
        may print.
      judge: (settings, rows) → the claims.
      largest: settings → the largest descent, for experiments that can be estimated.
    """

    name: str
    settings_class: type
    cells: Callable[[Any], list[Row]]
    measure: Callable[[Any, Row], Row]
    plot: Callable[[Any, list[Row], pathlib.Path], None]
    judge: Callable[[Any, list[Row]], list[Claim]] = claim_nothing
    largest: Callable[[Any], Descent] | None = None


def gather(module: ModuleType) -> Experiment:
    """The experiment that a module makes up.

    Args:
      module: with Settings, cells, measure and draw; and judge_rows and largest if it has them.

    Returns:
      The experiment, of the module's name.
    """
    return Experiment(
        name=module.__spec__.name.rpartition(".")[2],
        settings_class=module.Settings,
        cells=module.cells,
        measure=module.measure,
        plot=module.plot,
        judge=getattr(module, "judge_rows", claim_nothing),
        largest=getattr(module, "largest", None),
    )


def run_module(module: ModuleType, argv: Sequence[str]) -> int:
    """Runs the experiment that a module makes up; returns its exit code."""
    return run_experiment(gather(module), argv, module.__doc__)


def run_experiment(experiment: Experiment, argv: Sequence[str], doc: str) -> int:
    """Runs an experiment from its words; returns its exit code."""

    def run(settings: Any) -> None:
        cells = experiment.cells(settings)
        if getattr(settings, "dry_run", False):
            _check_resources(experiment, settings)
            return
        kept = Rows(
            settings.out_dir,
            {
                "experiment": experiment.name,
                "settings": list_values(settings, *EXCLUDED_FIELDS),
            },
        )
        missing = kept.missing(cells)
        if missing:
            _check_resources(experiment, settings)
        for index, cell in enumerate(missing, len(cells) - len(missing) + 1):
            words = " ".join(str(value) for value in cell.values())
            print(f"{experiment.name}: {index}/{len(cells)} {words}", flush=True)
            kept.append({"cell": cell, **experiment.measure(settings, cell)})
        # Rows that were not asked for this time, as a trained network's when it is not at hand, are
        # results all the same.
        place = {str(cell): index for index, cell in enumerate(cells)}
        in_order = sorted(kept.rows, key=lambda row: place.get(str(row["cell"]), len(cells)))
        files = {row["weights_sha256"] for row in in_order if "weights_sha256" in row}
        if len(files) > 1:
            raise UserError(
                f"{kept.folder} holds rows of {len(files)} files of trained weights; choose another"
                " --out_dir."
            )
        experiment.plot(settings, in_order, kept.folder)
        found = experiment.judge(settings, in_order)
        if experiment.judge is not claim_nothing:
            claims = [claim._asdict() for claim in found]
            write_record(kept.folder / "claims.json", {"claims": claims})
        for claim in found:
            print(f"{experiment.name}: {claim.verdict}: {claim.statement} ({claim.why})")

    name = f"randviz.experiments.{experiment.name}"
    return run_command(name, experiment.settings_class, run, argv, doc)


def _check_resources(experiment: Experiment, settings: Any) -> None:
    """Refuses what will not fit into memory, and tells what it would take if that was asked for."""
    if experiment.largest:
        descent = experiment.largest(settings)
        check_resources(
            experiment.name,
            descent.make_objective,
            descent.start,
            num_steps=descent.num_steps,
            dry_run=settings.dry_run,
        )
