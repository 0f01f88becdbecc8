"""Derivatives of every order and mode, of convolution, Gram matrix and objectives."""

import functools
import re

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from jax.sharding import AxisType, PartitionSpec
from jax.test_util import check_grads
from test_conv import convolve_by_taps

from randviz.networks.conv import convolve, prepare_kernel
from randviz.networks.network import features
from randviz.objectives.statistics.features import content_loss
from randviz.objectives.statistics.gram import gram_matrix, texture_loss

rng = np.random.default_rng(5)


def draw(*shape):
    return jnp.asarray(rng.normal(size=shape), jnp.float32)


def derivatives(f, fixed, x, kernel, x_tangent, kernel_tangent):
    """Of f, which prepares its kernel, and of `fixed`, where the same was prepared beforehand."""
    point, tangent = (x, kernel), (x_tangent, kernel_tangent)
    cube = lambda f: lambda x, kernel: jnp.sum(f(x, kernel) ** 3)
    along = lambda gradients: sum(map(jnp.vdot, gradients, tangent))
    gradient = jax.grad(cube(fixed), (0, 1))
    batches = [jnp.stack([a, 2 * a + b]) for a, b in zip(point, tangent, strict=True)]
    found = {
        "jvp": jax.jvp(fixed, point, tangent)[1],
        "gradient": gradient(*point),
        "checkpointed": jax.grad(jax.checkpoint(cube(fixed)), (0, 1))(*point),
        "forward over reverse": jax.jvp(gradient, point, tangent)[1],
        "reverse over reverse": jax.grad(lambda *at: along(gradient(*at)), (0, 1))(*point),
        "transpose": jax.linear_transpose(lambda kernel: f(x, kernel), kernel)(f(*point)),
    }  # fmt: skip
    # Batches of maps, of kernels, and of maps for each of the kernels.
    for name, axes in {"maps": (0, None), "kernels": (None, 0)}.items():
        at = [batch if axis == 0 else batch[0] for batch, axis in zip(batches, axes, strict=True)]
        own = fixed if name == "maps" else f
        found[f"vmap of gradient, {name}"] = jax.vmap(jax.grad(cube(own), (0, 1)), axes)(*at)
        found[f"gradient of vmap, {name}"] = jax.grad(cube(jax.vmap(own, axes)), (0, 1))(*at)
    nested = jax.vmap(jax.vmap(f, (0, None)), (None, 0))
    found["gradient of nested vmap"] = jax.grad(cube(nested), (0, 1))(*batches)
    found["transpose of vmap"] = jax.linear_transpose(
        lambda kernel: jax.vmap(f, (0, None))(batches[0], kernel), kernel
    )(jax.vmap(f, (0, None))(batches[0], kernel))
    return found


OPTIONS = [
    {"convolution": "winograd", "padding": 0},
    {"size": 3, "stride": 2, "groups": 2, "padding_mode": "reflect"},
    {},  # few channels: one product for all taps
    {"convolution": "direct", "padding_mode": "periodic"},
    {"convolution": "winograd"},
    {"convolution": "fft", "size": 5, "padding": 1},
    {"size": 5, "padding": 1, "stride": 3},
]


# Twenty programs each to compile.
@pytest.mark.parametrize(
    "options",
    [OPTIONS[0], *(pytest.param(options, marks=pytest.mark.slow) for options in OPTIONS[1:])],
)
def test_derivatives_are_those_of_the_sum_of_taps(options):
    options = dict(options)
    size, groups = options.pop("size", 3), options.get("groups", 1)
    shapes = (8, 7, 4), (size, size, 4 // groups, 6)
    at = [draw(*shape) / 3 for shape in shapes * 2]
    method = options.get("convolution", "direct")
    prepared = prepare_kernel(at[1], method=method, shape=(8, 7), groups=groups)
    f = lambda x, kernel: convolve(x, kernel, **options)
    fixed = lambda x, kernel: convolve(x, kernel, prepared=prepared, **options)
    compiled = functools.partial(jax.jit, compiler_options={"xla_backend_optimization_level": 0})
    found = compiled(lambda *at: derivatives(f, fixed, *at))(*at)
    plain = {name: value for name, value in options.items() if name != "convolution"}
    by_taps = lambda x, kernel: convolve_by_taps(x, kernel, numpy=jnp, **plain)
    expected = compiled(lambda *at: derivatives(by_taps, by_taps, *at))(*at)
    assert set(found) == set(expected)
    for name in expected:
        pairs = zip(jax.tree.leaves(found[name]), jax.tree.leaves(expected[name]), strict=True)
        for ours, theirs in pairs:
            scale = float(jnp.abs(theirs).max())
            np.testing.assert_allclose(ours, theirs, rtol=1e-4, atol=1e-4 * scale, err_msg=name)


@pytest.mark.parametrize(
    "convolution",
    ["winograd", *(pytest.param(other, marks=pytest.mark.slow) for other in ("direct", "fft"))],
)
def test_hessian_vector_products_in_loops_and_on_devices(convolution):
    xs, kernel = draw(2, 6, 5, 3), draw(3, 3, 3, 3) / 4
    gradient = jax.grad(lambda x: jnp.sum(convolve(x, kernel, convolution=convolution) ** 3))
    product = lambda x: jax.jvp(gradient, (x,), (x,))[1] / 50
    expected = np.stack([product(x) for x in xs])
    while_loop = lambda x: jax.lax.while_loop(
        lambda c: c[0] < 1, lambda c: (c[0] + 1, product(c[1])), (0, x)
    )
    mesh = jax.make_mesh((1,), ("maps",), axis_types=(AxisType.Auto,))
    specs = PartitionSpec("maps")
    results = {
        "map": jax.lax.map(product, xs),
        "scan": jax.lax.scan(lambda c, x: (c, product(x)), 0, xs)[1],
        "while": jnp.stack([jax.jit(while_loop)(x)[1] for x in xs]),
        "vmap": jax.jit(jax.vmap(product))(xs),
    }
    for check in (False, True):
        mapped = jax.shard_map(
            jax.vmap(product), mesh=mesh, in_specs=specs, out_specs=specs, check_vma=check
        )
        results[f"shard_map {check}"] = jax.jit(mapped)(xs)
    for name, found in results.items():
        np.testing.assert_allclose(found, expected, rtol=1e-4, atol=1e-4, err_msg=name)


def test_gram_matrix_has_all_derivatives():
    maps = draw(2, 3, 4)
    check_grads(gram_matrix, (maps,), order=2, modes=("fwd", "rev"), rtol=0.02, atol=0.02)
    batch, target = draw(2, 2, 3, 4), draw(4, 4)
    loss = lambda maps: texture_loss(maps, target)
    one_by_one = jnp.stack([jax.grad(loss)(maps) for maps in batch])
    np.testing.assert_allclose(jax.vmap(jax.grad(loss))(batch), one_by_one, rtol=1e-5)
    of_batch = jax.grad(lambda batch: jnp.sum(jax.vmap(loss)(batch)))(batch)
    np.testing.assert_allclose(of_batch, one_by_one, rtol=1e-5)


def test_gradient_of_a_gram_matrix_is_one_product():
    loss = lambda maps: jnp.sum(gram_matrix(maps) ** 2)
    text = jax.jit(jax.value_and_grad(loss)).lower(draw(8, 9, 16)).as_text()
    assert len(re.findall("dot_general", text)) == 2  # the matrix itself is the other


def test_hessian_vector_products_of_losses_of_features(tiny, params, image, other_image):
    layers = ("conv1_1", "conv2_1")
    target, tangent = features(tiny, params, image, layers), draw(*image.shape)

    def loss(x):
        maps = features(tiny, params, x, layers)
        content = content_loss(maps["conv2_1"], target["conv2_1"])
        return content + texture_loss(maps["conv1_1"], gram_matrix(target["conv1_1"]) / 192)

    def plain_loss(x):
        apply = lambda x, layer: jnp.maximum(
            convolve_by_taps(x, params[layer]["kernel"], numpy=jnp) + params[layer]["bias"], 0
        )
        first = apply(255 * x, "conv1_1")
        second = apply(first, "conv1_2").reshape(6, 2, 8, 2, 8).mean((1, 3))
        difference = apply(second, "conv2_1") - target["conv2_1"]
        gram = lambda maps: jnp.einsum("hwi,hwj->ij", maps, maps) / 192
        texture = jnp.sum((gram(first) - gram(target["conv1_1"])) ** 2) / (4 * 8**2)
        return jnp.mean(difference**2) / 2 + texture

    def products(loss):
        gradient = jax.grad(loss)
        return jax.jit(
            lambda x: {
                "jvp": jax.jvp(loss, (x,), (tangent,)),
                "forward over reverse": jax.jvp(gradient, (x,), (tangent,)),
                "reverse over reverse": jax.grad(lambda x: jnp.vdot(gradient(x), tangent))(x),
            }
        )(other_image)

    found, expected = products(loss), products(plain_loss)
    for ours, theirs in zip(jax.tree.leaves(found), jax.tree.leaves(expected), strict=True):
        np.testing.assert_allclose(ours, theirs, rtol=1e-3, atol=1e-4 * float(abs(theirs).max()))
