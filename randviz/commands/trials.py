"""What studies share: their networks, their pictures, and a descent for each trial."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence
from typing import Any

from randviz.commands.inputs import (
    Picture,
    PictureSettings,
    ReductionSettings,
    SeedSettings,
    StepSettings,
    check_picture,
    load_picture,
    make_keys,
)
from randviz.commands.network_choice import (
    Choice,
    NetworkSettings,
    choose_all,
    name_apart,
)
from randviz.descent.solver import Objective
from randviz.host.baselines import average_blocks, fill_with_mean
from randviz.host.images import load_image, save_image
from randviz.host.quality import compare_images, correlate_contours
from randviz.host.records import Record, Trial, name_trial
from randviz.host.runs import Stage, delete_checkpoint, descend
from randviz.host.settings import list_values, setting
from randviz.host.study import EXCLUDED_FIELDS, Workload
from randviz.networks.extractor import Extractor
from randviz.networks.gaussian import sample_noise_image
from randviz.networks.network import Network
from randviz.networks.weights import random_weights
from randviz.tasks.inversion import INPUT_OFFSET, NOISE_STD, Inversion
from randviz.types import Image, Offset, Params, UserError

TRAINED = "trained"
BASELINES = {
    "start": "the start",
    "mean": "the mean colour",
    "numbers": "block means, as many numbers as the layer has",
}
MEASURES = {"distance": ".1f", "psnr": ".1f", "ssim": ".2f"}
_PICTURE_FLAGS = ("image", "texture_image", "content_image", "style_image")


@dataclasses.dataclass(frozen=True)
class StudySettings(NetworkSettings, PictureSettings, StepSettings):
    """Settings of studies."""

    image_size: int = 128
    num_steps: int = 200


@dataclasses.dataclass(frozen=True)
class InversionStudySettings(StudySettings, ReductionSettings):
    """Settings of studies that invert features."""

    layers: tuple[str, ...] = setting(
        ("pool1", "pool2", "pool3", "pool4", "pool5"), "The layers inverted, one at a time."
    )
    tv_weight: float = setting(
        0.0, "γ of the total variation; the paper has none.", lower_bound=0, rare=True
    )
    noise_std: float = setting(
        NOISE_STD,
        "Standard deviation of the noise that a descent starts from, around grey in [0, 1].",
        lower_bound=0,
        rare=True,
    )


@functools.cache
def choose_networks(settings: StudySettings) -> dict[str, Choice]:
    """The untrained networks and, if its file is given, the trained one, by label."""
    return choose_all(settings)


def find_untrained(settings: StudySettings) -> Choice:
    """The first of the untrained networks."""
    return next(iter(choose_networks(settings).values()))


def list_labels(settings: StudySettings) -> list[str]:
    """The labels of the untrained networks, and "trained", run or not."""
    return list(dict.fromkeys([*choose_networks(settings), TRAINED]))


# The networks of a figure, and the trained one: to draw one, or to normalise it, takes seconds.
@functools.lru_cache(maxsize=8)
def sample_params(settings: StudySettings, label: str, last_layer: str) -> Params:
    """The weights of one of the networks, down to the deepest layer of a study."""
    return choose_networks(settings)[label].sample(last_layer)


def bind_network(
    settings: StudySettings,
    label: str,
    last_layer: str,
    input_offset: Offset,
) -> Extractor:
    """One of the networks with its weights, and an input offset if it has none."""
    network = choose_networks(settings)[label].network.with_offset(input_offset)
    return network.bind(sample_params(settings, label, last_layer))


@functools.cache
def load_pictures(settings: StudySettings, flag: str) -> dict[str, Picture]:
    """The pictures that a flag names, by the short names that trials have.

    Raises:
      UserError: if there is none, one is named twice, or one cannot be read.
    """
    sources = getattr(settings, flag)
    sources = (sources,) if isinstance(sources, str) else sources
    if not sources:
        raise UserError(f"no picture is given; name files or samples with --{flag}=.")
    if len(set(sources)) < len(sources):
        raise UserError(f"--{flag}={','.join(sources)} names one twice; name each once.")
    return {
        name: load_picture(flag, source, settings.image_size, square=settings.square)
        for source, name in name_pictures(sources).items()
    }


def name_pictures(sources: Sequence[str]) -> dict[str, str]:
    """A short name for each picture, the file's own unless two would share it.

    Example:
      >>> name_pictures(["a/cat.jpg", "b/cat.jpg", "dog.jpg"])
      {'a/cat.jpg': 'cat', 'b/cat.jpg': 'cat_2', 'dog.jpg': 'dog'}
    """
    names = name_apart([pathlib.PurePath(source).stem for source in sources])
    return dict(zip(sources, names, strict=True))


def describe_inputs(settings: StudySettings) -> dict[str, Any]:
    """What records depend on beside the settings: the pixels, and what the networks are."""
    flags = [flag for flag in _PICTURE_FLAGS if hasattr(settings, flag)]
    untrained = {
        label: dict(choice.metadata)
        for label, choice in choose_networks(settings).items()
        if label != TRAINED
    }
    return {
        "pictures": {
            f"{flag} {name}": picture.metadata["sha256"]
            for flag in flags
            for name, picture in load_pictures(settings, flag).items()
        },
        "network": untrained if len(untrained) > 1 else untrained[find_untrained(settings).label],
    }


def list_inversions(settings: StudySettings, layers: Sequence[str]) -> list[Trial]:
    """A trial for each picture, network and layer, all of them checked.

    Args:
      settings: with `image`.
      layers: to invert, one at a time.

    Returns:
      Picture by picture.

    Raises:
      UserError: as `load_pictures`, for an unknown layer, or a picture that does not reach it.
    """
    pictures = load_pictures(settings, "image")
    layers = find_untrained(settings).network.canonical_names(tuple(layers))
    for choice in choose_networks(settings).values():
        for picture in pictures.values():
            check_picture(picture, choice.network.with_offset(INPUT_OFFSET), layers[-1])
    return [
        {"image": image, "weights": label, "layer": layer}
        for image in pictures
        for label in choose_networks(settings)
        for layer in layers
    ]


def list_baselines(settings: StudySettings, layers: Sequence[str]) -> list[Trial]:
    """A trial for each picture, layer and baseline: what an inversion has to beat.

    Args:
      settings: with `image`.
      layers: that are inverted.

    Returns:
      Picture by picture; they name no network.
    """
    layers = find_untrained(settings).network.canonical_names(tuple(layers))
    return [
        {"image": image, "baseline": baseline, "layer": layer}
        for image in load_pictures(settings, "image")
        for layer in layers
        for baseline in BASELINES
    ]


def make_baseline(
    settings: StudySettings, trial: Trial, shape: tuple[int, ...], noise_std: float = NOISE_STD
) -> Image:
    """The picture of a baseline.

    Args:
      settings: of the study.
      trial: as of `list_baselines`.
      shape: of the layer's features, [h, w, C].
      noise_std: of the noise that descents start from.

    Returns:
      [H, W, 3].
    """
    picture = load_pictures(settings, "image")[trial["image"]].image
    makers: dict[str, Callable[[], Image]] = {
        "start": lambda: make_noise(settings, picture, noise_std),
        "mean": lambda: fill_with_mean(picture),
        "numbers": lambda: average_blocks(picture, math.prod(shape)),
        "positions": lambda: average_blocks(picture, 3 * shape[0] * shape[1]),
    }
    return makers[trial["baseline"]]()


def measure_baseline(
    settings: InversionStudySettings, trial: Trial, network: Network | None = None
) -> Record:
    """Makes a baseline's picture, saves it, and measures how near it is.

    Args:
      settings: of the study.
      trial: as of `list_baselines`.
      network: whose features have the shape that counts, if not the first untrained network's.
    """
    architecture = network or find_untrained(settings).network
    picture = load_pictures(settings, "image")[trial["image"]].image
    shape = architecture.feature_shape(picture.shape, trial["layer"])
    image = make_baseline(settings, trial, shape, settings.noise_std)
    save_image(picture_path(settings.out_dir, trial), image)
    return compare_with_picture(settings, trial, image)


def find_deepest(settings: StudySettings, layers: Sequence[str]) -> str:
    """The deepest of some layers of the untrained network."""
    return find_untrained(settings).network.canonical_names(tuple(layers))[-1]


def make_inversion(
    settings: InversionStudySettings,
    image: str,
    label: str,
    layer: str,
    last_layer: str | None = None,
) -> tuple[Callable[[], Objective], Image]:
    """What makes the inversion of a picture through one of the networks, and its start.

    Args:
      settings: of the study.
      image: a short name.
      label: of the network.
      layer: whose features are matched.
      last_layer: the deepest layer of the study, so that weights are drawn once for all.
    """
    picture = load_pictures(settings, "image")[image].image
    extractor = bind_network(settings, label, last_layer or layer, INPUT_OFFSET)
    start = make_noise(settings, picture, settings.noise_std)
    task = Inversion(
        layer,
        tv_weight=settings.tv_weight,
        gradient_reduction=settings.gradient_reduction,
    )
    return functools.partial(task.of, extractor, picture), start


def estimate_inversions(
    settings: InversionStudySettings, layers: Sequence[str], count: int
) -> Workload:
    """So many inversions, judged by the deepest one of the largest picture."""
    pictures = load_pictures(settings, "image")
    largest = max(pictures, key=lambda name: pictures[name].image.size)
    label = find_untrained(settings).label
    make, start = make_inversion(settings, largest, label, find_deepest(settings, layers))
    return Workload(make, start, count * settings.num_steps)


def estimate_random_inversion(
    settings: SeedSettings,
    network: Network,
    layer: str,
    image: Image,
    num_steps: int,
    num_together: int = 1,
) -> Workload:
    """So many steps of inverting an image through a random network; see `Workload`."""

    def make_objective() -> Objective:
        params = random_weights(make_keys(settings.seed)[0], network, last_layer=layer)
        return Inversion(layer).of(network.bind(params), image)

    return Workload(make_objective, image, num_steps, num_together)


def make_noise(settings: StudySettings, image: Image, std: float) -> Image:
    """The noise that all descents of a study on an image of this size start from."""
    return sample_noise_image(make_keys(settings.seed)[1], image.shape[:2], std=std)


def picture_path(folder: str | pathlib.Path, trial: Trial, suffix: str = "") -> pathlib.Path:
    """The file that a trial's picture is saved under."""
    name = "_".join(str(value) for value in trial.values())
    return pathlib.Path(folder, "pictures", f"{name}{suffix}.png")


def load_result(folder: str | pathlib.Path, record: Record | None, suffix: str = "") -> Any:
    """The picture of a record, [H, W, 3], or None if there is none."""
    if record is None:
        return None
    path = picture_path(folder, record["trial"], suffix)
    return load_image(path) if path.exists() else None


def descend_trial(
    settings: StudySettings,
    trial: Trial,
    make_objective: Callable[[], Objective],
    start: Image,
    *,
    num_steps: int | None = None,
    **options: Any,
) -> tuple[Image, Record]:
    """Descends for a trial, goes on where it was stopped, and saves the picture.

    Args:
      settings: of the study.
      trial: names the descent.
      make_objective: makes it, image → scalar.
      start: [H, W, 3].
      num_steps: if not the settings'.
      options: `save_every` and `show`, as in `runs.descend`.

    Returns:
      [H, W, 3], not clipped; and final_loss, evaluations and seconds for the record.
    """
    folder = pathlib.Path(settings.out_dir)
    metadata = (
        list_values(settings, *EXCLUDED_FIELDS),
        describe_inputs(settings),
        identify_weights(settings, trial.get("weights", "")),
        trial,
    )
    run = descend(
        [Stage(make_objective, start.shape[:2], num_steps or settings.num_steps)],
        start,
        folder=folder,
        metadata=metadata,
        label=name_trial(trial),
        **options,
    )
    save_image(picture_path(folder, trial), run.image)
    delete_checkpoint(folder, metadata)
    return run.image, {
        "final_loss": float(run.trace.loss[-1]),
        "evaluations": int(run.trace.evaluations.sum()),
        "seconds": round(run.seconds, 2),
    }


def compare_with_picture(settings: StudySettings, trial: Trial, image: Image) -> Record:
    """How near a reconstruction comes to the trial's picture, and whose weights it came of."""
    target = load_pictures(settings, "image")[trial["image"]].image
    measures = {**compare_images(image, target), "contours": correlate_contours(image, target)}
    return {**measures, **identify_weights(settings, trial.get("weights", ""))}


def identify_weights(settings: StudySettings, label: str) -> Record:
    """Which file trained weights, or what was made of them, came from; nothing for others.

    Args:
      settings: of the study.
      label: of the network; "trained-..." is made of the trained one.
    """
    if label.partition("-")[0] != TRAINED:
        return {}
    return {"weights_sha256": choose_networks(settings)[TRAINED].metadata["sha256"]}


def describe_distance(record: Record | None) -> str:
    """Distance, PSNR and SSIM of a reconstruction, as a caption."""
    if record is None:
        return "not run"
    distance, psnr, ssim = (format_measure(record, measure) for measure in MEASURES)
    return f"distance {distance}\n{psnr} dB, SSIM {ssim}"


def format_measure(record: Record | None, measure: str) -> str:
    """One of `MEASURES` as it is written."""
    if record is None:
        return "not run"
    return "∞" if record[measure] is None else format(record[measure], MEASURES[measure])


def find_record(records: Sequence[Record], **trial: object) -> Record | None:
    """The record of a trial, None if there is none."""
    return next((record for record in records if record["trial"] == trial), None)


def filter_records(records: Sequence[Record], **trial: object) -> list[Record]:
    """The records whose trials have all these values."""
    return [record for record in records if trial.items() <= record["trial"].items()]


def list_values_of(records: Sequence[Record], name: str) -> list[Any]:
    """The different values that trials have under a name, in the order of the records."""
    found = (record["trial"][name] for record in records if name in record["trial"])
    return list(dict.fromkeys(found))
