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
import operator
import pathlib
import sys
from collections.abc import Callable

import numpy as np

from randviz.commands.trials import (
    TRAINED,
    bind_network,
    choose_networks,
    descend_trial,
    describe_inputs,
    filter_records,
    find_deepest,
    find_record,
    find_untrained,
    identify_weights,
    list_labels,
    list_values_of,
    load_pictures,
    load_result,
    make_noise,
)
from randviz.experiments.claims import Claim, Sentence, judge_together, log_ratio, pair_records
from randviz.experiments.figure import FigureSettings
from randviz.experiments.held_out import measure_patch_distance, measure_texture_error
from randviz.host.grids import render_grid
from randviz.host.images import save_image
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Workload, run_module
from randviz.objectives.objective import Objective
from randviz.tasks import texture
from randviz.tasks.texture import Texture
from randviz.types import Image

describe = describe_inputs


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
    out_dir: str = "out/fig5_textures"


def list_trials(settings: Settings) -> list[Trial]:
    """Each texture with one layer, two layers and so on; the trained network with all of them."""
    layers = find_untrained(settings).network.canonical_names(settings.layers)
    return [
        {"texture": name, "weights": label, "top": top}
        for label in choose_networks(settings)
        for top in (layers if label != TRAINED else layers[-1:])
        for name in load_pictures(settings, "texture_image")
    ]


def make_texture(settings: Settings, trial: Trial) -> tuple[Callable[[], Objective], Image]:
    """What makes a trial's objective, and its start."""
    source = load_pictures(settings, "texture_image")[trial["texture"]].image
    deepest = find_deepest(settings, settings.layers)
    extractor = bind_network(settings, trial["weights"], deepest, texture.INPUT_OFFSET)
    layers = extractor.canonical_names(settings.layers)
    chosen = layers[: layers.index(trial["top"]) + 1]
    noise = make_noise(settings, source, texture.NOISE_STD)
    return functools.partial(Texture(chosen).of, extractor, source), noise


def measure(settings: Settings, trial: Trial) -> Record:
    """Synthesises one texture and measures with another network how near it comes."""
    image, metadata = descend_trial(settings, trial, *make_texture(settings, trial))
    source = load_pictures(settings, "texture_image")[trial["texture"]].image
    return {
        "error": measure_texture_error(image, source),
        "patch_distance": measure_patch_distance(image, source),
        **metadata,
        **identify_weights(settings, trial["weights"]),
    }


def workload(settings: Settings) -> Workload:
    """The texture from all layers."""
    trials = list_trials(settings)
    deepest = next(trial for trial in trials if trial["top"] == trials[-1]["top"])
    return Workload(*make_texture(settings, deepest), len(trials) * settings.num_steps)


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Draws the panel, the sources above."""
    untrained, _ = list_labels(settings)
    tops = list_values_of(records, "top")
    sources = load_pictures(settings, "texture_image")
    pictures: list[list[Image | None]] = [[source.image for source in sources.values()]]
    captions, names = [[""] * len(sources)], ["the source"]
    for label, top in [(untrained, top) for top in tops] + [(TRAINED, tops[-1])]:
        found = [find_record(records, texture=name, weights=label, top=top) for name in sources]
        pictures.append([load_result(folder, record) for record in found])
        captions.append([record and _describe(record) for record in found])
        names.append(f"{label}, to {top}")
    panel = render_grid(
        pictures,
        row_labels=names,
        column_labels=list(sources),
        captions=captions,
        cell=max(128, settings.image_size),
    )
    save_image(folder / "panel.jpg", panel)


def _describe(record: Record) -> str:
    return f"error {record['error']:.3f}\npatches {record['patch_distance']:.2f}"


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say about the paper's sentences; a texture is a unit."""
    untrained, _ = list_labels(settings)
    own = filter_records(records, weights=untrained)
    tops = list_values_of(own, "top")
    # The two need not agree. Patches were asked when the other had answered.
    measures = {"error": "error in another network", "patch_distance": "distance of patches"}
    sentences = [
        Sentence(
            f"Adding {after} to the layers above it brings the texture nearer to its source.",
            log_ratio(
                pair_records(own, "top", (after, before), measure=operator.itemgetter(measure))
            ),
            units="textures",
            measure=f"log({measures[measure]} with it / without it)",
            groups=(f"to {after}", f"to {before}"),
            below=0.0,
            post_hoc=measure == "patch_distance",
        )
        for measure in measures
        for before, after in itertools.pairwise(tops)
    ]
    patches = operator.itemgetter("patch_distance")
    pairs = pair_records(records, "weights", (untrained, TRAINED), measure=patches)
    sentences.append(
        Sentence(
            "Textures from ranVGG are as near to their sources as those from the trained VGG.",
            log_ratio(pairs),
            units="textures",
            measure="log(distance of patches of the first / of the second); as near: at most 10 %"
            " more",
            groups=(untrained, TRAINED),
            below=float(np.log(1.1)),
            # It replaced the error in another network as the first results came in.
            post_hoc=True,
        )
    )
    return judge_together("figure 5", sentences)


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
