"""Builds ranVGG: layer by layer, the draw of weights that reconstructs a picture best is kept.

The network comes out as a recipe, a line of text that every command takes.

Examples:
  randviz select --reference_image=astronaut --image_size=64 --last_layer=conv3_1 --out_dir=out/net
  randviz invert --network=out/net/recipe.txt --image=chelsea --layer=conv3_1
"""

import dataclasses
import functools
import time
from collections.abc import Sequence

import jax
import numpy as np

from randviz.commands.inputs import LARGEST_SIDE, load_picture, make_keys
from randviz.commands.network_choice import NetworkSettings, choose_untrained
from randviz.host.estimate import check_resources
from randviz.host.images import replace_atomically
from randviz.host.quality import compare_images
from randviz.host.records import Row, Rows
from randviz.host.settings import list_values, run_command, setting
from randviz.networks.catalog import NETWORKS
from randviz.networks.gaussian import sample_noise_image
from randviz.networks.weights import random_weights, weight_shapes
from randviz.objectives.objective import Objective
from randviz.search.recipe import Recipe, format_recipe
from randviz.search.selection import LayerChoice, select_layer
from randviz.tasks.inversion import INPUT_OFFSET, NOISE_STD, Inversion
from randviz.types import UserError


@dataclasses.dataclass(frozen=True)
class Settings(NetworkSettings):
    """Settings of `randviz select`."""

    reference_image: str = setting("", "The picture reconstructed: a path, or a sample's name.")
    num_candidates: int = setting(5, "Draws tried in each layer.", lower_bound=1, upper_bound=10**4)
    num_steps: int = setting(200, "Steps of each reconstruction.", lower_bound=1, upper_bound=10**6)
    last_layer: str = setting("conv5_4", "The deepest layer selected.")
    image_size: int = setting(
        64, "Longest side in pixels of the reference.", lower_bound=1, upper_bound=LARGEST_SIDE
    )
    racing: bool = setting(False, "Drops the worse half of the draws on the way; saves half.")
    batch_size: int = setting(
        1, "Draws that descend together: 1 on a CPU, more on a GPU.", lower_bound=1
    )
    out_dir: str = setting("out/select", "Folder for the recipe and what it was chosen from.")


def run(settings: Settings) -> None:
    """Selects all layers, one row each, and writes the recipe."""
    picture = load_picture("reference_image", settings.reference_image, settings.image_size)
    if settings.network not in NETWORKS:
        raise UserError("a network is selected from an architecture; name one with --network=.")
    if settings.trained_weights:
        raise UserError("random draws are selected, not trained ones; leave out --trained_weights.")
    network = choose_untrained(settings).network
    # The selection inverts, so it sees the input as inversion does; the recipe leaves it open.
    inverted = network.with_offset(INPUT_OFFSET)
    inverted.check_image(picture.image.shape, settings.last_layer)
    layers = tuple(weight_shapes(network, settings.last_layer))
    make_objective = functools.partial(_make_largest, settings, inverted, picture.image)
    if check_resources(
        "select",
        make_objective,
        sample_noise_image(make_keys(settings.seed)[1], picture.image.shape[:2], std=NOISE_STD),
        num_steps=len(layers) * settings.num_candidates * settings.num_steps,
        dry_run=settings.dry_run,
        num_together=min(settings.batch_size, settings.num_candidates),
    ):
        return
    kept = Rows(
        settings.out_dir,
        {"settings": list_values(settings, "out_dir"), "reference": picture.metadata["sha256"]},
    )
    for index in range(len(kept.rows), len(layers)):
        began = time.monotonic()
        row = _select_next(settings, inverted, picture.image, layers[: index + 1], kept.rows)
        seconds = time.monotonic() - began
        kept.append({**row, "seconds": round(seconds, 2)})
        left = (len(layers) - index - 1) * seconds
        print(f"select: {layers[index]} draw {row['draw']}; about {left:.0f} s left", flush=True)
    recipe = Recipe(
        network=network.name,
        seed=settings.seed,
        draws=tuple(row["draw"] for row in kept.rows),
        last_layer=layers[-1],
        scale=settings.scale,
        bias_scale=settings.bias_scale,
        pooling=network.pooling,
        padding=network.padding_mode,
        input_offset=network.input_offset,
    ).signed(make_keys(settings.seed)[0])
    path = kept.folder / "recipe.txt"
    with replace_atomically(path) as temporary:
        temporary.write_text(format_recipe(recipe) + "\n")
    print(f"select: wrote {path}\n{format_recipe(recipe)}")


def _make_largest(settings, network, image) -> Objective:
    """The objective of the deepest layer's reconstructions."""
    params = random_weights(make_keys(settings.seed)[0], network, last_layer=settings.last_layer)
    return Inversion(settings.last_layer).of(network.bind(params), image)


def _select_next(settings, network, image, layers, rows) -> Row:
    """Selects the last of the layers, the ones above it drawn as the rows say."""
    *above, layer = layers
    weights_key, _ = make_keys(settings.seed)
    params = {}
    if above:
        params = random_weights(
            weights_key,
            network,
            scale=settings.scale,
            bias_scale=settings.bias_scale,
            last_layer=above[-1],
            draws=tuple(row["draw"] for row in rows),
        )
    choice = _try_candidates(settings, weights_key, network, params, image, layer)
    return {
        "layer": layer,
        "draw": int(choice.draw),
        "losses": np.asarray(choice.losses).tolist(),
        "raw_losses": np.asarray(choice.raw_losses).tolist(),
        "distances": [compare_images(found, image)["distance"] for found in choice.images],
        "num_steps": np.asarray(choice.num_steps).tolist(),
    }


def _try_candidates(settings, key, network, params, image, layer) -> LayerChoice:
    """All draws of a layer; one after another as long as none is waiting for others."""
    options = {
        "layer": layer,
        "num_steps": settings.num_steps,
        "scale": settings.scale,
        "bias_scale": settings.bias_scale,
    }
    if settings.racing or settings.batch_size > 1:
        return select_layer(
            key,
            network,
            params,
            image,
            num_candidates=settings.num_candidates,
            batch_size=settings.batch_size,
            racing=settings.racing,
            **options,
        )
    choices = []
    for number in range(settings.num_candidates):
        choice = select_layer(
            key, network, params, image, num_candidates=1, first_draw=number, **options
        )
        choices.append(choice)
        print(
            f"select: {layer} candidate {number + 1}/{settings.num_candidates}"
            f"  loss {float(choice.losses[0]):.4g}",
            flush=True,
        )
    joined = jax.tree.map(lambda *leaves: np.concatenate(leaves), *(c[1:] for c in choices))
    return LayerChoice(np.argmin(joined[0]), *joined)


def main(argv: Sequence[str]) -> int:
    """Runs the command; returns its exit code."""
    return run_command("randviz select", Settings, run, argv, __doc__)
