"""What a run writes while it goes on, for those who watch it from another process."""

import contextlib
import json
import pathlib
import time
from collections.abc import Callable

import numpy as np

from randviz.host.images import save_image, write_text
from randviz.types import Image, UserError

PICTURE, PROGRESS = "preview.png", "progress.json"
_MOST_LOSSES = 400  # of the curve; a screen shows no more
_SHARE = 0.05  # of the run's time, at most, goes into pictures on the way
_LEAST_SECONDS = 0.4  # between two of them


class Preview:
    """The picture on the way and the loss so far, as two files, each whole or not at all.

    They lie in the folder of the run's state, and go when it goes. A preview that cannot be written
    ends no run.
    """

    def __init__(
        self,
        folder: pathlib.Path,
        total: int,
        finish: Callable[[Image], Image] = lambda image: image,
    ):
        """Prepares.

        Args:
          folder: of the run's state.
          total: steps of all stages.
          finish: what is done to a picture before it is saved.
        """
        self.folder, self.total, self.finish = folder, total, finish
        self.due = 0.0  # when the next picture may be written, by the monotonic clock

    def report(self, losses: np.ndarray, left: float | None, image: Image) -> None:
        """Writes how far the run is, and its picture if one is due.

        Args:
          losses: [steps done].
          left: seconds to the end; None as long as the pace is not known.
          image: [H, W, 3], nominally in [0, 1].
        """
        done = len(losses)
        shown = choose_shown(done)
        progress = {
            "step": done,
            "total": self.total,
            "left": left,
            "time": time.time(),
            "steps": [place + 1 for place in shown],
            # JSON has no infinity.
            "losses": [float(f"{v:.5g}") if np.isfinite(v) else None for v in losses[shown]],
        }
        with contextlib.suppress(UserError):
            write_text(self.folder / PROGRESS, json.dumps(progress))
            began = time.monotonic()
            if began >= self.due or done == self.total:
                save_image(self.folder / PICTURE, self.finish(image))
                now = time.monotonic()
                self.due = now + max(_LEAST_SECONDS, (now - began) / _SHARE)


def choose_shown(count: int) -> list[int]:
    """Places of losses that a curve is drawn through, the first and the last among them."""
    return np.unique(np.linspace(0, count - 1, min(count, _MOST_LOSSES)).astype(int)).tolist()
