"""Networks of a single layer: parallel filters of many sizes, and a few random filters."""

import dataclasses
from collections.abc import Sequence

from randviz.networks.layers import Conv, Parallel, Pool
from randviz.networks.network import Network


def filter_bank(
    kernel_sizes: Sequence[int] = (3, 5, 7, 11, 15, 23, 37, 55), *, channels: int = 128
) -> Network:
    """Filters of several sizes side by side, rectified.

    Args:
      kernel_sizes: heights and widths of the filters, in pixels, odd.
      channels: how many filters there are of each size.

    Returns:
      A network with a layer for each size, `conv3`, `conv5`, ..., and a layer `bank`, the features
      of all of them concatenated.

    References:
      Ustyuzhaninov, Brendel, Gatys, Bethge (2017), "What does it take to generate natural
      textures?", section 2: 128 filters of each of these sizes.
    """
    convolutions = (_conv(f"conv{size}", size, channels) for size in kernel_sizes)
    layers = (Parallel("bank", tuple(convolutions)),)
    return Network("filter_bank", layers, initialization="he")


def single_layer(*, kernel_size: int = 7, channels: int = 32) -> Network:
    """Random filters of norm 1 without activation, on pixel values in [0, 1].

    Args:
      kernel_size: height and width of the filters, in pixels, odd.
      channels: how many filters there are.

    Returns:
      A network with one layer, `conv1`; reflection at the image's edges.
    """
    return Network(
        "random_filters",
        (_conv("conv1", kernel_size, channels),),
        padding_mode="reflect",
        activation="none",
        initialization="unit_norm",
        input_offset=0.0,
        input_scale=1 / 255,
    )


def pool_network(network: Network, name: str, window_size: int) -> Network:
    """Puts a pooling layer, `pool1`, after a network, so that fewer numbers are left.

    Args:
      network: any.
      name: of the result.
      window_size: height and width of the windows, in pixels.
    """
    pool = Pool("pool1", window_size=window_size, stride=window_size)
    return dataclasses.replace(network, name=name, layers=(*network.layers, pool))


def _conv(name: str, kernel_size: int, channels: int) -> Conv:
    return Conv(name, channels, kernel_size=kernel_size, padding=kernel_size // 2)


FILTER_BANK = filter_bank()
RANDOM_FILTERS = single_layer()
# As many numbers of a small picture as deep layers of other networks have.
POOLED_BANK = pool_network(filter_bank(channels=64), "pooled_bank", 32)
POOLED_FILTERS = pool_network(
    dataclasses.replace(single_layer(channels=128), activation="relu"), "pooled_filters", 16
)
