"""Builds ranVGG: layer by layer, the draw of weights that reconstructs a picture best is kept.

The network comes out as a recipe, a line of text that every command takes.

Usage: randviz select --reference_image=PICTURE [--flag=value ...]

Examples:
  randviz select --reference_image=astronaut --image_size=64 --last_layer=conv3_1 --out_dir=out/net
  randviz invert --network=out/net/recipe.txt --image=chelsea --layer=conv3_1
"""

import dataclasses
import functools
import pathlib
import sys
import time
from collections.abc import Sequence
from typing import Any

import jax
import numpy as np

from randviz.commands.inputs import Picture, check_picture, load_picture, make_keys
from randviz.commands.network_choice import choose_untrained
from randviz.commands.trials import StudySettings, estimate_random_inversion
from randviz.host.images import write_text
from randviz.host.progress import Progress
from randviz.host.quality import compare_images
from randviz.host.records import Record, Trial
from randviz.host.settings import setting
from randviz.host.study import Study, Workload, run_module
from randviz.networks.catalog import NETWORKS
from randviz.networks.network import Network
from randviz.networks.weights import random_weights, weight_shapes
from randviz.search.recipe import Recipe, format_recipe
from randviz.search.selection import LayerChoice, select_layer
from randviz.tasks.inversion import INPUT_OFFSET
from randviz.types import Image, Params, UserError


@dataclasses.dataclass(frozen=True)
class Settings(StudySettings):
    """Settings of `randviz select`."""

    reference_image: str = setting("", "The picture reconstructed: a file, or a sample.")
    num_candidates: int = setting(5, "Draws tried in each layer.", lower_bound=1, upper_bound=10**4)
    last_layer: str = setting(
        "", "The deepest layer selected; the last if not given. Fully connected ones apart."
    )
    image_size: int = 64
    racing: bool = setting(
        False, "Drops the worse half of the draws on the way; saves half.", rare=True
    )
    batch_size: int = setting(
        1,
        "Draws that descend together: 1 on a CPU, more on a GPU.",
        lower_bound=1,
        rare=True,
    )
    out_dir: str = "out/select"


@functools.cache
def _load_reference(settings: Settings) -> Picture:
    return load_picture(
        "reference_image", settings.reference_image, settings.image_size, square=settings.square
    )


def _choose_architecture(settings: Settings) -> Network:
    """The network with the input as inversion sees it; the recipe leaves the offset open."""
    return choose_untrained(settings).network.with_offset(INPUT_OFFSET)


def list_trials(settings: Settings) -> list[Trial]:
    """Each layer with weights, in forward order.

    Raises:
      UserError: if there is no reference, it does not reach the last layer or is nothing but the
        input offset, or the network has weights already.
    """
    picture = _load_reference(settings)
    if settings.network not in NETWORKS:
        raise UserError(
            "a network is selected from an architecture that a recipe can name; with --network="
            f" name {', '.join(NETWORKS)}."
        )
    if settings.trained_weights:
        raise UserError("random draws are selected, not trained ones; leave out --trained_weights.")
    if settings.activation != "auto":
        raise UserError("a recipe has no place for --activation; leave that flag out.")
    network = _choose_architecture(settings)
    last_layer = settings.last_layer or network.last_convolutional()
    check_picture(picture, network, last_layer)
    return [{"layer": layer} for layer in weight_shapes(network, last_layer)]


def describe(settings: Settings) -> dict[str, Any]:
    """The reference's pixels."""
    return {"reference": _load_reference(settings).metadata["sha256"]}


def workload(settings: Settings) -> Workload:
    """The reconstructions from the deepest layer."""
    network, image = _choose_architecture(settings), _load_reference(settings).image
    layers = [trial["layer"] for trial in list_trials(settings)]
    num_steps = len(layers) * settings.num_candidates * settings.num_steps
    num_together = min(settings.batch_size, settings.num_candidates)
    return estimate_random_inversion(settings, network, layers[-1], image, num_steps, num_together)


def measure(settings: Settings, trials: Sequence[Trial], records: Sequence[Record]) -> list[Record]:
    """Selects one layer, those before it drawn as their records say."""
    began = time.monotonic()
    (trial,) = trials
    network, image = _choose_architecture(settings), _load_reference(settings).image
    weights_key, _ = make_keys(settings.seed)
    params = {}
    if records:
        params = random_weights(
            weights_key,
            network,
            scale=settings.scale,
            bias_scale=settings.bias_scale,
            last_layer=records[-1]["trial"]["layer"],
            draws=tuple(record["draw"] for record in records),
        )
    choice = _try_candidates(settings, network, params, image, trial["layer"])
    if not np.isfinite(choice.losses).any():
        raise UserError(
            f"no candidate of layer {trial['layer']!r} has a finite loss; take a smaller --scale or"
            " --bias_scale, or another --reference_image."
        )
    return [
        {
            "draw": int(choice.draw),
            "losses": np.asarray(choice.losses).tolist(),
            "raw_losses": np.asarray(choice.raw_losses).tolist(),
            "distances": [compare_images(found, image)["distance"] for found in choice.images],
            "num_steps": np.asarray(choice.num_steps).tolist(),
            "seconds": round(time.monotonic() - began, 2),
        }
    ]


def _try_candidates(
    settings: Settings, network: Network, params: Params, image: Image, layer: str
) -> LayerChoice:
    """All draws of a layer; one after another as long as none is waiting for others."""
    select = functools.partial(
        select_layer,
        make_keys(settings.seed)[0],
        network,
        params,
        image,
        layer=layer,
        num_steps=settings.num_steps,
        scale=settings.scale,
        bias_scale=settings.bias_scale,
    )
    count = settings.num_candidates
    if settings.racing or settings.batch_size > 1:
        return select(num_candidates=count, batch_size=settings.batch_size, racing=settings.racing)
    choices = []
    with Progress(layer, count, unit="candidate") as progress:
        for number in range(count):
            choices.append(select(num_candidates=1, first_draw=number))
            progress.report(number + 1, f"loss {float(choices[-1].losses[0]):.4g}")
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(c[1:] for c in choices))
    # As `select_layer` does, a loss that is not a number comes last.
    return LayerChoice(np.lexsort((joined[0],))[0], *joined)


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Writes and prints the recipe."""
    network = choose_untrained(settings).network
    recipe = Recipe(
        network=network.name,
        seed=settings.seed,
        draws=tuple(record["draw"] for record in records),
        last_layer=records[-1]["trial"]["layer"],
        scale=settings.scale,
        bias_scale=settings.bias_scale,
        pooling=network.pooling,
        padding=network.padding_mode,
        input_offset=network.input_offset,
    ).signed(make_keys(settings.seed)[0])
    write_text(folder / "recipe.txt", format_recipe(recipe) + "\n")
    print(format_recipe(recipe))


STUDY = Study("select", list_trials, measure, plot, workload=workload, describe=describe)
main = functools.partial(run_module, sys.modules[__name__])
