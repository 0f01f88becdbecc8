"""What the tests of pictures and of grids share."""

import contextlib

import numpy as np
import pytest

from randviz.types import UserError

HEIGHT, WIDTH = 12, 16
RED, GREEN, BLUE, YELLOW = (1.0, 0.0, 0.0), (0.0, 1.0, 0.0), (0.0, 0.0, 1.0), (1.0, 1.0, 0.0)

# No two rows, columns or channels alike.
PIXELS = np.random.default_rng(0).integers(0, 256, (HEIGHT, WIDTH, 3), np.uint8)


def plain(colour, height=HEIGHT, width=WIDTH):
    return np.full((height, width, 3), colour, np.float32)


@contextlib.contextmanager
def explained(*parts):
    """Expects a UserError of one sentence that has all the parts in it."""
    with pytest.raises(UserError) as error:
        yield
    message = str(error.value)
    assert message.endswith(".") and not message.endswith(".."), message
    assert "\n" not in message and ". " not in message, message
    for part in parts:
        assert str(part) in message, message
