"""Settings of the three tasks, and the scales that they ask for."""

import dataclasses
from collections.abc import Sequence

from randviz.commands.inputs import (
    LARGEST_SIDE,
    PictureSettings,
    ReductionSettings,
    SeedSettings,
    StepSettings,
)
from randviz.commands.network_choice import NetworkSettings
from randviz.descent.descent import SOLVERS
from randviz.descent.lbfgs import MEMORY
from randviz.descent.schedule import Schedule, plan_schedule, share_steps
from randviz.host.settings import list_fields, setting
from randviz.objectives.building import WEIGHTINGS
from randviz.objectives.statistics.catalog import STATISTICS
from randviz.types import UserError


@dataclasses.dataclass(frozen=True)
class DescentSettings(NetworkSettings, PictureSettings, StepSettings, ReductionSettings):
    """Settings that every task has."""

    output_image: str = setting(
        "",
        "Path of the result, if not out.png in --out_dir. The format follows from its end: .png,"
        " .jpg, .webp, .tif or .bmp.",
    )
    quality: int = setting(95, "Of JPEG and WebP files.", lower_bound=1, upper_bound=100, rare=True)
    bits: int = setting(
        8,
        "Of a channel, 8 or 16; 16 in PNG and TIFF files only.",
        lower_bound=8,
        upper_bound=16,
        rare=True,
    )
    animation: str = setting(
        "",
        "Path of an animation of the run, .webp or .gif. It has a frame every --save_every steps,"
        " or about forty in all.",
    )
    solver: str = setting(
        "auto",
        "The method of descent: L-BFGS of jaxopt or optax; Adam; averaged_adam, whose rate decays"
        " and whose last iterates are averaged; auto is jaxopt, or averaged_adam with --redraw.",
        choices=("auto", *SOLVERS),
        rare=True,
    )
    memory: int = setting(
        MEMORY, "Steps that L-BFGS remembers.", lower_bound=1, upper_bound=1000, rare=True
    )
    redraw: bool = setting(
        False,
        "Draws what is random anew at each step: the weights of a random network, the directions"
        " and thresholds of the statistic.",
        rare=True,
    )
    min_size: int = setting(
        0,
        "Longest side in pixels of the first of several scales, coarse to fine; 0 for a single"
        " scale. Each size is about √2 of the one before, unless --num_scales says otherwise.",
        lower_bound=0,
        upper_bound=LARGEST_SIDE,
        rare=True,
    )
    num_scales: int = setting(
        0,
        "How many scales, the last at --image_size; 0 for as many as fit.",
        lower_bound=0,
        rare=True,
    )
    scale_sizes: tuple[str, ...] = setting(
        (),
        "The longest sides themselves, growing, with commas between, in place of --min_size and"
        " --num_scales; the last must be the result's.",
        rare=True,
    )
    scale_steps: tuple[str, ...] = setting(
        (),
        "Steps at each scale, with commas between; by default --num_steps are divided.",
        rare=True,
    )
    init: str = setting(
        "noise",
        "Where the descent starts: noise, or --init_image.",
        choices=("noise", "image"),
        rare=True,
    )
    init_image: str = setting("", "A path or sample to start from, with --init=image.", rare=True)
    print_every: int = setting(
        0,
        "Steps between two lines of progress; 0 for one every ten seconds.",
        lower_bound=0,
        rare=True,
    )
    save_every: int = setting(
        0,
        "Steps between two intermediate pictures, out_00100.png; 0 for none.",
        lower_bound=0,
        rare=True,
    )
    watch: bool = setting(
        False, "Shows the picture forming on a page. The page is of this machine only; see studio."
    )
    preview: bool = setting(
        False,
        "Keeps the picture on the way and the loss so far beside the saved state, for a page that"
        " watches the run; --watch and randviz studio do.",
        rare=True,
    )


@dataclasses.dataclass(frozen=True)
class MethodSettings(DescentSettings):
    """Settings that texture and style have."""

    method: str = setting(
        "filters",
        "How: filters, or paper, which takes a --network. filters compares means of random filters'"
        " responses, drawn anew at each step, coarse to fine; paper the Gram matrices of one"
        " network, and has all flags about networks, layers, statistics and solvers.",
        choices=("filters", "paper"),
    )
    num_steps: int = setting(
        0,
        "Steps in all; 0 for the method's own number. That is 500 with --method=paper (the paper"
        " takes 2000), and with filters grows with the number of scales.",
        lower_bound=0,
        upper_bound=10**6,
    )
    statistic: str = setting(
        "gram",
        "What of each layer's features is compared, the content's apart.",
        choices=tuple(STATISTICS),
        rare=True,
    )
    weighting: str = setting(
        "gradient",
        "How layers are weighted: by the reciprocal gradient (the paper's ω and μ), or not at all.",
        choices=WEIGHTINGS,
        rare=True,
    )


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
        schedule = Schedule(sizes, share_steps(num_steps, [1 / size for size in sizes]))
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
