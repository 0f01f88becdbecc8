"""Compares this program's speed on a CPU with PyTorch's.

Claim: an evaluation of an objective, and a descent to the same loss, take less time here than in
the fastest of PyTorch's usual backends; and the first line of progress comes soon.
Expect: about half an hour on two cores at the default sizes, which nothing else may use meanwhile;
table.md, speed.png, result.json, records.jsonl, and as the last line a JSON object with the ratios,
above 1 where this program is faster. PyTorch comes with `pip install 'randviz[bench]'`.

Example:
  python -m benchmarks.speed --out_dir=out/speed
"""

import contextlib
import dataclasses
import functools
import json
import math
import os
import pathlib
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import jax
import jax.numpy as jnp
import matplotlib.figure
import numpy as np
import scipy.optimize

from benchmarks import solvers
from benchmarks.torch_reference import (
    Enough,
    Evaluate,
    count_threads,
    descend_in_torch,
    load_torch,
    make_backends,
    to_batch,
)
from randviz.commands.inputs import SeedSettings
from randviz.descent import descent
from randviz.descent.lbfgs import MEMORY
from randviz.descent.solver import Objective
from randviz.host.charts import format_markdown
from randviz.host.images import replace_atomically
from randviz.host.records import Record, Trial
from randviz.host.runs import write_record
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.types import Array, Image, UserError

PARTS = ("evaluation", "descent", "start")
EVALUATION_BACKENDS = ("randviz", "eager", "channels_last", "compile")
DESCENT_METHODS = ("randviz", "lbfgs", "strong_wolfe", "scipy")

_EVALUATED_LAYER, _INVERTED_LAYER = "conv5_1", "conv3_1"
# PyTorch's OpenMP workers go on spinning for a while after their work and would slow down the next.
_PAUSE = 0.3
# Evaluations in one timing: so many that they have about as many pixels at every size, but enough
# for their common allocation not to count and few enough for small sizes to end.
_PIXELS, _FEWEST, _MOST = 2**19, 4, 20
_SHADES = (1.0, 0.99, 0.98)  # of the start, in which the two sides' gradients are compared
_CHUNK = 20  # steps between two looks at the clock, as in a command about a second
_PATIENCE = 1.5  # how many evaluations a descent may take, as a multiple of the number of steps


@dataclasses.dataclass(frozen=True)
class Settings(SeedSettings):
    """Settings of the comparison."""

    parts: tuple[str, ...] = setting(PARTS, "What is measured: evaluation, descent, start.")
    image: str = setting(
        "astronaut", "The picture inverted and stylised: square, so that a size is both sides."
    )
    texture_image: str = setting("gravel", "The texture.")
    style_image: str = setting("coffee", "The style.")
    sizes: tuple[str, ...] = setting(
        ("64", "128", "256", "512"), "Longest sides in pixels at which evaluations are timed."
    )
    repeats: int = setting(7, "Timings of each backend, of which the median counts.", lower_bound=1)
    descent_size: int = setting(128, "Longest side in pixels of the descents.", lower_bound=16)
    num_steps: int = setting(200, "Steps of the descents.", lower_bound=1)
    descent_repeats: int = setting(3, "Timings of each descent; the median counts.", lower_bound=1)
    out_dir: str = "out/speed"


def list_trials(settings: Settings) -> list[Trial]:
    """Each size, each problem, and the start, as far as they are asked for.

    Raises:
      UserError: for an unknown part, or a size that is no number or does not reach the layer.
    """
    for part in settings.parts:
        if part not in PARTS:
            raise UserError(f"part {part!r} is unknown; use some of {', '.join(PARTS)}.")
    for size in settings.sizes:
        if not size.isdecimal() or int(size) < 16:
            raise UserError(f"size {size!r} is no whole number of at least 16 pixels; give one.")
    found = {
        "evaluation": [{"kind": "evaluation", "size": int(size)} for size in settings.sizes],
        "descent": [{"kind": "descent", "problem": problem} for problem in solvers.PROBLEMS],
        "start": [{"kind": "start"}],
    }
    return [trial for part in PARTS if part in settings.parts for trial in found[part]]


def workload(settings: Settings) -> Workload:
    """The largest inversion, in this program's own time: PyTorch's is not estimated."""
    size = settings.descent_size
    if "evaluation" in settings.parts:
        size = max(size, *map(int, settings.sizes))
    problem = _make_problem(settings, "inversion", layer=_EVALUATED_LAYER, image_size=size)
    num_steps = settings.descent_repeats * settings.num_steps * len(solvers.PROBLEMS)
    return Workload(*problem, num_steps)


def measure(settings: Settings, trial: Trial) -> Record:
    """Times one trial with all its backends."""
    if trial["kind"] == "evaluation":
        metadata = _measure_evaluation(settings, trial["size"])
    elif trial["kind"] == "descent":
        metadata = _measure_descent(settings, trial["problem"])
    else:
        metadata = _measure_start()
    return {"threads": count_threads(), **metadata}


@jax.jit
def _evaluate(objective: Objective, image: Image, count: Array, step: Array):
    """Evaluates some times in one program, whose temporaries are allocated once, as in a descent.

    Each evaluation is of where the one before led to, so that none can be left out; with a step of
    0, which the compiler does not know, all are of the same image.
    """

    def body(_, carry):
        image, _, gradient = carry
        loss, gradient = jax.value_and_grad(objective)(image - step * gradient)
        return image, loss, gradient

    carry = (image, jnp.float32(0), jnp.zeros_like(image))
    return jax.lax.fori_loop(0, count, body, carry)[1:]


def _make_problem(
    settings: Settings, problem: str, *, layer: str, image_size: int
) -> tuple[Callable[[], Objective], Image]:
    names = ("image", "texture_image", "style_image", "seed")
    shared = {name: getattr(settings, name) for name in names}
    return solvers.make_problem(
        solvers.Settings(layer=layer, image_size=image_size, **shared), problem
    )


def find_difference(objective: Objective, start: Image, backends: Mapping[str, Evaluate]) -> float:
    """How far PyTorch's loss or gradient is from ours, relative to ours, with the worst backend.

    Where a ReLU's input is zero within rounding, one side may have it on and the other off, and a
    single one can change the gradient by a thousandth. So the median over three shades counts.
    """
    differences = []
    for shade in _SHADES:
        image = start * shade
        loss, gradient = _evaluate(objective, image, 1, 0.0)
        for evaluate in backends.values():
            found, slope = evaluate(to_batch(image))
            slope = slope[0].permute(1, 2, 0).numpy()
            of_loss = abs(float(found) - float(loss)) / abs(float(loss))
            of_gradient = np.linalg.norm(slope - gradient) / np.linalg.norm(gradient)
            differences.append(max(of_loss, float(of_gradient)))
    return float(np.median(np.reshape(differences, (len(_SHADES), -1)), axis=0).max())


def _read_clocks() -> tuple[float, float]:
    """Seconds that have passed, and CPU seconds that other processes have had."""
    counters = pathlib.Path("/proc/stat").read_text().split()
    busy = sum(int(counters[place]) for place in (1, 2, 3, 6, 7))  # all but idle and waiting
    return time.perf_counter(), busy / os.sysconf("SC_CLK_TCK") - sum(os.times()[:4])


def _count_others(before: tuple[float, float]) -> float:
    """How many cores other processes have used since `_read_clocks`.

    OpenMP's spinning workers lose ten times more to a busy neighbour than they should, so that
    timings beside other work flatter this program.
    """
    seconds, used = np.subtract(_read_clocks(), before)
    return round(max(float(used / seconds), 0.0), 2)


def _time(evaluate_often: Callable[[int], Any], count: int) -> float:
    """Seconds an evaluation."""
    time.sleep(_PAUSE)
    began = time.perf_counter()
    evaluate_often(count)
    return (time.perf_counter() - began) / count


def _repeat(evaluate: Evaluate, image: Any, count: int) -> None:
    for _ in range(count):
        evaluate(image)


def _measure_evaluation(settings: Settings, size: int) -> Record:
    """Times value and gradient of an inversion, all backends in turn, several times."""
    make_objective, start = _make_problem(
        settings, "inversion", layer=_EVALUATED_LAYER, image_size=size
    )
    objective = make_objective()
    tensor = to_batch(start)
    backends, failure = make_backends(objective, tensor)
    difference = find_difference(objective, start, backends)
    contestants = {
        "randviz": lambda count: jax.block_until_ready(_evaluate(objective, start, count, 0.0)),
        **{name: functools.partial(_repeat, backend, tensor) for name, backend in backends.items()},
    }
    count = min(max(_PIXELS // size**2, _FEWEST), _MOST)
    seconds = {name: [] for name in contestants}
    before = _read_clocks()
    for _ in range(settings.repeats):
        for name, evaluate_often in contestants.items():
            seconds[name].append(_time(evaluate_often, count))
    return {
        "pixels": f"{start.shape[1]}x{start.shape[0]}",
        "evaluations": count,
        "others": _count_others(before),
        "difference": difference,
        "compile_failure": failure,
        "milliseconds": {
            name: round(1000 * statistics.median(seconds[name]), 3) if name in seconds else None
            for name in EVALUATION_BACKENDS
        },
    }


class _Watch:
    """Keeps time and best loss after each evaluation, and ends the descent when it is enough.

    Attributes:
      curve: (seconds, best loss so far), one for each evaluation.
    """

    def __init__(self, target: float = -math.inf, limit: float = math.inf):
        self.target, self.limit = target, limit
        self.curve: list[tuple[float, float]] = []
        self.began = time.perf_counter()

    def note(self, loss: float) -> None:
        """Raises Enough at the target, at the limit, and for a loss that is not finite."""
        best = min(loss, self.curve[-1][1]) if self.curve else loss
        if math.isfinite(loss):
            self.curve.append((time.perf_counter() - self.began, best))
        if not math.isfinite(loss) or best <= self.target or len(self.curve) >= self.limit:
            raise Enough


def _descend_here(objective: Objective, start: Image, num_steps: int) -> _Watch:
    """This program's descent; its compilation is not counted."""
    state = descent.init(objective, start)
    jax.block_until_ready(descent.advance(objective, state, num_steps=1))
    time.sleep(_PAUSE)
    watch = _Watch()
    state = descent.init(objective, start)
    with contextlib.suppress(Enough):
        for step in range(0, num_steps, _CHUNK):
            count = min(_CHUNK, num_steps - step)
            state, trace = descent.advance(objective, state, num_steps=count)
            watch.note(float(np.min(trace.loss)))
    return watch


def _descend_in_torch(
    evaluate: Evaluate,
    start: Any,
    num_steps: int,
    *,
    line_search: str | None,
    target: float = -math.inf,
    limit: float = math.inf,
) -> _Watch:
    time.sleep(_PAUSE)
    watch = _Watch(target, limit)
    descend_in_torch(
        evaluate,
        start,
        watch=lambda image, loss: watch.note(loss),
        num_steps=num_steps,
        line_search=line_search,
    )
    return watch


def _descend_in_scipy(evaluate: Evaluate, start: Any, *, target: float, limit: int) -> _Watch:
    torch = load_torch()
    time.sleep(_PAUSE)
    watch = _Watch(target, limit)

    def fun(x):
        image = torch.from_numpy(x.astype(np.float32)).reshape(start.shape)
        loss, gradient = evaluate(image)
        watch.note(float(loss))
        return float(loss), gradient.numpy().astype(np.float64).ravel()

    with contextlib.suppress(Enough):
        scipy.optimize.minimize(
            fun,
            start.numpy().astype(np.float64).ravel(),
            jac=True,
            method="L-BFGS-B",
            options={
                "maxiter": 10**6,
                "maxfun": 10**6,
                "maxcor": MEMORY,
                "ftol": 0,
                "gtol": 0,
            },
        )
    return watch


def _measure_descent(settings: Settings, problem: str) -> Record:
    """Times descents to the loss that both we and a searching L-BFGS reach in so many steps."""
    make_objective, start = _make_problem(
        settings, problem, layer=_INVERTED_LAYER, image_size=settings.descent_size
    )
    objective = make_objective()
    tensor = to_batch(start)
    backends, _ = make_backends(objective, tensor)
    difference = find_difference(objective, start, backends)
    before = _read_clocks()
    # The descents of PyTorch get its fastest backend.
    paces = {
        name: statistics.median(
            _time(functools.partial(_repeat, backend, tensor), _FEWEST) for _ in range(3)
        )
        for name, backend in backends.items()
    }
    fastest = min(paces, key=paces.get)
    evaluate, num_steps = backends[fastest], settings.num_steps

    limit = math.ceil(_PATIENCE * num_steps)
    # A first run, not timed, finds the loss that both reach.
    here = _descend_here(objective, start, num_steps)
    searching = _descend_in_torch(evaluate, tensor, num_steps, line_search="strong_wolfe")
    target = max(here.curve[-1][1], searching.curve[-1][1])
    to_target = {"target": target, "limit": limit}
    contestants = {
        "randviz": lambda: _descend_here(objective, start, num_steps),
        "lbfgs": lambda: _descend_in_torch(evaluate, tensor, limit, line_search=None, **to_target),
        "strong_wolfe": lambda: _descend_in_torch(
            evaluate, tensor, limit, line_search="strong_wolfe", **to_target
        ),
        "scipy": lambda: _descend_in_scipy(evaluate, tensor, **to_target),
    }
    # In turn, several times, because a machine's pace changes within minutes.
    rounds = [
        {name: descend() for name, descend in contestants.items()}
        for _ in range(settings.descent_repeats)
    ]
    times = {name: [_time_to(target, each[name]) for each in rounds] for name in DESCENT_METHODS}
    return {
        "pixels": f"{start.shape[1]}x{start.shape[0]}",
        "difference": difference,
        "others": _count_others(before),
        "torch_backend": fastest,
        "target": target,
        "seconds": {
            name: None if None in each else statistics.median(each) for name, each in times.items()
        },
        "curves": {
            name: [[round(seconds, 3), float(f"{loss:.5g}")] for seconds, loss in watch.curve]
            for name, watch in rounds[-1].items()
        },
    }


def _time_to(target: float, watch: _Watch) -> float | None:
    return next((round(seconds, 3) for seconds, loss in watch.curve if loss <= target), None)


def _measure_start() -> Record:
    """Times a command up to its first line of progress, before and after it was compiled."""
    with tempfile.TemporaryDirectory() as folder:
        cache = os.path.join(folder, "cache")
        before = _read_clocks()
        cold, warm = (_time_first_line(os.path.join(folder, n), cache) for n in ("cold", "warm"))
        return {"cold_s": cold, "warm_s": warm, "others": _count_others(before)}


def _time_first_line(out_dir: str, cache: str) -> float:
    flags = "--image=chelsea --layer=pool4 --image_size=128 --num_steps=2 --print_every=1"
    command = [sys.executable, "-m", "randviz", "invert", *flags.split(), f"--out_dir={out_dir}"]
    environment = {**os.environ, "XDG_CACHE_HOME": cache}
    environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would win over the empty cache
    seconds, line = None, ""
    began = time.perf_counter()
    with subprocess.Popen(
        command, env=environment, stdout=subprocess.PIPE, stderr=subprocess.STDOUT, text=True
    ) as process:
        for line in process.stdout:
            if seconds is None and "step 1/" in line:
                seconds = round(time.perf_counter() - began, 2)
    if seconds is None or process.returncode:
        raise UserError(f"{' '.join(command)} failed ({line.strip()}); run it by itself.")
    return seconds


def find_ratio(times: Mapping[str, float | None]) -> float | None:
    """How often our time goes into the best of the others': above 1 we are faster.

    Args:
      times: of each backend or method, "randviz" among them; None where it has none.

    Returns:
      The ratio, or None if there is nothing to compare.
    """
    others = [value for name, value in times.items() if name != "randviz" and value is not None]
    ours = times.get("randviz")
    return round(min(others) / ours, 3) if others and ours else None


def summarize(settings: Settings, records: list[Record]) -> dict[str, Any]:
    """The numbers of the JSON line; None for what was not measured."""
    evaluations, descents, start = _sort(records)
    ratios = {size: find_ratio(record["milliseconds"]) for size, record in evaluations.items()}
    return {
        "evaluation_ratio_256": ratios.get(256),
        "evaluation_ratio": {size: ratios.get(int(size)) for size in settings.sizes},
        "time_to_loss_ratio": {
            problem: find_ratio(descents[problem]["seconds"]) if problem in descents else None
            for problem in solvers.PROBLEMS
        },
        "cold_start_s": start.get("cold_s"),
        "warm_start_s": start.get("warm_s"),
        "threads": records[0]["threads"] if records else None,
        "largest_difference": max(
            (record["difference"] for record in (*evaluations.values(), *descents.values())),
            default=None,
        ),
        "other_processes_cores": max((record["others"] for record in records), default=None),
    }


def _sort(records: list[Record]) -> tuple[dict[int, Record], dict[str, Record], Record]:
    """{size: record}, {problem: record}, and the start's record, empty if there is none."""
    of_kind = lambda kind: [record for record in records if record["trial"]["kind"] == kind]
    evaluations = {record["trial"]["size"]: record for record in of_kind("evaluation")}
    descents = {record["trial"]["problem"]: record for record in of_kind("descent")}
    return evaluations, descents, next(iter(of_kind("start")), {})


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Writes table, plot and result, prints the table, and ends with the JSON line."""
    table = _format_tables(records)
    result = summarize(settings, records)
    with replace_atomically(folder / "table.md") as temporary:
        temporary.write_text(table + "\n")
    with replace_atomically(folder / "speed.png") as temporary:
        _draw_figure(records).savefig(temporary, dpi=120)
    write_record(folder / "result.json", result)
    print(table)
    print(json.dumps(result))


def _format_tables(records: list[Record]) -> str:
    evaluations, descents, start = _sort(records)
    tables = []
    if evaluations:
        header = ("size", *(f"{name}, ms" for name in EVALUATION_BACKENDS), "ratio", "difference")
        lines = [
            _format_line(record["pixels"], record, record["milliseconds"], EVALUATION_BACKENDS)
            for record in evaluations.values()
        ]
        tables.append(format_markdown(header, lines))
        tables += sorted(
            {
                f"torch.compile failed: {record['compile_failure']}"
                for record in evaluations.values()
                if record["compile_failure"]
            }
        )
    if descents:
        header = (
            "descent",
            *(f"{name}, s" for name in DESCENT_METHODS),
            "ratio",
            "difference",
            "loss reached",
            "torch evaluates",
        )
        lines = [
            (
                *_format_line(problem, record, record["seconds"], DESCENT_METHODS),
                f"{record['target']:.4g}",
                record["torch_backend"],
            )
            for problem, record in descents.items()
        ]
        tables.append(format_markdown(header, lines))
    if start:
        header = ("first line of progress", "s")
        tables.append(format_markdown(header, [(n, start[f"{n}_s"]) for n in ("cold", "warm")]))
    if records:
        busiest = max(record["others"] for record in records)
        tables.append(f"Other processes used up to {busiest:.2f} cores meanwhile.")
    return "\n\n".join(tables)


def _format_line(
    label: str, record: Record, times: Mapping[str, float | None], names: Sequence[str]
) -> list[str]:
    numbers = [*(times[name] for name in names), find_ratio(times)]
    texts = ["-" if number is None else f"{number:.4g}" for number in numbers]
    return [label, *texts, f"{record['difference']:.1e}"]


def _draw_figure(records: list[Record]) -> matplotlib.figure.Figure:
    """Milliseconds by size, then the loss by time of each descent."""
    evaluations, descents, _ = _sort(records)
    count = 1 + len(descents)
    figure = matplotlib.figure.Figure(figsize=(4.5 * count, 4), layout="constrained")
    first, *others = figure.subplots(1, count, squeeze=False)[0]
    for backend in EVALUATION_BACKENDS:
        points = [
            (size, record["milliseconds"][backend])
            for size, record in sorted(evaluations.items())
            if record["milliseconds"][backend] is not None
        ]
        if points:
            first.loglog(*zip(*points, strict=True), marker="o", label=backend)
    first.set(title="evaluation", xlabel="longest side, pixels", ylabel="ms")
    for panel, (problem, record) in zip(others, descents.items(), strict=True):
        for method in DESCENT_METHODS:
            if record["curves"][method]:
                panel.semilogy(*zip(*record["curves"][method], strict=True), label=method)
        panel.axhline(record["target"], color="grey", linewidth=0.5)
        panel.set(title=problem, xlabel="s", ylabel="loss")
    for panel in (first, *others):
        if panel.get_legend_handles_labels()[0]:
            panel.legend()
    return figure


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
