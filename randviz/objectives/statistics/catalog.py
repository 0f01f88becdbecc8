"""The statistics by name, as commands and records know them."""

from randviz.objectives.statistics.base import Statistic
from randviz.objectives.statistics.features import Features
from randviz.objectives.statistics.gram import Gram
from randviz.objectives.statistics.moments import MeanAndCovariance, Means
from randviz.objectives.statistics.random_features import CosineMeans, ThresholdMeans
from randviz.objectives.statistics.sliced_wasserstein import SlicedWasserstein
from randviz.types import UserError

# A new statistic is a file beside this one, and a line here.
STATISTICS: dict[str, Statistic] = {
    "gram": Gram(),
    "means": Means(),
    "mean_covariance": MeanAndCovariance(),
    "sliced_wasserstein": SlicedWasserstein(),
    "cosine_means": CosineMeans(distance="absolute"),
    "clipped_means": ThresholdMeans(distance="absolute"),
    "relu_means": ThresholdMeans(distance="absolute", shape="relu"),
    "features": Features(),
}


def find_statistic(statistic: Statistic | str) -> Statistic:
    """A statistic, given as a value or by name.

    Raises:
      UserError: for an unknown name.
    """
    if isinstance(statistic, Statistic):
        return statistic
    if statistic not in STATISTICS:
        raise UserError(f"statistic {statistic!r} is unknown; use {', '.join(STATISTICS)}.")
    return STATISTICS[statistic]
