"""Builds ranVGG: layer by layer, the draw of weights that reconstructs a picture best is kept.

The network comes out as a recipe, a line of text that every command takes.

Examples:
  randviz select --reference_image=astronaut --image_size=64 --last_layer=conv3_1 --out_dir=out/net
  randviz invert --network=out/net/recipe.txt --image=chelsea --layer=conv3_1
"""

import dataclasses
import time
from collections.abc import Sequence

import jax
import numpy as np

from randviz.commands.inputs import (
    LARGEST_SIDE,
    NetworkSettings,
    choose_network,
    load_picture,
    make_keys,
)
from randviz.images import replace_atomically
from randviz.inversion import INPUT_OFFSET
from randviz.networks import NETWORKS, random_weights, weight_shapes
from randviz.quality import compare_images
from randviz.recipe import Recipe, format_recipe
from randviz.rows import Rows
from randviz.selection import LayerChoice, select_layer
from randviz.settings import run_command, setting
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
    network, _ = choose_network(settings)
    # The selection inverts, so it sees the input as inversion does; the recipe leaves it open.
    inverted = network.with_offset(INPUT_OFFSET)
    inverted.check_image(picture.image.shape, settings.last_layer)
    layers = tuple(weight_shapes(network, settings.last_layer))
    values = {k: v for k, v in dataclasses.asdict(settings).items() if k != "out_dir"}
    kept = Rows(settings.out_dir, {"settings": values, "reference": picture.facts["sha256"]})
    weights_key, _ = make_keys(settings.seed)
    options = {"scale": settings.scale, "bias_scale": settings.bias_scale}
    for layer in layers[len(kept.rows) :]:
        draws = tuple(row["draw"] for row in kept.rows)
        above = layers[len(draws) - 1] if draws else None
        params = (
            random_weights(weights_key, network, last_layer=above, draws=draws, **options)
            if above
            else {}
        )
        began = time.monotonic()
        choice = _try_candidates(settings, weights_key, inverted, params, picture.image, layer)
        qualities = [compare_images(image, picture.image) for image in choice.images]
        kept.append(
            {
                "layer": layer,
                "draw": int(choice.draw),
                "losses": np.asarray(choice.losses).tolist(),
                "raw_losses": np.asarray(choice.raw_losses).tolist(),
                "distances": [quality["distance"] for quality in qualities],
                "num_steps": np.asarray(choice.num_steps).tolist(),
                "seconds": round(time.monotonic() - began, 2),
            }
        )
        left = (len(layers) - len(kept.rows)) * (time.monotonic() - began)
        print(f"select: {layer} draw {int(choice.draw)}; about {left:.0f} s left", flush=True)
    recipe = Recipe(
        network=network.name,
        draws=tuple(row["draw"] for row in kept.rows),
        last_layer=layers[-1],
        pooling=network.pooling,
        padding=network.padding,
        input_offset=network.input_offset,
        seed=settings.seed,
        **options,
    ).signed(weights_key)
    path = kept.folder / "recipe.txt"
    with replace_atomically(path) as temporary:
        temporary.write_text(format_recipe(recipe) + "\n")
    print(f"select: wrote {path}\n{format_recipe(recipe)}")


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
