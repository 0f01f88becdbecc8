"""Settings that the figures share, and how their networks are grouped."""

import dataclasses
from collections.abc import Callable, Sequence
from typing import Any

import numpy as np

from randviz.commands.network_choice import CENTRED_RECIPES, UNCENTRED_RECIPES
from randviz.commands.trials import TRAINED, StudySettings, choose_networks, find_record
from randviz.experiments.claims import Sentence, log_ratio, tabulate
from randviz.host.records import Record
from randviz.host.samples import SCIKIT_IMAGE_SAMPLES
from randviz.host.workers import WorkerSettings
from randviz.networks.network import IMAGENET_MEAN
from randviz.tasks.inversion import INPUT_OFFSET

# Not the astronaut, which the ranVGGs are selected on. One is a painting of a landscape.
PICTURES = (
    "beach", "bridge", "camera", "chelsea", "clock", "coffee", "columns", "etretat", "flowers",
    "rocket",
)  # fmt: skip
# Nothing that is rebuilt or synthesised has a part in the normalisation of the trained filters.
TEXTURES = (
    "brick", "coins", "gravel", "grass", "immunohistochemistry", "hubble_deep_field", "retina",
    "composition_vii", "great_wave", "la_calanque", "starry_night", "the_scream",
)  # fmt: skip
PHOTOGRAPHS = ("astronaut", *(name for name in PICTURES if name != "etretat"))
_PAINTINGS = (
    "composition_vii", "great_wave", "la_calanque", "qingming_scroll", "starry_night",
    "the_scream", "woman_with_a_hat",
)  # fmt: skip
OTHER_PICTURES = (
    *(name for name in SCIKIT_IMAGE_SAMPLES if name not in (*PICTURES, "astronaut")),
    *_PAINTINGS,
)
UNCENTRED, CENTRED = "un-centred", "centred"


@dataclasses.dataclass(frozen=True)
class FigureSettings(StudySettings, WorkerSettings):
    """Settings that every figure has."""

    network: tuple[str, ...] = (*UNCENTRED_RECIPES, *CENTRED_RECIPES)
    normalization_images: tuple[str, ...] = OTHER_PICTURES
    square: bool = True  # one program serves all pictures


def group_networks(settings: StudySettings) -> dict[str, tuple[str, ...]]:
    """The labels of the untrained networks, by what an inversion feeds them.

    Returns:
      {group: labels}; groups are named after the kind of network and its input: un-centred,
      centred, or what is subtracted.
    """
    groups: dict[str, tuple[str, ...]] = {}
    for label, choice in choose_networks(settings).items():
        if label == TRAINED:
            continue
        offset = choice.network.with_offset(INPUT_OFFSET).input_offset
        words = {INPUT_OFFSET: UNCENTRED, IMAGENET_MEAN: CENTRED}
        kind = "ranVGG" if choice.metadata["weights"] == "recipe" else label
        group = f"{kind} with {words.get(offset, f'offset {offset}')} input"
        groups[group] = (*groups.get(group, ()), label)
    return groups


def gather_layers(records: Sequence[Record]) -> list[Record]:
    """One record for each picture and network, with those of its layers in "layers"."""
    found: dict[tuple[str, str], Record] = {}
    for record in records:
        trial = record["trial"]
        if "weights" in trial:
            place = {"image": trial["image"], "weights": trial["weights"]}
            new = {"trial": place, "layers": {}}
            found.setdefault(tuple(place.values()), new)["layers"][trial["layer"]] = record
    return list(found.values())


def tabulate_group(
    records: Sequence[Record],
    labels: Sequence[str],
    measure: Callable[[Record], float | None],
    axis: str = "image",
) -> np.ndarray:
    """Tables a measure over pictures and the networks of a group.

    Args:
      records: one for each picture and network.
      labels: of the networks.
      measure: of a record; None leaves the picture out.
      axis: the name of the pictures' place in trials.

    Returns:
      [pictures, networks]; [0] if there are none.
    """
    own = [record for record in records if record["trial"].get("weights") in labels]
    if not own:
        return np.empty(0)
    return tabulate(own, (axis, "weights"), measure=measure)


def find_network(of_networks: Sequence[Record], record: Record, weights: str) -> Record | None:
    """Another network's record of the same picture, None if there is none.

    Args:
      of_networks: records that differ in picture and network, as from `gather_layers`.
      record: one of them.
      weights: the label of the other network.
    """
    return find_record(of_networks, **{**record["trial"], "weights": weights})


def compare_networks(
    of_networks: Sequence[Record],
    record: Record,
    weights: str,
    layers: Sequence[str],
    other_layers: Sequence[str],
) -> np.ndarray | None:
    """Distances through one network beside those through another, on the same picture.

    Args:
      of_networks: from `gather_layers`.
      record: one of them.
      weights: the label of the other network.
      layers: of the record.
      other_layers: of the other network, one for each.

    Returns:
      [layers], log(distance of the record / of the other); None where one of them is missing.
    """
    other = find_network(of_networks, record, weights)
    if not other:
        return None
    sides = (record["layers"], layers), (other["layers"], other_layers)
    found = [[here.get(layer) for layer in wanted] for here, wanted in sides]
    if None in found[0] or None in found[1]:
        return None
    return log_ratio([(a["distance"], b["distance"]) for a, b in zip(*found, strict=True)])


def compare_with_baseline(
    record: Record, records: Sequence[Record], baseline: str, layer: str
) -> float | None:
    """How much nearer a reconstruction from a layer is than a baseline, on the same picture.

    Args:
      record: from `gather_layers`.
      records: all, with those of the baselines.
      baseline: its name.
      layer: of both.

    Returns:
      log(distance / of the baseline), None where one of them is missing.
    """
    image = record["trial"]["image"]
    other = find_record(records, image=image, baseline=baseline, layer=layer)
    here = record["layers"].get(layer)
    if not here or not other:
        return None
    return mean(log_ratio([(here["distance"], other["distance"])]))


def mean(values: np.ndarray | None) -> float | None:
    """The mean of what was measured, None for nothing."""
    return None if values is None else float(np.mean(values))


def make_sentence(
    statement: str, values: np.ndarray, *, rows: str = "pictures", **fields: Any
) -> Sentence:
    """A sentence about a table of `tabulate_group`, whose units follow from its shape.

    Args:
      statement: the sentence.
      values: [rows, networks]; of one network, rows alone are the units.
      rows: what the rows are.
      fields: the other attributes of `Sentence`.
    """
    crossed = np.ndim(values) > 1 and np.shape(values)[1] > 1
    return Sentence(statement, values, units=rows + " and networks" * crossed, **fields)
