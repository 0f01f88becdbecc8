"""Figure 5: textures from more and more layers of ranVGG, and from the trained VGG.

Claim: each layer that is added gives more structure, three give high quality already and conv4_1
only slightly more; results are almost indistinguishable from their sources and from those of the
trained VGG, which is slightly better on neatly arranged textures only.
Expect: a panel, a row for each set of layers and a column for each texture, and table.md, with the
start and with the source's tiles in another order. How near a result comes is asked of another
random network, of small patches, and of how contours go on (held_out).

Example:
  python -m randviz.experiments.fig5_textures --texture_image=gravel,brick --image_size=64
"""

import dataclasses
import functools
import itertools
import math
import pathlib
import sys
from collections.abc import Callable, Sequence

import numpy as np

from randviz.commands.inputs import ReductionSettings
from randviz.commands.network_choice import UNCENTRED_RECIPES
from randviz.commands.trials import (
    TRAINED,
    bind_network,
    choose_networks,
    descend_trial,
    describe_inputs,
    find_deepest,
    find_record,
    find_untrained,
    identify_weights,
    list_values_of,
    load_pictures,
    load_result,
    make_noise,
    picture_path,
)
from randviz.experiments import held_out
from randviz.experiments.claims import Claim, judge_together
from randviz.experiments.figure import (
    PHOTOGRAPHS,
    TEXTURES,
    FigureSettings,
    make_sentence,
    tabulate_group,
)
from randviz.host.baselines import shuffle_tiles
from randviz.host.charts import format_markdown
from randviz.host.grids import render_grid
from randviz.host.images import save_image, write_text
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.objectives.objective import Objective
from randviz.tasks import texture
from randviz.tasks.texture import Texture
from randviz.types import Image

describe = describe_inputs

START, SHUFFLED = "start", "shuffled"
BASELINES = {START: "the start", SHUFFLED: "sixteen tiles of the source in another order"}
# Measure: how it is called, and what computes it.
MEASURES = {
    "error": ("error in another network", held_out.measure_texture_error),
    "patch_distance": ("distance of patches", held_out.measure_patch_distance),
    "contour_distance": ("distance of contours", held_out.measure_contour_distance),
}
_NOUNS = {"patch_distance": "patches", "contour_distance": "contours"}
_BY = {"error": ""} | {name: f", by its {noun}" for name, noun in _NOUNS.items()}


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings, ReductionSettings):
    """Settings of figure 5."""

    network: tuple[str, ...] = UNCENTRED_RECIPES
    normalization_images: tuple[str, ...] = PHOTOGRAPHS
    texture_image: tuple[str, ...] = setting(
        TEXTURES, "The textures: paths or samples, with commas between."
    )
    arranged: tuple[str, ...] = setting(
        ("brick", "coins"), "Those of them that are neatly arranged."
    )
    layers: tuple[str, ...] = setting(
        texture.LAYERS, "The layers matched: the first alone, the first two, and so on."
    )
    out_dir: str = "out/fig5_textures"


def list_trials(settings: Settings) -> list[Trial]:
    """Each texture with one layer, two layers and so on; the trained network with all of them."""
    layers = find_untrained(settings).network.canonical_names(settings.layers)
    textures = load_pictures(settings, "texture_image")
    descents = [
        {"texture": name, "weights": label, "top": top}
        for label in choose_networks(settings)
        for top in (layers if label != TRAINED else layers[-1:])
        for name in textures
    ]
    return descents + [
        {"texture": name, "baseline": baseline} for baseline in BASELINES for name in textures
    ]


def make_texture(settings: Settings, trial: Trial) -> tuple[Callable[[], Objective], Image]:
    """What makes a trial's objective, and its start."""
    source = load_pictures(settings, "texture_image")[trial["texture"]].image
    deepest = find_deepest(settings, settings.layers)
    extractor = bind_network(settings, trial["weights"], deepest, texture.INPUT_OFFSET)
    layers = extractor.canonical_names(settings.layers)
    chosen = layers[: layers.index(trial["top"]) + 1]
    noise = make_noise(settings, source, texture.NOISE_STD)
    task = Texture(chosen, gradient_reduction=settings.gradient_reduction)
    return functools.partial(task.of, extractor, source), noise


def measure(settings: Settings, trial: Trial) -> Record:
    """Synthesises one texture, or makes a baseline, and measures how near it comes."""
    source = load_pictures(settings, "texture_image")[trial["texture"]].image
    if "baseline" in trial:
        image = _make_baseline(settings, trial["baseline"], source)
        save_image(picture_path(settings.out_dir, trial), image)
        metadata = {}
    else:
        image, metadata = descend_trial(settings, trial, *make_texture(settings, trial))
    return {
        **{name: measure_one(image, source) for name, (_, measure_one) in MEASURES.items()},
        **metadata,
        **identify_weights(settings, trial.get("weights", "")),
    }


def _make_baseline(settings: Settings, baseline: str, source: Image) -> Image:
    if baseline == START:
        return make_noise(settings, source, texture.NOISE_STD)
    return shuffle_tiles(source)


def workload(settings: Settings) -> Workload:
    """The texture from all layers."""
    trials = [trial for trial in list_trials(settings) if "top" in trial]
    deepest = next(trial for trial in trials if trial["top"] == trials[-1]["top"])
    return Workload(*make_texture(settings, deepest), len(trials) * settings.num_steps)


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws the panel of the first network, the sources above, and writes the table."""
    own = find_untrained(settings).label
    tops = list_values_of(records, "top")
    sources = load_pictures(settings, "texture_image")
    rows = {f"{own}, to {top}": {"weights": own, "top": top} for top in tops}
    rows[f"{TRAINED}, to {tops[-1]}"] = {"weights": TRAINED, "top": tops[-1]}
    rows |= {words: {"baseline": name} for name, words in BASELINES.items()}
    found = {
        row: [find_record(records, texture=name, **place) for name in sources]
        for row, place in rows.items()
    }
    shown = [row for row in rows if row != BASELINES[START]]
    pictures: list[list[Image | None]] = [[source.image for source in sources.values()]]
    pictures += [[load_result(folder, record) for record in found[row]] for row in shown]
    captions: list[list[str | None]] = [[""] * len(sources)]
    captions += [[record and _describe(record) for record in found[row]] for row in shown]
    panel = render_grid(
        pictures,
        row_labels=["the source", *shown],
        column_labels=list(sources),
        captions=captions,
        cell=max(128, settings.image_size),
    )
    save_image(folder / "panel.jpg", panel)
    lines = [
        [name, row, *(f"{record[measure]:.3f}" for measure in MEASURES)]
        for row, line in found.items()
        for name, record in zip(sources, line, strict=True)
        if record
    ]
    header = ["texture", "result", *(words for words, _ in MEASURES.values())]
    write_text(folder / "table.md", format_markdown(header, lines) + "\n")


def _describe(record: Record) -> str:
    patches, contours = record["patch_distance"], record["contour_distance"]
    return f"error {record['error']:.3f}\npatches {patches:.2f}\ncontours {contours:.2f}"


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say about the paper's sentences; textures and networks are units."""
    labels = [label for label in choose_networks(settings) if label != TRAINED]
    tops = list_values_of(records, "top")
    # They need not agree. The later ones were asked when the others had answered: patches since the
    # error is partial to random networks, contours since the eye contradicted patches.
    measures = {name: words for name, (words, _) in MEASURES.items()}
    above_below = [(f"to {after}", f"to {before}") for before, after in itertools.pairwise(tops)]

    def tabulate(
        name: str, top: str, other: dict[str, str], textures: Sequence[str] | None = None
    ) -> np.ndarray:
        """log(measure with `top` / in another record of the texture), [textures, networks]."""
        chosen = [
            record
            for record in records
            if record["trial"].get("top") == top
            and (textures is None or record["trial"]["texture"] in textures)
        ]

        def compare(record: Record) -> float | None:
            trial = record["trial"]
            place = {"texture": trial["texture"]} if "baseline" in other else trial
            found = find_record(records, **{**place, **other})
            return found and math.log(record[name] / found[name])

        return tabulate_group(chosen, labels, compare, "texture")

    asked = [
        (
            f"Adding {groups[0][3:]} to the layers above it brings the texture nearer to its"
            f" source{_BY[name]}.",
            tabulate(name, after, {"top": before}),
            f"log({words} with it / without it)",
            groups,
            {"below": 0.0},
            name != "error",
        )
        for name, words in measures.items()
        for (before, after), groups in zip(itertools.pairwise(tops), above_below, strict=True)
    ]
    last, contours = tops[-1], measures["contour_distance"]
    tiles = f"log({contours} / that of the source's tiles in another order)"
    if len(tops) > 1:
        asked += [
            (
                f"{last} could slightly improve the textures.",
                tabulate("error", last, {"top": tops[-2]}),
                f"log({measures['error']} with it / without it); slightly: by less than a tenth",
                above_below[-1],
                {"above": math.log(0.9), "below": 0.0},
                False,
            ),
            (
                f"The layers down to {tops[-2]} give high quality already.",
                tabulate("contour_distance", tops[-2], {"baseline": SHUFFLED}),
                f"{tiles}; high: at most a half more",
                (f"to {tops[-2]}", BASELINES[SHUFFLED]),
                {"below": math.log(1.5)},
                True,
            ),
        ]
    asked += [
        (
            "Textures from ranVGG are almost indistinguishable from their sources.",
            tabulate("contour_distance", last, {"baseline": SHUFFLED}),
            f"{tiles}; almost: at most 10 % more",
            (f"to {last}", BASELINES[SHUFFLED]),
            {"below": math.log(1.1)},
            True,
        ),
    ]
    asked += [
        (
            f"By their {noun}, textures from ranVGG are as near to their sources as those from the"
            " trained VGG.",
            tabulate(name, last, {"weights": TRAINED}),
            f"log({measures[name]} of the first / of the second); as near: at most 10 % more",
            ("ranVGG", TRAINED),
            {"below": math.log(1.1)},
            True,
        )
        for name, noun in _NOUNS.items()
    ]
    asked += [
        (
            "The trained VGG generates better textures where they are neatly arranged.",
            tabulate("contour_distance", last, {"weights": TRAINED}, settings.arranged),
            f"log({contours} of the first / of the second), {', '.join(settings.arranged)}",
            ("ranVGG", TRAINED),
            {"above": 0.0},
            True,
        ),
    ]
    sentences = [
        make_sentence(
            statement,
            values,
            rows="textures",
            measure=words,
            groups=groups,
            **limits,
            post_hoc=post_hoc,
        )
        for statement, values, words, groups, limits, post_hoc in asked
    ]
    return judge_together("figure 5", sentences)


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
