"""Which network a command uses: random, chosen before, or trained."""

import dataclasses
import importlib.resources
import math
import pathlib
from collections.abc import Callable, Mapping, Sequence
from typing import Any, NamedTuple

import jax
import jax.numpy as jnp

from randviz.commands.inputs import SeedSettings, load_picture, make_keys
from randviz.commands.network_files import load_network_file, names_file
from randviz.host.checkpoints import INPUT_CONVENTIONS, Checkpoint, load_checkpoint
from randviz.host.samples import SCIKIT_IMAGE_SAMPLES
from randviz.host.settings import PRECISIONS, setting
from randviz.networks.activations import normalize_activations
from randviz.networks.catalog import NETWORKS
from randviz.networks.conv import CONVOLUTIONS, PADDING_MODES
from randviz.networks.layers import ACTIVATIONS, POOLINGS
from randviz.networks.modules import ModuleNetwork
from randviz.networks.network import IMAGENET_MEAN, PAPER_SCALE, Network
from randviz.networks.weights import random_weights
from randviz.search.recipe import Recipe, format_recipe, parse_recipe
from randviz.types import Offset, Params, UserError

# Networks selected on the astronaut, each set with its own draws, for un-centred and for centred
# input; one selected on another picture among the draws of the first; and one on a cat, less deep.
UNCENTRED_RECIPES = ("ranvgg", "ranvgg_1")
CENTRED_RECIPES = ("ranvgg_centred", "ranvgg_centred_1")
SHIPPED_RECIPES = (*UNCENTRED_RECIPES, *CENTRED_RECIPES, "ranvgg_retina", "ranvgg_chelsea")
# Flags that say what a network of this package, with random weights, is.
_OF_NETWORKS = (
    *("scale", "bias_scale", "pooling", "padding", "activation"),
    *("convolution", "input_offset"),
)
_TRAINED_SIZE = 224  # pixels a side of the pictures that ImageNet's networks were trained on


@dataclasses.dataclass(frozen=True)
class NetworkSettings(SeedSettings):
    """Settings that say which network it is."""

    network: str = setting(
        "vgg19",
        "An architecture, a recipe, or FILE.py:NAME. Architectures, with random weights, are"
        f" {', '.join(NETWORKS)}; FILE.py:NAME is your own, a Flax module or a Network, and the"
        f" file is run; recipes are {', '.join(SHIPPED_RECIPES)}, a file with one from randviz"
        " select, or its line itself.",
    )
    trained_weights: str = setting(
        "",
        "A file of trained weights, if you have one. Pictures are made with them in place of"
        " random ones; comparisons have both. It may be Keras .h5, .safetensors, PyTorch .pth,"
        " .npz, or MatConvNet .mat, and must be of the architecture.",
    )
    input_convention: str = setting(
        "auto",
        "What the trained network was fed: caffe (BGR, 0 to 255, minus the mean), torch (RGB,"
        " [0, 1], minus the mean, over the deviation), matconvnet (RGB, 0 to 255, minus the mean);"
        " auto as the file's kind has it.",
        choices=("auto", *INPUT_CONVENTIONS),
        rare=True,
    )
    normalization_images: tuple[str, ...] = setting(
        SCIKIT_IMAGE_SAMPLES,
        "Pictures over which the mean activation of each trained filter is made 1, as Gatys did;"
        " empty takes the weights as they are. AlexNet cannot be normalised and is not.",
        rare=True,
    )
    scale: float = setting(
        PAPER_SCALE,
        "σ, the standard deviation of the random weights. Without biases it is a choice of units:"
        " the picture is the same.",
        lower_bound=1e-5,
        upper_bound=1e3,
        rare=True,
    )
    bias_scale: float = setting(
        0.0,
        "Standard deviation of the random biases; the paper has none.",
        lower_bound=0,
        rare=True,
    )
    pooling: str = setting(
        "auto",
        "How windows are pooled, or stride for strided convolutions in their place; auto is max for"
        " AlexNet and avg for the others.",
        choices=("auto", *POOLINGS),
        rare=True,
    )
    precision: str = setting(
        "highest",
        "Of products on a GPU or TPU: full float32, or the faster TF32 or bfloat16. CPUs always"
        " compute in full float32.",
        choices=tuple(PRECISIONS),
        rare=True,
    )
    convolution: str = setting(
        "auto",
        "How convolutions are computed: direct, winograd, fft, or what is fastest on this machine."
        " The results differ by rounding only.",
        choices=CONVOLUTIONS,
        rare=True,
    )
    padding: str = setting(
        "auto",
        "What lies beyond the edge of a convolution; auto is zero for all but random_filters.",
        choices=("auto", *PADDING_MODES),
        rare=True,
    )
    activation: str = setting(
        "auto",
        "The function after each convolution; auto is relu for all but random_filters.",
        choices=("auto", *ACTIVATIONS),
        rare=True,
    )
    input_offset: str = setting(
        "auto",
        "Subtracted from pixel values in 0 to 255 before the first layer: a number, mean for the"
        " ImageNet mean, or auto for what the task, or the trained network, works best with.",
        rare=True,
    )


class Choice(NamedTuple):
    """A network, and how its weights are had.

    Attributes:
      label: for people: random, trained, or what the recipe is called.
      network: the architecture and its conventions.
      sample: the deepest layer wanted → weights as `network` takes them. Raises UserError for a
        layer beyond the recipe's or the file's last, and for weights that do not agree with the
        recipe's check.
      metadata: what the weights are, plain values, for the record.
    """

    label: str
    network: Network | ModuleNetwork
    sample: Callable[[str], Any]
    metadata: Mapping[str, Any]

    def with_offset(self, input_offset: Offset) -> "Choice":
        """See `Network.with_offset`."""
        return self._replace(network=self.network.with_offset(input_offset))


def choose_network(settings: NetworkSettings) -> Choice:
    """The network that the settings name.

    Raises:
      UserError: as `choose_trained` or `choose_untrained`.
    """
    return choose_trained(settings) if settings.trained_weights else choose_untrained(settings)


def choose_all(settings: NetworkSettings) -> dict[str, Choice]:
    """The untrained networks and, if a file is named, the trained one of their architecture.

    Args:
      settings: `network` may be several names in a tuple.

    Returns:
      {label: choice}, the trained one last.

    Raises:
      UserError: as `choose_trained` or `choose_untrained`, for several architectures, or if no
        network is named or one is named twice.
    """
    names = (settings.network,) if isinstance(settings.network, str) else settings.network
    check_names(names)
    choices = [choose_untrained(dataclasses.replace(settings, network=name)) for name in names]
    architectures = list(dict.fromkeys(choice.network.name for choice in choices))
    if len(architectures) > 1:
        raise UserError(
            f"--network={','.join(names)} names {' and '.join(architectures)}; name networks of one"
            " architecture."
        )
    if settings.trained_weights:
        # Beside a recipe the file's architecture is the recipe's.
        name = names[0] if names_file(names[0]) else architectures[0]
        choices.append(choose_trained(dataclasses.replace(settings, network=name)))
    labels = name_apart([choice.label for choice in choices])
    return dict(zip(labels, choices, strict=True))


def check_names(names: Sequence[str]) -> None:
    """Checks the names that --network lists.

    Raises:
      UserError: if there is none, or one stands there twice.
    """
    if not names or len(set(names)) < len(names):
        raise UserError(f"--network={','.join(names)} names none, or one twice; name each once.")


def name_apart(names: Sequence[str]) -> list[str]:
    """The names, those that occurred before with a number.

    Example:
      >>> name_apart(["cat", "cat", "dog"])
      ['cat', 'cat_2', 'dog']
    """
    found: list[str] = []
    for name in names:
        number, new = 1, name
        while new in found:
            number += 1
            new = f"{name}_{number}"
        found.append(new)
    return found


def choose_untrained(settings: NetworkSettings) -> Choice:
    """The network that the settings name, whether or not they name trained weights too.

    Raises:
      UserError: for an unknown network, a bad recipe, a flag that the recipe decides, or an input
        offset that is neither a name nor a number.
    """
    weights_key, _ = make_keys(settings.seed)
    if names_file(settings.network):
        architecture, metadata = load_network_file(settings.network)
        if isinstance(architecture, ModuleNetwork):
            _refuse_decided(settings, "the module", *_OF_NETWORKS)
            draw = lambda last_layer: architecture.draw(weights_key)
            return Choice(architecture.name, architecture, draw, {"weights": "random", **metadata})
    elif settings.network in NETWORKS:
        architecture, metadata = NETWORKS[settings.network], {}
    else:
        recipe = load_recipe(settings.network)
        decided = [field for field in _OF_NETWORKS if field not in ("convolution", "input_offset")]
        decided += ["input_offset"] * (recipe.input_offset is not None)
        _refuse_decided(settings, "the recipe", *decided)
        return Choice(
            label=settings.network if settings.network in SHIPPED_RECIPES else "recipe",
            network=_apply_flags(recipe.as_network(), settings),
            sample=lambda last_layer: _sample_from(recipe, last_layer),
            metadata={"weights": "recipe", "recipe": format_recipe(recipe)},
        )
    network = _apply_flags(architecture, settings)

    def sample(last_layer: str) -> Params:
        return random_weights(
            weights_key,
            network,
            scale=settings.scale,
            bias_scale=settings.bias_scale,
            last_layer=last_layer,
        )

    return Choice("random", network, sample, {"weights": "random", **metadata})


def choose_trained(settings: NetworkSettings) -> Choice:
    """The trained network in the file that the settings name.

    Raises:
      UserError: if there is no such file or it does not fit the architecture, for a recipe beside
        it, for a flag that has no meaning for trained weights, or a picture to normalise on that
        cannot be read.
    """
    source = settings.network
    found = load_network_file(source).architecture if names_file(source) else NETWORKS.get(source)
    if not isinstance(found, Network):
        kind = "a recipe" if found is None else "a Flax module"
        raise UserError(
            "--trained_weights goes with an architecture of this package, and"
            f" --network={source[:60]} is {kind}; leave one of them out."
        )
    _refuse_decided(settings, "the file of trained weights", "scale", "bias_scale")
    checkpoint = load_checkpoint(
        settings.trained_weights, found, input_convention=settings.input_convention
    )
    network = _apply_flags(checkpoint.network, settings)
    sources = settings.normalization_images if network.rescalable else ()
    pictures = [
        load_picture("normalization_images", source, _TRAINED_SIZE, square=True)
        for source in sources
    ]

    def sample(last_layer: str) -> Params:
        params = _cut(checkpoint, settings.trained_weights, last_layer)
        path = network.up_to(last_layer)
        if not pictures or not path:
            return params
        deepest = network.last_convolutional() if path[-1].needs_fixed_size else path[-1].name
        images = [picture.image for picture in pictures]
        params = normalize_activations(network, params, images, last_layer=deepest)
        if not all(jnp.isfinite(leaf).all() for leaf in jax.tree.leaves(params)):
            raise UserError(
                f"the activations of {settings.trained_weights} are beyond float32; leave them as"
                " they are with --normalization_images=, or take other weights."
            )
        return params

    metadata = {
        "weights": "trained",
        **checkpoint.metadata,
        "normalized_on": {
            picture.metadata["source"]: picture.metadata["sha256"] for picture in pictures
        },
    }
    return Choice("trained", network, sample, metadata)


def _cut(checkpoint: Checkpoint, source: str, last_layer: str) -> Params:
    """The weights down to a layer."""
    params = {}
    for layer in checkpoint.network.weighted_layers(last_layer):
        if layer.name in checkpoint.params:
            params[layer.name] = checkpoint.params[layer.name]
        elif layer.needs_fixed_size:
            raise UserError(
                f"{source} has no fully connected layers, which layer {last_layer!r} needs; take a"
                " file that was saved with its top, or a shallower layer."
            )
    return params


def _apply_flags(network: Network, settings: NetworkSettings) -> Network:
    """The network with the conventions that the flags ask for; auto leaves its own."""
    asked = {
        "pooling": settings.pooling,
        "padding_mode": settings.padding,
        "activation": settings.activation,
    }
    changed = {name: word for name, word in asked.items() if word != "auto"}
    network = dataclasses.replace(network, **changed, convolution=settings.convolution)
    if settings.input_offset == "auto":
        return network
    return dataclasses.replace(network, input_offset=read_offset(settings.input_offset))


def describe_network(network: Network | ModuleNetwork) -> dict[str, Any]:
    """The conventions of a network, plain values for a record."""
    if isinstance(network, ModuleNetwork):
        return {"name": network.name}
    values = dataclasses.asdict(network)
    del values["layers"]
    return values


def read_offset(text: str) -> Offset:
    """Reads an input offset.

    Raises:
      UserError: if it is neither mean nor a finite number.
    """
    if text == "mean":
        return IMAGENET_MEAN
    try:
        offset = float(text)
    except ValueError:
        offset = math.nan
    if not math.isfinite(offset):
        raise UserError(f"--input_offset={text} is neither auto, mean nor a number.")
    return offset


def load_recipe(source: str) -> Recipe:
    """Reads a recipe: one that comes with the program, a file, or the line itself.

    Raises:
      UserError: if there is none or it is bad.
    """
    if source in SHIPPED_RECIPES:
        text = (
            importlib.resources.files("randviz.search")
            .joinpath(f"recipes/{source}.txt")
            .read_text()
        )
    elif source.startswith("randviz-"):
        text = source
    else:
        try:
            text = pathlib.Path(source).read_text()
        except (OSError, ValueError):
            known = ", ".join((*NETWORKS, *SHIPPED_RECIPES))
            raise UserError(
                f"--network={source} is neither a network ({known}) nor a file with a recipe."
            ) from None
    try:
        return parse_recipe(text)
    except UserError as error:
        raise UserError(f"--network={source[:60]}: {error}") from error


def _refuse_decided(settings: NetworkSettings, who: str, *decided: str) -> None:
    for field in dataclasses.fields(NetworkSettings):
        if field.name in decided and getattr(settings, field.name) != field.default:
            raise UserError(f"{who} decides --{field.name}; leave that flag out.")


def _sample_from(recipe: Recipe, last_layer: str) -> Params:
    network = recipe.as_network()
    needed, drawn = map(network.weighted_layers, (last_layer, recipe.last_layer))
    if not set(needed) <= set(drawn):
        raise UserError(
            f"the recipe ends at {recipe.last_layer}, before layer {last_layer!r}; name a shallower"
            " layer, or select a deeper network."
        )
    return recipe.sample(make_keys(recipe.seed)[0])
