"""Compares painting by random filters with Gatys' method in PyTorch: time to the same distance.

Claim: random filters come as near to a painting as Gatys' method does, in a fraction of its time.
Expect: table.md, records.jsonl, pictures, sizes.jpg, where those of all sizes are reduced to one,
and as the last line a JSON object. Its seconds are those of the whole command with its programs
compiled; the ratio, above 1 where random filters are faster, is the geometric mean over the judges
of style. Half an hour on two cores at the default sizes, which nothing else may use meanwhile.
PyTorch comes with `pip install 'randviz[bench]'`.

Examples:
  python -m benchmarks.painting_speed --trained_weights=vgg19.h5 --out_dir=out/painting_speed
  python -m benchmarks.painting_speed --trained_weights=vgg19.h5 --content_image=large.jpg \\
    --sizes=512,2048 --gatys_sizes=512   (whether a large picture reduced looks like a small one)
"""

import contextlib
import dataclasses
import functools
import json
import os
import pathlib
import re
import subprocess
import sys
import tempfile
import time
from typing import Any

import numpy as np

from benchmarks.speed import find_difference
from benchmarks.torch_reference import (
    Enough,
    Evaluate,
    count_threads,
    descend_in_torch,
    make_backends,
    to_batch,
)
from randviz.commands.trials import (
    TRAINED,
    bind_network,
    choose_networks,
    load_pictures,
    load_result,
    picture_path,
)
from randviz.descent.schedule import resize
from randviz.experiments import gatys
from randviz.experiments.figure import FigureSettings
from randviz.experiments.painting_judges import STYLE_JUDGES, make_judge
from randviz.host.charts import format_markdown
from randviz.host.grids import render_grid
from randviz.host.images import load_image, replace_atomically, save_image
from randviz.host.records import Record, Trial
from randviz.host.runs import write_record
from randviz.host.settings import setting
from randviz.host.study import run_module
from randviz.networks.network import IMAGENET_MEAN
from randviz.tasks.style import STYLE_LAYERS
from randviz.types import Image, UserError

_EVERY = 10  # evaluations between two of Gatys' pictures that are judged
_WATCH_SECONDS = 0.1
_FIRST_STEPS = 40  # of a first run, which compiles all programs; some at each of any scales
_FACTOR = 300.0  # by how much the style counts more than with Gatys' constants; see `gatys`


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings):
    """Settings of the comparison."""

    network: str = "vgg19"
    content_image: tuple[str, ...] = setting(("columns",), "The photograph: a path or a sample.")
    style_image: tuple[str, ...] = setting(("starry_night",), "The painting: a path or a sample.")
    sizes: tuple[str, ...] = setting(
        ("256", "512", "1024"), "Longest sides in pixels at which random filters paint."
    )
    gatys_sizes: tuple[str, ...] = setting(
        ("256", "512"), "Those at which Gatys' method does too; some of --sizes."
    )
    judged_size: int = setting(
        512,
        "Larger pictures are reduced to this longest side before they are judged.",
        lower_bound=32,
    )
    num_steps: int = setting(300, "Evaluations of Gatys' objective, at most.", lower_bound=1)
    out_dir: str = "out/painting_speed"


def list_trials(settings: Settings) -> list[Trial]:
    """Each size, by both methods where Gatys' is asked for.

    Raises:
      UserError: for a size that is no number, or one of Gatys' that is not among the sizes.
    """
    for size in (*settings.sizes, *settings.gatys_sizes):
        if not size.isdecimal() or int(size) < 32:
            raise UserError(f"size {size!r} is no whole number of at least 32 pixels; give one.")
    for flag in ("content_image", "style_image"):
        if len(getattr(settings, flag)) != 1:
            raise UserError(f"--{flag} names several pictures, or none; name one.")
    for size in settings.gatys_sizes:
        if size not in settings.sizes:
            raise UserError(f"--gatys_sizes has {size}, which --sizes has not; add it there.")
    return [{"method": "filters", "size": int(size)} for size in settings.sizes] + [
        {"method": "gatys", "size": int(size)} for size in settings.gatys_sizes
    ]


def is_timed(trial: Trial) -> bool:
    """Each is, and wants the machine to itself."""
    return True


def measure(settings: Settings, trial: Trial) -> Record:
    """Makes one picture, on the clock, and judges it."""
    sized = dataclasses.replace(settings, image_size=trial["size"])
    judged = dataclasses.replace(settings, image_size=min(trial["size"], settings.judged_size))
    if TRAINED not in choose_networks(settings):
        raise UserError("a trained VGG-19 is the judge; name its file with --trained_weights=.")
    trained = bind_network(settings, TRAINED, STYLE_LAYERS[-1], IMAGENET_MEAN)
    content, painting = _load_pair(judged)
    judge, shape = make_judge(content, painting, trained), content.shape[:2]
    ask = lambda image: judge(resize(image, shape))
    path = picture_path(settings.out_dir, trial)
    if trial["method"] == "filters":
        metadata = _paint_by_filters(sized, path)
        return {"threads": count_threads(), **metadata, **ask(load_image(path))}
    content, painting = _load_pair(sized)
    objective = gatys.make_objective(trained, content, painting, factor=_FACTOR)
    backends, failure = make_backends(objective, to_batch(content))
    name, evaluate = _find_fastest(backends, to_batch(content))
    snapshots = _descend(evaluate, content, settings.num_steps)
    save_image(path, np.clip(snapshots[-1][1], 0, 1))
    return {
        "threads": count_threads(),
        "torch_backend": name,
        "difference": find_difference(objective, content, backends),
        "compile_failure": failure,
        "curve": [{"seconds": round(seconds, 2), **ask(image)} for seconds, image in snapshots],
    }


def _load_pair(settings: Settings) -> tuple[Image, Image]:
    flags = ("content_image", "style_image")
    (content,), (painting,) = (load_pictures(settings, flag).values() for flag in flags)
    return content.image, painting.image


def _paint_by_filters(settings: Settings, path: pathlib.Path) -> Record:
    """Runs the command twice with a compilation cache of its own, and measures both times.

    The first run compiles the programs and takes few steps.
    """
    flags = [
        f"--content_image={settings.content_image[0]}",
        f"--style_image={settings.style_image[0]}",
        f"--image_size={settings.image_size}",
        f"--square={str(settings.square).lower()}",
        f"--output_image={path}",
    ]
    found: Record = {}
    with tempfile.TemporaryDirectory() as folder:
        environment = {**os.environ, "XDG_CACHE_HOME": folder}
        environment.pop("JAX_COMPILATION_CACHE_DIR", None)  # it would win over the empty cache
        for which, steps in (("first", _FIRST_STEPS), ("warm", 0)):
            command = [sys.executable, "-m", "randviz", "style", *flags]
            command += [f"--num_steps={steps}", f"--out_dir={folder}/{which}"]
            began = time.perf_counter()
            process = subprocess.Popen(command, env=environment, stdout=subprocess.DEVNULL)
            found["peak_gb"] = _watch_memory(process)
            if process.returncode:
                raise UserError(f"{' '.join(command)} failed; run it by itself.")
            found[f"{which}_s"] = round(time.perf_counter() - began, 1)
    return found


def _watch_memory(process: subprocess.Popen) -> float:
    """Waits for the end of a process; the most memory that it held, in GB of 10^9 bytes.

    What `wait4` says of a child is at least what this process held when it began.
    """
    peak = 0
    while process.poll() is None:
        with contextlib.suppress(OSError):
            status = pathlib.Path(f"/proc/{process.pid}/status").read_text()
            found = re.search(r"VmHWM:\s*(\d+) kB", status)
            peak = int(found[1]) if found else peak
        time.sleep(_WATCH_SECONDS)
    return round(peak * 1024 / 1e9, 2)


def _find_fastest(backends: dict[str, Evaluate], image: Any) -> tuple[str, Evaluate]:
    def time_once(name):
        began = time.perf_counter()
        backends[name](image)
        return time.perf_counter() - began

    name = min(backends, key=lambda name: min(time_once(name) for _ in range(3)))
    return name, backends[name]


def _descend(evaluate: Evaluate, content: Image, limit: int) -> list[tuple[float, np.ndarray]]:
    """Descends from the photograph; (seconds, image) now and then."""
    snapshots: list[tuple[float, np.ndarray]] = []
    count, began = 0, time.perf_counter()

    def watch(image, _):
        nonlocal count
        count += 1
        if count % _EVERY == 0 or count == limit:
            picture = image.detach()[0].permute(1, 2, 0).numpy().copy()
            snapshots.append((time.perf_counter() - began, picture))
        if count == limit:
            raise Enough

    # Without a line search the second step leads to 1e23 times the loss, and no further.
    descend_in_torch(
        evaluate, to_batch(content), watch=watch, num_steps=limit, line_search="strong_wolfe"
    )
    return snapshots


def find_ratios(filters: Record, rival: Record) -> dict[str, float | None]:
    """How often the time of random filters goes into Gatys', to the distance that both reach.

    Args:
      filters: record of random filters: the distances, and warm_s for the whole command.
      rival: record of Gatys' method: a curve of distances by time.

    Returns:
      {judge: ratio}, for all judges of style. Where random filters come nearer than Gatys' method
      ever does, both are timed to the nearest that it comes: the whole command then counts for
      random filters, which reach that distance before their end.
    """
    found = {}
    for name in STYLE_JUDGES:
        target = max(filters[name], min(point[name] for point in rival["curve"]))
        seconds = next(point["seconds"] for point in rival["curve"] if point[name] <= target)
        found[name] = round(seconds / filters["warm_s"], 2)
    return found


def summarize(records: list[Record]) -> dict[str, Any]:
    """The numbers of the JSON line."""
    filters = {r["trial"]["size"]: r for r in records if r["trial"]["method"] == "filters"}
    rivals = {r["trial"]["size"]: r for r in records if r["trial"]["method"] == "gatys"}
    by_judge = {size: find_ratios(filters[size], rival) for size, rival in rivals.items()}
    return {
        "seconds": {str(size): record["warm_s"] for size, record in filters.items()},
        "first_seconds": {str(size): record["first_s"] for size, record in filters.items()},
        "ratio_to_gatys": {
            str(size): round(float(np.exp(np.mean(np.log(list(ratios.values()))))), 2)
            for size, ratios in by_judge.items()
        },
        "ratio_by_judge": {str(size): ratios for size, ratios in by_judge.items()},
        "peak_gb": {str(size): record["peak_gb"] for size, record in filters.items()},
        "threads": records[0]["threads"] if records else None,
    }


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Writes table, panel and result, prints the table, and ends with the JSON line."""
    painted = [record for record in records if record["trial"]["method"] == "filters"]
    pictures = [load_result(folder, record) for record in painted]
    labels = [f"{record['trial']['size']} px" for record in painted]
    panel = render_grid([pictures], column_labels=labels, cell=settings.judged_size)
    save_image(folder / "sizes.jpg", panel)
    result = summarize(records)
    columns = ("content", "edges", *STYLE_JUDGES)
    lines = []
    for record in records:
        last = record.get("curve", [record])[-1]
        seconds = record["warm_s"] if "warm_s" in record else last["seconds"]
        numbers = (f"{last[name]:.3f}" for name in columns)
        lines.append(
            (record["trial"]["method"], record["trial"]["size"], f"{seconds:.0f}", *numbers)
        )
    table = format_markdown(("method", "size", "seconds", *columns), lines)
    with replace_atomically(folder / "table.md") as temporary:
        temporary.write_text(table + "\n")
    write_record(folder / "result.json", result)
    print(table)
    print(json.dumps(result))


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
