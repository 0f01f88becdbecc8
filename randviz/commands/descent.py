"""What the three task commands share: one descent, from its start to its picture and record."""

import dataclasses
import functools
import glob
import json
import math
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from randviz.commands.descent_settings import DescentSettings, make_schedule
from randviz.commands.inputs import (
    Picture,
    check_output,
    load_picture,
    make_keys,
    make_statistics_key,
)
from randviz.commands.network_choice import Choice, describe_network
from randviz.descent.descent import find_solver
from randviz.descent.schedule import Schedule, resize, scale_shape
from randviz.descent.solver import Solver
from randviz.host import runs
from randviz.host.animation import check_animation, choose_interval, keep_frame, write_animation
from randviz.host.estimate import check_resources
from randviz.host.folders import lock_folder, report_leftovers
from randviz.host.images import check_suffix, save_image
from randviz.host.preview import Preview
from randviz.host.settings import list_values
from randviz.networks.extractor import Extractor
from randviz.networks.gaussian import sample_noise_image
from randviz.networks.modules import ModuleNetwork, RandomModule
from randviz.networks.random_network import RandomNetwork
from randviz.objectives.objective import Objective, Redrawn, Term, objective_at
from randviz.tasks.inversion import Inversion
from randviz.tasks.painting import FILTERS, LAYERS, Plan
from randviz.tasks.style import Style
from randviz.tasks.task import Descent
from randviz.tasks.texture import Texture
from randviz.types import Image, UserError


class Task(NamedTuple):
    """One descent that a command asks for.

    Attributes:
      name: of the command.
      settings: of the command.
      network: what the record says of the network, plain values.
      descent: what descends.
      shape: (H, W) of the image that descends.
      schedule: sizes and steps of its descents.
      start: [h, w, 3], scaled to the first size.
      pictures: {flag: Picture}, everything read from outside.
      finish: what is done to the last image before it is saved.
      measure: more metadata about the saved image for the record.
    """

    name: str
    settings: DescentSettings
    network: Mapping[str, Any]
    descent: Descent
    shape: tuple[int, ...]
    schedule: Schedule
    start: Image
    pictures: Mapping[str, Picture]
    finish: Callable[[Image], Image] = lambda image: image
    measure: Callable[[Image], dict[str, Any]] = lambda image: {}


def make_start(
    settings: DescentSettings,
    shape: tuple[int, int],
    schedule: Schedule,
    noise_std: float,
    content: Image | None = None,
) -> tuple[Image, dict[str, Picture]]:
    """The image that the settings start from.

    Args:
      settings: of the command.
      shape: (H, W) of the image that descends, at its last size.
      schedule: of its sizes.
      noise_std: standard deviation of the noise, image in [0, 1].
      content: [H, W, 3], the start with --init=content.

    Returns:
      [h, w, 3], noise in the size of the first scale, others of the shape given; and
      {"init_image": Picture} if one was read.

    Raises:
      UserError: if the initial image cannot be read.
    """
    if settings.init_image and settings.init != "image":
        raise UserError("--init_image is given but not used; add --init=image.")
    if settings.init == "content":
        return content, {}
    if settings.init == "noise":
        # Noise made in full size would be averaged away where it is reduced.
        first = schedule.shapes(shape)[0]
        return sample_noise_image(make_keys(settings.seed)[1], first, std=noise_std), {}
    picture = load_picture("init_image", settings.init_image, max(shape))
    return resize(picture.image, shape), {"init_image": picture}


def make_task(
    name: str,
    settings: DescentSettings,
    choice: Choice,
    task: Inversion | Texture | Style,
    pictures: Mapping[str, Picture],
    *,
    images: tuple[Any, ...],
    last_layer: str,
    shape: tuple[int, int],
    noise_std: float,
    measure: Callable[[Image], dict[str, Any]] = lambda image: {},
) -> Task:
    """Makes a task of one network, drawn once or at each step.

    Args:
      name: of the command.
      settings: of the command.
      choice: the network.
      task: makes the objective.
      pictures: {flag: Picture}, everything read from outside but the initial image.
      images: the task's arguments; the first is where it starts with --init=content.
      last_layer: the deepest layer wanted.
      shape: (H, W) of the result.
      noise_std: as in `make_start`.
      measure: more metadata about the saved image for the record.

    Raises:
      UserError: as `make_start`, `make_schedule` and `Choice.sample`.
    """
    schedule = make_schedule(settings, max(shape))
    start, extra = make_start(settings, shape, schedule, noise_std, images[0])
    if settings.redraw and choice.metadata["weights"] == "random":
        source = (
            RandomModule(choice.network)
            if isinstance(choice.network, ModuleNetwork)
            else RandomNetwork(
                scale=settings.scale,
                bias_scale=settings.bias_scale,
                network=choice.network,
                last_layer=last_layer,
            )
        )
    else:
        source = choice.network.bind(choice.sample(last_layer))
    key = make_statistics_key(settings.seed)
    return Task(
        name=name,
        settings=settings,
        network={**describe_network(choice.network), **choice.metadata},
        descent=Descent(task, source, images, key, settings.redraw),
        shape=shape,
        schedule=schedule,
        start=start,
        pictures={**pictures, **extra},
        measure=measure,
    )


def find_plan_options(settings: DescentSettings, longest: int) -> dict[str, Any]:
    """How random filters are to descend, as `plan_painting` and `plan_texture` take it.

    Args:
      settings: of the command.
      longest: longest side of the result, in pixels.

    Returns:
      Steps and schedule, None where the settings leave them to the method; and all devices, to
      share the picture, None where there is only one.

    Raises:
      UserError: as `make_schedule`.
    """
    asked = (settings.min_size, settings.num_scales, settings.scale_sizes, settings.scale_steps)
    devices = jax.devices()
    return {
        "num_steps": settings.num_steps or None,
        "schedule": make_schedule(settings, longest) if any(asked) else None,
        "mesh": Mesh(np.array(devices), ("bands",)) if len(devices) > 1 else None,
    }


def make_painting(
    name: str,
    settings: DescentSettings,
    plan: Plan,
    pictures: Mapping[str, Picture],
    *,
    sources: Sequence[Picture],
    noise_std: float,
    flags: str,
) -> Task:
    """Makes a task of what random filters are to paint.

    Args:
      name: of the command.
      settings: of the command.
      plan: what is painted, from the method's own start.
      pictures: {flag: Picture}, everything read from outside but the initial image.
      sources: those of them whose patches are painted with.
      noise_std: as in `make_start`, where the settings ask for another start.
      flags: that would make the sources larger, for a message.

    Raises:
      UserError: as `make_start`, or naming a source that is smaller than the filters at the first
        scale, and the size of its file.
    """
    start, extra = plan.start, {}
    if settings.init_image or settings.init != type(settings).init:
        shape = plan.canvas if settings.init == "noise" else plan.shape
        start, extra = make_start(settings, shape, plan.schedule, noise_std)
        if extra:
            start = plan.extend(start)
    extractor = jax.eval_shape(FILTERS.sample, plan.descent.key)  # its shapes are all that counts
    for picture in sources:
        shape = scale_shape(picture.image.shape[:2], plan.schedule.sizes[0] / max(plan.canvas))
        try:
            extractor.check_image((*shape, 3), LAYERS[-1])
        except UserError as error:
            height, width = picture.file_size
            raise UserError(
                f"{picture.metadata['source']} ({width}×{height} pixels): at the first scale,"
                f" {error.args[0].rstrip('.')}, or give a larger {flags}."
            ) from error
    # How many devices share the work is no part of what is computed.
    filters = dataclasses.asdict(plan.descent.source.replace(mesh=None))
    return Task(
        name=name,
        settings=settings,
        network={"name": "random filters", **filters},
        descent=plan.descent,
        shape=plan.canvas,
        schedule=plan.schedule,
        start=start,
        pictures={**pictures, **extra},
        finish=plan.crop,
    )


def state_layer_weights(source: Extractor, objective: Objective) -> dict[str, dict[str, float]]:
    """ω and μ as the paper states them, at the scale of the weights as drawn.

    Args:
      source: the extractor before it was prepared.
      objective: made of it.

    Returns:
      {part: {layer: value}}; Python floats, which do not overflow where float32 does. A statistic
      that is not homogeneous has no other scale, and is stated as it is.

    Raises:
      UserError: if a layer's weight is not finite, because its features are zero everywhere, or
        not positive, because the features are beyond float32.
    """
    exponents = source.scale_exponents(objective.extractor)
    degrees = {
        (part, term.layer): term.statistic.degree
        for part, terms in objective.parts.items()
        for term in terms.terms
        if isinstance(term, Term)
    }
    found: dict[str, dict[str, float]] = {}
    for part, weights in objective.layer_weights().items():
        for layer, weight in weights.items():
            value = float(weight)
            if math.isnan(value) or value == 0:  # the reciprocal of an infinite gradient
                raise UserError(
                    f"the features of layer {layer!r} are too large for float32; take smaller"
                    " weights (--scale, --bias_scale, --trained_weights) or --input_offset."
                )
            if math.isinf(value):
                raise UserError(
                    f"layer {layer!r} answers to the picture with zeros only, as where the picture"
                    " is black or the weights are too small for float32; take another picture,"
                    " layer, --input_offset or other weights."
                )
            exponent = (degrees[part, layer] or 0) * exponents.get(layer, 0)
            found.setdefault(part, {})[layer] = math.ldexp(value, exponent)
    return found


def _check_scale(stage: runs.Stage) -> None:
    """Checks that the pictures reach the layers at a scale, without computing anything."""
    try:
        jax.eval_shape(lambda: objective_at(stage.make_objective(), 0))
    except UserError as error:
        height, width = stage.shape
        raise UserError(
            f"at the first scale, {width}×{height}, {error.args[0].rstrip('.')}; or begin with a"
            " larger scale (--min_size, --scale_sizes)."
        ) from error


# Settings on which nothing that is written depends, and those on which the picture does not.
_OUTER_FIELDS = ("out_dir", "print_every", "watch", "preview")
_EXCLUDED_FIELDS = (*_OUTER_FIELDS, "output_image", "quality", "bits", "animation", "save_every")


def _find_output(settings: DescentSettings) -> pathlib.Path:
    return pathlib.Path(settings.output_image or f"{settings.out_dir}/out.png")


def _describe(task: Task) -> dict[str, Any]:
    """What was asked for, plain values."""
    return {
        "command": task.name,
        "settings": list_values(task.settings),
        "schedule": {"sizes": task.schedule.sizes, "steps": task.schedule.steps},
        "network": dict(task.network),
        "pictures": {flag: picture.metadata for flag, picture in task.pictures.items()},
    }


def is_done(task: Task) -> bool:
    """Whether a task's picture is there, with a record of the same settings and pictures.

    Where its folder, the pictures and the program's version were does not count.
    """
    try:
        record = json.loads(pathlib.Path(task.settings.out_dir, "run.json").read_text())
        # As it was written: tuples are lists.
        wanted = json.loads(json.dumps(_describe(task), default=str))
        for described in (record, wanted):
            for name in (*_OUTER_FIELDS, *task.pictures):
                described["settings"].pop(name, None)
            described["pictures"] = {
                flag: picture["sha256"] for flag, picture in described["pictures"].items()
            }
        is_same = all(record[name] == value for name, value in wanted.items())
    except (OSError, ValueError, KeyError, TypeError, AttributeError, RecursionError):
        return False  # no record, or a damaged one
    return is_same and _find_output(task.settings).exists()


def run_task(task: Task, label: str | None = None) -> None:
    """Runs a descent, saves its picture and writes its record; or says what it would take.

    Args:
      task: of a command.
      label: what the progress is called, if not by the command's name.

    Raises:
      UserError: if it does not fit into memory, the output folder cannot be written or is in use by
        another process, or the loss is not finite.
      runs.Stopped: if the user stopped it.
    """
    settings = task.settings
    output = _find_output(settings)
    check_suffix(output, bits=settings.bits)
    outputs = {"output_image": output}
    if settings.animation:
        outputs["animation"] = pathlib.Path(settings.animation)
        check_animation(outputs["animation"], output)
    taken = list(outputs.values())
    if settings.save_every:
        taken += output.parent.glob(f"{glob.escape(output.stem)}_*{output.suffix}")
    for path in taken:
        check_output(path, task.pictures.values())
    named = task.descent.default_solver() if settings.solver == "auto" else settings.solver
    solver = find_solver(named, memory=settings.memory)
    longest = max(task.shape)
    schedule = task.schedule
    shapes = schedule.shapes(task.shape)
    stages = [
        runs.Stage(
            functools.partial(task.descent.objective, size / longest, scale),
            shape,
            steps,
            task.descent.periodic,
        )
        for scale, (size, shape, steps) in enumerate(
            zip(schedule.sizes, shapes, schedule.steps, strict=True)
        )
    ]
    pixels = [math.prod(shape) for shape in shapes]
    canvas = jax.ShapeDtypeStruct((*task.shape, 3), "float32")
    if check_resources(
        task.name,
        stages[-1].make_objective,
        canvas,
        # Steps at the last size that take as long as all steps together.
        num_steps=round(float(np.dot(schedule.steps, pixels)) / pixels[-1]),
        dry_run=settings.dry_run,
        solver=solver,
        shape=jax.eval_shape(task.finish, canvas).shape[:2],
    ):
        return
    if len(stages) > 1:
        _check_scale(stages[0])
    last = stages[-1].make_objective()
    stages[-1] = stages[-1]._replace(make_objective=lambda: last)
    with lock_folder(settings.out_dir) as folder:
        _descend(task, stages, solver, outputs, folder, label or task.name)


def _descend(
    task: Task,
    stages: Sequence[runs.Stage],
    solver: Solver,
    outputs: Mapping[str, pathlib.Path],
    folder: pathlib.Path,
    label: str,
) -> None:
    """Runs a descent in its folder; the outputs are named by their flags."""
    settings, schedule = task.settings, task.schedule
    output, animation = outputs["output_image"], outputs.get("animation")
    layer_weights = {}
    # Without weighting all are 1: to draw a redrawn objective only to say so would take seconds.
    if task.descent.task.weighting != "none" or not task.descent.is_redrawn:
        objective, source = stages[-1].make_objective(), task.descent.source
        if isinstance(objective, Redrawn):
            source = objective.extractor_at(0)
        layer_weights = state_layer_weights(source, objective_at(objective, 0))
    for flag, path in outputs.items():
        runs.prepare_folder(path.parent, flag=flag)
        if path.is_dir():
            raise UserError(f"{path} is a folder; name a picture in it with --{flag}.")
    metadata = {**_describe(task), **runs.describe_machine()}
    decisive = {**metadata, "settings": list_values(settings, *_EXCLUDED_FIELDS)}
    # A job may be moved to other cores, and goes on all the same.
    del decisive["cores"], decisive["num_devices"]
    place = runs.checkpoint_folder(folder, decisive)
    frames = place / "frames"
    write = functools.partial(save_image, quality=settings.quality, bits=settings.bits)

    def save(step: int, image: Image) -> None:
        image = task.finish(image)
        if settings.save_every:
            write(output.with_stem(f"{output.stem}_{step:05}"), image)
        if animation:
            keep_frame(frames, step, image)

    save_every = settings.save_every
    if animation:
        save_every = save_every or choose_interval(schedule.num_steps)
        keep_frame(frames, 0, task.finish(task.start))
    preview = Preview(place, schedule.num_steps, task.finish) if settings.preview else None
    run = runs.descend(
        stages,
        task.start,
        folder=folder,
        metadata=decisive,
        solver=solver,
        print_every=settings.print_every,
        save_every=save_every,
        show=save,
        preview=preview,
        label=label,
    )
    image = task.finish(run.image)
    write(output, image)
    if animation:
        write_animation(animation, frames, image, quality=settings.quality)
    messages = [text for picture in task.pictures.values() for text in picture.metadata["warnings"]]
    failed = int(run.trace.failed.sum())
    if failed:
        messages.append(
            f"{failed} of {schedule.num_steps} steps made no progress; the picture is where the"
            " last good one led."
        )
        warnings.warn(messages[-1], stacklevel=2)
    record = {
        **metadata,
        "layer_weights": layer_weights,
        "measures": task.measure(image),
        "final_loss": float(run.trace.loss[-1]),
        "evaluations": int(run.trace.evaluations.sum()),
        "failed_steps": failed,
        "warnings": messages,
        "seconds": round(run.seconds, 3),
        "sessions": run.sessions,
        "finished": time.strftime("%Y-%m-%dT%H:%M:%S%z"),
        "losses": [float(f"{loss:.6g}") for loss in run.trace.loss],
    }
    runs.write_record(folder / "run.json", record)
    runs.delete_checkpoint(folder, decisive)
    written = [*outputs.values(), folder / "run.json"]
    print(f"{task.name}: wrote {', '.join(map(str, written))}")
    report_leftovers(task.name, folder)
