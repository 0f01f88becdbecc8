"""Recipes: there and back, strictly read, checked, and drawn from portable numbers."""

import dataclasses
import subprocess
import sys

import jax
import numpy as np
import pytest
import scipy.special

from randviz.commands.inputs import make_keys
from randviz.commands.network_choice import SHIPPED_RECIPES, load_recipe
from randviz.networks.catalog import NETWORKS
from randviz.networks.network import IMAGENET_MEAN
from randviz.networks.vgg import VGG19
from randviz.networks.weights import candidate_key, sample_weights, weight_shapes
from randviz.search.recipe import Recipe, format_recipe, parse_recipe
from randviz.types import UserError

RECIPE = Recipe(
    network="vgg19",
    seed=12,
    draws=(3, 0, 1),
    last_layer="conv2_1",
    scale=0.015,
    bias_scale=0.25,
    pooling="avg",
    padding="zero",
    input_offset=None,
)


@pytest.fixture(scope="module")
def signed():
    return RECIPE.signed(make_keys(12)[0])


def test_there_and_back(signed):
    line = format_recipe(signed)
    assert "\n" not in line and len(line) < 1000
    assert parse_recipe(line) == signed == parse_recipe(f"  {line}\n")
    other = dataclasses.replace(signed, input_offset=64.0, padding="reflect", bias_scale=0.0)
    assert parse_recipe(format_recipe(other)) == other
    mean = dataclasses.replace(signed, input_offset=IMAGENET_MEAN)
    assert parse_recipe(format_recipe(mean)) == mean and "input_offset=mean" in format_recipe(mean)


def test_a_recipe_of_all_layers_is_short():
    shapes = weight_shapes(VGG19, "fc8")
    full = dataclasses.replace(RECIPE, draws=(9999,) * len(shapes), last_layer="fc8")
    assert len(format_recipe(dataclasses.replace(full, check="0" * 16))) < 1000


def test_the_weights_are_those_of_the_draws(signed):
    key = make_keys(12)[0]
    params = signed.sample(key)
    assert list(params) == ["conv1_1", "conv1_2", "conv2_1"]
    for layer, draw in zip(params, signed.draws, strict=True):
        alone = sample_weights(key, VGG19, layer, draw=draw, scale=0.015, bias_scale=0.25)
        np.testing.assert_array_equal(params[layer]["kernel"], alone["kernel"])
        np.testing.assert_array_equal(params[layer]["bias"], alone["bias"])


def test_weights_are_those_of_an_independent_numpy_implementation(signed):
    """Threefry, the key derivation and the transform, written again from their definitions."""
    key = make_keys(12)[0]
    found = signed.sample(key)["conv1_1"]["kernel"]
    kernel_key = np.asarray(
        jax.random.key_data(jax.random.split(candidate_key(key, "conv1_1", 3))[0])
    )
    table = (scipy.special.ndtri((np.arange(65536) + 0.5) / 65536) / 2**0.5).astype(np.float32)
    numbers = []
    for block in range(2):  # 1728 numbers in blocks of 1024
        block_key = threefry(kernel_key, np.array([0, block], np.uint32))
        counts = np.arange(1024, dtype=np.uint32)
        # The high and low halves of a 64-bit counter, and the two words of the answer combined.
        words = threefry(block_key, np.stack([np.zeros_like(counts), counts]))
        bits = words[0] ^ words[1]
        numbers.append(table[bits >> 16] + table[bits & 0xFFFF])
    expected = np.float32(0.015) * np.concatenate(numbers)[:1728].reshape(3, 3, 3, 64)
    np.testing.assert_array_equal(found, expected)


def threefry(key, words):
    """Threefry-2x32 with 20 rounds (Salmon et al., 2011)."""
    rotations = ((13, 15, 26, 6), (17, 29, 16, 24))
    keys = [np.uint32(key[0]), np.uint32(key[1])]
    keys.append(keys[0] ^ keys[1] ^ np.uint32(0x1BD11BDA))
    with np.errstate(over="ignore"):
        x, y = words[0] + keys[0], words[1] + keys[1]
        for group in range(5):
            for rotation in rotations[group % 2]:
                x = x + y
                y = (y << np.uint32(rotation)) | (y >> np.uint32(32 - rotation))
                y = x ^ y
            x = x + keys[(group + 1) % 3]
            y = y + keys[(group + 2) % 3] + np.uint32(group + 1)
    return np.stack([x, y])


def test_threefry_here_is_threefry():
    # The known answers of the Random123 distribution.
    ones = np.array([0xFFFFFFFF] * 2, np.uint32)
    zeros = np.zeros(2, np.uint32)
    assert [hex(x) for x in threefry(zeros, zeros)] == ["0x6b200159", "0x99ba4efe"]
    assert [hex(x) for x in threefry(ones, ones)] == ["0x1cb996fc", "0xbb002be7"]


def test_another_process_draws_the_same(signed):
    code = (
        "import sys, jax; from randviz.search.recipe import parse_recipe;"
        "from randviz.commands.inputs import make_keys;"
        "r = parse_recipe(sys.argv[1]); jax.jit(r._sample)(make_keys(r.seed)[0]);"
        "r.sample(make_keys(r.seed)[0]); print('agrees')"
    )
    words = [sys.executable, "-c", code, format_recipe(signed)]
    assert subprocess.run(words, capture_output=True, text=True, check=True).stdout == "agrees\n"


def test_no_character_can_be_changed_unnoticed(signed):
    line = format_recipe(signed)
    key = make_keys(12)[0]
    refused_late = 0
    for position, character in enumerate(line):
        for other in "0x9":
            if other == character:
                continue
            changed = line[:position] + other + line[position + 1 :]
            with pytest.raises(UserError):
                recipe = parse_recipe(changed)
                refused_late += 1
                recipe.sample(make_keys(recipe.seed)[0] if recipe.seed != 12 else key)
    assert refused_late > 5  # the check did some of the work


@pytest.mark.parametrize(
    ("old", "new", "said"),
    [
        ("randviz-1", "randviz-2", "randviz-2.*newer"),
        ("randviz-1", "something", "not a recipe"),
        ("vgg19", "vgg99", "vgg99"),
        ("seed=12", "seed=-12", "seed"),
        ("seed=12", "speed=12", "speed"),
        ("draws=3,0,1", "draws=3,0", "2 draws and 3 layers"),
        ("draws=3,0,1", "draws=3,,1", "draws"),
        ("draws=3,0,1", "draws=3,0,4294967296", "draws"),
        ("last_layer=conv2_1", "last_layer=conv9_1", "conv9_1"),
        ("scale=0.015", "scale=nan", "scale"),
        ("scale=0.015", "scale=0.0150", "is not written"),
        ("pooling=avg", "pooling=sum", "sum"),
        ("padding=zero", "padding=none", "none"),
        ("generator=threefry2x32", "generator=philox", "generator"),
        ("gaussian=1", "gaussian=2", "gaussian"),
        (" check=", " check=0", "check"),
        (" check=", " ", "check="),
    ],
)
def test_a_bad_recipe_is_refused_by_name(signed, old, new, said):
    with pytest.raises(UserError, match=said):
        parse_recipe(format_recipe(signed).replace(old, new))


@pytest.mark.parametrize("text", ["", "randviz-1", "randviz-1 vgg19", "\x00\x01", "a" * 10**5])
def test_what_is_no_recipe_is_refused(text):
    with pytest.raises(UserError):
        parse_recipe(text)


def test_networks_with_branches_have_recipes():
    recipe = dataclasses.replace(
        RECIPE, network="resnet18", draws=(1, 0, 2), last_layer="stage1_block1", pooling="max"
    )
    key = make_keys(12)[0]
    signed = parse_recipe(format_recipe(recipe.signed(key)))
    assert list(signed.sample(key)) == ["conv1", "stage1_block1_conv1", "stage1_block1_conv2"]
    filters = dataclasses.replace(
        RECIPE, network="random_filters", draws=(1,), last_layer="conv1", padding="reflect"
    )
    # A network keeps its own offset where the recipe has none.
    assert filters.as_network() == NETWORKS["random_filters"]


@pytest.mark.parametrize("name", SHIPPED_RECIPES)
def test_shipped_recipes_agree_with_their_checks(name):
    recipe = load_recipe(name)
    params = recipe.sample(make_keys(recipe.seed)[0])
    last_layer = "conv3_1" if name == "ranvgg_chelsea" else "conv5_4"
    assert list(params)[-1] == last_layer and len(params) == len(recipe.draws)
    assert recipe.input_offset == (IMAGENET_MEAN if "centred" in name else None)
