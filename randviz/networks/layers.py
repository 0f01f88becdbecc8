"""The layers that networks are made of, as values that can be applied.

A layer is a frozen value with a name. It says which windows it looks at, and `apply` computes its
features. Layers with branches (`Block`, `Parallel`) are made of layers themselves, so that a
network with skip connections or parallel filters is a tuple of layers like any other.
"""

import dataclasses
from collections.abc import Callable, Iterator, Mapping
from typing import TYPE_CHECKING, Any, ClassVar, NamedTuple

import jax
import jax.numpy as jnp

from randviz.networks.conv import PADDING_MODES, convolve, pad_sides, pool
from randviz.types import Array

if TYPE_CHECKING:
    from randviz.networks.network import Network

POOLINGS = ("avg", "max", "stride")


class Activation(NamedTuple):
    """A nonlinearity.

    Attributes:
      function: applied to each feature.
      homogeneous: whether a positive factor of its argument is a factor of its value.
      gain: 1 / E f(z)² for z from N(0, 1), so that kernels of variance gain / inputs keep the mean
        square of features; 2 for the ReLU (He et al., 2015, section 2.2).
    """

    function: Callable[[Array], Array]
    homogeneous: bool
    gain: float


ACTIVATIONS = {
    "relu": Activation(jax.nn.relu, True, 2.0),
    "leaky_relu": Activation(jax.nn.leaky_relu, True, 2 / (1 + 0.01**2)),
    "elu": Activation(jax.nn.elu, False, 1.5505),
    "gelu": Activation(jax.nn.gelu, False, 2.3519),
    "none": Activation(lambda x: x, True, 1.0),
}


class Scope(NamedTuple):
    """What layers need to know while a network is evaluated.

    Attributes:
      network: whose activation, pooling, padding mode and convolution apply.
      read: (name of a layer, shape of its kernel) → kernel, bias, and what was prepared of the
        kernel or None.
      wanted: names of the layers whose features are kept.
      features: {layer: [h, w, C]}, filled as layers are applied.
      platform: where it is computed, see `conv.choose_method`; None for JAX's default device.
    """

    network: "Network"
    read: Callable[[str, tuple[int, ...]], tuple[Array, Array, Mapping[str, Any] | None]]
    wanted: tuple[str, ...]
    features: dict[str, Array]
    platform: str | None

    def run(self, layers: tuple["Layer", ...], x: Array) -> Array:
        """Applies layers one after the other and keeps the features that are wanted."""
        for layer in layers:
            x = layer.apply(x, self)
            if layer.name in self.wanted:
                self.features[layer.name] = x
        return x

    def activate(self, x: Array) -> Array:
        """Applies the network's activation."""
        return ACTIVATIONS[self.network.activation].function(x)


@dataclasses.dataclass(frozen=True)
class Layer:
    """What every layer has, with defaults for one without weights, windows and branches.

    Attributes:
      name: of the layer.
      has_weights: whether there is a kernel and a bias under the layer's own name.
      needs_fixed_size: whether weights fit images of one size only.
      rescalable: whether a positive factor of its input, or of its kernel and bias, is a factor of
        its features, for a homogeneous activation.
    """

    name: str
    has_weights: ClassVar[bool] = False
    needs_fixed_size: ClassVar[bool] = False
    rescalable: ClassVar[bool] = True

    @property
    def branches(self) -> tuple[tuple["Layer", ...], ...]:
        """The layers inside, one tuple for each branch; all branches have the same input."""
        return ()

    @property
    def window(self) -> tuple[int, int, int]:
        """Size of the windows, stride from one to the next, padding beyond each edge."""
        return 1, 1, 0

    def apply(self, x: Array, scope: Scope) -> Array:
        """Computes the layer's features, [h, w, C], of its input."""
        raise NotImplementedError

    def output_side(self, side: int) -> int:
        """Height or width of the features, from that of the input."""
        if self.branches:
            for layer in self.branches[0]:
                side = layer.output_side(side)
            return side
        size, stride, padding = self.window
        return (side + 2 * padding - size) // stride + 1

    def input_side(self, side: int, *, padding_mode: str) -> int:
        """The smallest height or width of the input that gives features of one side."""
        if self.branches:
            sides = [side]
            for branch in self.branches:
                needed = side
                for layer in reversed(branch):
                    needed = layer.input_side(needed, padding_mode=padding_mode)
                sides.append(needed)
            return max(sides)
        size, stride, padding = self.window
        # Reflecting one pixel beyond the edge needs two within it.
        return max(
            (side - 1) * stride + size - 2 * padding, 1 + padding * (padding_mode == "reflect")
        )


@dataclasses.dataclass(frozen=True)
class Conv(Layer):
    """A convolution of square kernels, a bias, then the network's activation.

    Attributes:
      name: of the layer.
      channels: how many it gives.
      kernel_size: height and width of a kernel, in pixels.
      padding: how far the input is padded beyond each edge, in pixels.
      stride: positions from one output to the next.
      groups: in how many parts, blind to each other, the channels are divided.
      activated: whether the activation follows.
    """

    channels: int
    kernel_size: int = 3
    padding: int = 1
    stride: int = 1
    groups: int = 1
    activated: bool = True
    has_weights = True

    @property
    def window(self) -> tuple[int, int, int]:
        return self.kernel_size, self.stride, self.padding

    def apply(self, x: Array, scope: Scope) -> Array:
        shape = (self.kernel_size, self.kernel_size, x.shape[-1] // self.groups, self.channels)
        kernel, bias, prepared = scope.read(self.name, shape)
        maps = convolve(
            x,
            kernel,
            padding=self.padding,
            stride=self.stride,
            groups=self.groups,
            padding_mode=scope.network.padding_mode,
            convolution=scope.network.convolution,
            prepared=prepared,
            platform=scope.platform,
        )
        return scope.activate(maps + bias) if self.activated else maps + bias


@dataclasses.dataclass(frozen=True)
class Pool(Layer):
    """Downsampling as the network's `pooling` says.

    "avg" and "max" take the mean or the maximum of each window. "stride" takes the first feature
    of each window and drops the others: what the convolution before it gives when it takes the
    stride itself. The layers' shapes do not depend on the choice.

    Attributes:
      name: of the layer.
      window_size: height and width of a window.
      stride: positions from one window to the next.
      padding: how far the input is padded beyond each edge, as the network's `padding_mode` says;
        zeros count in a mean, and a maximum ignores them.
    """

    window_size: int = 2
    stride: int = 2
    padding: int = 0

    @property
    def window(self) -> tuple[int, int, int]:
        return self.window_size, self.stride, self.padding

    def apply(self, x: Array, scope: Scope) -> Array:
        pooling, mode = scope.network.pooling, PADDING_MODES[scope.network.padding_mode]
        if pooling == "stride":
            rows, columns = (self.output_side(side) for side in x.shape[:2])
            return x[:: self.stride, :: self.stride][:rows, :columns]
        if self.padding:
            values = {"constant_values": -jnp.inf} if (pooling, mode) == ("max", "constant") else {}
            x = pad_sides(x, self.padding, mode, **values)
        return pool(x, pooling=pooling, size=self.window_size, stride=self.stride)


@dataclasses.dataclass(frozen=True)
class ResponseNorm(Layer):
    """Divides each feature by a power of the energy of its neighbours among the channels.

    Attributes:
      name: of the layer.
      window_size: how many channels are looked at, odd: the feature's own in the middle.
      bias, slope, power: k, α and β in x / (k + α Σ x²)^β.

    References:
      Krizhevsky, Sutskever, Hinton (2012), section 3.3.
    """

    window_size: int = 5
    bias: float = 1.0
    slope: float = 1e-4 / 5
    power: float = 0.75
    rescalable = False

    def apply(self, x: Array, scope: Scope) -> Array:
        reach, channels = self.window_size // 2, x.shape[-1]
        squares = jnp.pad(jnp.square(x), ((0, 0), (0, 0), (reach, reach)))
        energy = sum(squares[..., i : i + channels] for i in range(self.window_size))
        return x / (self.bias + self.slope * energy) ** self.power


@dataclasses.dataclass(frozen=True)
class InstanceNorm(Layer):
    """Brings each channel to mean 0 and variance 1 over the positions of the one image.

    Attributes:
      name: of the layer.
      epsilon: added to the variance.

    References:
      Ulyanov, Vedaldi, Lempitsky (2016), "Instance normalization: the missing ingredient for fast
      stylization"; without its learned factors.
    """

    epsilon: float = 1e-5
    rescalable = False

    def apply(self, x: Array, scope: Scope) -> Array:
        x = x - x.mean((0, 1))
        return x * jax.lax.rsqrt(jnp.mean(jnp.square(x), (0, 1)) + self.epsilon)


@dataclasses.dataclass(frozen=True)
class Dense(Layer):
    """A fully connected layer over all positions, then the network's activation.

    Attributes:
      name: of the layer.
      channels: how many it gives, as [1, 1, channels].
      activated: whether the activation follows; it does not after the scores' layer.
    """

    channels: int
    activated: bool = True
    has_weights = True
    needs_fixed_size = True

    def apply(self, x: Array, scope: Scope) -> Array:
        kernel, bias, _ = scope.read(self.name, (x.size, self.channels))
        x = (x.reshape(-1) @ kernel + bias)[None, None]
        return scope.activate(x) if self.activated else x


@dataclasses.dataclass(frozen=True)
class Block(Layer):
    """Layers in a row, the skip connection around them, then the network's activation.

    Attributes:
      name: of the block; its features are those after the activation.
      body: the layers in a row; their last convolution is usually not `activated`.
      shortcut: the layers of the skip connection, whose features are added to the body's; an empty
        tuple adds the input itself, None adds nothing.
    """

    body: tuple[Layer, ...]
    shortcut: tuple[Layer, ...] | None = ()

    @property
    def branches(self) -> tuple[tuple[Layer, ...], ...]:
        return (self.body,) if self.shortcut is None else (self.body, self.shortcut)

    @property
    def rescalable(self) -> bool:
        return self.shortcut is None and all(layer.rescalable for layer in self.body)

    def apply(self, x: Array, scope: Scope) -> Array:
        maps = scope.run(self.body, x)
        if self.shortcut is not None:
            maps = maps + scope.run(self.shortcut, x)
        return scope.activate(maps)


@dataclasses.dataclass(frozen=True)
class Parallel(Layer):
    """Layers side by side on the same input, their features concatenated.

    Attributes:
      name: of the concatenated features, [h, w, sum of the channels].
      layers: of one output size.
    """

    layers: tuple[Layer, ...]
    rescalable = False  # one layer's factor would not be the others'

    @property
    def branches(self) -> tuple[tuple[Layer, ...], ...]:
        return tuple((layer,) for layer in self.layers)

    def apply(self, x: Array, scope: Scope) -> Array:
        return jnp.concatenate([scope.run(branch, x) for branch in self.branches], axis=-1)


def walk_layers(layers: tuple[Layer, ...]) -> Iterator[Layer]:
    """All layers in forward order, the ones inside a layer before the layer itself."""
    for layer in layers:
        for branch in layer.branches:
            yield from walk_layers(branch)
        yield layer


def walk_sides(
    layers: tuple[Layer, ...], sides: tuple[int, ...]
) -> Iterator[tuple[Layer, tuple[int, ...]]]:
    """As `walk_layers`, each with (height, width) of its input, from that of the first's."""
    for layer in layers:
        for branch in layer.branches:
            yield from walk_sides(branch, sides)
        yield layer, sides
        sides = tuple(layer.output_side(side) for side in sides)
