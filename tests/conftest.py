"""What the tests share: one small network, so that its programs are compiled once."""

import importlib.metadata
import os
import signal

# Compiling is what most tests wait for. Without LLVM's optimisations, and with the older of XLA's
# two ways to write loops, it takes about half the time (BUILD_NOTES.md). The programs are the same
# up to rounding; slow tests run what users run. XLA refuses to start with a flag that it does not
# know, and later jaxlibs have the newer way only.
if "--xla_backend_optimization_level" not in os.environ.get("XLA_FLAGS", ""):
    quick = "--xla_backend_optimization_level=0"
    if tuple(map(int, importlib.metadata.version("jaxlib").split(".")[:2])) < (0, 11):
        quick += " --xla_cpu_use_fusion_emitters=false"
    os.environ["XLA_FLAGS"] = f"{os.environ.get('XLA_FLAGS', '')} {quick}".strip()

# A shell has what it starts in the background ignore SIGINT, and nohup SIGHUP; the program then
# does too, as it should, and what the tests start would run on.
if signal.getsignal(signal.SIGINT) == signal.SIG_IGN:
    signal.signal(signal.SIGINT, signal.default_int_handler)
if signal.getsignal(signal.SIGHUP) == signal.SIG_IGN:
    signal.signal(signal.SIGHUP, signal.SIG_DFL)

import jax
import numpy as np
import pytest

from randviz.host.settings import configure_jax
from randviz.networks.layers import Conv, Dense, Pool
from randviz.networks.network import Network
from randviz.networks.weights import random_weights

# As the commands do, so that they compute the same bits in this process as in one of their own.
configure_jax("highest")

# Each of VGG-19's kinds of layer, small enough to compile in a moment.
TINY = Network(
    "tiny",
    (
        Conv("conv1_1", 8),
        Conv("conv1_2", 8),
        Pool("pool1"),
        Conv("conv2_1", 12),
        Pool("pool2"),
        Dense("fc6", 10),
        Dense("fc8", 5, activated=False),
    ),
    fc_image_size=12,
    input_offset=0.0,
)


@pytest.fixture(autouse=True, scope="module")
def forget_programs():
    """Lets go of a file's compiled programs at its end.

    Each holds pages of memory mapped for its code. A single process that compiled everything these
    tests do came to the system's limit of mappings and died in the compiler. What the next file
    needs again comes from the compilation cache on disk.
    """
    yield
    jax.clear_caches()


@pytest.fixture(scope="session")
def tiny():
    return TINY


@pytest.fixture(scope="session")
def params():
    return random_weights(jax.random.key(7), TINY, last_layer="fc8")


@pytest.fixture(scope="session")
def image():
    """Lopsided, so that a swapped axis cannot hide."""
    return jax.numpy.asarray(np.random.default_rng(1).uniform(size=(12, 16, 3)), "float32")


@pytest.fixture(scope="session")
def other_image():
    return jax.numpy.asarray(np.random.default_rng(2).uniform(size=(12, 16, 3)), "float32")


_DRAWS = {}  # of the tests' modules: the state of their RNG when they were imported


def pytest_collection_modifyitems(items):
    for item in items:
        rng = getattr(getattr(item, "module", None), "RNG", None)
        if rng is not None:
            _DRAWS.setdefault(item.module.__name__, rng.bit_generator.state)


@pytest.fixture(autouse=True)
def same_draws(request):
    """Each test has the same draws, whichever tests ran before it in its process."""
    module = getattr(request, "module", None)
    if module is not None and module.__name__ in _DRAWS:
        module.RNG.bit_generator.state = _DRAWS[module.__name__]
