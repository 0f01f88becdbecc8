"""Extractors of functions and of Flax modules, against applying them."""

import flax.linen as nn
import jax
import jax.numpy as jnp
import numpy as np
import pytest
from flax import nnx

from randviz.networks.adapters import from_function, from_linen, from_nnx
from randviz.types import UserError


class LinenBlock(nn.Module):
    channels: int

    @nn.compact
    def __call__(self, x):
        return nn.relu(nn.Conv(self.channels, (3, 3))(x))


class LinenNet(nn.Module):
    @nn.compact
    def __call__(self, x, train=True):
        x = nn.BatchNorm(use_running_average=not train, name="z")(x)
        x = LinenBlock(5, name="block")(x)
        x = nn.avg_pool(x, (2, 2), (2, 2))
        self.sow("intermediates", "pooled", x)
        x = LinenBlock(6, name="a")(x)
        return nn.Dense(3)(x.mean((1, 2)))


class NnxBlock(nnx.Module):
    def __init__(self, inputs, outputs, rngs):
        self.conv = nnx.Conv(inputs, outputs, (3, 3), rngs=rngs)

    def __call__(self, x):
        return nnx.relu(self.conv(x))


class NnxNet(nnx.Module):
    def __init__(self, rngs):
        self.z = NnxBlock(3, 4, rngs)
        self.norm = nnx.BatchNorm(4, rngs=rngs)
        self.a = NnxBlock(4, 5, rngs)

    def __call__(self, x):
        return self.a(nnx.avg_pool(self.norm(self.z(x)), (2, 2), (2, 2)))


def blur(params, image):
    grey = jnp.tensordot(image, params["colours"], 1)[..., None]
    return {"grey": grey, "edges": jnp.abs(grey[1:] - grey[:-1])}


@pytest.fixture(scope="module")
def linen():
    module = LinenNet()
    variables = module.init(jax.random.key(0), jnp.ones((1, 8, 8, 3)))
    return module, variables


@pytest.fixture(scope="module")
def nnx_module():
    module = NnxNet(nnx.Rngs(0))
    module.eval()
    return module


@pytest.fixture(scope="module")
def extractors(linen, nnx_module):
    colours = {"colours": jnp.array([0.2, 0.7, 0.1])}
    made = from_function(blur, colours), from_linen(*linen, train=False), from_nnx(nnx_module)
    return dict(zip(("function", "linen", "nnx"), made, strict=True))


def test_layers_are_in_the_order_of_evaluation(extractors):
    assert extractors["function"].layer_names == ("image", "grey", "edges")
    names = ("image", "z", "block/Conv_0", "block", "pooled", "a/Conv_0", "a")
    assert extractors["linen"].layer_names == names
    names = ("image", "z/conv", "z", "norm", "a/conv", "a", "output")
    assert extractors["nnx"].layer_names == names


def test_features_of_a_function_are_its_own(extractors, image):
    found = extractors["function"](image, ("edges", "image", "grey"))
    assert list(found) == ["image", "grey", "edges"]
    expected = blur(extractors["function"].params, image)
    np.testing.assert_array_equal(found["edges"], expected["edges"])
    np.testing.assert_array_equal(found["image"], image)


def test_features_of_a_linen_module_are_its_own(extractors, linen, image):
    _, variables = linen
    found = extractors["linen"](image, ("z", "block", "pooled", "a"))
    run = lambda name, channels, x: LinenBlock(channels).apply(
        {"params": variables["params"][name]}, x
    )
    x = image[None] / jnp.sqrt(1 + 1e-5)  # the initial statistics are 0 and 1
    for name, channels in (("block", 5), ("a", 6)):
        x = run(name, channels, x)
        np.testing.assert_allclose(found[name], x[0], rtol=1e-5, atol=1e-6)
        if name == "block":
            x = nn.avg_pool(x, (2, 2), (2, 2))
            np.testing.assert_allclose(found["pooled"], x[0], rtol=1e-5, atol=1e-6)


def test_features_of_an_nnx_module_are_its_own(extractors, nnx_module, image):
    found = extractors["nnx"](image, ("z", "norm", "a", "output"))
    z = nnx_module.z(image[None])
    np.testing.assert_allclose(found["z"], z[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["norm"], nnx_module.norm(z)[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_allclose(found["a"], nnx_module(image[None])[0], rtol=1e-5, atol=1e-6)
    np.testing.assert_array_equal(found["a"], found["output"])


@pytest.mark.parametrize(("kind", "layer"), [("function", "edges"), ("linen", "a"), ("nnx", "a")])
def test_extractors_pass_through_transformations(extractors, image, other_image, kind, layer):
    extractor, traces = extractors[kind], []

    @jax.jit
    def run(extractor, image):
        traces.append(image)
        gradient = jax.grad(lambda image: jnp.square(extractor(image, layer)[layer]).sum())
        return gradient(image), extractor(image, layer)[layer]

    gradient, maps = run(extractor, image)
    # Another one of the same network is the same program.
    doubled = jax.tree.map(lambda leaf: leaf, extractor)
    run(doubled, other_image)
    assert len(traces) == 1
    np.testing.assert_allclose(maps, extractor(image, layer)[layer], rtol=1e-4, atol=1e-6)
    step = np.random.default_rng(0).normal(size=image.shape).astype(np.float32)
    loss = lambda image: np.square(np.asarray(extractor(image, layer)[layer], np.float64)).sum()
    slope = (loss(image + 1e-3 * step) - loss(image - 1e-3 * step)) / 2e-3
    assert float(jnp.sum(gradient * step)) == pytest.approx(slope, rel=2e-2)
    images = jnp.stack([image, other_image])
    batch = jax.vmap(lambda each: extractor(each, layer)[layer])(images)
    np.testing.assert_allclose(batch[0], maps, rtol=1e-4, atol=1e-6)
    assert extractor.feature_shape((12, 16, 3), layer) == maps.shape


def test_weights_are_leaves(extractors, image):
    gradient = jax.grad(lambda extractor: extractor(image, "grey")["grey"].sum())
    found = gradient(extractors["function"]).params["colours"]
    np.testing.assert_allclose(found, image.sum((0, 1)), rtol=1e-5)


def test_some_layers_only(linen):
    extractor = from_linen(*linen, layers=("a", "block"), train=False)
    assert extractor.layer_names == ("image", "block", "a")
    with pytest.raises(UserError, match="'b'.*block/Conv_0"):
        _ = from_linen(*linen, layers=("b",), train=False).layer_names


class Scores(nn.Module):
    @nn.compact
    def __call__(self, x):
        return nn.Dense(3)(x.reshape(1, -1))


def only_large(params, image):
    if image.shape[0] < 100:
        raise ValueError("100 rows at least.\nOr more.")
    return {"image_again": image}


def test_what_is_no_feature_map_is_said(image):
    module = Scores()
    extractor = from_linen(module, module.init(jax.random.key(0), jnp.ones((1, 64, 64, 3))))
    with pytest.raises(UserError, match="Scores has no feature maps"):
        extractor(image, "Dense_0")
    flat = from_function(lambda params, image: {"flat": image.ravel()}, (), name="flattening")
    with pytest.raises(UserError, match=r"'flat' of flattening has shape \(12288,\)"):
        flat(image, "flat")
    bare = from_function(lambda params, image: image, (), name="bare")
    with pytest.raises(UserError, match="bare returns"):
        bare(image, "image")


def test_images_that_do_not_fit_are_said(image, nnx_module):
    with pytest.raises(
        UserError, match=r"only_large.*64×64 pixels \(100 rows at least\).*image_size"
    ):
        from_function(only_large, ())(image, "image_again")
    large = from_function(only_large, (), image_size=128)
    with pytest.raises(UserError, match="16×12 pixels"):
        large(image, "image_again")
    crop = from_function(lambda params, image: {"inside": image[9:-9, 9:-9]}, (), name="crop")
    with pytest.raises(UserError, match="16×12 pixels, too small for layer 'inside' of crop"):
        crop(image, "inside")
    with pytest.raises(UserError, match=r"\(height, width, 3\)"):
        crop(image[..., 0], "inside")
    with pytest.raises(UserError, match="'outside'.*image, inside"):
        crop(image, "outside")
