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
    return rv.Inversion(layer="pool2").of(tiny.bind(params), image)


@pytest.fixture(scope="module")
def texture(tiny, params, image):
    return rv.Texture(layers=LAYERS).of(tiny.bind(params), image)


def make_style(tiny, params, content, paintings, masks=None, **options):
    options = {"content_layers": ("pool2",), "style_layers": LAYERS, **options}
    return rv.Style(**options).of(tiny.bind(params), content, paintings, masks)


@jax.jit
def evaluate(objective, image):
    """One program for all objectives of a kind; outside of `jit` each operation is compiled."""
    return jax.value_and_grad(objective)(image)


def loss_of(objective, image):
    return float(evaluate(objective, image)[0])


@pytest.mark.parametrize("name", ["inversion", "texture"])
def test_an_objective_is_zero_and_flat_at_its_own_image(request, name, image, other_image):
    objective = request.getfixturevalue(name)
    loss, gradient = evaluate(objective, image)
    assert float(loss) == pytest.approx(0, abs=1e-6)
    np.testing.assert_allclose(gradient, 0, atol=1e-4)
    assert loss_of(objective, other_image) > 1e-2


def test_inversion_by_hand(tiny, params, image, other_image):
    objective = rv.Inversion(layer="relu2_1", tv_weight=0.3).of(tiny.bind(params), image)
    maps = [rv.features(tiny, params, x, "conv2_1")["conv2_1"] for x in (other_image, image)]
    omega = rv.layer_weights(tiny.bind(params), image, {"conv2_1": rv.Features()})["conv2_1"]
    expected = omega * rv.content_loss(*maps) + 0.3 * rv.total_variation(other_image)
    assert objective.parts["content"].terms[0].layer == "conv2_1"
    np.testing.assert_allclose(loss_of(objective, other_image), expected, rtol=1e-4)
    losses = jax.jit(lambda objective, image: objective.losses(image))(objective, other_image)
    assert {*losses} == {"content", "tv", "alpha_norm"}
    np.testing.assert_allclose(losses["tv"], 0.3 * rv.total_variation(other_image), rtol=1e-5)


def test_mahendrans_inversion_by_hand(tiny, params, image, other_image):
    terms = {"tv_weight": 0.3, "tv_power": 3.0, "alpha_weight": 0.7, "alpha_power": 4}
    task = rv.Inversion(layer="conv2_1", weighting="energy", **terms)
    objective = task.of(tiny.bind(params), image)
    found, target = (
        rv.features(tiny, params, x, "conv2_1")["conv2_1"] for x in (other_image, image)
    )
    expected = jnp.sum((found - target) ** 2) / jnp.sum(target**2)
    expected += 0.3 * rv.total_variation(other_image, power=3.0)
    expected += 0.7 * jnp.sum((other_image - 0.5) ** 4)
    np.testing.assert_allclose(loss_of(objective, other_image), expected, rtol=1e-4)
    with pytest.raises(UserError, match="norm.*omega or energy"):
        rv.Inversion(layer="conv2_1", weighting="norm").of(tiny.bind(params), image)


def test_texture_by_hand(tiny, params, image, other_image, texture):
    maps = rv.features(tiny, params, other_image, LAYERS)
    targets = rv.features(tiny, params, image, LAYERS)
    mu = rv.layer_weights(tiny.bind(params), image, dict.fromkeys(LAYERS, rv.Gram()))
    expected = sum(
        mu[layer] * rv.texture_loss(maps[layer], rv.mean_gram(targets[layer])) for layer in LAYERS
    )
    np.testing.assert_allclose(loss_of(texture, other_image), expected, rtol=1e-4)


def test_texture_does_not_notice_where_things_are(tiny, params, image):
    periodic = dataclasses.replace(tiny, padding_mode="periodic")
    objective = rv.Texture(layers=LAYERS).of(periodic.bind(params), image)
    # Two pixels are one position after the pooling, so every layer only moves.
    moved = jnp.roll(image, (4, 6), (0, 1))
    loss, gradient = evaluate(objective, moved)
    assert float(loss) < 1e-6
    np.testing.assert_allclose(gradient, 0, atol=1e-4)
    # Upside down is another matter: the kernels have a direction.
    assert loss_of(objective, image[::-1]) > 1e-3


def test_a_texture_may_have_another_size_than_its_source(tiny, params, image):
    periodic = dataclasses.replace(tiny, padding_mode="periodic")
    objective = rv.Texture(layers=LAYERS).of(periodic.bind(params), image)
    assert loss_of(objective, jnp.tile(image, (2, 3, 1))) < 1e-6


def test_style_without_style_is_inversion(tiny, params, image, other_image, inversion):
    objective = make_style(
        tiny, params, image, other_image, content_weight=2.0, style_weight=0.0, tv_weight=0.0
    )
    expected = 2 * loss_of(inversion, other_image)
    assert loss_of(objective, other_image) == pytest.approx(expected, rel=1e-5)


def test_style_without_content_is_texture(tiny, params, image, other_image, texture):
    objective = make_style(
        tiny, params, other_image, image, content_weight=0.0, style_weight=3.0, tv_weight=0.0
    )
    expected = 3 * loss_of(texture, other_image)
    assert loss_of(objective, other_image) == pytest.approx(expected, rel=1e-5)


def test_style_terms_add_up(tiny, params, image, other_image):
    def loss(a, b, c):
        objective = make_style(
            tiny, params, image, other_image, content_weight=a, style_weight=b, tv_weight=c
        )
        return loss_of(objective, 0.5 * image)

    parts = loss(2.0, 0.0, 0.0) + loss(0.0, 3.0, 0.0) + loss(0.0, 0.0, 0.5)
    np.testing.assert_allclose(loss(2.0, 3.0, 0.5), parts, rtol=1e-5)


def test_blended_styles_lie_between(tiny, params, image, other_image):
    alone = [make_style(tiny, params, image, [x]) for x in (image, other_image)]
    blend = make_style(tiny, params, image, [image, other_image], style_blend_weights=(3.0, 1.0))
    styles = [objective.parts["style"].terms for objective in (*alone, blend)]
    for first, second, both in zip(*styles, strict=True):
        for name in ("target", "weight"):
            expected = 0.75 * getattr(first, name) + 0.25 * getattr(second, name)
            np.testing.assert_allclose(getattr(both, name), expected, rtol=1e-5)
    twice = make_style(tiny, params, image, [other_image, other_image])
    assert loss_of(twice, 0.5 * image) == pytest.approx(loss_of(alone[1], 0.5 * image), rel=1e-5)


def test_regions_of_a_style_add_up(tiny, params, image, other_image):
    left = np.float32(np.arange(16) < 8) * np.ones((12, 1), np.float32)
    options = {"content_weight": 0.0, "tv_weight": 0.0}
    once = make_style(tiny, params, image, [other_image], **options)
    whole = make_style(tiny, params, image, [other_image], [np.ones((12, 16), bool)], **options)
    expected = loss_of(once, 0.5 * image)
    assert loss_of(whole, 0.5 * image) == pytest.approx(expected, rel=1e-4)
    dark = other_image**3
    both = make_style(tiny, params, image, [dark, image], [3 * left, 3 * (1 - left)], **options)
    terms = both.parts["style"].terms
    assert [term.layer for term in terms] == [*LAYERS, *LAYERS]
    at_home, swapped = (
        loss_of(both, jnp.where(side[..., None] > 0, dark, image)) for side in (left, 1 - left)
    )
    assert at_home < 0.1 * swapped
    once = make_style(tiny, params, image, [dark], **options)
    # Half the area has half the weight of a style of its own.
    for term, alone in zip(terms[:2], once.parts["style"].terms, strict=True):
        np.testing.assert_allclose(term.weight, alone.weight / 2, rtol=1e-5)


@pytest.mark.parametrize(
    ("masks", "said"),
    [
        ([np.ones((12, 16))] * 2, "1 style images and 2 masks"),
        ([np.ones((16, 12))], r"\(16, 12\).*\(12, 16\)"),
        ([np.zeros((12, 16))], "0 everywhere"),
        ([-np.ones((12, 16))], "negative"),
    ],
)
def test_masks_that_are_none_are_refused(tiny, params, image, masks, said):
    with pytest.raises(UserError, match=said):
        make_style(tiny, params, image, [image], masks)


@pytest.mark.parametrize(("count", "shares"), [(0, None), (2, (1.0,)), (2, (0, 0)), (2, (3, -1))])
def test_styles_and_blend_weights_must_match(tiny, params, image, count, shares):
    with pytest.raises(UserError, match="blend weight"):
        make_style(tiny, params, image, [image] * count, style_blend_weights=shares)


def test_doubling_all_weights_changes_no_task(tiny, params, image, other_image):
    doubled = jax.tree.map(lambda leaf: 2 * leaf, params)
    for of in (
        lambda p: rv.Inversion(layer="pool2").of(tiny.bind(p), image),
        lambda p: rv.Texture(layers=LAYERS).of(tiny.bind(p), image),
        lambda p: make_style(tiny, p, image, other_image),
    ):
        once, twice = (evaluate(of(p), 0.5 * image) for p in (params, doubled))
        np.testing.assert_array_equal(once[0], twice[0])
        np.testing.assert_array_equal(once[1], twice[1])


def test_any_scale_gives_the_same_task(tiny, image, other_image):
    losses = []
    for scale in (1e-6, 0.015, 7.0):
        params = rv.random_weights(jax.random.key(7), tiny, scale=scale)
        objective = rv.Texture(layers=LAYERS).of(tiny.bind(params), image)
        losses.append(loss_of(objective, other_image))
    np.testing.assert_allclose(losses, losses[0], rtol=1e-4)


def test_offsets_are_the_tasks_unless_the_network_has_one(tiny, params, image):
    free = dataclasses.replace(tiny, input_offset=None)
    fixed = dataclasses.replace(tiny, input_offset=(1.0, 2.0, 3.0))
    for network, make, offset in (
        (free, lambda network: rv.Inversion(layer="pool2").of(network, image), 0),
        (free, lambda network: rv.Texture(layers=LAYERS).of(network, image), IMAGENET_MEAN),
        (free, lambda network: rv.Style(style_layers=LAYERS, content_layers="pool2").of(
            network, image, image), IMAGENET_MEAN),
        (fixed, lambda network: rv.Texture(layers=LAYERS).of(network, image), (1.0, 2.0, 3.0)),
    ):  # fmt: skip
        objective = jax.eval_shape(make, network.bind(params))
        assert objective.extractor.network.input_offset == offset


def test_the_verbs_return_images_and_traces(tiny, params, image, other_image):
    key, network = jax.random.key(0), tiny.bind(params)
    inverted = rv.invert(key, network, image, layer="conv1_2", num_steps=60)
    made = rv.synthesize(key, network, image, layers=LAYERS, shape=(8, 20), num_steps=9)
    painted = rv.transfer(
        key, network, image, other_image, content_layers=("conv1_1",), style_layers=LAYERS,
        num_steps=9, init="noise",
    )  # fmt: skip
    assert inverted.image.shape == image.shape and inverted.trace.loss.shape == (60,)
    assert made.image.shape == (8, 20, 3) and painted.image.shape == image.shape
    for result in (made, painted):
        assert float(result.trace.loss[-1]) < 0.5 * float(result.trace.loss[0])
    # Eight channels to each pixel's three values: enough for the image itself to come back.
    assert float(jnp.mean(jnp.abs(inverted.image - image))) < 0.04


def test_arguments_as_people_write_them(tiny, params, image, other_image):
    network, plain = tiny.bind(params), jax.random.key(0)
    texture = {"layers": LAYERS, "num_steps": 2}
    expected = rv.synthesize(plain, network, image, **texture).image
    # Float64 and float32, old-style keys, lists, and NumPy's whole numbers are the same.
    for key, picture, options in (
        (jax.random.PRNGKey(0), np.asarray(image, np.float64), {"num_steps": np.int64(2)}),
        (plain, np.asarray(image), {"layers": [*LAYERS], "shape": np.array([12, 16])}),
    ):
        found = rv.synthesize(key, network, picture, **{**texture, **options}).image
        np.testing.assert_array_equal(found, expected)
        assert found.dtype == jnp.float32
    half = rv.synthesize(plain, network, np.asarray(image, np.float16), **texture).image
    np.testing.assert_allclose(half, expected, atol=0.05)
    options = {"style_layers": "conv1_1", "num_steps": 1}
    one, several = (
        rv.transfer(plain, network, image, other_image, content_layers=name, **options).image
        for name in ("conv1_2", ["conv1_2"])
    )
    np.testing.assert_array_equal(one, several)


@pytest.mark.parametrize(
    "array",
    [
        np.full((12, 16, 3), 200, np.uint8),
        np.full((12, 16, 3), 200),
        np.full((12, 16, 3), True),
        np.full((12, 16, 3), 200.0),
    ],
)
def test_arrays_in_0_to_255_are_refused_in_a_sentence(tiny, params, image, array):
    key, network = jax.random.key(0), tiny.bind(params)
    for verb in (
        lambda: rv.invert(key, network, array, layer="conv1_1"),
        lambda: rv.synthesize(key, network, array, layers=LAYERS),
        lambda: rv.transfer(key, network, array, image),
        lambda: rv.transfer(key, network, image, array),
        lambda: rv.minimize(rv.total_variation, array, num_steps=1),
    ):
        with pytest.raises(UserError, match=r"\[0, 1\].*divide 0 to 255 by 255\.$"):
            verb()


def test_a_verb_is_not_compiled_again_for_other_arrays(tiny, params, image, other_image):
    from randviz.descent import descent
    from randviz.tasks import inversion

    programs = (descent._init, descent._advance, inversion._make)
    again = rv.random_weights(jax.random.key(9), tiny, last_layer="fc8")
    counts = []
    for key, x, weights, tv in ((0, image, params, 0.0), (1, other_image, again, 0.5)):
        network = dataclasses.replace(tiny).bind(weights)
        rv.invert(jax.random.key(key), network, x, layer="conv1_2", num_steps=2 + key, tv_weight=tv)
        counts.append([program._cache_size() for program in programs])
    assert counts[0] == counts[1]


def test_vmap_over_weights_equals_a_loop(tiny, image):
    keys = jax.random.split(jax.random.key(0), 3)

    def run(key):
        network = tiny.bind(rv.random_weights(key, tiny, last_layer="conv1_2"))
        return rv.invert(jax.random.key(1), network, image, layer="conv1_2", num_steps=15)

    together = jax.vmap(run)(keys)
    for i in range(3):
        np.testing.assert_allclose(together.trace.loss[i], run(keys[i]).trace.loss, rtol=0.05)


def test_a_transfer_starts_where_it_is_told(tiny, params, image, other_image):
    def start(init):
        return rv.transfer(
            jax.random.key(0), tiny.bind(params), image, other_image, init=init,
            content_layers=("conv1_1",), style_layers=LAYERS, num_steps=0,
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


def test_matched_colours_have_the_mean_and_the_covariance_of_the_other(image, other_image):
    colors = lambda x: np.asarray(x, np.float64).reshape(-1, 3)
    # Correlated channels, as photographs have.
    mixing = jnp.array([[1, 0.6, 0.1], [0, 0.5, 0.3], [0, 0, 0.2]])
    reference = 0.2 + 0.5 * other_image[:5] @ mixing
    matched, expected = colors(rv.match_colors(image, reference)), colors(reference)
    np.testing.assert_allclose(matched.mean(0), expected.mean(0), atol=1e-5)
    covariances = [np.cov(values.T, bias=True) for values in (matched, expected)]
    np.testing.assert_allclose(*covariances, atol=1e-5)
    np.testing.assert_allclose(rv.match_colors(image, image), image, atol=1e-4)


@pytest.mark.parametrize("kind", ["constant", "grey"])
def test_images_without_colours_are_matched_too(image, other_image, kind):
    plain = image[..., :1] * jnp.ones(3) if kind == "grey" else jnp.full_like(image, 0.3)
    for matched, reference in (
        (rv.match_colors(plain, other_image), other_image),
        (rv.match_colors(image, plain), plain),
        (rv.match_colors(plain, plain), plain),
    ):
        np.testing.assert_allclose(matched.mean((0, 1)), reference.mean((0, 1)), atol=1e-4)
        assert float(matched.std((0, 1)).max()) < 1.1 * float(reference.std((0, 1)).max()) + 1e-3


def test_core_promotes_no_dtype_by_accident(tiny, params, image, other_image):
    with jax.numpy_dtype_promotion("strict"):
        objective = make_style(tiny, params, image, other_image)
        assert evaluate(objective, image)[0].dtype == jnp.float32
        inversion = rv.Inversion(layer="pool2").of(tiny.bind(params), image)
        assert evaluate(inversion, image)[0].dtype == jnp.float32
        assert rv.keep_colors(image, image).dtype == jnp.float32
        assert rv.match_colors(image, image).dtype == jnp.float32


@pytest.mark.slow
def test_pool4_of_a_random_vgg19_returns_the_photograph():
    from randviz.host.images import load_image
    from randviz.host.quality import compare_images

    photograph = jnp.asarray(load_image("chelsea", image_size=128))
    params = rv.random_weights(jax.random.key(0), rv.VGG19, last_layer="pool4")
    result = rv.invert(
        jax.random.key(1), rv.VGG19.bind(params), photograph, layer="pool4", num_steps=400
    )
    assert compare_images(result.image, photograph)["psnr"] >= 18
