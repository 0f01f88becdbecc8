"""The three objectives: what makes them zero, what they ignore, and what their verbs return."""

import dataclasses

import jax
import jax.numpy as jnp
import numpy as np
import pytest

import randviz as rv
from randviz.networks.network import IMAGENET_MEAN
from randviz.types import UserError

LAYERS = ("conv1_1", "conv2_1")


@pytest.fixture(scope="module")
def inversion(tiny, params, image):
    return rv.Inversion.of(tiny, params, image, layer="pool2")


@pytest.fixture(scope="module")
def texture(tiny, params, image):
    return rv.Texture.of(tiny, params, image, layers=LAYERS)


def make_style(tiny, params, content, paintings, **options):
    options = {"content_layers": ("pool2",), "style_layers": LAYERS, **options}
    return rv.Style.of(tiny, params, content, paintings, **options)


@pytest.mark.parametrize("name", ["inversion", "texture"])
def test_an_objective_is_zero_and_flat_at_its_own_image(request, name, image, other_image):
    objective = request.getfixturevalue(name)
    loss, gradient = jax.value_and_grad(objective)(image)
    assert float(loss) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-4)
    assert float(objective(other_image)) > 1e-2


def test_inversion_by_hand(tiny, params, image, other_image):
    objective = rv.Inversion.of(tiny, params, image, layer="relu2_1", tv_weight=0.3)
    maps = [rv.features(tiny, params, x, "conv2_1")["conv2_1"] for x in (other_image, image)]
    omega = rv.content_layer_weights(tiny, params, image, ("conv2_1",))["conv2_1"]
    expected = omega * rv.content_loss(*maps) + 0.3 * rv.total_variation(other_image)
    assert objective.layer == "conv2_1"
    np.testing.assert_allclose(objective(other_image), expected, rtol=1e-4)


def test_mahendrans_inversion_by_hand(tiny, params, image, other_image):
    terms = {"tv_weight": 0.3, "tv_power": 3.0, "alpha_weight": 0.7, "alpha_power": 4}
    objective = rv.Inversion.of(tiny, params, image, layer="conv2_1", weighting="energy", **terms)
    found, target = (
        rv.features(tiny, params, x, "conv2_1")["conv2_1"] for x in (other_image, image)
    )
    expected = jnp.sum((found - target) ** 2) / jnp.sum(target**2)
    expected += 0.3 * rv.total_variation(other_image, power=3.0)
    expected += 0.7 * jnp.sum((other_image - 0.5) ** 4)
    np.testing.assert_allclose(objective(other_image), expected, rtol=1e-4)
    with pytest.raises(UserError, match="norm.*omega or energy"):
        rv.Inversion.of(tiny, params, image, layer="conv2_1", weighting="norm")


def test_texture_by_hand(tiny, params, image, other_image, texture):
    maps = rv.features(tiny, params, other_image, LAYERS)
    targets = rv.features(tiny, params, image, LAYERS)
    mu = rv.texture_layer_weights(tiny, params, image, LAYERS)
    expected = sum(
        mu[layer] * rv.texture_loss(maps[layer], rv.mean_gram(targets[layer])) for layer in LAYERS
    )
    np.testing.assert_allclose(texture(other_image), expected, rtol=1e-4)


def test_texture_does_not_notice_where_things_are(tiny, params, image):
    periodic = dataclasses.replace(tiny, padding_mode="periodic")
    objective = rv.Texture.of(periodic, params, image, layers=LAYERS)
    # Two pixels are one position after the pooling, so every layer only moves.
    moved = jnp.roll(image, (4, 6), (0, 1))
    assert float(objective(moved)) < 1e-6
    np.testing.assert_allclose(jax.grad(objective)(moved), 0, atol=1e-4)
    # Upside down is another matter: the kernels have a direction.
    assert float(objective(image[::-1])) > 1e-3


def test_a_texture_may_have_another_size_than_its_source(tiny, params, image):
    periodic = dataclasses.replace(tiny, padding_mode="periodic")
    objective = rv.Texture.of(periodic, params, image, layers=LAYERS)
    assert float(objective(jnp.tile(image, (2, 3, 1)))) < 1e-6


def test_style_without_style_is_inversion(tiny, params, image, other_image, inversion):
    objective = make_style(
        tiny, params, image, other_image, content_weight=2.0, style_weight=0.0, tv_weight=0.0
    )
    np.testing.assert_allclose(objective(other_image), 2 * inversion(other_image), rtol=1e-5)


def test_style_without_content_is_texture(tiny, params, image, other_image, texture):
    objective = make_style(
        tiny, params, other_image, image, content_weight=0.0, style_weight=3.0, tv_weight=0.0
    )
    np.testing.assert_allclose(objective(other_image), 3 * texture(other_image), rtol=1e-5)


def test_style_terms_add_up(tiny, params, image, other_image):
    def loss(a, b, c):
        return make_style(
            tiny, params, image, other_image, content_weight=a, style_weight=b, tv_weight=c
        )(0.5 * image)

    parts = loss(2.0, 0.0, 0.0) + loss(0.0, 3.0, 0.0) + loss(0.0, 0.0, 0.5)
    np.testing.assert_allclose(loss(2.0, 3.0, 0.5), parts, rtol=1e-5)


def test_blended_styles_lie_between(tiny, params, image, other_image):
    alone = [make_style(tiny, params, image, [x]) for x in (image, other_image)]
    blend = make_style(tiny, params, image, [image, other_image], style_blend_weights=(3.0, 1.0))
    for layer in LAYERS:
        expected = 0.75 * alone[0].style_targets[layer] + 0.25 * alone[1].style_targets[layer]
        np.testing.assert_allclose(blend.style_targets[layer], expected, rtol=1e-5)
    twice = make_style(tiny, params, image, [other_image[:8], other_image[:8]])
    once = make_style(tiny, params, image, other_image[:8])
    np.testing.assert_allclose(twice(other_image), once(other_image), rtol=1e-5)


@pytest.mark.parametrize(("count", "shares"), [(0, None), (2, (1.0,))])
def test_styles_and_shares_must_match(tiny, params, image, count, shares):
    with pytest.raises(UserError, match="share"):
        make_style(tiny, params, image, [image] * count, style_blend_weights=shares)


def test_doubling_all_weights_changes_no_task(tiny, params, image, other_image):
    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)
    for of in (
        lambda p: rv.Inversion.of(tiny, p, image, layer="pool2"),
        lambda p: rv.Texture.of(tiny, p, image, layers=LAYERS),
        lambda p: make_style(tiny, p, image, other_image),
    ):
        once, twice = (jax.value_and_grad(of(p))(0.5 * image) for p in (params, doubled))
        np.testing.assert_array_equal(once[0], twice[0])
        np.testing.assert_array_equal(once[1], twice[1])


def test_any_scale_gives_the_same_task(tiny, image, other_image):
    losses = []
    for scale in (1e-6, 0.015, 7.0):
        params = rv.random_weights(jax.random.key(7), tiny, scale=scale)
        losses.append(float(rv.Texture.of(tiny, params, image, layers=LAYERS)(other_image)))
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)


def test_offsets_are_the_tasks_unless_the_network_has_one(tiny, params, image):
    free = dataclasses.replace(tiny, input_offset=None)
    assert rv.Inversion.of(free, params, image, layer="pool2").network.input_offset == 0
    assert rv.Texture.of(free, params, image, layers=LAYERS).network.input_offset == IMAGENET_MEAN
    assert make_style(free, params, image, image).network.input_offset == IMAGENET_MEAN
    fixed = dataclasses.replace(tiny, input_offset=(1.0, 2.0, 3.0))
    assert make_style(fixed, params, image, image).network.input_offset == (1.0, 2.0, 3.0)


def test_the_verbs_return_images_and_traces(tiny, params, image, other_image):
    key = jax.random.key(0)
    inverted = rv.invert(key, tiny, params, image, layer="conv1_2", num_steps=60)
    made = rv.synthesize(key, tiny, params, image, layers=LAYERS, shape=(8, 20), num_steps=9)
    painted = rv.transfer(
        key, tiny, params, image, other_image, content_layers=("conv1_1",), style_layers=LAYERS,
        num_steps=9, init="noise",
    )  # fmt: skip
    assert inverted.image.shape == image.shape and inverted.trace.loss.shape == (60,)
    assert made.image.shape == (8, 20, 3) and painted.image.shape == image.shape
    for result in (made, painted):
        assert float(result.trace.loss[-1]) < 0.5 * float(result.trace.loss[0])
    # Eight channels to each pixel's three values: enough for the image itself to come back.
    assert float(jnp.mean(jnp.abs(inverted.image - image))) < 0.04


def test_a_verb_is_not_traced_again_for_other_arrays(tiny, params, image, other_image):
    verb = rv.invert
    verb.clear_cache()
    for key, x, tv in ((0, image, 0.0), (1, other_image, 0.5)):
        verb(jax.random.key(key), tiny, params, x, layer="conv1_1", num_steps=2, tv_weight=tv)
    again = rv.random_weights(jax.random.key(9), tiny, last_layer="fc8")
    network = dataclasses.replace(tiny)
    verb(jax.random.key(3), network, again, image, layer="conv1_1", num_steps=2, tv_weight=0.1)
    assert verb._cache_size() == 1


def test_vmap_over_weights_equals_a_loop(tiny, image):
    keys = jax.random.split(jax.random.key(0), 3)

    def run(key):
        params = rv.random_weights(key, tiny, last_layer="conv1_2")
        return rv.invert(jax.random.key(1), tiny, params, image, layer="conv1_2", num_steps=15)

    together = jax.vmap(run)(keys)
    for i in range(3):
        np.testing.assert_allclose(together.trace.loss[i], run(keys[i]).trace.loss, rtol=0.05)


def test_a_transfer_starts_where_it_is_told(tiny, params, image, other_image):
    def start(init):
        return rv.transfer(
            jax.random.key(0), tiny, params, image, other_image, content_layers=("conv1_1",),
            style_layers=LAYERS, num_steps=0, init=init,
        ).image  # fmt: skip

    np.testing.assert_array_equal(start("content"), image)
    assert 0.05 < float(start("noise").std()) < 0.2
    with pytest.raises(UserError, match="grey"):
        start("grey")


def test_kept_colours_have_the_brightness_of_one_and_the_hue_of_the_other(image, other_image):
    mixed = rv.keep_colors(image, other_image)
    luma = jnp.array([0.299, 0.587, 0.114])
    np.testing.assert_allclose(mixed @ luma, image @ luma, atol=1e-5)
    colour = lambda x: x - (x @ luma)[..., None]
    np.testing.assert_allclose(colour(mixed), colour(other_image), atol=1e-5)
    np.testing.assert_allclose(rv.keep_colors(image, image), image, atol=1e-5)


def test_core_promotes_no_dtype_by_accident(tiny, params, image, other_image):
    with jax.numpy_dtype_promotion("strict"):
        objective = make_style(tiny, params, image, other_image)
        assert objective(image).dtype == jnp.float32
        assert rv.Inversion.of(tiny, params, image, layer="pool2")(image).dtype == jnp.float32
        assert rv.keep_colors(image, image).dtype == jnp.float32


@pytest.mark.slow
def test_pool4_of_a_random_vgg19_returns_the_photograph():
    from randviz.host.images import load_image
    from randviz.host.quality import compare_images

    photograph = jnp.asarray(load_image("chelsea", image_size=128))
    params = rv.random_weights(jax.random.key(0), rv.VGG19, last_layer="pool4")
    result = rv.invert(
        jax.random.key(1), rv.VGG19, params, photograph, layer="pool4", num_steps=400
    )
    assert compare_images(result.image, photograph)["psnr"] >= 18
