"""What the three task commands share: their settings, their start, and the run itself."""

import dataclasses
import functools
import glob
import math
import pathlib
import time
import warnings
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import numpy as np
from jax.sharding import Mesh

from randviz.commands.inputs import (
    LARGEST_SIDE,
    Picture,
    PictureSettings,
    SeedSettings,
    StepSettings,
    check_output,
    load_picture,
)
from randviz.commands.network_choice import Choice, NetworkSettings, describe_network
from randviz.descent.descent import SOLVERS, find_solver
from randviz.descent.lbfgs import MEMORY
from randviz.descent.schedule import Schedule, divide_steps, plan_schedule, resize, scale_shape
from randviz.descent.solver import Solver
from randviz.host import runs
from randviz.host.animation import check_animation, choose_interval, keep_frame, write_animation
from randviz.host.estimate import check_resources
from randviz.host.folders import lock_folder, report_leftovers
from randviz.host.images import check_suffix, save_image
from randviz.host.settings import list_fields, list_values, setting
from randviz.networks.extractor import Extractor
from randviz.networks.gaussian import sample_noise_image
from randviz.networks.random_network import RandomNetwork
from randviz.objectives.building import WEIGHTINGS
from randviz.objectives.layer_weights import GRADIENT_REDUCTIONS
from randviz.objectives.objective import Objective, Sampler, Term, objective_at
from randviz.objectives.statistics.catalog import STATISTICS
from randviz.tasks.painting import FILTERS, LAYERS, Plan
from randviz.tasks.task import Descent
from randviz.types import Image, Key, UserError


@dataclasses.dataclass(frozen=True)
class DescentSettings(NetworkSettings, PictureSettings, StepSettings):
    """Settings that every task has."""

    output_image: str = setting(
        "",
        "Path of the picture, .png, .jpg, .webp, .tif or .bmp, if not out.png in --out_dir.",
    )
    quality: int = setting(95, "Of JPEG and WebP files.", lower_bound=1, upper_bound=100)
    bits: int = setting(
        8, "Of a channel, 8 or 16; 16 in PNG and TIFF files only.", lower_bound=8, upper_bound=16
    )
    animation: str = setting(
        "",
        "Path of an animation of the run, .webp or .gif: a frame every --save_every steps, or about"
        " forty in all.",
    )
    gradient_reduction: str = setting(
        "mean_abs",
        "How the absolute mean gradient in the layer weights is computed: mean |g| or |mean g|.",
        choices=GRADIENT_REDUCTIONS,
    )
    solver: str = setting(
        "auto",
        "The method of descent: L-BFGS of jaxopt or optax; Adam; averaged_adam, whose rate decays"
        " and whose last iterates are averaged; auto is jaxopt, or averaged_adam with --redraw.",
        choices=("auto", *SOLVERS),
    )
    memory: int = setting(MEMORY, "Steps that L-BFGS remembers.", lower_bound=1, upper_bound=1000)
    redraw: bool = setting(
        False,
        "Draws what is random anew at each step: the weights of a random network, the directions"
        " and thresholds of the statistic.",
    )
    min_size: int = setting(
        0,
        "Longest side in pixels of the first of several scales, coarse to fine; 0 for a single"
        " scale. Each size is about √2 of the one before, unless --num_scales says otherwise.",
        lower_bound=0,
        upper_bound=LARGEST_SIDE,
    )
    num_scales: int = setting(
        0, "How many scales, the last at --image_size; 0 for as many as fit.", lower_bound=0
    )
    scale_sizes: tuple[str, ...] = setting(
        (),
        "The longest sides themselves, growing, with commas between, in place of --min_size and"
        " --num_scales; the last must be the result's.",
    )
    scale_steps: tuple[str, ...] = setting(
        (), "Steps at each scale, with commas between; by default --num_steps are divided."
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


@dataclasses.dataclass(frozen=True)
class MethodSettings(DescentSettings):
    """Settings that texture and style have."""

    method: str = setting(
        "filters",
        "filters: means of random filters' responses, drawn anew at each step, coarse to fine;"
        " paper: one network, whose Gram matrices are compared, and all flags about networks,"
        " layers, statistics and solvers.",
        choices=("filters", "paper"),
    )
    num_steps: int = setting(
        0,
        "Steps of all scales together; 0 for the method's own: 500 with --method=paper (the paper"
        " takes 2000).",
        lower_bound=0,
        upper_bound=10**6,
    )
    statistic: str = setting(
        "gram",
        "What of each layer's features is compared, the content's apart.",
        choices=tuple(STATISTICS),
    )
    weighting: str = setting(
        "gradient",
        "How layers are weighted: by the reciprocal gradient (the paper's ω and μ), or not at all.",
        choices=WEIGHTINGS,
    )


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


def check_method(settings: MethodSettings, *names: str) -> None:
    """Checks that no flag of the paper's method is given to the other.

    Args:
      settings: of the command.
      names: of the command's own flags that belong to the paper's method.

    Raises:
      UserError: naming the flag, if one is.
    """
    if settings.method == "paper":
        return
    shared = {field.name for field in dataclasses.fields(SeedSettings)} | {"precision"}
    names += tuple(f.name for f in dataclasses.fields(NetworkSettings) if f.name not in shared)
    names += ("gradient_reduction", "solver", "memory", "redraw", "statistic", "weighting")
    for field in list_fields(type(settings)):
        if field.name in names and getattr(settings, field.name) != field.default:
            raise UserError(
                f"--{field.name} belongs to the paper's method; add --method=paper, or leave it"
                " out."
            )


def describe_choice(choice: Choice) -> dict[str, Any]:
    """What a record says of a network and its weights."""
    return {**describe_network(choice.network), **choice.metadata}


def make_source(settings: DescentSettings, choice: Choice, last_layer: str) -> Extractor | Sampler:
    """The extractor that the settings name, or what it is drawn from anew at each step.

    Args:
      settings: of the command.
      choice: whose network it is.
      last_layer: the deepest layer wanted.

    Raises:
      UserError: as `Choice.sample`.
    """
    if settings.redraw and choice.label == "random":
        return RandomNetwork(
            scale=settings.scale,
            bias_scale=settings.bias_scale,
            network=choice.network,
            last_layer=last_layer,
        )
    return choice.network.bind(choice.sample(last_layer))


def make_schedule(settings: DescentSettings, longest: int) -> Schedule:
    """The scales that the settings ask for.

    Args:
      settings: of the command.
      longest: longest side of the result, in pixels.

    Returns:
      Sizes and steps; one size if no more are asked for.

    Raises:
      UserError: for sizes or steps that are no whole numbers or do not fit together.
    """
    num_steps = settings.num_steps or StepSettings.num_steps
    if settings.scale_sizes:
        if settings.min_size or settings.num_scales:
            raise UserError("--scale_sizes takes the place of --min_size and --num_scales.")
        sizes = read_whole_numbers("scale_sizes", settings.scale_sizes)
        if sizes[-1] != longest:
            raise UserError(
                f"--scale_sizes ends at {sizes[-1]} and the result's longest side is {longest}"
                " pixels; end there, or change --image_size."
            )
        schedule = Schedule(sizes, divide_steps(num_steps, sizes))
    else:
        schedule = plan_schedule(
            longest,
            num_steps,
            min_size=settings.min_size or None,
            num_scales=settings.num_scales or None,
        )
    if settings.scale_steps:
        schedule = Schedule(schedule.sizes, read_whole_numbers("scale_steps", settings.scale_steps))
    return schedule


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


def check_first_sizes(pictures: Sequence[Picture], plan: Plan, flags: str) -> None:
    """Checks that no source is smaller than the filters at the first scale.

    Args:
      pictures: the sources.
      plan: what is painted of them.
      flags: that would make them larger, for the message.

    Raises:
      UserError: naming the picture and the size of its file, if one is.
    """
    extractor = jax.eval_shape(FILTERS.sample, plan.descent.key)  # its shapes are all that counts
    for picture in pictures:
        shape = scale_shape(picture.image.shape[:2], plan.schedule.sizes[0] / max(plan.canvas))
        try:
            extractor.check_image((*shape, 3), LAYERS[-1])
        except UserError as error:
            height, width = picture.file_size
            raise UserError(
                f"{picture.metadata['source']} ({width}×{height} pixels): at the first scale,"
                f" {error.args[0].rstrip('.')}, or give a larger {flags}."
            ) from error


def plan_task(
    name: str, settings: DescentSettings, plan: Plan, pictures: Mapping[str, Picture]
) -> Task:
    """Makes a task of what random filters are to paint.

    Args:
      name: of the command.
      settings: of the command.
      plan: what is painted.
      pictures: {flag: Picture}, everything read from outside.
    """
    return Task(
        name=name,
        settings=settings,
        # How many devices share the work is no part of what is computed.
        network={
            "name": "random filters",
            **dataclasses.asdict(plan.descent.source.replace(mesh=None)),
        },
        descent=plan.descent,
        shape=plan.canvas,
        schedule=plan.schedule,
        start=plan.start,
        pictures=pictures,
        finish=plan.crop,
    )


def read_whole_numbers(flag: str, values: Sequence[str]) -> tuple[int, ...]:
    """Reads a list of whole numbers, at least 1 each.

    Raises:
      UserError: if one is not.
    """
    try:
        numbers = tuple(int(value) for value in values)
    except ValueError:
        numbers = (0,)
    if min(numbers) < 1:
        raise UserError(f"--{flag}={','.join(values)} must be whole numbers, at least 1 each.")
    return numbers


def make_start(
    settings: DescentSettings,
    key: Key,
    shape: tuple[int, ...],
    noise_std: float,
    content: Image | None = None,
) -> tuple[Image, dict[str, Picture]]:
    """The image that the settings start from.

    Args:
      settings: of the command.
      key: of the noise.
      shape: (H, W) of the result.
      noise_std: standard deviation of the noise, image in [0, 1].
      content: [H, W, 3], the start with --init=content.

    Returns:
      [h, w, 3], noise in the size of the first scale, others in that of the result; and
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
        first = make_schedule(settings, max(shape)).shapes(shape)[0]
        return sample_noise_image(key, first, std=noise_std), {}
    picture = load_picture("init_image", settings.init_image, max(shape))
    return resize(picture.image, shape), {"init_image": picture}


def state_layer_weights(
    source: Extractor | Sampler, objective: Objective
) -> dict[str, dict[str, float]]:
    """ω and μ as the paper states them, at the scale of the weights as drawn.

    Args:
      source: the extractor before it was prepared.
      objective: made of it.

    Returns:
      {part: {layer: value}}; Python floats, which do not overflow where float32 does. A statistic
      that is not homogeneous has no other scale, and is stated as it is.

    Raises:
      UserError: if a layer's weight is not finite, because the picture does not reach the layer, or
        not positive, because the features are beyond float32.
    """
    exponents = {}
    if isinstance(source, Extractor):
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
                    f"layer {layer!r} does not answer to the picture at all (is it black?); take"
                    " another picture, layer or --input_offset."
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


def run_task(task: Task) -> None:
    """Runs a descent, saves its picture and writes its record; or says what it would take.

    Raises:
      UserError: if it does not fit into memory, the output folder cannot be written or is in use by
        another process, or the loss is not finite.
      runs.Stopped: if the user stopped it.
    """
    settings = task.settings
    output = pathlib.Path(settings.output_image or pathlib.Path(settings.out_dir, "out.png"))
    output = output.expanduser()
    check_suffix(output, bits=settings.bits)
    outputs = {"output_image": output}
    if settings.animation:
        outputs["animation"] = pathlib.Path(settings.animation).expanduser()
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
        _descend(task, stages, solver, outputs, folder)


def _descend(
    task: Task,
    stages: Sequence[runs.Stage],
    solver: Solver,
    outputs: Mapping[str, pathlib.Path],
    folder: pathlib.Path,
) -> None:
    """Runs a descent in its folder; the outputs are named by their flags."""
    settings, schedule = task.settings, task.schedule
    output, animation = outputs["output_image"], outputs.get("animation")
    layer_weights = {}
    # Without weighting all are 1; to draw a redrawn objective only to say so would take seconds.
    if task.descent.task.weighting != "none":
        layer_weights = state_layer_weights(
            task.descent.source, objective_at(stages[-1].make_objective(), 0)
        )
    for flag, path in outputs.items():
        runs.prepare_folder(path.parent, flag=flag)
        if path.is_dir():
            raise UserError(f"{path} is a folder; name a picture in it with --{flag}.")
    excluded_fields = ("out_dir", "output_image", "quality", "bits", "animation")
    excluded_fields += ("print_every", "save_every")
    metadata = {
        "command": task.name,
        "settings": list_values(settings),
        "schedule": {"sizes": schedule.sizes, "steps": schedule.steps},
        "network": dict(task.network),
        "pictures": {flag: picture.metadata for flag, picture in task.pictures.items()},
        **runs.describe_machine(),
    }
    decisive = {**metadata, "settings": list_values(settings, *excluded_fields)}
    frames = runs.checkpoint_folder(folder, decisive) / "frames"
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
    run = runs.descend(
        stages,
        task.start,
        folder=folder,
        metadata=decisive,
        solver=solver,
        print_every=settings.print_every,
        save_every=save_every,
        show=save,
        label=task.name,
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
