"""Other weights for the same network: rescalings that its function does not notice.

ReLU and pooling commute with positive factors. So weights can be brought to a size that float32
likes, or each filter to a mean activation of one, without changing what the network computes but
for known factors.
"""

import jax.numpy as jnp
import numpy as np

from randviz.conv import adjoint_kernel
from randviz.networks import Conv, Dense, Network, ResponseNorm, check_weights
from randviz.types import Array, Params


def normalize_gauge(
    network: Network, params: Params, last_layer: str
) -> tuple[Params, dict[str, Array]]:
    """Rescales weights to the range that float32 likes, changing nothing that the tasks compute.

    ReLU and pooling commute with a positive factor, so multiplying a layer's kernel by c and every
    bias by the product of the c up to its layer multiplies the features by that product. At
    σ = 0.015 the layers' μ span 17 orders of magnitude; in He's scale all features are of order
    one. The factors are powers of two, hence exact, and ω and μ undo them exactly. Local response
    normalisation is not homogeneous: what comes before it is left as it is.

    Args:
      network: the architecture.
      params: its weights, with any biases, at any scale.
      last_layer: the deepest layer wanted; weights beyond it are left out.

    Returns:
      The rescaled weights and {layer: whole number k}: the features of the layer grew by 2^k.

    Raises:
      UserError: for an unknown layer or missing weights.
    """
    check_weights(network, params, last_layer)
    path = network.up_to(last_layer)
    norms = [index for index, layer in enumerate(path) if isinstance(layer, ResponseNorm)]
    normalized, exponents = {}, {}
    ideal, exponent = 0.0, jnp.int32(0)
    scale = 1 / (255 * np.mean(network.input_scale))  # pixels reach 255
    for index, layer in enumerate(path):
        if isinstance(layer, Conv | Dense) and norms and index < norms[-1]:
            normalized[layer.name], scale = dict(params[layer.name]), 1
        elif isinstance(layer, Conv | Dense):
            kernel, bias = params[layer.name]["kernel"], params[layer.name]["bias"]
            fan_in = kernel.size // kernel.shape[-1]
            largest = jnp.max(jnp.abs(kernel))
            # Relative to the largest, or the squares of very small weights would vanish.
            size = largest * jnp.sqrt(jnp.mean(jnp.square(kernel / largest)))
            ideal += jnp.where(size > 0, jnp.log2((2 / fan_in) ** 0.5 * scale / size), 0.0)
            scale = 1
            # The sum is rounded, not each factor, so that errors do not add up with depth.
            previous, exponent = exponent, jnp.round(ideal).astype(jnp.int32)
            normalized[layer.name] = {
                "kernel": jnp.ldexp(kernel, exponent - previous),
                "bias": jnp.ldexp(bias, exponent),
            }
        exponents[layer.name] = exponent
    return normalized, exponents


def prepare_descent(network: Network, params: Params, last_layer: str) -> Params:
    """Makes the weights ready for many evaluations: in a good gauge, with adjoint kernels.

    Args:
      network: the architecture.
      params: its weights, at any scale.
      last_layer: the deepest layer wanted; weights beyond it are left out.

    Returns:
      {layer: {"kernel": ..., "bias": ..., "adjoint": ...}}, convolutions with the adjoint kernel
      that `conv.convolve` takes. With it the gradient with respect to the kernel stays right.

    Raises:
      UserError: for an unknown layer or missing weights.
    """
    params, _ = normalize_gauge(network, params, last_layer)
    for layer in network.up_to(last_layer):
        if isinstance(layer, Conv):
            weights = params[layer.name]
            weights["adjoint"] = adjoint_kernel(weights["kernel"], groups=layer.groups)
    return params
