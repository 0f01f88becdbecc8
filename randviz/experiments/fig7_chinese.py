"""Figure 7: photographs of scenery in the style of Chinese paintings.

Claim: the constants of figure 6 serve Chinese paintings too.
Expect: a panel, the paintings above, and how near each result comes to its painting's texture,
asked of another random network; a row with the constants as the paper prints them; table.md.

Example:
  python -m randviz.experiments.fig7_chinese --content_image=me.jpg --style_image=ink.png
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
    """Settings of figure 7."""

    content_image: tuple[str, ...] = setting(
        (
            "bridge",
            "beach",
            "flowers",
            "columns",
            "rocket",
            "coffee",
            "astronaut",
            "camera",
        ),
        "Photographs: paths or samples.",
    )
    style_image: tuple[str, ...] = setting(
        ("qingming_scroll",), "Chinese paintings: paths or samples."
    )
    out_dir: str = "out/fig7_chinese"


def judge(settings: Settings, records: list[Record]) -> list[Claim]:
    """What the records say about the paper's sentences."""
    return stylization.judge_styles(settings, records, "figure 7")


main = functools.partial(run_module, sys.modules[__name__])


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
