"""Figure 6: photographs in several styles, untrained beside trained.

Claim: the same constants serve every painting, and the results are comparable with those of the
trained VGG, whose lines are slightly smoother.
Expect: a panel, the paintings above, and how near each result comes to its painting's texture,
asked of another random network; a row with the constants as the paper prints them; table.md.

Example:
  python -m randviz.experiments.fig6_style --content_image=university.jpg --style_image=a.jpg,b.jpg
"""

import dataclasses
import functools
import sys

from randviz.commands.trials import describe_inputs
from randviz.experiments import stylization
from randviz.experiments.claims import Claim
from randviz.host.records import Record
from randviz.host.settings import setting
from randviz.host.study import run_module

list_trials, measure, plot = stylization.list_trials, stylization.measure, stylization.plot
workload, describe = stylization.workload, describe_inputs


@dataclasses.dataclass(frozen=True)
class Settings(stylization.StyleSettings):
    """Settings of figure 6."""

    content_image: tuple[str, ...] = setting(
        ("columns", "bridge", "flowers", "rocket"), "Photographs: paths or samples."
    )
    style_image: tuple[str, ...] = setting(
        (
            "starry_night",
            "the_scream",
            "woman_with_a_hat",
            "great_wave",
            "composition_vii",
            "la_calanque",
        ),
        "Paintings: paths or samples.",
    )
    out_dir: str = "out/fig6_style"


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say about the paper's sentences."""
    return stylization.judge_styles(settings, records, "figure 6")


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
