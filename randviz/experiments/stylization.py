"""What figures 6 and 7 share: photographs in the style of paintings, one set of constants."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable

import jax.numpy as jnp
import numpy as np

from randviz.commands.inputs import ReductionSettings
from randviz.commands.network_choice import UNCENTRED_RECIPES
from randviz.commands.trials import (
    TRAINED,
    StudySettings,
    bind_network,
    choose_networks,
    descend_trial,
    find_deepest,
    find_record,
    find_untrained,
    identify_weights,
    list_values_of,
    load_pictures,
    load_result,
    make_noise,
)
from randviz.experiments.claims import Claim, Sentence, judge_together, tabulate
from randviz.experiments.figure import FigureSettings
from randviz.experiments.held_out import (
    measure_contour_distance,
    measure_patch_distance,
    measure_texture_error,
)
from randviz.host.charts import format_markdown
from randviz.host.grids import render_grid
from randviz.host.images import save_image, write_text
from randviz.host.quality import compare_images, correlate_contours
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload
from randviz.objectives.objective import Objective
from randviz.objectives.regularizers import total_variation
from randviz.tasks import style
from randviz.tasks.style import Style
from randviz.types import Image

# α, β and γ as the paper prints them, beside those of the flags.
CHOSEN, PRINTED = "chosen", "printed"
PRINTED_WEIGHTS = {"content_weight": 100.0, "style_weight": 1.0, "tv_weight": 1000.0}
# How far a picture is from the painting's texture.
STYLE_MEASURES = {
    "style_error": measure_texture_error,
    "patch_distance": measure_patch_distance,
    "contour_distance": measure_contour_distance,
}


@dataclasses.dataclass(frozen=True)
class StyleSettings(FigureSettings, ReductionSettings):
    """Settings that figures 6 and 7 have."""

    network: tuple[str, ...] = UNCENTRED_RECIPES
    # Neither the photographs nor the paintings.
    normalization_images: tuple[str, ...] = (
        "brick", "chelsea", "clock", "coins", "grass", "gravel", "hubble_deep_field",
        "immunohistochemistry", "retina",
    )  # fmt: skip
    content_image: tuple[str, ...] = setting((), "The photographs: paths or samples.")
    style_image: tuple[str, ...] = setting((), "The paintings: paths or samples.")
    content_layers: tuple[str, ...] = setting(
        style.CONTENT_LAYERS, "Layers whose features are matched to the photograph's."
    )
    style_layers: tuple[str, ...] = setting(
        style.STYLE_LAYERS, "Layers whose statistics are matched to the painting's."
    )
    content_weight: float = setting(style.CONTENT_WEIGHT, "α, of the content.", lower_bound=0)
    style_weight: float = setting(style.STYLE_WEIGHT, "β, of the style.", lower_bound=0)
    tv_weight: float = setting(style.TV_WEIGHT, "γ, of the total variation.", lower_bound=0)
    init: str = setting(
        "content",
        "Where the descent starts: the photograph or noise.",
        choices=("content", "noise"),
        rare=True,
    )


def list_trials(settings: StyleSettings) -> list[Trial]:
    """Each photograph in each style, with each network; the first one with both constants."""
    descents = [
        {"content": content, "style": painting, "weights": label, "constants": constants}
        for label in choose_networks(settings)
        for constants in (CHOSEN, PRINTED)
        for content in load_pictures(settings, "content_image")
        for painting in load_pictures(settings, "style_image")
    ]
    first = find_untrained(settings).label
    return [
        trial for trial in descents if trial["weights"] == first or trial["constants"] == CHOSEN
    ]


def load_pair(settings: StudySettings, trial: Trial) -> tuple[Image, Image]:
    """The photograph and the painting of a trial, [H, W, 3] each."""
    content = load_pictures(settings, "content_image")[trial["content"]]
    return content.image, load_pictures(settings, "style_image")[trial["style"]].image


def make_style(settings: StyleSettings, trial: Trial) -> tuple[Callable[[], Objective], Image]:
    """What makes a trial's objective, and its start."""
    content, painting = load_pair(settings, trial)
    weights = {name: getattr(settings, name) for name in PRINTED_WEIGHTS}
    task = Style(
        content_layers=settings.content_layers,
        style_layers=settings.style_layers,
        gradient_reduction=settings.gradient_reduction,
        **(PRINTED_WEIGHTS if trial["constants"] == PRINTED else weights),
    )
    deepest = find_deepest(settings, {*settings.content_layers, *settings.style_layers})
    extractor = bind_network(settings, trial["weights"], deepest, style.INPUT_OFFSET)
    noise = make_noise(settings, content, style.NOISE_STD)
    start = content if settings.init == "content" else noise
    return functools.partial(task.of, extractor, content, painting), start


def measure(settings: StyleSettings, trial: Trial) -> Record:
    """Paints one picture and measures how near it comes to the painting's texture."""
    image, metadata = descend_trial(settings, trial, *make_style(settings, trial))
    content, painting = load_pair(settings, trial)
    near = {}
    for name, measure_one in STYLE_MEASURES.items():
        near[name] = measure_one(image, painting)
        near[f"{name}_of_photograph"] = measure_one(content, painting)
    return {
        **near,
        "total_variation": float(total_variation(jnp.clip(image, 0, 1))),
        "content_ssim": compare_images(image, content)["ssim"],
        "content_contours": correlate_contours(image, content),
        **metadata,
        **identify_weights(settings, trial["weights"]),
    }


def workload(settings: StyleSettings) -> Workload:
    """Any of the descents: they are alike."""
    trials = list_trials(settings)
    return Workload(*make_style(settings, trials[0]), len(trials) * settings.num_steps)


def plot(settings: StyleSettings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws the panel, the paintings above and three rows for each photograph; writes the table."""
    paintings = load_pictures(settings, "style_image")
    first = find_untrained(settings).label
    rows = {
        first: {"weights": first, "constants": CHOSEN},
        f"{first}, constants as printed": {"weights": first, "constants": PRINTED},
        TRAINED: {"weights": TRAINED, "constants": CHOSEN},
    }
    pictures: list[list[Image | None]] = [[None, *(p.image for p in paintings.values())]]
    captions: list[list[str | None]] = [[" ", *paintings]]
    names = [""]
    for name, photograph in load_pictures(settings, "content_image").items():
        for row, place in rows.items():
            found = [
                find_record(records, **{"content": name, "style": painting, **place})
                for painting in paintings
            ]
            pictures.append([photograph.image, *(load_result(folder, record) for record in found)])
            captions.append([name, *(record and _describe(record) for record in found)])
            names.append(row)
    panel = render_grid(
        pictures, row_labels=names, captions=captions, cell=max(128, settings.image_size)
    )
    save_image(folder / "panel.jpg", panel)
    measures = (*STYLE_MEASURES, "content_contours")
    header = ["result", *(name.replace("_", " ") for name in measures)]
    of_photographs = [_average(records, f"{name}_of_photograph") for name in STYLE_MEASURES]
    lines = [["the photographs", *of_photographs, "1"]]
    for label in list_values_of(records, "weights"):
        for constants in (CHOSEN, PRINTED):
            of_kind = [
                record
                for record in records
                if (record["trial"]["weights"], record["trial"]["constants"]) == (label, constants)
            ]
            if of_kind:
                words = f"{label}, constants {constants}"
                lines.append([words, *(_average(of_kind, measure) for measure in measures)])
    write_text(folder / "table.md", format_markdown(header, lines) + "\n")


def _average(records: list[Record], name: str) -> str:
    return f"{np.mean([record[name] for record in records]):.3f}"


def _describe(record: Record) -> str:
    return f"error {record['style_error_of_photograph']:.2f} → {record['style_error']:.2f}"


def judge_styles(settings: StyleSettings, records: list[Record], figure: str) -> list[Claim]:
    """What the records say about the paper's sentences.

    Units are photographs and paintings, crossed, each pair averaged over the networks; of one
    painting, photographs and networks.
    """
    labels = [label for label in choose_networks(settings) if label != TRAINED]

    def find(trial: Trial, **changes: str) -> Record | None:
        return find_record(records, **{**trial, **changes})

    def average(measure_one: Callable[[Record], float | None]) -> Callable[[Record], float | None]:
        """Over the networks of a pair, None where one of them was not run."""

        def measure_pair(record: Record) -> float | None:
            found = [find(record["trial"], weights=label) for label in labels]
            values = [measure_one(other) for other in found if other]
            complete = len(values) == len(labels) and None not in values
            return float(np.mean(values)) if complete else None

        return measure_pair

    def compare_with_trained(name: str) -> Callable[[Record], float | None]:
        def compare(record: Record) -> float | None:
            other = find(record["trial"], weights=TRAINED)
            return other and math.log(record[name] / other[name])

        return compare

    def reach(record: Record) -> float:
        return math.log(record["style_error"] / record["style_error_of_photograph"])

    chosen = [
        record
        for record in records
        if record["trial"]["constants"] == CHOSEN and record["trial"]["weights"] in labels
    ]
    names = {"photographs": "content", "paintings": "style"}
    varied = [name for name, axis in names.items() if len(list_values_of(chosen, axis)) > 1]
    units_of_one = " and ".join(varied or names)
    if len(list_values_of(chosen, "style")) > 1:
        first = [record for record in chosen if record["trial"]["weights"] == labels[0]]
        units = units_of_one
        tabulate_units = lambda one: tabulate(first, ("content", "style"), measure=average(one))
    else:
        units = "photographs and networks" if len(labels) > 1 else "photographs"
        tabulate_units = lambda one: tabulate(chosen, ("content", "weights"), measure=one)
    printed = [record for record in records if record["trial"]["constants"] == PRINTED]
    patch_ratios = tabulate_units(compare_with_trained("patch_distance"))
    sentences = [
        Sentence(
            "With the same constants for every painting, ranVGG brings the photograph nearer to the"
            " painting's texture.",
            tabulate_units(reach),
            units=units,
            measure="log(error in another network of the result / of the photograph); nearer: by a"
            " quarter",
            groups=("ranVGG", "the photograph"),
            below=math.log(0.75),
        ),
        Sentence(
            "So it does with the constants as printed, 100 : 1 : 1000.",
            tabulate(printed, ("content", "style"), measure=reach),
            units=units_of_one,
            measure="log(error in another network of the result / of the photograph); nearer: by a"
            " quarter",
            groups=(f"{labels[0]}, constants as printed", "the photograph"),
            below=math.log(0.75),
        ),
        Sentence(
            "The photograph is still there.",
            tabulate_units(lambda record: record["content_contours"]),
            units=units,
            measure="the contours' correlation with the photograph's, 0 for another photograph;"
            " there: above 0.3, as in figure 2",
            groups=("ranVGG",),
            above=0.3,
            # Structural similarity above 0.2, which was asked before, is met by a constant colour.
            post_hoc=True,
        ),
        *(
            Sentence(
                f"By their {noun}, the results are comparable with those of the trained VGG.",
                ratios,
                units=units,
                measure=f"log(distance of {noun} to the painting's of the first / of the second);"
                " comparable: at most 10 % more",
                groups=("ranVGG", TRAINED),
                below=math.log(1.1),
                # Contours were asked when the eye had contradicted patches, in figure 5.
                post_hoc=noun == "contours",
            )
            for noun, ratios in (
                ("patches", patch_ratios),
                ("contours", tabulate_units(compare_with_trained("contour_distance"))),
            )
        ),
        Sentence(
            "They are in the same order of magnitude.",
            patch_ratios,
            units=units,
            measure="log(distance of patches to the painting's of the first / of the second); the"
            " same order: within a factor of √10",
            groups=("ranVGG", TRAINED),
            above=-math.log(10) / 2,
            below=math.log(10) / 2,
        ),
        Sentence(
            "The trained VGG has slightly smoother lines and textures.",
            tabulate_units(compare_with_trained("total_variation")),
            units=units,
            measure="log(total variation of the first / of the second)",
            groups=("ranVGG", TRAINED),
            above=0.0,
        ),
    ]
    return judge_together(figure, sentences)
