"""Figure 5: textures from more and more layers of ranVGG, and from the trained VGG.

Claim: each layer that is added gives more structure, three give high quality already and conv4_1
only slightly more; results are almost indistinguishable from their sources and from those of the
trained VGG, which is slightly better on neatly arranged textures only.
Expect: a panel, a row for each set of layers and a column for each texture, and table.md, with the
start and with the halves of each source beside each other. How near a result comes is asked of
another random network, and of small patches (held_out). At laptop scale about 40 minutes on two
cores.

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
)
from randviz.experiments.claims import Claim, judge_together
from randviz.experiments.figure import (
    PHOTOGRAPHS,
    TEXTURES,
    FigureSettings,
    make_sentence,
    tabulate_group,
)
from randviz.experiments.held_out import SMALLEST, measure_patch_distance, measure_texture_error
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

BASELINES = {"start": "the start", "halves": "halves of the source beside each other"}


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
        {"texture": name, "baseline": baseline}
        for baseline in BASELINES
        for name, picture in textures.items()
        if baseline != "halves" or min(picture.image.shape[:2]) // 2 >= SMALLEST
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
    """Synthesises one texture and measures with another network how near it comes."""
    if "baseline" in trial:
        return _measure_baseline(settings, trial)
    image, metadata = descend_trial(settings, trial, *make_texture(settings, trial))
    source = load_pictures(settings, "texture_image")[trial["texture"]].image
    return {
        "error": measure_texture_error(image, source),
        "patch_distance": measure_patch_distance(image, source),
        **metadata,
        **identify_weights(settings, trial["weights"]),
    }


def _measure_baseline(settings: Settings, trial: Trial) -> Record:
    """How near the start is, or one half of the source to the other: left, right, above, below."""
    source = np.asarray(load_pictures(settings, "texture_image")[trial["texture"]].image)
    height, width = (side // 2 for side in source.shape[:2])
    pairs = {
        "start": [(make_noise(settings, source, texture.NOISE_STD), source)],
        "halves": [
            (source[:, :width], source[:, width : 2 * width]),
            (source[:height], source[height : 2 * height]),
        ],
    }[trial["baseline"]]
    measures = {"error": measure_texture_error, "patch_distance": measure_patch_distance}
    return {
        name: float(np.mean([measure_one(*pair) for pair in pairs]))
        for name, measure_one in measures.items()
    }


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
    shown = [row for row in rows if row not in BASELINES.values()]
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
        [name, row, f"{record['error']:.3f}", f"{record['patch_distance']:.3f}"]
        for row, line in found.items()
        for name, record in zip(sources, line, strict=True)
        if record
    ]
    header = ["texture", "result", "error in another network", "distance of patches"]
    write_text(folder / "table.md", format_markdown(header, lines) + "\n")


def _describe(record: Record) -> str:
    return f"error {record['error']:.3f}\npatches {record['patch_distance']:.2f}"


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say about the paper's sentences; textures and networks are units."""
    labels = [label for label in choose_networks(settings) if label != TRAINED]
    tops = list_values_of(records, "top")
    # The two need not agree. Patches were asked when the other had answered.
    measures = {"error": "error in another network", "patch_distance": "distance of patches"}
    above_below = [(f"to {after}", f"to {before}") for before, after in itertools.pairwise(tops)]

    def tabulate(
        name: str, top: str, other: dict[str, str], textures: Sequence[str] = ()
    ) -> np.ndarray:
        """log(measure with `top` / in another record of the texture), [textures, networks]."""
        chosen = [
            record
            for record in records
            if record["trial"].get("top") == top
            and (not textures or record["trial"]["texture"] in textures)
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
            " source.",
            tabulate(name, after, {"top": before}),
            f"log({words} with it / without it)",
            groups,
            {"below": 0.0},
            name == "patch_distance",
        )
        for name, words in measures.items()
        for (before, after), groups in zip(itertools.pairwise(tops), above_below, strict=True)
    ]
    last, patches = tops[-1], measures["patch_distance"]
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
                tabulate("patch_distance", tops[-2], {"baseline": "halves"}),
                f"log({patches} / that of the source's halves); high: at most twice",
                (f"to {tops[-2]}", "halves of the source"),
                {"below": math.log(2)},
                False,
            ),
        ]
    asked += [
        (
            "Textures from ranVGG are almost indistinguishable from their sources.",
            tabulate("patch_distance", last, {"baseline": "halves"}),
            f"log({patches} / that of the source's halves); almost: at most 10 % more",
            (f"to {last}", "halves of the source"),
            {"below": math.log(1.1)},
            False,
        ),
        (
            "Textures from ranVGG are as near to their sources as those from the trained VGG.",
            tabulate("patch_distance", last, {"weights": TRAINED}),
            f"log({patches} of the first / of the second); as near: at most 10 % more",
            ("ranVGG", TRAINED),
            {"below": math.log(1.1)},
            # It replaced the error in another network as the first results came in.
            True,
        ),
        (
            "The trained VGG generates better textures where they are neatly arranged.",
            tabulate("patch_distance", last, {"weights": TRAINED}, settings.arranged),
            f"log({patches} of the first / of the second), {', '.join(settings.arranged)}",
            ("ranVGG", TRAINED),
            {"above": 0.0},
            False,
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
