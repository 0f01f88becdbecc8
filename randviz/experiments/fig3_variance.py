"""Figure 3: how much reconstructions vary, over many networks and many starting noises.

Claim: ranVGG, whose layers are selected, varies less and comes nearer than a purely random VGG, and
both vary less and come nearer than the trained VGG.
Expect: box.png, a box for each kind and layer, and the claims with their intervals. Sample n is
network n with starting noise n; trained weights are always the same, so only the noise varies. At
laptop scale about half an hour on two cores, a third of it the selection of the ranVGGs.

Example:
  python -m randviz.experiments.fig3_variance --num_samples=8 --image_size=32 --num_steps=50
"""

import dataclasses
import functools
import pathlib
import sys
from collections.abc import Sequence

import jax
import numpy as np

from randviz.commands.inputs import LARGEST_SIDE, load_picture, make_keys
from randviz.experiments.claims import Claim, judge, pair_rows
from randviz.experiments.command import Descent, run_module
from randviz.experiments.figure import (
    TRAINED,
    FigureSettings,
    choose_networks,
    descend_cell,
    load,
    log_ratio,
    make_inversion,
    measure_picture,
    name_of,
    sample_params,
)
from randviz.host.charts import format_table, plot_boxes
from randviz.host.images import replace_atomically
from randviz.host.records import Row
from randviz.host.settings import setting
from randviz.networks.catalog import NETWORKS
from randviz.networks.gaussian import sample_noise_image
from randviz.networks.weights import random_weights, weight_shapes
from randviz.search.population import summarize
from randviz.search.selection import select_weights
from randviz.tasks.inversion import INPUT_OFFSET, NOISE_STD, Inversion
from randviz.types import Params, UserError

KINDS = ("random", "ranvgg", TRAINED)


@dataclasses.dataclass(frozen=True)
class Settings(FigureSettings):
    """Settings of figure 3."""

    network: str = setting("vgg19", "The architecture whose weights are drawn.")
    image: str = setting("chelsea", "The picture rebuilt: a path or a sample.")
    layers: tuple[str, ...] = setting(("pool3", "pool5"), "The layers inverted, one at a time.")
    num_samples: int = setting(32, "Networks and noises of each kind.", lower_bound=1)
    reference_image: str = setting("astronaut", "The picture that ranVGG is selected on.")
    reference_size: int = setting(
        64, "Its longest side in pixels.", lower_bound=1, upper_bound=LARGEST_SIDE
    )
    num_candidates: int = setting(5, "Draws tried in each layer of ranVGG.", lower_bound=1)
    selection_steps: int = setting(200, "Steps of each reconstruction there.", lower_bound=1)
    image_size: int = setting(
        64, "Longest side of the picture in pixels.", lower_bound=1, upper_bound=LARGEST_SIDE
    )
    out_dir: str = setting("out/fig3_variance", "Folder for rows, plot and claims.")


def _list_layers(settings: Settings) -> tuple[str, ...]:
    return NETWORKS[settings.network].canonical_names(settings.layers)


def cells(settings: Settings) -> list[Row]:
    """Each sample of each kind with each layer: sample by sample, kind by kind.

    Raises:
      UserError: if the network is no architecture.
    """
    if settings.network not in NETWORKS:
        raise UserError(
            f"--network={settings.network[:60]} is one network, and many are compared here; name an"
            f" architecture ({', '.join(NETWORKS)})."
        )
    kinds = KINDS if settings.trained_weights else KINDS[:2]
    return [
        {"image": settings.image, "weights": kind, "layer": layer, "sample": sample}
        for kind in kinds
        for sample in range(settings.num_samples)
        for layer in _list_layers(settings)
    ]


@functools.lru_cache(maxsize=1)
def make_params(settings: Settings, kind: str, sample: int) -> Params:
    """The weights of one sample, down to the deepest layer inverted."""
    if kind == TRAINED:
        return sample_params(settings, TRAINED)
    key = jax.random.fold_in(make_keys(settings.seed)[0], sample)
    network = choose_networks(settings)["random"].network.with_offset(INPUT_OFFSET)
    scales = {"scale": settings.scale, "bias_scale": settings.bias_scale}
    last_layer = _list_layers(settings)[-1]
    if kind == "random":
        return random_weights(key, network, last_layer=last_layer, **scales)
    reference = load_picture(
        "reference_image", settings.reference_image, settings.reference_size, square=True
    )
    return select_weights(
        key,
        network,
        reference.image,
        num_candidates=settings.num_candidates,
        num_steps=settings.selection_steps,
        last_layer=last_layer,
        **scales,
    ).params


def measure(settings: Settings, cell: Row) -> Row:
    """Rebuilds the picture through one sample's network from one sample's noise."""
    params = make_params(settings, cell["weights"], cell["sample"])
    label = TRAINED if cell["weights"] == TRAINED else "random"
    network = choose_networks(settings)[label].network.with_offset(INPUT_OFFSET)
    picture = load(settings, "image", cell["image"]).image
    make = functools.partial(Inversion(cell["layer"]).of, network.bind(params), picture)
    noise_key = jax.random.fold_in(make_keys(settings.seed)[1], cell["sample"])
    start = sample_noise_image(noise_key, picture.shape[:2], std=NOISE_STD)
    image, metadata = descend_cell(settings, cell, make, start)
    return {**measure_picture(settings, cell, image), **metadata}


def largest(settings: Settings) -> Descent:
    """The deepest inversion, as often as there are rows; the selections come on top."""
    todo = cells(settings)
    layers = _list_layers(settings)
    make, start = make_inversion(settings, settings.image, "random", layers[-1])
    num_steps = len(todo) * settings.num_steps
    # A ranVGG's descents are on a smaller picture, and half of them in shallow layers.
    share = (settings.reference_size / settings.image_size) ** 2 / 2
    depth = len(weight_shapes(NETWORKS[settings.network], layers[-1]))
    num_steps += int(
        settings.num_samples * depth * settings.num_candidates * settings.selection_steps * share
    )
    return Descent(make, start, num_steps)


def plot(settings: Settings, rows: list[Row], folder: pathlib.Path) -> None:
    """Draws the boxes and prints their table."""
    groups = summarize(
        [
            {
                **row,
                "kind": row["cell"]["weights"],
                "image": name_of(row["cell"]["image"]),
                "layer": row["cell"]["layer"],
                "network": row["cell"]["sample"],
                "noise": 0,
                "feature_error": None,
            }
            for row in rows
        ]
    )
    with replace_atomically(folder / "box.png") as temporary:
        plot_boxes(groups).savefig(temporary, dpi=120)
    print(format_table(groups))


def log_spread_ratio(pairs: np.ndarray) -> float:
    """log(standard deviation of the first column / of the second)."""
    spreads = np.std(pairs, axis=0, ddof=1)
    return float(np.log(spreads[0] / spreads[1]))


def judge_rows(settings: Settings, rows: list[Row]) -> list[Claim]:
    """What the rows say, layer by layer; a sample, network and noise together, is a unit."""
    del settings
    sentences = (
        ("ranvgg", "random", "ranVGG", "a purely random VGG"),
        ("random", TRAINED, "a purely random VGG", "the trained VGG"),
        ("ranvgg", TRAINED, "ranVGG", "the trained VGG"),
    )
    claims = []
    for layer in dict.fromkeys(row["cell"]["layer"] for row in rows):
        here = [row for row in rows if row["cell"]["layer"] == layer]
        for first, second, one, other in sentences:
            pairs = pair_rows(here, "weights", (first, second), measure=lambda row: row["distance"])
            shared = {"figure": "figure 3", "groups": (first, second), "below": 0.0}
            claims += [
                judge(
                    f"Reconstructions from {layer} come nearer through {one} than through {other}.",
                    log_ratio(pairs),
                    measure="median over samples of log(distance of the first / of the second)",
                    statistic=np.median,
                    **shared,
                ),
                judge(
                    f"Reconstructions from {layer} vary less through {one} than through {other}.",
                    pairs,
                    measure="log(standard deviation of the first's distances / of the second's)",
                    statistic=log_spread_ratio,
                    **shared,
                ),
            ]
    return claims


def main(argv: Sequence[str]) -> int:
    """Runs the experiment; returns its exit code."""
    return run_module(sys.modules[__name__], argv)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
