"""Summaries of records as tables and plots."""

import pathlib
from collections.abc import Mapping, Sequence
from typing import Any

import matplotlib.figure

from randviz.host.images import replace_atomically
from randviz.search.intervals import Estimate


def format_table(groups: Sequence[Mapping[str, Any]]) -> str:
    """The summary as text: distances in grey levels, one line for each group."""
    lines = [
        f"{'weights':7} {'image':16} {'layer':8} {'n':>5} {'mean':>7} {'95 %':>16} {'median':>7}"
        f" {'min':>7} {'max':>7} {'std':>7} {'psnr':>6}  variance of weights, noise, both"
    ]
    for group in groups:
        interval, variance = group["mean_interval"], group["variance"]
        ends = f"{interval[0]:.2f} to {interval[1]:.2f}" if interval else "-"
        shares = " ".join(f"{value:.3g}" for value in variance.values()) if variance else "-"
        optional = [
            "-" if group[name] is None else f"{group[name]:.2f}" for name in ("std", "median_psnr")
        ]
        lines.append(
            f"{group['weights']:7} {pathlib.Path(group['image']).name[:16]:16} {group['layer']:8}"
            f" {group['num_networks'] * group['num_noises']:5} {group['mean']:7.2f} {ends:>16}"
            f" {group['median']:7.2f} {group['min']:7.2f} {group['max']:7.2f} {optional[0]:>7}"
            f" {optional[1]:>6}  {shares}"
        )
    return "\n".join(lines)


def format_markdown(header: Sequence[str], lines: Sequence[Sequence[Any]]) -> str:
    """A table in Markdown.

    Args:
      header: a name for each column.
      lines: what stands in each column, as it is written.

    Returns:
      The table's lines, without an end of line after the last.
    """
    rule = ["---"] * len(header)
    return "\n".join(f"| {' | '.join(map(str, line))} |" for line in (header, rule, *lines))


def format_estimate(found: Estimate, form: str) -> str:
    """A mean with its interval, or that nothing was run.

    Args:
      found: of any units.
      form: of each number, as in format strings.
    """
    if not found.n:
        return "not run"
    interval = f" [{found.low:{form}}, {found.high:{form}}]" if found.n > 1 else ""
    return f"{found.value:{form}}{interval}"


def save_figure(path: pathlib.Path, figure: matplotlib.figure.Figure, *, dpi: int = 120) -> None:
    """Saves a plot, whole or not at all."""
    with replace_atomically(path) as temporary:
        figure.savefig(temporary, dpi=dpi)


def _draw_baselines(panel: Any, distances: Mapping[str, Any]) -> None:
    """A line for each distance that is not zero, with its name."""
    for name, distance in distances.items():
        if name not in ("image", "layer") and distance:
            panel.axhline(distance, color="0.5", ls=":", lw=1)
            panel.annotate(
                name, (1, distance), xycoords=("axes fraction", "data"), ha="right", va="bottom",
                fontsize="x-small", color="0.4",
            )  # fmt: skip


def plot_boxes(
    groups: Sequence[Mapping[str, Any]], baselines: Sequence[Mapping[str, Any]] = ()
) -> matplotlib.figure.Figure:
    """Draws the distances, a panel for each picture and layer and a box for each kind.

    Args:
      groups: from `population.summarize`.
      baselines: of a picture and layer each: image, layer, and distances by name, which are drawn
        as lines.

    Returns:
      A figure: boxes at the quartiles with the median in them, whiskers to the minimum and the
      maximum, the mean as a point.

    References:
      He, Wang, Hopcroft (2016), figure 3.
    """
    images, layers = (list(dict.fromkeys(g[name] for g in groups)) for name in ("image", "layer"))
    figure = matplotlib.figure.Figure(
        figsize=(1.5 + 2.2 * len(layers), 1 + 2.4 * len(images)), layout="constrained"
    )
    panels = figure.subplots(len(images), len(layers), squeeze=False)
    for image, line in zip(images, panels, strict=True):
        for layer, panel in zip(layers, line, strict=True):
            here = [group for group in groups if (group["image"], group["layer"]) == (image, layer)]
            boxes = [
                {
                    "label": group["weights"],
                    "whislo": group["min"],
                    "q1": group["lower_quartile"],
                    "med": group["median"],
                    "q3": group["upper_quartile"],
                    "whishi": group["max"],
                    "mean": group["mean"],
                }
                for group in here
            ]
            panel.bxp(boxes, showmeans=True, showfliers=False, meanprops={"marker": "o"})
            panel.tick_params("x", rotation=30)
            for line_of in baselines:
                if (line_of["image"], line_of["layer"]) == (image, layer):
                    _draw_baselines(panel, line_of)
            panel.set_title(f"{pathlib.Path(image).name}, {layer}", fontsize="medium")
        line[0].set_ylabel("distance, grey levels")
    return figure
