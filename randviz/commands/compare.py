"""Rebuilds pictures through an untrained network and through the trained one, side by side.

Equal steps from the same starting noise, layer by layer, as in the paper's figure 2: random above,
trained below. Distance, PSNR and SSIM stand under each picture and in a table. Without trained
weights their row says so.

Examples:
  randviz compare --image=chelsea --image_size=128 --num_steps=200
  randviz compare --image=girl.png,house.png --trained_weights=vgg19.h5 --layers=pool1,pool3,pool5
  randviz compare --image=me.jpg --network=ranvgg --trained_weights=vgg19.h5
"""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any

from randviz.commands.inputs import LARGEST_SIDE, Picture, check_picture, load_picture, make_keys
from randviz.commands.network_choice import (
    Choice,
    NetworkSettings,
    choose_both,
    describe_network,
)
from randviz.host.charts import format_markdown
from randviz.host.estimate import check_resources
from randviz.host.grids import render_grid
from randviz.host.images import load_image, replace_atomically, save_image
from randviz.host.quality import compare_images
from randviz.host.records import Row, Rows
from randviz.host.runs import Stage, delete_checkpoint, descend
from randviz.host.settings import list_values, run_command, setting
from randviz.networks.gaussian import sample_noise_image
from randviz.tasks.inversion import INPUT_OFFSET, NOISE_STD, Inversion
from randviz.types import Image, Params, UserError

MEASURES = {"distance": ".1f", "psnr": ".1f", "ssim": ".2f"}


@dataclasses.dataclass(frozen=True)
class Settings(NetworkSettings):
    """Settings of `randviz compare`."""

    image: tuple[str, ...] = setting((), "The pictures: paths or samples, with commas between.")
    layers: tuple[str, ...] = setting(
        ("pool1", "pool2", "pool3", "pool4", "pool5"), "The layers inverted, one at a time."
    )
    image_size: int = setting(
        128, "Longest side of all pictures in pixels.", lower_bound=1, upper_bound=LARGEST_SIDE
    )
    square: bool = setting(
        False,
        "Takes the largest square in the middle of each picture; fully connected layers need one.",
    )
    num_steps: int = setting(
        200, "Steps of each descent; the paper takes 2000.", lower_bound=1, upper_bound=10**6
    )
    out_dir: str = setting("out/compare", "Folder for the pictures, the panels and the table.")


def run(settings: Settings) -> None:
    """Measures what is missing, descent by descent, and draws the panels and the table."""
    if not settings.image:
        raise UserError("no picture is given; name files or samples with --image=.")
    if len(set(settings.image)) < len(settings.image):
        raise UserError(f"--image={','.join(settings.image)} names one twice; name each once.")
    pictures = {
        name: load_picture("image", source, settings.image_size, square=settings.square)
        for source, name in name_pictures(settings.image).items()
    }
    choices = {
        label: choice._replace(network=choice.network.with_offset(INPUT_OFFSET))
        for label, choice in choose_both(settings).items()
    }
    first = next(iter(choices.values()))
    layers = first.network.canonical_names(settings.layers)
    for choice in choices.values():
        for picture in pictures.values():
            check_picture(picture, choice.network, layers[-1])
    sample = functools.cache(lambda label: choices[label].sample(layers[-1]))
    largest = max((picture.image for picture in pictures.values()), key=lambda image: image.size)
    count = len(pictures) * len(choices) * len(layers)
    if check_resources(
        "compare",
        functools.partial(
            Inversion(layers[-1]).of, first.network.bind(sample(first.label)), largest
        ),
        sample_noise_image(make_keys(settings.seed)[1], largest.shape[:2], std=NOISE_STD),
        num_steps=count * settings.num_steps,
        dry_run=settings.dry_run,
    ):
        return
    metadata = {
        "command": "compare",
        "settings": list_values(settings, "out_dir"),
        "pictures": {name: picture.metadata for name, picture in pictures.items()},
        "networks": {
            label: {**describe_network(choice.network), **choice.metadata}
            for label, choice in choices.items()
        },
    }
    kept = Rows(settings.out_dir, metadata)
    cells = [
        {"image": name, "weights": label, "layer": layer}
        for name in pictures
        for label in choices
        for layer in layers
    ]
    measure_cells(kept, cells, pictures, choices, sample, settings)
    rows = {tuple(row["cell"].values()): row for row in kept.rows}
    labels = [first.label, "trained"]
    for name, picture in pictures.items():
        panel = render_panel(kept.folder, name, picture.image, labels, layers, rows, settings)
        save_image(kept.folder / f"{name}_panel.png", panel)
    table = format_comparison(list(pictures), labels, layers, rows)
    with replace_atomically(kept.folder / "table.md") as temporary:
        temporary.write_text(table + "\n")
    print(f"{table}\ncompare: wrote {kept.folder}: panels, table.md, rows.jsonl, run.json")


def measure_cells(
    kept: Rows,
    cells: Sequence[Row],
    pictures: Mapping[str, Picture],
    choices: Mapping[str, Choice],
    sample: Callable[[str], Params],
    settings: Settings,
) -> None:
    """Measures the cells that have no row yet and saves each picture under its `file_name`.

    Raises:
      runs.Stopped: if the user stopped it; the descent that was on its way goes on another time.
    """
    _, noise_key = make_keys(settings.seed)
    for cell in kept.missing(cells):
        target, network = pictures[cell["image"]].image, choices[cell["weights"]].network
        extractor = network.bind(sample(cell["weights"]))
        make_objective = functools.partial(Inversion(cell["layer"]).of, extractor, target)
        run = descend(
            [Stage(make_objective, target.shape[:2], settings.num_steps)],
            sample_noise_image(noise_key, target.shape[:2], std=NOISE_STD),
            folder=kept.folder,
            metadata=(kept.metadata, cell),
            label=f"compare {len(kept.rows) + 1}/{len(cells)}: {' '.join(cell.values())}",
        )
        save_image(kept.folder / file_name(cell), run.image)
        measures = compare_images(run.image, target)
        if not math.isfinite(measures["psnr"]):
            measures["psnr"] = None  # JSON has no infinity: the picture came back exactly
        metadata = {
            "final_loss": float(run.trace.loss[-1]),
            "evaluations": int(run.trace.evaluations.sum()),
            "seconds": round(run.seconds, 2),
        }
        kept.append({"cell": cell, **measures, **metadata})
        delete_checkpoint(kept.folder, (kept.metadata, cell))


def name_pictures(sources: Sequence[str]) -> dict[str, str]:
    """A short name for each picture, the file's own unless two would share it.

    Example:
      >>> name_pictures(["a/cat.jpg", "b/cat.jpg", "dog.jpg"])
      {'a/cat.jpg': 'cat', 'b/cat.jpg': 'cat_2', 'dog.jpg': 'dog'}
    """
    names: dict[str, str] = {}
    for source in sources:
        name = stem = pathlib.PurePath(source).stem
        number = 1
        while name in names.values():
            number += 1
            name = f"{stem}_{number}"
        names[source] = name
    return names


def file_name(cell: Row) -> str:
    """The file that a cell's reconstruction is saved under."""
    return f"{cell['image']}_{cell['weights']}_{cell['layer']}.png"


def render_panel(
    folder: pathlib.Path,
    name: str,
    image: Image,
    labels: Sequence[str],
    layers: Sequence[str],
    rows: Mapping[tuple[str, str, str], Row],
    settings: Settings,
) -> Image:
    """Draws one picture's reconstructions, a row for each network and a column for each layer.

    Args:
      folder: of the reconstructions.
      name: the picture's.
      image: [H, W, 3], the picture itself.
      labels: of the networks; one without rows is "not run".
      layers: in forward order.
      rows: by picture, network and layer.
      settings: of the command.

    Returns:
      [H', W', 3], with distance, PSNR and SSIM under each reconstruction.
    """
    _, noise_key = make_keys(settings.seed)
    noise = sample_noise_image(noise_key, image.shape[:2], std=NOISE_STD)
    lines, captions = [], []
    for label, beside in zip(labels, ((image, "the picture"), (noise, "the start")), strict=True):
        found = [rows.get((name, label, layer)) for layer in layers]
        lines.append(
            [beside[0]] + [row and load_image(folder / file_name(row["cell"])) for row in found]
        )
        captions.append([beside[1]] + [row and describe(row) for row in found])
    return render_grid(lines, row_labels=labels, column_labels=["", *layers], captions=captions)


def describe(row: Row | None) -> str:
    """Distance, PSNR and SSIM of a reconstruction, as a caption."""
    if row is None:
        return "not run"
    distance, psnr, ssim = (_write(row, measure) for measure in MEASURES)
    return f"distance {distance}\n{psnr} dB, SSIM {ssim}"


def _write(row: Row | None, measure: str) -> str:
    if row is None:
        return "not run"
    return "∞" if row[measure] is None else format(row[measure], MEASURES[measure])


def format_comparison(
    names: Sequence[str],
    labels: Sequence[str],
    layers: Sequence[str],
    rows: Mapping[tuple[str, str, str], Row],
) -> str:
    """The measures as a table in Markdown, a line for each picture and layer.

    Args:
      names, labels, layers: of pictures and networks, and the layers.
      rows: by picture, network and layer; what is missing is "not run".

    Returns:
      The lines.
    """
    header = ["picture", "layer"]
    header += [f"{measure}, {label}" for measure in MEASURES for label in labels]
    lines: list[list[Any]] = []
    for name in names:
        for layer in layers:
            found = [rows.get((name, label, layer)) for label in labels]
            cells = [_write(row, measure) for measure in MEASURES for row in found]
            lines.append([name, layer, *cells])
    return format_markdown(header, lines)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    return run_command("randviz compare", Settings, run, argv, __doc__)
