"""Stacked selection: what is compared, what is kept, and that the way of trying does not matter."""

import jax
import numpy as np
import pytest

import randviz as rv
from randviz.networks.weights import candidate_key, sample_weights
from randviz.search import selection
from randviz.types import UserError

KEY = jax.random.key(3)
STEPS = 12


@pytest.fixture(scope="module")
def above(tiny):
    return rv.random_weights(KEY, tiny, last_layer="conv1_2")


@pytest.fixture(scope="module")
def choice(tiny, above, image):
    return select(tiny, above, image)


def select(tiny, above, image, **options):
    options = {"layer": "conv2_1", "num_candidates": 4, "num_steps": STEPS, **options}
    return rv.select_layer(KEY, tiny, above, image, **options)


def test_the_kept_draw_is_the_argmin_of_the_losses(choice):
    assert int(choice.draw) == int(np.argmin(choice.losses))
    assert len(set(np.asarray(choice.losses).tolist())) == 4
    np.testing.assert_array_equal(choice.num_steps, STEPS)


def test_losses_are_those_of_an_inversion_with_each_draw(tiny, above, image, choice):
    start = selection.sample_noise_image(candidate_key(KEY, "noise", 0), (12, 16), std=10 / 255)
    for draw in range(4):
        weights = sample_weights(KEY, tiny, "conv2_1", draw=draw)
        params = {**above, "conv2_1": weights}
        objective = rv.Inversion("conv2_1").of(tiny.bind(params), image)
        result = rv.minimize(objective, start, num_steps=STEPS)
        np.testing.assert_allclose(choice.losses[draw], result.trace.loss[-1], rtol=1e-3)
        np.testing.assert_allclose(choice.images[draw], result.image, atol=1e-3)
        omega = rv.layer_weights(tiny.bind(params), image, {"conv2_1": rv.Features()})["conv2_1"]
        np.testing.assert_allclose(choice.raw_losses[draw], choice.losses[draw] / omega, rtol=1e-3)


@pytest.mark.slow
def test_batches_and_portions_agree_with_one_after_another(tiny, above, image, choice):
    for batch_size in (3, 4):
        batched = select(tiny, above, image, batch_size=batch_size)
        np.testing.assert_allclose(batched.losses, choice.losses, rtol=1e-3)
        assert int(batched.draw) == int(choice.draw)
    later = select(tiny, above, image, num_candidates=2, first_draw=2)
    np.testing.assert_allclose(later.losses, choice.losses[2:], rtol=1e-6)
    assert int(later.draw) in (2, 3)


def test_more_candidates_extend_the_sample(tiny, above, image, choice):
    fewer = select(tiny, above, image, num_candidates=2)
    np.testing.assert_allclose(fewer.losses, choice.losses[:2], rtol=1e-6)


def test_a_race_drops_halves_and_gives_the_winner_all_steps(tiny, above, image, choice):
    raced = select(tiny, above, image, racing=True)
    assert sorted(np.asarray(raced.num_steps).tolist()) == [6, 6, 12, 12]
    finished = np.asarray(raced.num_steps) == STEPS
    np.testing.assert_allclose(raced.losses[finished], choice.losses[finished], rtol=1e-3)
    assert finished[int(raced.draw)]
    assert float(raced.losses[int(raced.draw)]) == float(np.min(raced.losses[finished]))


@pytest.mark.parametrize(
    ("candidates", "steps", "rounds"),
    [
        (1, 7, ((1, 7),)),
        (2, 7, ((2, 7),)),
        (4, 10, ((4, 5), (2, 5))),
        (16, 103, ((16, 25), (8, 25), (4, 25), (2, 28))),
    ],
)
def test_rounds_of_a_race(candidates, steps, rounds):
    assert selection.plan_rounds(candidates, steps) == rounds


def test_ties_below_float32s_resolution_keep_the_first_draw(tiny, image):
    # The first layer is inverted perfectly by every draw; what is left is rounding.
    choice = rv.select_layer(KEY, tiny, {}, image, layer="conv1_1", num_candidates=3, num_steps=150)
    np.testing.assert_allclose(choice.losses, 1e-13 * image.size, rtol=1e-6)
    assert int(choice.draw) == 0


def test_one_candidate_is_the_plain_random_network(tiny, image):
    chosen = rv.select_weights(
        KEY, tiny, image, num_candidates=1, num_steps=1, last_layer="conv1_2"
    )
    plain = rv.random_weights(KEY, tiny, last_layer="conv1_2")
    for a, b in zip(jax.tree.leaves(chosen.params), jax.tree.leaves(plain), strict=True):
        np.testing.assert_array_equal(a, b)


def test_a_chosen_network_is_a_key_and_its_draws(tiny, image):
    chosen = rv.select_weights(
        KEY, tiny, image, num_candidates=3, num_steps=4, last_layer="conv1_2", bias_scale=0.1
    )
    draws = tuple(int(choice.draw) for choice in chosen.choices.values())
    assert list(chosen.choices) == ["conv1_1", "conv1_2"] and any(draws)
    again = rv.random_weights(KEY, tiny, last_layer="conv1_2", draws=draws, bias_scale=0.1)
    for a, b in zip(jax.tree.leaves(chosen.params), jax.tree.leaves(again), strict=True):
        np.testing.assert_array_equal(a, b)


def test_fully_connected_layers_are_selected_too(tiny, image):
    square = image[:, :12]
    params = rv.random_weights(KEY, tiny, last_layer="fc6")
    choice = rv.select_layer(KEY, tiny, params, square, layer="fc8", num_candidates=2, num_steps=3)
    assert choice.images.shape == (2, 12, 12, 3) and np.isfinite(choice.losses).all()


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"num_candidates": 0}, "0 candidates"),
        ({"num_steps": 0}, "0 steps"),
        ({"layer": "pool1"}, "pool1.*no weights"),
        ({"layer": "conv7"}, "conv7"),
    ],
)
def test_what_cannot_be_selected_is_said(tiny, above, image, options, words):
    with pytest.raises(UserError, match=words):
        select(tiny, above, image, **options)


def test_an_image_too_small_for_the_last_layer_is_said_before_the_first(tiny, image):
    with pytest.raises(UserError, match="too small"):
        rv.select_weights(KEY, tiny, image[:2], num_candidates=1, last_layer="pool2")
