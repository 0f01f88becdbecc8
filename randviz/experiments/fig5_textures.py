"""Figure 5: textures from more and more layers of ranVGG, and from the trained VGG.

Claim: each layer that is added gives more structure, conv4_1 only slightly more; a neatly arranged
texture is the hardest, and only there is the trained VGG slightly better.
Expect: a panel, a row for each set of layers and a column for each texture. How near a result comes
is asked of another random network, and of small patches (held_out). At laptop scale about ten
minutes on two cores.

Example:
  python -m randviz.experiments.fig5_textures --texture_image=gravel,brick --image_size=64
"""

import dataclasses
import functools
import itertools
import pathlib
import sys
from collections.abc import Callable, Sequence

import numpy as np

from randviz.experiments.claims import Claim, judge, pair_rows
from randviz.experiments.command import Descent, run_module
from randviz.experiments.figure import (
    TRAINED,
    FigureSettings,
    choose_networks,
    descend_cell,
    draw_start,
    find_row,
    identify_weights,
    list_labels,
    load,
    load_result,
    log_ratio,
    name_of,
    picture_path,
    sample_params,
)
from randviz.experiments.held_out import measure_patch_distance, measure_texture_error
from randviz.host.grids import render_grid
from randviz.host.images import load_image, save_image
from randviz.host.records import Row
from randviz.host.settings import setting
from randviz.objectives.objective import Objective
from randviz.tasks import texture
from randviz.tasks.texture import Texture
from randviz.types import Image


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings):
    """Settings of figure 5."""

    texture_image: tuple[str, ...] = setting(
        ("brick", "gravel", "grass", "immunohistochemistry", "hubble_deep_field", "coffee"),
        "The textures: paths or samples, with commas between; one neatly arranged, one a picture.",
    )
    layers: tuple[str, ...] = setting(
        texture.LAYERS, "The layers matched: the first alone, the first two, and so on."
    )
    out_dir: str = setting("out/fig5_textures", "Folder for rows, pictures and panel.")


def cells(settings: Settings) -> list[Row]:
    """Each texture with one layer, two layers and so on; the trained network with all of them."""
    layers = next(iter(choose_networks(settings).values())).network.canonical_names(settings.layers)
    return [
        {"texture": source, "weights": label, "top": top}
        for label in choose_networks(settings)
        for top in (layers if label != TRAINED else layers[-1:])
        for source in settings.texture_image
    ]


def make_texture(settings: Settings, cell: Row) -> tuple[Callable[[], Objective], Image]:
    """What makes a cell's objective, and its start."""
    source = load(settings, "texture_image", cell["texture"]).image
    network = choose_networks(settings)[cell["weights"]].network.with_offset(texture.INPUT_OFFSET)
    layers = network.canonical_names(settings.layers)
    chosen = layers[: layers.index(cell["top"]) + 1]
    params = sample_params(settings, cell["weights"])
    noise = draw_start(settings, source, texture.NOISE_STD)
    return functools.partial(Texture(chosen).of, network.bind(params), source), noise


def measure(settings: Settings, cell: Row) -> Row:
    """Synthesises one texture and asks another network how near it comes."""
    make, start = make_texture(settings, cell)
    _, metadata = descend_cell(settings, cell, make, start)
    image = load_image(picture_path(settings.out_dir, cell))
    source = load(settings, "texture_image", cell["texture"]).image
    return {
        "error": measure_texture_error(image, source),
        "patch_distance": measure_patch_distance(image, source),
        **metadata,
        **identify_weights(settings, cell["weights"]),
    }


def largest(settings: Settings) -> Descent:
    """The texture from all layers."""
    todo = cells(settings)
    deepest = next(cell for cell in todo if cell["top"] == todo[-1]["top"])
    return Descent(*make_texture(settings, deepest), len(todo) * settings.num_steps)


def plot(settings: Settings, rows: list[Row], folder: pathlib.Path) -> None:
    """Draws the panel, the sources above."""
    untrained, _ = list_labels(settings)
    tops = list(dict.fromkeys(row["cell"]["top"] for row in rows))
    sources = settings.texture_image
    pictures: list[list[Image | None]] = [
        [np.asarray(load(settings, "texture_image", source).image) for source in sources]
    ]
    captions, names = [[""] * len(sources)], ["the source"]
    for label, top in [(untrained, top) for top in tops] + [(TRAINED, tops[-1])]:
        found = [find_row(rows, texture=source, weights=label, top=top) for source in sources]
        pictures.append([row and load_result(folder, row["cell"]) for row in found])
        captions.append([row and _describe(row) for row in found])
        names.append(f"trained, to {top}" if label == TRAINED else f"{label}, to {top}")
    panel = render_grid(
        pictures,
        row_labels=names,
        column_labels=[name_of(source) for source in sources],
        captions=captions,
        cell=max(128, settings.image_size),
    )
    save_image(folder / "panel.jpg", panel)


def _describe(row: Row) -> str:
    return f"error {row['error']:.3f}\npatches {row['patch_distance']:.2f}"


def judge_rows(settings: Settings, rows: list[Row]) -> list[Claim]:
    """What the rows say of the paper's sentences; a texture is a unit."""
    untrained, _ = list_labels(settings)
    own = [row for row in rows if row["cell"]["weights"] == untrained]
    tops = list(dict.fromkeys(row["cell"]["top"] for row in own))
    error = lambda row: row["error"]
    claims = [
        judge(
            f"Adding {after} to the layers above it brings the texture nearer to its source.",
            log_ratio(pair_rows(own, "top", (after, before), measure=error)),
            figure="figure 5",
            measure="log(error in another network with it / without it)",
            groups=(f"to {after}", f"to {before}"),
            below=0.0,
        )
        for before, after in itertools.pairwise(tops)
    ]
    pairs = pair_rows(
        rows, "weights", (untrained, TRAINED), measure=lambda row: row["patch_distance"]
    )
    claims.append(
        judge(
            "Textures from ranVGG are as near to their sources as those from the trained VGG.",
            log_ratio(pairs),
            figure="figure 5",
            measure="log(distance of patches of the first / of the second); as near: at most 10 %"
            " more",
            groups=(untrained, TRAINED),
            below=float(np.log(1.1)),
        )
    )
    return claims


def main(argv: Sequence[str]) -> int:
    """Runs the experiment; returns its exit code."""
    return run_module(sys.modules[__name__], argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
