"""What figures 6 and 7 share: photographs in the style of paintings, one set of constants."""

import dataclasses
import functools
import pathlib
from collections.abc import Callable

import numpy as np

from randviz.experiments.claims import Claim, judge, pair_rows
from randviz.experiments.command import Descent
from randviz.experiments.figure import (
    TRAINED,
    FigureSettings,
    choose_networks,
    descend_cell,
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
from randviz.host.quality import compare_images
from randviz.host.records import Row
from randviz.host.settings import setting
from randviz.objectives.objective import Objective
from randviz.tasks import style
from randviz.tasks.style import Style
from randviz.types import Image


@dataclasses.dataclass(frozen=True)
class StyleSettings(FigureSettings):
    """Settings that figures 6 and 7 have."""

    content_image: tuple[str, ...] = setting((), "The photographs: paths or samples.")
    style_image: tuple[str, ...] = setting((), "The paintings: paths or samples.")
    content_weight: float = setting(style.CONTENT_WEIGHT, "α, of the content.", lower_bound=0)
    style_weight: float = setting(style.STYLE_WEIGHT, "β, of the style.", lower_bound=0)
    tv_weight: float = setting(style.TV_WEIGHT, "γ, of the total variation.", lower_bound=0)


def cells(settings: StyleSettings) -> list[Row]:
    """Each photograph in each style, with each network."""
    return [
        {"content": content, "style": painting, "weights": label}
        for label in choose_networks(settings)
        for content in settings.content_image
        for painting in settings.style_image
    ]


def make_style(settings: StyleSettings, cell: Row) -> tuple[Callable[[], Objective], Image]:
    """What makes a cell's objective, and its start: the photograph."""
    content = load(settings, "content_image", cell["content"]).image
    painting = load(settings, "style_image", cell["style"]).image
    network = choose_networks(settings)[cell["weights"]].network.with_offset(style.INPUT_OFFSET)
    extractor = network.bind(sample_params(settings, cell["weights"]))
    task = Style(
        content_weight=settings.content_weight,
        style_weight=settings.style_weight,
        tv_weight=settings.tv_weight,
    )
    return functools.partial(task.of, extractor, content, painting), content


def measure(settings: StyleSettings, cell: Row) -> Row:
    """Paints one picture and asks another network how near it comes to the painting's texture."""
    make, start = make_style(settings, cell)
    _, metadata = descend_cell(settings, cell, make, start)
    image = load_image(picture_path(settings.out_dir, cell))
    content = load(settings, "content_image", cell["content"]).image
    painting = load(settings, "style_image", cell["style"]).image
    return {
        "style_error": measure_texture_error(image, painting),
        "style_error_of_photograph": measure_texture_error(content, painting),
        "patch_distance": measure_patch_distance(image, painting),
        "content_ssim": compare_images(image, content)["ssim"],
        **metadata,
        **identify_weights(settings, cell["weights"]),
    }


def largest(settings: StyleSettings) -> Descent:
    """Any of the descents: they are alike."""
    todo = cells(settings)
    return Descent(*make_style(settings, todo[0]), len(todo) * settings.num_steps)


def plot(settings: StyleSettings, rows: list[Row], folder: pathlib.Path) -> None:
    """Draws the panel: the paintings above, a row for each photograph and network."""
    paintings = [np.asarray(load(settings, "style_image", s).image) for s in settings.style_image]
    pictures: list[list[Image | None]] = [[None, *paintings]]
    captions: list[list[str | None]] = [[" "] + [name_of(s) for s in settings.style_image]]
    names = [""]
    for source in settings.content_image:
        photograph = np.asarray(load(settings, "content_image", source).image)
        for label in list_labels(settings):
            found = [
                find_row(rows, content=source, style=painting, weights=label)
                for painting in settings.style_image
            ]
            pictures.append([photograph] + [r and load_result(folder, r["cell"]) for r in found])
            captions.append(
                [name_of(source)]
                + [
                    row
                    and f"error {row['style_error_of_photograph']:.2f} → {row['style_error']:.2f}"
                    for row in found
                ]
            )
            names.append("trained VGG-19" if label == TRAINED else label)
    panel = render_grid(
        pictures, row_labels=names, captions=captions, cell=max(128, settings.image_size)
    )
    save_image(folder / "panel.jpg", panel)


def judge_styles(settings: StyleSettings, rows: list[Row], figure: str) -> list[Claim]:
    """What the rows say of the paper's sentences; a painting on a photograph is a unit."""
    untrained, _ = list_labels(settings)
    own = [row for row in rows if row["cell"]["weights"] == untrained]
    taken = [(row["style_error"], row["style_error_of_photograph"]) for row in own]
    pairs = pair_rows(
        rows, "weights", (untrained, TRAINED), measure=lambda row: row["patch_distance"]
    )
    return [
        judge(
            "With the same constants for every painting, ranVGG brings the photograph nearer to the"
            " painting's texture.",
            log_ratio(taken),
            figure=figure,
            measure="log(error in another network of the result / of the photograph); nearer: by a"
            " quarter",
            groups=(untrained, "the photograph"),
            below=float(np.log(0.75)),
        ),
        judge(
            "The photograph is still there.",
            [row["content_ssim"] for row in own],
            figure=figure,
            measure="structural similarity of result and photograph; there: above 0.2",
            groups=(untrained,),
            above=0.2,
        ),
        judge(
            "The trained VGG does not come nearer to the paintings than ranVGG does.",
            log_ratio(pairs),
            figure=figure,
            measure="log(distance of patches to the painting's of the first / of the second); not"
            " nearer: at most 10 % less",
            groups=(untrained, TRAINED),
            below=float(np.log(1.1)),
        ),
    ]
