"""The statistics against NumPy and scipy in float64, and what every one of them must do."""

import jax
import jax.numpy as jnp
import numpy as np
import pytest
from mixing import MIXING
from scipy.stats import wasserstein_distance

import randviz as rv
from randviz.objectives.building import make_terms
from randviz.objectives.statistics.catalog import STATISTICS, find_statistic
from randviz.types import UserError

rng = np.random.default_rng(4)
SHUFFLABLE = [name for name, known in STATISTICS.items() if not known.keeps_positions]


# Inputs are NumPy's, and what is computed of them is one program each: JAX compiles every operation
# outside of `jit` on its own.
def draw(*shape):
    return rng.uniform(0.1, 1, size=shape).astype(np.float32)


def wide(array):
    return np.asarray(array, np.float64)


@jax.jit
def sample(statistic, maps):
    columns = maps.reshape(-1, maps.shape[-1])
    place_key, key = jax.random.split(jax.random.key(3))
    shape = (statistic.count_samples(columns.shape[1]),)
    places = jax.random.randint(place_key, shape, 0, len(columns))
    return statistic.sample(key, columns.shape[1], columns[places])


@jax.jit
def measure(statistic, maps, mask=None):
    return statistic.measure(maps, mask)


@jax.jit
def find_distance(statistic, maps, target_maps, mask=None, target_mask=None):
    target = statistic.measure(target_maps, target_mask)
    return statistic.compare(statistic.measure(maps, mask), target)


# Features and Gram matrices.


def test_content_loss_is_eq_1_without_omega_and_its_gradient_eq_3():
    found, target = draw(2, 3, 4), draw(2, 3, 4)
    difference = wide(found) - wide(target)
    expected = np.sum(difference**2) / (2 * 4 * 6)  # N = 4 channels, M = 6 positions
    loss, gradient = jax.jit(jax.value_and_grad(rv.content_loss))(found, target)
    np.testing.assert_allclose(loss, expected, rtol=1e-5)
    np.testing.assert_allclose(gradient, difference / 24, rtol=1e-5, atol=1e-8)


def test_gram_matrix_is_a_double_loop():
    maps = draw(2, 3, 4)
    rows = np.asarray(maps).reshape(6, 4)
    expected = [
        [sum(rows[k, i] * rows[k, j] for k in range(6)) for j in range(4)] for i in range(4)
    ]
    gram = jax.jit(rv.gram_matrix)(maps)
    np.testing.assert_allclose(gram, expected, rtol=1e-5)
    np.testing.assert_allclose(jax.jit(rv.mean_gram)(maps), np.array(expected) / 6, rtol=1e-5)
    assert np.linalg.eigvalsh(gram).min() > -1e-5


def test_texture_loss_is_eq_6_without_mu_and_its_gradient_eq_7():
    found, target = draw(2, 3, 4), draw(2, 3, 4)

    def gram(maps):
        rows = wide(maps).reshape(6, 4)
        return rows.T @ rows

    difference = gram(found) - gram(target)
    expected = np.sum(difference**2) / (4 * 4**2 * 6**2)
    loss = lambda found, target: rv.texture_loss(found, rv.mean_gram(target))
    value, gradient = jax.jit(jax.value_and_grad(loss))(found, target)
    np.testing.assert_allclose(value, expected, rtol=1e-4)
    by_hand = wide(found).reshape(6, 4) @ difference / (4**2 * 6**2)
    np.testing.assert_allclose(gradient.reshape(6, 4), by_hand, rtol=1e-4, atol=1e-7)


def test_texture_loss_compares_sizes_by_their_means():
    small = draw(2, 3, 4)
    tiled = np.tile(small, (2, 5, 1))
    assert float(find_distance(rv.Gram(), tiled, small)) < 1e-12


# Moments and means of random features.


@pytest.mark.parametrize("masked", [False, True])
def test_moments_are_numpys(masked):
    maps = draw(3, 4, 5)
    mask = draw(3, 4) if masked else None
    weights = wide(np.ones((3, 4)) if mask is None else mask)
    mean = np.einsum("hw,hwc->c", weights / weights.sum(), wide(maps))
    rows, flat = wide(maps).reshape(12, 5), weights.ravel()
    covariance = np.cov(rows.T, aweights=flat, ddof=0)
    np.testing.assert_allclose(measure(rv.Means(), maps, mask), mean, rtol=1e-5)
    both = measure(rv.MeanAndCovariance(), maps, mask)
    np.testing.assert_allclose(both["mean"], mean, rtol=1e-5)
    np.testing.assert_allclose(both["covariance"], covariance, rtol=1e-4, atol=1e-6)
    gram = np.einsum("k,ki,kj->ij", flat / flat.sum(), rows, rows)
    np.testing.assert_allclose(measure(rv.Gram(), maps, mask), gram, rtol=1e-5)


def test_a_mean_over_many_positions_loses_nothing():
    # Equal values, as clipped features are, are rounded alike each time they are added.
    maps, mask = np.full((600, 800, 4), 0.7, np.float32), np.full((600, 800), 0.3, np.float32)
    np.testing.assert_allclose(measure(rv.Means(), maps, mask), 0.7, rtol=3e-5)


def test_mean_and_covariance_count_alike():
    first = {"mean": draw(5), "covariance": draw(5, 5)}
    second = {"mean": first["mean"] + 0.5, "covariance": first["covariance"] - 2}
    found = jax.jit(rv.MeanAndCovariance().compare)(first, second)
    assert float(found) == pytest.approx((0.25 + 4) / 2)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("distance", ["squared", "absolute"])
def test_cosine_means_are_the_characteristic_function(masked, distance):
    maps, other = draw(3, 4, 5), draw(3, 4, 5)
    mask = draw(3, 4) if masked else None
    statistic = sample(rv.CosineMeans(distance=distance), maps)
    frequencies = wide(statistic.frequencies)
    # Stratified: one frequency in each quarter of the logarithmic range, in ascending order.
    levels = np.log(frequencies / 2) / np.log(150 / 2)
    np.testing.assert_array_equal(np.floor(4 * levels), np.broadcast_to(range(4), (5, 4)))

    def characteristic(maps):
        weights = wide(np.ones((3, 4)) if mask is None else mask)
        # [h, w, C, F]; the phase itself in float32, so that its rounding is the same.
        phase = wide(maps[..., None] * np.asarray(statistic.frequencies))
        return np.einsum("hw,hwcf->cf", weights / weights.sum(), np.exp(1j * phase))

    value = measure(statistic, maps, mask)
    expected = characteristic(maps)
    np.testing.assert_allclose(
        np.asarray(value[0]) + 1j * np.asarray(value[1]), expected, atol=1e-5
    )
    energy = np.sum(np.abs(expected - characteristic(other)) ** 2 / frequencies, axis=1)
    distance_by_hand = np.mean(energy if distance == "squared" else np.sqrt(energy))
    found = find_distance(statistic, maps, other, mask, mask)
    np.testing.assert_allclose(found, distance_by_hand, rtol=1e-3)


@pytest.mark.parametrize("masked", [False, True])
@pytest.mark.parametrize("shape", ["clipped", "relu"])
def test_threshold_means_by_hand(masked, shape):
    maps, other = draw(3, 4, 5), draw(3, 4, 5)
    mask = draw(3, 4) if masked else None
    weights = wide(np.ones((3, 4)) if mask is None else mask)
    statistic = sample(rv.ThresholdMeans(shape=shape, distance="absolute"), maps)
    thresholds, widths = wide(statistic.thresholds), wide(statistic.widths)
    for channel in range(5):
        assert {*np.asarray(statistic.thresholds)[channel]} <= {*maps[..., channel].ravel()}
    assert (widths >= 1 / 75).all() and (widths <= 1 / 2).all()

    def means(maps):
        scaled = (wide(maps)[..., None] - thresholds) / widths
        applied = np.clip(scaled, -1, 1) if shape == "clipped" else np.maximum(scaled, 0)
        return np.einsum("hw,hwcf->cf", weights / weights.sum(), applied)

    value = measure(statistic, maps, mask)
    np.testing.assert_allclose(value, means(maps), rtol=1e-4, atol=1e-5)
    energy = np.sum((means(maps) - means(other)) ** 2 * widths, axis=1)
    found = find_distance(statistic, maps, other, mask, mask)
    np.testing.assert_allclose(found, np.mean(np.sqrt(energy)), rtol=1e-3)


def test_no_statistic_passes_for_another_under_jit():
    found = [jax.tree.structure(statistic) for statistic in STATISTICS.values()]
    for index, structure in enumerate(found):
        assert structure not in found[:index]


@pytest.mark.parametrize("name", ["gram", "means", "cosine_means", "clipped_means", "relu_means"])
def test_means_are_additive_over_bands(name):
    maps = draw(6, 4, 5)
    statistic = sample(find_statistic(name), maps)
    row = np.arange(6)[:, None] * np.ones((1, 4))
    bands = [np.float32(mask) for mask in (row < 1, (row >= 1) & (row < 4), row >= 4)]
    parts = [band.mean() * np.asarray(measure(statistic, maps, band)) for band in bands]
    np.testing.assert_allclose(sum(parts), measure(statistic, maps), rtol=1e-5, atol=1e-6)
    # And the mask cuts out what the band holds.
    cut = measure(statistic, maps[1:4])
    np.testing.assert_allclose(measure(statistic, maps, bands[1]), cut, rtol=1e-5, atol=1e-6)


# Sliced Wasserstein.


def mean_wasserstein(first, second, directions, *weights):
    """The mean over directions of scipy's distance of the projections."""
    projections = [wide(maps).reshape(-1, maps.shape[-1]) @ directions for maps in (first, second)]
    columns = zip(*(projection.T for projection in projections), strict=True)
    return np.mean([wasserstein_distance(*pair, *weights) for pair in columns])


@pytest.mark.parametrize("num_directions", [0, 7])
def test_sliced_wasserstein_of_equal_sizes_is_scipys(num_directions):
    first, second = draw(3, 4, 5), draw(4, 3, 5) ** 2
    statistic = sample(rv.SlicedWasserstein(num_directions=num_directions), second)
    directions = np.eye(5)
    if num_directions:
        directions = wide(statistic.directions)
        np.testing.assert_allclose(np.linalg.norm(directions, axis=0), 1, rtol=1e-6)
    found = find_distance(statistic, first, second)
    expected = mean_wasserstein(first, second, directions)
    np.testing.assert_allclose(found, expected, rtol=1e-5)


def test_the_squared_distance_is_that_of_sorted_values():
    first, second = draw(3, 4, 5), draw(4, 3, 5)
    statistic = rv.SlicedWasserstein(distance="squared")
    columns = [np.sort(wide(maps).reshape(12, 5), axis=0) for maps in (first, second)]
    found = find_distance(statistic, first, second)
    np.testing.assert_allclose(found, np.mean((columns[0] - columns[1]) ** 2), rtol=1e-5)


def test_sliced_wasserstein_of_other_sizes_and_masks_is_nearly_scipys():
    # Quantiles between the middles of the shares of neighbouring values are interpolated, where the
    # step function that scipy integrates stays constant: a value moves by half the gap to the next
    # at most, which is half the range over the number of values, on average much less.
    first, second = draw(30, 40, 2), draw(17, 23, 2) ** 2
    mask = draw(30, 40) * (np.arange(40) > 12)
    statistic = rv.SlicedWasserstein()
    gap = 1 / (17 * 23)
    found = find_distance(statistic, first, second)
    expected = mean_wasserstein(first, second, np.eye(2))
    assert abs(float(found) - expected) < gap < 0.03 * expected
    found = find_distance(statistic, first, second, mask)
    weights = wide(mask).ravel()
    # Where the mask is 0, the value has no share: scipy wants such values left out.
    kept = first.reshape(-1, 1, 2)[weights > 0]
    expected = mean_wasserstein(kept, second, np.eye(2), weights[weights > 0], None)
    assert abs(float(found) - expected) < gap < 0.03 * expected


def test_sliced_wasserstein_has_the_gradient_of_finite_differences():
    maps, target = draw(3, 4, 2), draw(2, 3, 2)
    statistic = sample(rv.SlicedWasserstein(distance="squared", num_directions=3), target)
    loss = jax.jit(lambda maps: find_distance(statistic, maps, target))
    gradient = jax.jit(jax.grad(loss))(maps)
    direction = draw(3, 4, 2)
    change = float(loss(maps + 1e-3 * direction)) - float(loss(maps - 1e-3 * direction))
    np.testing.assert_allclose(np.vdot(gradient, direction), change / 2e-3, rtol=1e-2)


def test_blended_quantiles_are_those_of_the_barycentre():
    # On a line, the barycentre of two uniform distributions is uniform between the blended ends.
    first, second = (np.arange(32) + 0.5) / 32, 2 + 3 * (np.arange(64) + 0.5) / 64
    values = [np.float32(column[:, None]) for column in (first, second)]
    blended = jax.jit(rv.SlicedWasserstein().blend)(values, np.float32([0.25, 0.75]))
    expected = 1.5 + (4 - 1.5) * (np.arange(64) + 0.5) / 64
    np.testing.assert_allclose(blended[1:-1, 0], expected[1:-1], rtol=1e-6)
    np.testing.assert_allclose(blended[:, 0], expected, atol=0.25 / 64)


# What every statistic must do.


@pytest.mark.parametrize("name", STATISTICS)
def test_distances_are_zero_and_flat_at_home_and_nowhere_negative(name):
    maps, other = draw(6, 4, 5), draw(6, 4, 5)
    statistic = sample(find_statistic(name), maps)
    loss = jax.jit(jax.value_and_grad(find_distance, argnums=1))
    value, gradient = loss(statistic, maps, maps)
    # Under the square roots stands 1e-12, so that they have a slope; its root is only ten times the
    # rounding of a mean of cosines.
    assert 0 <= float(value) < 2e-6
    np.testing.assert_allclose(gradient, 0, atol=1e-3 if name == "cosine_means" else 1e-6)
    assert float(loss(statistic, other, maps)[0]) > 1e-4


@pytest.mark.parametrize("name", SHUFFLABLE)
def test_positions_do_not_matter_and_equal_masks_are_none(name):
    maps = draw(6, 4, 5)
    statistic = sample(find_statistic(name), maps)
    value = measure(statistic, maps)
    shuffled = measure(statistic, rng.permutation(maps.reshape(24, 5)).reshape(6, 4, 5))
    masked = measure(statistic, maps, np.full((6, 4), 0.7, np.float32))
    for again in (shuffled, masked):
        jax.tree.map(
            lambda a, b: np.testing.assert_allclose(a, b, rtol=1e-5, atol=1e-5), again, value
        )


def test_features_are_compared_where_the_mask_is():
    maps, other = draw(3, 4, 5), draw(3, 4, 5)
    mask = np.float32(np.arange(3) > 0)[:, None] * np.ones((3, 4), np.float32)
    elsewhere = np.where(mask[..., None] > 0, maps, 9)
    assert float(find_distance(rv.Features(), elsewhere, maps, mask, mask)) == 0
    assert float(find_distance(rv.Features(), other, maps, mask, mask)) > 0


@jax.jit
def find_size(statistic, maps):
    value = statistic.measure(maps)
    return statistic.compare(value, jax.tree.map(jnp.zeros_like, value))


def test_degrees_are_those_of_homogeneity():
    maps = draw(3, 4, 5)
    for name in STATISTICS:
        for distance in ("squared", "absolute"):
            statistic = sample(find_statistic(name), maps).replace(distance=distance)
            sizes = [float(find_size(statistic, factor * maps)) for factor in (1, 2)]
            if statistic.degree is not None:
                assert sizes[1] == pytest.approx(2**statistic.degree * sizes[0]), name
            else:
                degrees = np.log2(sizes[1] / sizes[0])
                assert abs(degrees - round(degrees)) > 1e-3, name


@jax.jit
def serve(texture, style, extractor, image, other):
    """A texture and a style of the left half of a picture, at home, elsewhere and enlarged."""
    key, left = jax.random.key(5), np.float32(np.arange(16) < 8) * np.ones((12, 1), np.float32)
    texture = texture.of(extractor, image, key=key)
    painting = style.of(extractor, other, [image, other], [left, 1 - left], key=key)
    (term,) = texture.terms()
    features = lambda image: extractor(image, "first")["first"]
    keeps_positions = texture.terms()[0].statistic.keeps_positions
    return {
        "weight": term.weight,
        "largest": jax.grad(lambda image: find_size(term.statistic, features(image)))(image),
        "home": texture(image),
        "other": jax.value_and_grad(texture)(other),
        "style": jax.value_and_grad(painting)(image),
        "larger": 0.0 if keeps_positions else texture(jnp.tile(image, (2, 2, 1))),
    }


@pytest.mark.parametrize("name", STATISTICS)
def test_every_statistic_serves_textures_and_styles(name, image, other_image):
    texture = rv.Texture(layers="first", statistic=STATISTICS[name])
    style = rv.Style(
        content_layers="first", style_layers="first", style_statistic=STATISTICS[name],
        content_weight=0.0, style_weight=3.0, tv_weight=0.0,
    )  # fmt: skip
    found = serve(texture, style, MIXING, image, other_image)
    loss = float(found["other"][0])
    assert 0 <= float(found["home"]) < 1e-3 * loss
    for value, slope in (found["other"], found["style"]):
        assert float(value) > 0 and np.isfinite(slope).all() and np.any(slope)
    # The automatic weight makes the mean size of the largest gradient 1.
    size = np.mean(np.abs(found["largest"]))
    np.testing.assert_allclose(found["weight"], 1 / size, rtol=1e-4)
    # Between the source's quantiles others are interpolated, by a share of the gap between them.
    small = 0.1 if name == "sliced_wasserstein" else 1e-3
    assert 0 <= float(found["larger"]) < small * loss


def test_features_of_other_sizes_are_refused(image):
    objective = rv.Texture(layers="first", statistic=rv.Features()).of(MIXING, image)
    with pytest.raises(UserError, match=r"position by position.*\(8, 12, 6\).*\(12, 16, 6\)"):
        objective(image[:8, :12])
    style = rv.Style(content_layers="first", style_layers="first", style_statistic=rv.Features())
    with pytest.raises(UserError, match="position by position"):
        style.of(MIXING, image, [image, image[:8, :12]])


def test_random_statistics_need_a_key_and_words_must_be_known(image):
    with pytest.raises(UserError, match="CosineMeans.*key"):
        rv.Texture(layers="first", statistic=rv.CosineMeans()).of(MIXING, image)
    with pytest.raises(UserError, match="cubed.*squared or absolute"):
        rv.Gram(distance="cubed")
    with pytest.raises(UserError, match="median.*gram"):
        find_statistic("median")


def test_each_layer_draws_its_own_random_parts(image):
    layers = ("first", "second")
    make = jax.jit(
        lambda image: make_terms(MIXING, [image], layers, rv.CosineMeans(), key=jax.random.key(0))
    )
    first, second = (np.asarray(term.statistic.frequencies) for term in make(image))
    assert np.all(first[:3] != second)


@pytest.mark.parametrize("name", ["cosine_means", "clipped_means", "relu_means"])
def test_a_random_statistic_that_was_not_sampled_says_so(name):
    with pytest.raises(UserError, match="call sample first"):
        STATISTICS[name].measure(draw(2, 3, 4))
    with pytest.raises(UserError, match="call sample first"):
        rv.SlicedWasserstein(num_directions=2).measure(draw(2, 3, 4))


def test_several_sources_are_not_blended_without_weights():
    with pytest.raises(UserError, match="a weight for each"):
        rv.Gram().blend([draw(4, 4), draw(4, 4)], None)
