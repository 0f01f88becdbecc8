"""Shows the paper's three tasks, and painting by random filters, on sample pictures.

A few minutes on two cores, nothing to download. Writes the pictures, panels with their sources
beside them, and index.html to look at.

Usage: randviz demo [--flag=value ...]

Example:
  randviz demo --out_dir=out/demo
"""

import dataclasses
import functools
import html
import pathlib
import time

from randviz.commands import invert, style, texture
from randviz.commands.inputs import SeedSettings, StepSettings
from randviz.host.folders import lock_folder
from randviz.host.grids import render_grid
from randviz.host.images import load_image, save_image, write_text
from randviz.host.settings import run_command, setting


@dataclasses.dataclass(frozen=True)
class Settings(SeedSettings, StepSettings):
    """Settings of `randviz demo`."""

    out_dir: str = "out/demo"
    num_steps: int = 200
    trained_weights: str = setting(
        "", "A file with trained weights of VGG-19: adds what they make of the same pictures."
    )


@dataclasses.dataclass(frozen=True)
class Show:
    """One task of the demo.

    Attributes:
      name: of its folder and panel.
      title: what is seen, in short.
      description: what to look for, one or two sentences.
      command: the module whose task it is.
      pictures: {caption: sample}, what stands beside the result.
      flags: of the command, except the folder, the seed and, of the paper's, the steps.
      is_paper: whether it is the paper's method, which takes trained weights and a number of steps.
    """

    name: str
    title: str
    description: str
    command: object
    pictures: dict[str, str]
    flags: dict[str, object]
    is_paper: bool = True


SHOWS = (
    Show(
        name="invert",
        title="A photograph from deep features",
        description=(
            "Twelve convolutions and four poolings with random weights, then back: white noise was"
            " changed until its features in pool4 were the photograph's."
        ),
        command=invert,
        pictures={"the photograph": "chelsea"},
        flags={"image": "chelsea", "layer": "pool4", "image_size": 128},
    ),
    Show(
        name="texture",
        title="More of a texture, as in the paper",
        description=(
            "White noise was changed until its features in four layers were correlated as the"
            " source's are; where things lie was never looked at."
        ),
        command=texture,
        pictures={"the source": "gravel"},
        flags={"texture_image": "gravel", "image_size": 128, "method": "paper"},
    ),
    Show(
        name="style",
        title="A photograph in another picture's style, as in the paper",
        description=(
            "The content of the one, the colours and strokes of the other, no training anywhere."
        ),
        command=style,
        pictures={"the content": "astronaut", "the style": "immunohistochemistry"},
        flags={
            "content_image": "astronaut",
            "style_image": ("immunohistochemistry",),
            "image_size": 128,
            "method": "paper",
        },
    ),
    Show(
        name="filters_texture",
        title="More of a texture, by random filters",
        description=(
            "One layer of random filters, others at each step, from coarse to fine: bricks keep"
            " their rows."
        ),
        command=texture,
        pictures={"the source": "brick"},
        flags={"texture_image": "brick", "image_size": 128},
        is_paper=False,
    ),
    Show(
        name="filters_style",
        title="A photograph in a painting's style, by random filters",
        description="The same, starting from the photograph.",
        command=style,
        pictures={"the content": "columns", "the style": "starry_night"},
        flags={"content_image": "columns", "style_image": ("starry_night",), "image_size": 192},
        is_paper=False,
    ),
)


def run(settings: Settings) -> None:
    """Runs the shows one after another and writes the page."""
    if settings.dry_run:
        _run(settings, pathlib.Path(settings.out_dir))
    else:
        with lock_folder(settings.out_dir) as folder:
            _run(settings, folder)


def _run(settings: Settings, folder: pathlib.Path) -> None:
    began = time.monotonic()
    sections = []
    for show in SHOWS:
        name = show.name
        options = {**show.flags, "seed": settings.seed}
        if show.is_paper:
            options["num_steps"] = settings.num_steps
        result = show.command.Settings(
            **options, dry_run=settings.dry_run, out_dir=str(folder / name)
        )
        results = {"the result": result}
        if settings.trained_weights and show.is_paper:
            results["with trained weights"] = dataclasses.replace(
                result,
                trained_weights=settings.trained_weights,
                out_dir=str(folder / f"{name}_trained"),
            )
        args = [
            f"--{flag}={','.join(v) if isinstance(v, tuple) else v}" for flag, v in options.items()
        ]
        command = " ".join(["randviz", show.command.__name__.rpartition(".")[2], *args])
        size = show.flags["image_size"]
        pictures = [load_image(sample, image_size=size) for sample in show.pictures.values()]
        for result in results.values():
            show.command.run(result)
        if settings.dry_run:
            continue
        pictures += [load_image(pathlib.Path(r.out_dir, "out.png")) for r in results.values()]
        panel = render_grid([pictures], captions=[[*show.pictures, *results]], cell=2 * size)
        save_image(folder / f"{name}_panel.png", panel)
        sections.append(_render_section(show, f"{name}_panel.png", command))
    if settings.dry_run:
        return
    write_text(folder / "index.html", _PAGE.format(sections="\n".join(sections)))
    print(f"demo: done in {time.monotonic() - began:.0f} s; open {folder / 'index.html'}")


_PAGE = """<!doctype html>
<html lang="en"><head><meta charset="utf-8">
<meta name="viewport" content="width=device-width, initial-scale=1">
<title>What an untrained network knows</title>
<style>
body {{ font: 17px/1.5 system-ui, sans-serif; max-width: 52rem; margin: 2rem auto; padding: 0 1rem;
  color: #2d2d2d; }}
img {{ max-width: 100%; height: auto; }}
code {{ font-size: 0.85em; overflow-wrap: anywhere; }}
section {{ margin-top: 3rem; }}
</style></head><body>
<h1>What an untrained network knows</h1>
<p>Three pictures by a VGG-19 whose weights are random numbers, and two by a single layer of random
filters. Neither has ever seen a picture.</p>
{sections}
</body></html>
"""


def _render_section(show: Show, panel: str, command: str) -> str:
    title, description, command = map(html.escape, (show.title, show.description, command))
    return (
        f'<section><h2>{title}</h2><p>{description}</p><img src="{panel}" alt="{title}">'
        f"<p><code>{command}</code></p></section>"
    )


main = functools.partial(run_command, "randviz demo", Settings, run, doc=__doc__)
