"""What the three task commands share: their settings, their network, and the run itself."""

import dataclasses
import hashlib
import math
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp
import numpy as np

from randviz import lbfgs, losses, networks, runs
from randviz.conv import PADDINGS, POOLINGS
from randviz.gaussian import draw_noise_image
from randviz.images import check_suffix, load_image, resize_image, save_image
from randviz.settings import setting
from randviz.types import Image, Key, Params, UserError

LARGEST_SIDE = 2**14  # pixels
_SMALLEST_PICTURE = 8  # pixels a side; less is no picture, and enlarging it makes none


@dataclasses.dataclass(frozen=True)
class DescentSettings:
    """Settings that every task has."""

    image_size: int = setting(
        256,
        "Longest side in pixels that pictures are resized to.",
        lower_bound=1,
        upper_bound=LARGEST_SIDE,
    )
    num_steps: int = setting(
        500, "Steps of descent; the paper takes 2000.", lower_bound=1, upper_bound=10**6
    )
    seed: int = setting(
        0,
        "Of the random weights and the starting noise.",
        lower_bound=0,
        upper_bound=2**32 - 1,
    )
    out_dir: str = setting("out", "Folder for the picture and its record, run.json.")
    output_image: str = setting("", "Path of the picture, if not out.png in the output folder.")
    network: str = setting("vgg19", "The architecture.", choices=tuple(networks.NETWORKS))
    scale: float = setting(
        networks.PAPER_SCALE,
        "σ, the standard deviation of the random weights. Without biases it is a choice of units:"
        " the picture is the same.",
        lower_bound=1e-5,
        upper_bound=1e3,
    )
    bias_scale: float = setting(
        0.0, "Standard deviation of the random biases; the paper has none.", lower_bound=0
    )
    pooling: str = setting("avg", "How 2×2 blocks are pooled.", choices=POOLINGS)
    padding: str = setting(
        "zero", "What lies beyond the border of a convolution.", choices=tuple(PADDINGS)
    )
    input_offset: str = setting(
        "auto",
        "Subtracted from pixel values in 0 to 255 before the first layer: a number, mean for the"
        " ImageNet mean, or auto for what the task works best with.",
    )
    reading: str = setting(
        "mean_abs",
        "How the absolute mean gradient in the layer weights is read: mean |g| or |mean g|.",
        choices=losses.READINGS,
    )
    solver: str = setting("jaxopt", "Who descends: L-BFGS twice, or Adam.", choices=lbfgs.SOLVERS)
    memory: int = setting(20, "Steps that L-BFGS remembers.", lower_bound=1, upper_bound=1000)
    init: str = setting(
        "noise", "Where the descent starts: noise, or --init_image.", choices=("noise", "image")
    )
    init_image: str = setting("", "A path or sample to start from, with --init=image.")
    print_every: int = setting(
        0, "Steps between two lines of progress; 0 for one every ten seconds.", lower_bound=0
    )
    save_every: int = setting(
        0, "Steps between two intermediate pictures, out_00100.png; 0 for none.", lower_bound=0
    )


class Picture(NamedTuple):
    """An input picture and how it will be written down.

    Attributes:
      image: [H, W, 3].
      facts: source, size in pixels, and a hash of the pixels.
    """

    image: Image
    facts: dict[str, Any]


class Task(NamedTuple):
    """One descent that a command asks for.

    Attributes:
      name: of the command.
      settings: of the command.
      objective: image → scalar.
      start: [H, W, 3].
      pictures: {flag: Picture}, everything read from outside.
      layer_weights: {"content" or "style": {layer: value}}, as the paper states them, at its σ.
      finish: what is done to the last image before it is saved.
      measure: more facts about the saved image for the record.
    """

    name: str
    settings: DescentSettings
    objective: lbfgs.Objective
    start: Image
    pictures: Mapping[str, Picture]
    layer_weights: Mapping[str, Mapping[str, float]]
    finish: Callable[[Image], Image] = lambda image: image
    measure: Callable[[Image], dict[str, Any]] = lambda image: {}


def load_picture(flag: str, source: str, image_size: int) -> Picture:
    """Loads a picture that a flag names.

    Raises:
      UserError: if the flag is empty, or the picture cannot be read or is too small.
    """
    if not source:
        raise UserError(f"no picture is given; name a file or a sample with --{flag}=.")
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always", UserWarning)
        image = load_image(source)
    said = [str(warning.message) for warning in caught]
    for words in said:
        warnings.warn(words, stacklevel=2)
    height, width = image.shape[:2]
    if min(height, width) < _SMALLEST_PICTURE:
        raise UserError(
            f"the picture {source} is {width}×{height} pixels; it needs at least"
            f" {_SMALLEST_PICTURE} a side."
        )
    image = resize_image(image, image_size)
    facts = {
        "source": source,
        "size": f"{image.shape[1]}x{image.shape[0]}",
        "sha256": hashlib.sha256(np.ascontiguousarray(image)).hexdigest()[:16],
        "warnings": said,
    }
    return Picture(jnp.asarray(image), facts)


def make_keys(seed: int) -> tuple[Key, Key]:
    """The keys of a command: of the weights and of the noise."""
    # Named, because bits of another generator would be another network under the same seed.
    return tuple(jax.random.split(jax.random.key(seed, impl="threefry2x32")))


def make_network(settings: DescentSettings) -> networks.Network:
    """The network value that the settings describe.

    Raises:
      UserError: for an input offset that is neither a word nor a number.
    """
    offset = settings.input_offset
    try:
        known = {"auto": None, "mean": networks.IMAGENET_MEAN}
        input_offset = known[offset] if offset in known else float(offset)
    except ValueError:
        input_offset = math.nan
    if isinstance(input_offset, float) and not math.isfinite(input_offset):
        raise UserError(f"--input_offset={offset} is neither auto, mean nor a number.")
    return dataclasses.replace(
        networks.NETWORKS[settings.network],
        pooling=settings.pooling,
        padding=settings.padding,
        input_offset=input_offset,
    )


def draw_weights(key: Key, settings: DescentSettings, network, last_layer: str) -> Params:
    """The random weights that the settings describe, down to a layer."""
    return networks.random_weights(
        key,
        network,
        scale=settings.scale,
        bias_scale=settings.bias_scale,
        last_layer=last_layer,
    )


def make_start(
    settings: DescentSettings, key: Key, canvas: Image, noise_std: float
) -> tuple[Image, dict[str, Picture]]:
    """The image that the settings start from.

    Args:
      settings: of the command.
      key: of the noise.
      canvas: [H, W, 3], the start with --init=content; otherwise only its size counts.
      noise_std: standard deviation of the noise, image in [0, 1].

    Returns:
      [H, W, 3], and {"init_image": Picture} if one was read.

    Raises:
      UserError: if the initial image cannot be read.
    """
    height, width = canvas.shape[:2]
    if settings.init_image and settings.init != "image":
        raise UserError("--init_image is given but not used; add --init=image.")
    if settings.init == "content":
        return canvas, {}
    if settings.init == "noise":
        return draw_noise_image(key, (height, width), std=noise_std), {}
    picture = load_picture("init_image", settings.init_image, max(height, width))
    start = jax.image.resize(picture.image, (height, width, 3), "linear", antialias=True)
    return start, {"init_image": picture}


def paper_layer_weights(
    network: networks.Network, params: Params, layer_weights: Mapping[str, Any], degree: int
) -> dict[str, float]:
    """ω or μ as the paper states them, at the scale of the weights as drawn.

    Args:
      network: the architecture.
      params: the weights as drawn, before the change of gauge.
      layer_weights: {layer: value}, in the gauge of the objective.
      degree: of the loss in the features: 2 for ω, 4 for μ.

    Returns:
      {layer: value}; Python floats, which do not overflow where float32 does.

    Raises:
      UserError: if a layer's weight is not finite, because the picture does not reach the layer.
    """
    deepest = network.canonical_names(tuple(layer_weights))[-1]
    _, exponents = networks.normalize_gauge(network, params, deepest)
    for layer, value in layer_weights.items():
        if not math.isfinite(value):
            raise UserError(
                f"layer {layer!r} does not answer to the picture at all (is it black?); take"
                " another picture, layer or --input_offset."
            )
    return {
        layer: math.ldexp(float(value), degree * int(exponents[layer]))
        for layer, value in layer_weights.items()
    }


def run_task(task: Task) -> Image:
    """Runs a descent, saves its picture and writes its record.

    Returns:
      [H, W, 3], the picture as saved.

    Raises:
      UserError: if the output folder cannot be written.
      runs.Stopped: if the user stopped it.
    """
    settings = task.settings
    output = pathlib.Path(settings.output_image or pathlib.Path(settings.out_dir, "out.png"))
    check_suffix(output)
    folder = runs.prepare_folder(settings.out_dir)
    runs.prepare_folder(output.parent, flag="output_image")
    if output.is_dir():
        raise UserError(f"{output} is a folder; name a picture in it with --output_image.")

    def save(step: int, image: Image) -> None:
        save_image(output.with_stem(f"{output.stem}_{step:05}"), task.finish(image))

    beside_the_point = ("out_dir", "output_image", "print_every", "save_every")
    facts = {
        "command": task.name,
        "settings": dataclasses.asdict(settings),
        "pictures": {flag: picture.facts for flag, picture in task.pictures.items()},
        **runs.describe_machine(),
    }
    decisive = {
        **facts,
        "settings": {
            name: value for name, value in facts["settings"].items() if name not in beside_the_point
        },
    }
    run = runs.descend(
        task.objective,
        task.start,
        num_steps=settings.num_steps,
        folder=folder,
        facts=decisive,
        solver=settings.solver,
        memory=settings.memory,
        print_every=settings.print_every,
        save_every=settings.save_every,
        show=save,
        label=task.name,
    )
    image = task.finish(run.image)
    save_image(output, image)
    said = [words for picture in task.pictures.values() for words in picture.facts["warnings"]]
    failed = int(run.trace.failed.sum())
    if failed:
        said.append(
            f"{failed} of {settings.num_steps} steps led nowhere; the picture is where the last"
            " good one led."
        )
        warnings.warn(said[-1], stacklevel=2)
    record = {
        **facts,
        "layer_weights": task.layer_weights,
        "measures": task.measure(image),
        "final_loss": float(run.trace.loss[-1]),
        "evaluations": int(run.trace.evaluations.sum()),
        "failed_steps": failed,
        "warnings": said,
        "seconds": round(run.seconds, 3),
        "sittings": run.sittings,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "losses": [float(f"{loss:.6g}") for loss in run.trace.loss],
    }
    runs.write_record(folder / "run.json", record)
    runs.forget(folder, decisive)
    print(f"{task.name}: wrote {output} and {folder / 'run.json'}")
    return image
