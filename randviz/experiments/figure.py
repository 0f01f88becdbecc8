"""What the figures share: settings, networks, pictures, and a descent for each cell."""

import dataclasses
import functools
import math
import pathlib
from collections.abc import Callable, Sequence

import numpy as np

from randviz.commands.inputs import LARGEST_SIDE, Picture, check_picture, load_picture, make_keys
from randviz.commands.network_choice import Choice, NetworkSettings, choose_both
from randviz.descent.solver import Objective
from randviz.experiments.command import EXCLUDED_FIELDS, Descent
from randviz.host.images import load_image, save_image
from randviz.host.quality import compare_images
from randviz.host.records import Row
from randviz.host.runs import Stage, delete_checkpoint, descend, prepare_folder
from randviz.host.settings import list_values, setting
from randviz.networks.gaussian import sample_noise_image
from randviz.tasks.inversion import INPUT_OFFSET, NOISE_STD, Inversion
from randviz.types import Image, Params

TRAINED = "trained"
LAST_LAYER = "conv5_4"  # weights are drawn once, for the deepest layer that a figure asks for


@dataclasses.dataclass(frozen=True)
class FigureSettings(NetworkSettings):
    """Settings that every figure has."""

    network: str = setting(
        "ranvgg",
        "The untrained network: ranvgg, another recipe, or an architecture for purely random"
        " weights.",
    )
    image_size: int = setting(
        128, "Longest side of all pictures in pixels.", lower_bound=1, upper_bound=LARGEST_SIDE
    )
    square: bool = setting(
        True, "Takes the largest square in the middle of each picture: one program serves all."
    )
    num_steps: int = setting(
        200, "Steps of each descent; the paper takes 2000.", lower_bound=1, upper_bound=10**6
    )


@functools.cache
def choose_networks(settings: FigureSettings) -> dict[str, Choice]:
    """The untrained network and, if its file is given, the trained one, by label."""
    return choose_both(settings)


def list_labels(settings: FigureSettings) -> list[str]:
    """The label of the untrained network, and "trained", run or not."""
    return [next(iter(choose_networks(settings))), TRAINED]


@functools.lru_cache(maxsize=2)
def sample_params(settings: FigureSettings, label: str) -> Params:
    """The weights of one of the networks, down to the last layer of any figure."""
    return choose_networks(settings)[label].sample(LAST_LAYER)


@functools.cache
def load(settings: FigureSettings, flag: str, source: str) -> Picture:
    """A picture as the figure's settings ask for it."""
    return load_picture(flag, source, settings.image_size, square=settings.square)


def name_of(source: str) -> str:
    """A short name of a picture."""
    return pathlib.PurePath(source).stem


def picture_path(folder: str | pathlib.Path, cell: Row, suffix: str = "") -> pathlib.Path:
    """The file that a cell's picture is saved under."""
    words = "_".join(name_of(str(value)) for value in cell.values())
    return pathlib.Path(folder, "pictures", f"{words}{suffix}.png")


def load_result(folder: str | pathlib.Path, cell: Row, suffix: str = "") -> Image | None:
    """A cell's picture, or None if it was not kept."""
    path = picture_path(folder, cell, suffix)
    return load_image(path) if path.exists() else None


def descend_cell(
    settings: FigureSettings,
    cell: Row,
    make_objective: Callable[[], Objective],
    start: Image,
    *,
    num_steps: int | None = None,
    save_every: int = 0,
    show: Callable[[int, Image], None] | None = None,
) -> tuple[Image, Row]:
    """Descends for a cell, goes on where it was stopped, and saves the picture.

    Args:
      settings: of the figure.
      cell: names the descent.
      make_objective: makes it, image → scalar.
      start: [H, W, 3].
      num_steps: if not the settings'.
      save_every, show: as in `runs.descend`.

    Returns:
      [H, W, 3], not clipped, and final_loss, evaluations and seconds for the row.
    """
    folder = prepare_folder(settings.out_dir)
    metadata = (list_values(settings, *EXCLUDED_FIELDS), cell)
    run = descend(
        [Stage(make_objective, start.shape[:2], num_steps or settings.num_steps)],
        start,
        folder=folder,
        metadata=metadata,
        save_every=save_every,
        show=show,
        label="  descent",
    )
    save_image(picture_path(folder, cell), run.image)
    delete_checkpoint(folder, metadata)
    return run.image, {
        "final_loss": float(run.trace.loss[-1]),
        "evaluations": int(run.trace.evaluations.sum()),
        "seconds": round(run.seconds, 2),
    }


def draw_start(settings: FigureSettings, image: Image, std: float) -> Image:
    """The noise that all descents of a figure on an image of this size start from."""
    return sample_noise_image(make_keys(settings.seed)[1], image.shape[:2], std=std)


def make_inversion(
    settings: FigureSettings, source: str, label: str, layer: str
) -> tuple[Callable[[], Objective], Image]:
    """Makes the inversion of a picture through one of the networks, and its start."""
    picture = load(settings, "image", source)
    network = choose_networks(settings)[label].network.with_offset(INPUT_OFFSET)
    check_picture(picture, network, layer)
    params = sample_params(settings, label)
    noise = draw_start(settings, picture.image, NOISE_STD)
    make = functools.partial(Inversion(layer).of, network.bind(params), picture.image)
    return make, noise


def largest_inversion(
    settings: FigureSettings, source: str, layer: str, num_descents: int
) -> Descent:
    """The deepest inversion of a figure, for `run_experiment`."""
    make, start = make_inversion(settings, source, list_labels(settings)[0], layer)
    return Descent(make, start, num_descents * settings.num_steps)


def measure_inversion(settings: FigureSettings, cell: Row) -> Row:
    """Rebuilds the cell's picture from the cell's layer and measures how near it comes."""
    make, start = make_inversion(settings, cell["image"], cell["weights"], cell["layer"])
    image, metadata = descend_cell(settings, cell, make, start)
    return {**measure_picture(settings, cell, image), **metadata}


def measure_picture(settings: FigureSettings, cell: Row, image: Image) -> Row:
    """The distances of a reconstruction from the cell's picture, and whose weights it came of."""
    measures = compare_images(image, load(settings, "image", cell["image"]).image)
    metadata = {
        name: value if math.isfinite(value) else None  # JSON has no infinity
        for name, value in measures.items()
    }
    return {**metadata, **identify_weights(settings, cell["weights"])}


def identify_weights(settings: FigureSettings, label: str) -> Row:
    """Which file trained weights came from, nothing for others."""
    if label != TRAINED:
        return {}
    return {"weights_sha256": choose_networks(settings)[label].metadata["sha256"]}


def find_row(rows: Sequence[Row], **cell: object) -> Row | None:
    """The row of a cell, None if there is none."""
    return next((row for row in rows if row["cell"] == cell), None)


def log_ratio(pairs: Sequence[tuple[float, float]]) -> np.ndarray:
    """log(a / b) of pairs [n, 2], the effect of most claims: 0 for equal ones."""
    return np.log(np.reshape(pairs, (-1, 2)) + 1e-9) @ np.array([1.0, -1.0])
