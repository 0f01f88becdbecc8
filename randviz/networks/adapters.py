"""Extractors of networks from elsewhere: plain functions, Flax Linen and Flax NNX modules.

Names of layers are found by tracing the function, without computing anything, on an image of
64×64 pixels (or `image_size`), when they are first asked for.
"""

import dataclasses
import functools
from collections.abc import Callable, Mapping, Sequence
from typing import Any

import flax.linen as nn
import jax
import jax.numpy as jnp
from flax import nnx, struct
from flax.traverse_util import flatten_dict

from randviz.networks.extractor import IMAGE_LAYER, Extractor, as_names
from randviz.types import Array, Image, UserError, first_line

_OUTPUT = "output"  # of a module as a whole


def from_function(
    function: Callable[[Any, Image], Mapping[str, Array]],
    params: Any,
    *,
    name: str | None = None,
    image_size: int = 64,
) -> "FunctionExtractor":
    """Makes an extractor of a function.

    Args:
      function: (params, image [H, W, 3] in [0, 1]) → {layer: [h, w, C]}, pure. Two extractors are
        of one program only if they have the same function, so define it once.
      params: a pytree of arrays.
      name: for messages and records; by default the function's.
      image_size: height and width, in pixels, of the image on which names of layers are found.

    Returns:
      An extractor whose layers are `image`, the input itself, and the function's, in its order.

    Example:
      >>> import jax
      >>> blur = lambda params, image: {"mean": params * image.mean(2, keepdims=True)}
      >>> extractor = from_function(blur, jnp.ones(()), name="blur")
      >>> extractor.layer_names, extractor(jnp.ones((12, 16, 3)), "mean")["mean"].shape
      (('image', 'mean'), (12, 16, 1))
    """
    name = name or str(getattr(function, "__name__", type(function).__name__))
    return FunctionExtractor(params, function, name, image_size)


def from_linen(
    module: nn.Module,
    variables: Mapping[str, Any],
    *,
    layers: Sequence[str] | None = None,
    image_size: int = 64,
    **call_options: Any,
) -> "FunctionExtractor":
    """Makes an extractor of a Flax Linen module that takes [1, H, W, 3].

    Every output of a submodule, and every value sown as an intermediate, that is a feature map
    [1, h, w, C] is a layer, named by its path: "Conv_0", "block1/Conv_0"; the output of the module
    itself is "output". A second call of the same submodule is "Conv_0:1".

    Args:
      module: any.
      variables: of the module, as `module.init` returns them.
      layers: the names to keep; by default all.
      image_size: height and width, in pixels, of the image on which names of layers are found.
      **call_options: for the module's call, hashable, such as train=False.

    Returns:
      The extractor; layers in the order of evaluation.
    """
    function = LinenFunction(module, *_freeze(call_options, layers))
    return FunctionExtractor(variables, function, type(module).__name__, image_size)


def from_nnx(
    module: nnx.Module,
    *,
    layers: Sequence[str] | None = None,
    image_size: int = 64,
    **call_options: Any,
) -> "FunctionExtractor":
    """Makes an extractor of a Flax NNX module that takes [1, H, W, 3].

    Layers are named as by `from_linen`: "conv1", "block1/conv1", "output"; methods other than
    `__call__` by their own names, "block1/encode".

    Args:
      module: any; its state is copied as it is now, so call `module.eval()` first.
      layers: the names to keep; by default all.
      image_size: height and width, in pixels, of the image on which names of layers are found.
      **call_options: for the module's call, hashable.

    Returns:
      The extractor; layers in the order of evaluation.
    """
    definition, state = nnx.split(module)
    function = NnxFunction(definition, *_freeze(call_options, layers))
    return FunctionExtractor(state, function, type(module).__name__, image_size)


def _freeze(call_options, layers):
    return tuple(sorted(call_options.items())), None if layers is None else as_names(layers)


@struct.dataclass
class FunctionExtractor(Extractor):
    """A function and its parameters, see `from_function`.

    Attributes:
      params: a pytree of arrays.
      function: (params, image) → {layer: [h, w, C]}; static.
      name: for messages and records.
      image_size: of the image on which names of layers are found.
    """

    params: Any
    function: Callable[[Any, Image], Mapping[str, Array]] = struct.field(pytree_node=False)
    name: str = struct.field(pytree_node=False)
    image_size: int = struct.field(pytree_node=False, default=64)

    @property
    def layer_names(self) -> tuple[str, ...]:
        """All layers, in forward order.

        Raises:
          UserError: if the function gives no feature maps by name, or cannot take the image.
        """
        return tuple(self._shapes((self.image_size, self.image_size, 3)))

    def compute(self, image: Image, layers: tuple[str, ...]) -> Mapping[str, Array]:
        found = {IMAGE_LAYER: image} if layers == (IMAGE_LAYER,) else self._evaluate(image)
        return {layer: found[layer] for layer in layers}

    def feature_shape(self, shape: tuple[int, ...], layer: str) -> tuple[int, int, int]:
        return self._shapes(tuple(shape))[layer]

    def check_image(self, shape: tuple[int, ...], layer: str) -> None:
        super().check_image(shape, layer)
        if layer != IMAGE_LAYER and min(self._shapes(tuple(shape)).get(layer, (0,))) < 1:
            raise UserError(
                f"the image is {shape[1]}×{shape[0]} pixels, too small for layer {layer!r} of"
                f" {self.name}; take a larger image or a shallower layer."
            )

    def _evaluate(self, image):
        return {IMAGE_LAYER: image, **self.function(self.params, image)}

    def _shapes(self, shape):
        """{layer: (h, w, C)} for an image of this shape, in forward order."""
        # Only shapes of the parameters matter: this works while they are traced, or without them.
        abstract = jax.eval_shape(lambda params: params, self.params)
        leaves, structure = jax.tree.flatten(abstract)
        return _find_shapes(self.function, self.name, structure, tuple(leaves), shape)


@functools.lru_cache(maxsize=256)
def _find_shapes(function, name, structure, leaves, shape):
    shapes = {}
    is_module = isinstance(function, _Captured)

    def trace(params, image):
        maps = function.collect(params, image) if is_module else function(params, image)
        if not isinstance(maps, Mapping):
            raise UserError(f"{name} returns a {type(maps).__name__}, not {{layer: [h, w, C]}}.")
        # Written down here, as the order of a dictionary is lost on the way out of a trace.
        shapes.update({layer: jnp.shape(x)[is_module:] for layer, x in maps.items()})
        return list(maps.values())

    params = jax.tree.unflatten(structure, leaves)
    try:
        jaxpr = jax.make_jaxpr(trace)(params, jax.ShapeDtypeStruct(shape, jnp.float32))
    except UserError:
        raise
    except Exception as error:  # whatever somebody else's network raises on an image it cannot take
        raise UserError(
            f"{name} cannot take an image of {shape[1]}×{shape[0]} pixels ({first_line(error)});"
            " take another size, or give one it takes as image_size when its extractor is made."
        ) from error
    for layer, each in shapes.items():
        if len(each) != 3:
            raise UserError(
                f"layer {layer!r} of {name} has shape {each}, not [h, w, C]; leave it out or add"
                " axes."
            )
    if not shapes:
        raise UserError(f"{name} has no feature maps [h, w, C]; take a convolutional network.")
    names = list(shapes)
    if is_module:
        # Modules are captured in the order of their attributes, the trace is in that of evaluation.
        made = {id(var): i for i, step in enumerate(jaxpr.eqns) for var in step.outvars}
        order = {
            layer: (made.get(id(var), -1), -_count_parts(layer))
            for layer, var in zip(names, jaxpr.jaxpr.outvars, strict=True)
        }
        names.sort(key=order.__getitem__)
    return {IMAGE_LAYER: shape} | {layer: shapes[layer] for layer in names}


def _count_parts(layer):
    """How deep inside the module a layer is: of equal features the inner one comes first."""
    return 0 if layer == _OUTPUT else 1 + layer.count("/")


@dataclasses.dataclass(frozen=True)
class _Captured:
    """A module's feature maps by path, as a function of its variables and an image."""

    module: Any  # or its static part
    call_options: tuple[tuple[str, Any], ...]
    layers: tuple[str, ...] | None

    def capture(self, variables: Any, batch: Array, **options: Any) -> Mapping[str, Any]:
        """Nested dictionaries of all intermediates, tuples of them for each call."""
        raise NotImplementedError

    def __call__(self, variables: Any, image: Image) -> dict[str, Array]:
        return {layer: x[0] for layer, x in self.collect(variables, image).items()}

    def collect(self, variables: Any, image: Image) -> dict[str, Array]:
        """{layer: [1, h, w, C]}, in any order."""
        maps = {}
        found = self.capture(variables, image[None], **dict(self.call_options))
        for path, calls in flatten_dict(found).items():
            parts = path[:-1] if path[-1] == "__call__" else path
            layer = "/".join(map(str, parts)) or _OUTPUT
            for number, x in enumerate(calls if isinstance(calls, tuple) else (calls,)):
                if isinstance(x, jax.Array) and x.ndim == 4 and x.shape[0] == 1:
                    maps[f"{layer}:{number}" if number else layer] = x
        if self.layers is None:
            return maps
        for layer in self.layers:
            if layer not in maps:
                raise UserError(f"there is no layer {layer!r}; there are {', '.join(maps)}.")
        return {layer: x for layer, x in maps.items() if layer in self.layers}


class LinenFunction(_Captured):
    """A Linen module."""

    def capture(self, variables, batch, **options):
        _, state = self.module.apply(
            variables, batch, capture_intermediates=True, mutable=["intermediates"], **options
        )
        return state["intermediates"]


class NnxFunction(_Captured):
    """An NNX module's static part."""

    def capture(self, variables, batch, **options):
        module = nnx.merge(self.module, variables)
        run = nnx.capture(module, nnx.Intermediate, method_outputs=nnx.Intermediate)
        _, state = run(batch, **options)
        return nnx.to_pure_dict(state)
