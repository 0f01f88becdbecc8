"""Studies: trials are measured, kept as records, and plotted from them.

A trial is the smallest piece worth losing: its record is kept as soon as it is measured, so a study
can be stopped at any moment and goes on after its last good record. What the records say about the
paper's sentences goes to claims.json.
"""

import contextlib
import dataclasses
import importlib
import json
import pathlib
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from types import ModuleType
from typing import Any, NamedTuple

import jax
import numpy as np

from randviz.descent.solver import Objective
from randviz.host.estimate import check_resources
from randviz.host.folders import lock_folder, report_leftovers
from randviz.host.processes import ProcessSettings, broadcast, join_processes, together
from randviz.host.programs import release_programs
from randviz.host.progress import Progress
from randviz.host.records import Record, Records, Trial, name_trial
from randviz.host.runs import Stopped, write_record
from randviz.host.settings import configure_jax, list_values, run_command
from randviz.host.workers import WorkerSettings, check_workers, share_jobs
from randviz.types import Image, UserError

# Which file trained weights come from stands in the records of those weights.
EXCLUDED_FIELDS = ("out_dir", "trained_weights", "alexnet_weights", "num_workers")


class Workload(NamedTuple):
    """The largest descent of a study, by which its memory and time are estimated.

    Attributes:
      make_objective: makes its objective.
      start: [H, W, 3], an image of the size that descends.
      num_steps: of all descents of the study together.
      num_together: how many descents share one program.
    """

    make_objective: Callable[[], Objective]
    start: Image
    num_steps: int
    num_together: int = 1


@dataclasses.dataclass(frozen=True)
class Study:
    """The parts of a study; `settings` is an instance of its settings class.

    Attributes:
      name: for messages and run.json.
      list_trials: settings → what is to be measured, each a dictionary of plain values.
      measure: (settings, trials of a batch, records so far) → what is added to each trial's record,
        plain values too.
      plot: (settings, records, folder) → None; reads records and what `measure` left in the folder,
        and may print.
      judge: (settings, records) → claims (`experiments.claims.Claim`), where the study has some.
      workload: settings → the largest descent, for studies that can be estimated.
      describe: settings → what the records depend on beside the settings, plain values.
      list_batches: (settings, trials) → batches of trials that are measured together.
      is_timed: trial → whether its record has a time that is compared, so that nothing else may run
        beside it.
      excluded_fields: names of settings that no record depends on.
      module: the name of the module that `gather` finds it in, for workers.
    """

    name: str
    list_trials: Callable[[Any], list[Trial]]
    measure: Callable[[Any, Sequence[Trial], Sequence[Record]], Sequence[Record]]
    plot: Callable[[Any, list[Record], pathlib.Path], None]
    judge: Callable[[Any, list[Record]], Sequence[NamedTuple]] | None = None
    workload: Callable[[Any], Workload] | None = None
    describe: Callable[[Any], Mapping[str, Any]] = lambda settings: {}
    list_batches: Callable[[Any, list[Trial]], Iterable[list[Trial]]] = lambda settings, trials: [
        [trial] for trial in trials
    ]
    is_timed: Callable[[Trial], bool] = lambda trial: False
    excluded_fields: tuple[str, ...] = EXCLUDED_FIELDS
    module: str = ""


def one_by_one(measure: Callable[[Any, Trial], Record]) -> Callable:
    """A study's `measure` that takes trials one after another.

    Args:
      measure: (settings, trial) → what is added to its record.
    """
    return lambda settings, trials, records: [measure(settings, trial) for trial in trials]


def gather(module: ModuleType) -> Study:
    """The study that a module makes up, or its `STUDY`, if it has one.

    Args:
      module: with `list_trials`, `measure` of one trial and `plot`; `judge`, `workload`,
        `describe`, `is_timed` and `excluded_fields` if it has them.
    """
    if hasattr(module, "STUDY"):
        return module.STUDY
    optional = ("judge", "workload", "describe", "is_timed", "excluded_fields")
    return Study(
        name=module.__spec__.name.rpartition(".")[2],
        list_trials=module.list_trials,
        measure=one_by_one(module.measure),
        plot=module.plot,
        module=module.__spec__.name,
        **{name: getattr(module, name) for name in optional if hasattr(module, name)},
    )


def run_module(module: ModuleType, argv: Sequence[str], name: str = "") -> int:
    """Runs the study of a module from the command line; returns its exit code.

    Args:
      module: with `Settings`, and a study as in `gather`.
      argv: the arguments.
      name: of the command, for messages, if it is not the module's.
    """
    run = lambda settings: run_study(gather(module), settings)
    name = name or module.__spec__.name.replace(".commands.", " ")
    return run_command(name, module.Settings, run, argv, module.__doc__)


def run_study(study: Study, settings: Any) -> None:
    """Measures the trials that have no record, plots, and judges; or says what it would take.

    All processes of a study measure, the first one writes.

    Raises:
      UserError: if the study does not fit into memory, or its folder cannot be written, is in use
        by another process or holds records of other settings.
      Stopped: if the user stopped it.
    """
    if isinstance(settings, ProcessSettings):
        join_processes(settings)
    if isinstance(settings, WorkerSettings):
        check_workers(settings.num_workers)
    trials, metadata = together(lambda: _plan(study, settings))
    if settings.dry_run:
        _check_resources(study, settings)
        if not study.workload:
            print(f"{study.name}: {len(trials)} trials; what they take is not known beforehand.")
        return
    is_first = jax.process_index() == 0
    with contextlib.ExitStack() as stack:
        lock = lambda: stack.enter_context(lock_folder(settings.out_dir))
        folder = together(lambda: lock() if is_first else None)
        _run(study, settings, trials, metadata, folder)


def _run(
    study: Study,
    settings: Any,
    trials: list[Trial],
    metadata: Mapping[str, Any],
    folder: pathlib.Path | None,
) -> None:
    """Measures and concludes; the folder is None in all processes but the first."""
    records = together(lambda: Records(folder, metadata) if folder else None)
    asked = set(map(json.dumps, records.missing(trials) if records else []))
    missing = broadcast(np.array([json.dumps(trial) in asked for trial in trials], bool))
    missing = [trial for trial, is_missing in zip(trials, missing, strict=True) if is_missing]
    if missing:
        together(lambda: _check_resources(study, settings))
        try:
            _measure(study, settings, missing, len(trials), records)
        except KeyboardInterrupt:
            raise Stopped("stopped; the same command goes on after the last record.") from None
    if records:
        _conclude(study, settings, trials, records)
        report_leftovers(study.name, folder)


def _plan(study: Study, settings: Any) -> tuple[list[Trial], dict[str, Any]]:
    trials = study.list_trials(settings)
    metadata = {
        "study": study.name,
        "settings": list_values(settings, *study.excluded_fields),
        **study.describe(settings),
    }
    return trials, metadata


def _measure(
    study: Study, settings: Any, missing: list[Trial], total: int, records: Records | None
) -> None:
    done = total - len(missing)
    with Progress(study.name, total, done, unit="trial", silent=records is None) as progress:
        for batch, found in _measure_batches(study, settings, missing, records):
            if records:
                for trial, record in zip(batch, found, strict=True):
                    records.append({"trial": trial, **record})
            done += len(batch)
            more = f" and {len(batch) - 1} more" if len(batch) > 1 else ""
            progress.report(done, name_trial(batch[0]) + more)


def _measure_batches(
    study: Study, settings: Any, missing: list[Trial], records: Records | None
) -> Iterator[tuple[list[Trial], Sequence[Record]]]:
    num_workers = getattr(settings, "num_workers", 1)
    shared = []
    for batch in study.list_batches(settings, missing):
        if num_workers > 1 and not any(map(study.is_timed, batch)):
            shared.append(batch)
        else:
            release_programs()
            yield batch, study.measure(settings, batch, records.records if records else ())
    if shared:
        setup = {"module": study.module, "settings": dataclasses.asdict(settings)}
        yield from share_jobs(prepare_study, setup, shared, num_workers)


def prepare_study(setup: dict[str, Any]) -> Callable[[list[Trial]], Sequence[Record]]:
    """Prepares a study in a worker.

    Args:
      setup: the name of its module, and its settings by name.

    Returns:
      Batch of trials → what is added to their records. They depend on no records before.
    """
    module = importlib.import_module(setup["module"])
    values = setup["settings"].items()
    settings = module.Settings(
        **{name: tuple(x) if isinstance(x, list) else x for name, x in values}
    )
    configure_jax(getattr(settings, "precision", "highest"))
    study = gather(module)
    return lambda batch: study.measure(settings, batch, ())


def _conclude(study: Study, settings: Any, trials: list[Trial], records: Records) -> None:
    # Records that were not asked for this time, as a trained network's when its file is not at
    # hand, are results all the same.
    places = {json.dumps(trial): place for place, trial in enumerate(trials)}
    in_order = sorted(
        records.records, key=lambda record: places.get(json.dumps(record["trial"]), len(trials))
    )
    files = {record["weights_sha256"] for record in in_order if "weights_sha256" in record}
    if len(files) > 1:
        raise UserError(
            f"{records.folder} holds records of {len(files)} files of trained weights; choose"
            " another --out_dir."
        )
    print(f"{study.name}: {len(in_order)} records in {records.folder}")
    if study.judge:
        claims = study.judge(settings, in_order)
        saved = [claim._asdict() for claim in claims]
        write_record(records.folder / "claims.json", {"claims": saved})
        for claim in claims:
            print(f"{study.name}: {claim.verdict}: {claim.statement} ({claim.why})")
    study.plot(settings, in_order, records.folder)


def _check_resources(study: Study, settings: Any) -> None:
    """Refuses what will not fit into memory, and reports what it would take if asked to."""
    if study.workload:
        workload = study.workload(settings)
        check_resources(
            study.name,
            workload.make_objective,
            workload.start,
            num_steps=workload.num_steps,
            dry_run=settings.dry_run,
            num_together=workload.num_together,
            num_workers=getattr(settings, "num_workers", 1),
        )
