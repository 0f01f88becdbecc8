"""What the three task commands share: their settings, their start, and the run itself."""

import dataclasses
import math
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping
from typing import Any, NamedTuple

import jax
import numpy as np

from randviz.commands.inputs import LARGEST_SIDE, Picture, load_picture
from randviz.commands.network_choice import Choice, NetworkSettings, describe_network
from randviz.descent import lbfgs
from randviz.host import runs
from randviz.host.estimate import check_resources
from randviz.host.images import check_suffix, save_image
from randviz.host.settings import list_values, setting
from randviz.networks import network as networks
from randviz.networks.gaussian import sample_noise_image
from randviz.objectives import losses
from randviz.types import Image, Key, Params, UserError


@dataclasses.dataclass(frozen=True)
class DescentSettings(NetworkSettings):
    """Settings that every task has."""

    image_size: int = setting(
        256,
        "Longest side in pixels that pictures are resized to.",
        lower_bound=1,
        upper_bound=LARGEST_SIDE,
    )
    square: bool = setting(
        False,
        "Takes the largest square in the middle of each picture; fully connected layers need one.",
    )
    num_steps: int = setting(
        500, "Steps of descent; the paper takes 2000.", lower_bound=1, upper_bound=10**6
    )
    out_dir: str = setting("out", "Folder for the picture and its record, run.json.")
    output_image: str = setting("", "Path of the picture, if not out.png in the output folder.")
    gradient_reduction: str = setting(
        "mean_abs",
        "How the absolute mean gradient in the layer weights is read: mean |g| or |mean g|.",
        choices=losses.GRADIENT_REDUCTIONS,
    )
    solver: str = setting("jaxopt", "Who descends: L-BFGS twice, or Adam.", choices=lbfgs.SOLVERS)
    memory: int = setting(
        lbfgs.MEMORY, "Steps that L-BFGS remembers.", lower_bound=1, upper_bound=1000
    )
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


class Task(NamedTuple):
    """One descent that a command asks for.

    Attributes:
      name: of the command.
      settings: of the command.
      choice: whose network it is.
      make_objective: makes it, image → scalar, from what is in memory already.
      start: [H, W, 3].
      pictures: {flag: Picture}, everything read from outside.
      layer_weights: the objective → {"content" or "style": {layer: value}}, as the paper states
        them, at its σ.
      finish: what is done to the last image before it is saved.
      measure: more metadata about the saved image for the record.
    """

    name: str
    settings: DescentSettings
    choice: Choice
    make_objective: Callable[[], lbfgs.Objective]
    start: Image
    pictures: Mapping[str, Picture]
    layer_weights: Callable[[Any], Mapping[str, Mapping[str, float]]]
    finish: Callable[[Image], Image] = lambda image: image
    measure: Callable[[Image], dict[str, Any]] = lambda image: {}


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
        return sample_noise_image(key, (height, width), std=noise_std), {}
    picture = load_picture("init_image", settings.init_image, max(height, width))
    start = jax.image.resize(picture.image, (height, width, 3), "linear", antialias=True)
    return start, {"init_image": picture}


def paper_layer_weights(
    network: networks.Network,
    params: Params,
    normalized: Params,
    layer_weights: Mapping[str, Any],
    degree: int,
) -> dict[str, float]:
    """ω or μ as the paper states them, at the scale of the weights as drawn.

    Args:
      network: the architecture.
      params: the weights as drawn.
      normalized: the same in the gauge of the objective, down to the deepest layer.
      layer_weights: {layer: value}, in that gauge.
      degree: of the loss in the features: 2 for ω, 4 for μ.

    Returns:
      {layer: value}; Python floats, which do not overflow where float32 does.

    Raises:
      UserError: if a layer's weight is not finite, because the picture does not reach the layer.
    """
    found, exponent = {}, 0
    for layer in network.layers:
        if layer.name in normalized:
            exponent += _find_exponent(params[layer.name], normalized[layer.name])
        if layer.name not in layer_weights:
            continue
        value = float(layer_weights[layer.name])
        if not math.isfinite(value):
            raise UserError(
                f"layer {layer.name!r} does not answer to the picture at all (is it black?); take"
                " another picture, layer or --input_offset."
            )
        found[layer.name] = math.ldexp(value, degree * exponent)
    return found


def _find_exponent(before: Mapping[str, Any], after: Mapping[str, Any]) -> int:
    """k of the 2^k that one layer's kernel was multiplied by.

    Read from the kernels by NumPy: as part of `rescale_weights` it would be compiled again, which
    takes longer than the first steps of a descent.
    """
    kernels = (np.asarray(weights["kernel"]) for weights in (before, after))
    sizes = [max(float(kernel.max()), -float(kernel.min())) for kernel in kernels]
    return round(math.log2(sizes[1] / sizes[0])) if all(sizes) else 0


def run_task(task: Task) -> None:
    """Runs a descent, saves its picture and writes its record; or says what it would take.

    Raises:
      UserError: if it does not fit into memory, or the output folder cannot be written.
      runs.Stopped: if the user stopped it.
    """
    settings = task.settings
    output = pathlib.Path(settings.output_image or pathlib.Path(settings.out_dir, "out.png"))
    check_suffix(output)
    options = {"solver": settings.solver, "memory": settings.memory}
    if check_resources(
        task.name,
        task.make_objective,
        task.start,
        num_steps=settings.num_steps,
        dry_run=settings.dry_run,
        **options,
    ):
        return
    objective = task.make_objective()
    layer_weights = task.layer_weights(objective)
    folder = runs.prepare_folder(settings.out_dir)
    runs.prepare_folder(output.parent, flag="output_image")
    if output.is_dir():
        raise UserError(f"{output} is a folder; name a picture in it with --output_image.")

    def save(step: int, image: Image) -> None:
        save_image(output.with_stem(f"{output.stem}_{step:05}"), task.finish(image))

    excluded_fields = ("out_dir", "output_image", "print_every", "save_every")
    metadata = {
        "command": task.name,
        "settings": list_values(settings),
        "network": {**describe_network(objective.network), **task.choice.metadata},
        "pictures": {flag: picture.metadata for flag, picture in task.pictures.items()},
        **runs.describe_machine(),
    }
    decisive = {**metadata, "settings": list_values(settings, *excluded_fields)}
    run = runs.descend(
        objective,
        task.start,
        num_steps=settings.num_steps,
        folder=folder,
        metadata=decisive,
        **options,
        print_every=settings.print_every,
        save_every=settings.save_every,
        show=save,
        label=task.name,
    )
    image = task.finish(run.image)
    save_image(output, image)
    said = [words for picture in task.pictures.values() for words in picture.metadata["warnings"]]
    failed = int(run.trace.failed.sum())
    if failed:
        said.append(
            f"{failed} of {settings.num_steps} steps led nowhere; the picture is where the last"
            " good one led."
        )
        warnings.warn(said[-1], stacklevel=2)
    record = {
        **metadata,
        "layer_weights": layer_weights,
        "measures": task.measure(image),
        "final_loss": float(run.trace.loss[-1]),
        "evaluations": int(run.trace.evaluations.sum()),
        "failed_steps": failed,
        "warnings": said,
        "seconds": round(run.seconds, 3),
        "sessions": run.sessions,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "losses": [float(f"{loss:.6g}") for loss in run.trace.loss],
    }
    runs.write_record(folder / "run.json", record)
    runs.delete_checkpoint(folder, decisive)
    print(f"{task.name}: wrote {output} and {folder / 'run.json'}")
