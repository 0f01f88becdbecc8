"""A small network and variants of it that differ in one thing each, for controlled comparisons."""

from randviz.networks.layers import Block, Conv, InstanceNorm, Layer, Pool
from randviz.networks.network import Network

_STAGES = 4


def small_network(
    name: str,
    *,
    kernel_size: int = 3,
    width: int = 16,
    depth: int = 2,
    normalized: bool = False,
    skip: bool = False,
    pooling: str = "avg",
    activation: str = "relu",
    padding_mode: str = "zero",
) -> Network:
    """A network of four stages, each of convolutions and a pooling layer.

    Args:
      name: for people and files.
      kernel_size: height and width of all kernels, in pixels, odd.
      width: channels of the first stage; each stage has twice as many as the one before.
      depth: convolutions of a stage.
      normalized: whether features are normalised after each convolution.
      skip: whether a skip connection goes around the convolutions of a stage after its first, of
        which there is one at least then.
      pooling, activation, padding_mode: as in `Network`.

    Returns:
      A network with layers `conv1_1`, ..., `pool1`, `conv2_1`, ..., `pool4`.
    """
    layers: list[Layer] = []
    for stage in range(1, _STAGES + 1):
        steps: list[Layer] = []
        for place in range(1, depth + 1):
            steps.append(
                Conv(
                    f"conv{stage}_{place}",
                    width * 2 ** (stage - 1),
                    kernel_size=kernel_size,
                    padding=kernel_size // 2,
                    # Before a sum the activation waits for it.
                    activated=not (skip and place == depth),
                )
            )
            if normalized:
                steps.append(InstanceNorm(f"norm{stage}_{place}"))
        if skip:
            first, *rest = steps
            steps = [first, Block(f"block{stage}", tuple(rest))]
        layers += [*steps, Pool(f"pool{stage}")]
    return Network(
        name,
        tuple(layers),
        pooling=pooling,
        activation=activation,
        padding_mode=padding_mode,
        initialization="he",
    )


SMALL = small_network("small")
VARIANTS = (
    SMALL,
    small_network("small_kernel1", kernel_size=1),
    small_network("small_kernel5", kernel_size=5),
    small_network("small_kernel7", kernel_size=7),
    small_network("small_max", pooling="max"),
    small_network("small_stride", pooling="stride"),
    small_network("small_narrowest", width=4),
    small_network("small_narrow", width=8),
    small_network("small_wide", width=32),
    small_network("small_shallow", depth=1),
    small_network("small_deep", depth=3),
    small_network("small_deeper", depth=4),
    small_network("small_leaky_relu", activation="leaky_relu"),
    small_network("small_elu", activation="elu"),
    small_network("small_gelu", activation="gelu"),
    small_network("small_linear", activation="none"),
    small_network("small_normalized", normalized=True),
    small_network("small_skip", skip=True),
    small_network("small_reflect", padding_mode="reflect"),
)
