"""Sixteen pictures painted by random filters with one set of constants, and a page of them.

Claim: none; whoever looks judges.
Expect: a JPEG file of each picture and gallery.md, which shows each with the command that makes it
alone.

Example:
  python -m randviz.experiments.gallery --out_dir=out/gallery
"""

import dataclasses
import functools
import json
import pathlib
import shlex
import sys
from collections.abc import Sequence

from randviz.commands import style, texture
from randviz.commands.inputs import LARGEST_SIDE
from randviz.host.charts import format_markdown
from randviz.host.images import write_text
from randviz.host.records import Record, Trial
from randviz.host.settings import CommandSettings, parse_flags, run_command, setting
from randviz.host.study import gather, run_study

# {name: command and flags}; {size} is the setting, {wide} half as much again.
PICTURES = {
    "bridge_qingming_scroll": "style --content_image=bridge --style_image=qingming_scroll",
    "bridge_the_scream": "style --content_image=bridge --style_image=the_scream",
    "beach_great_wave": "style --content_image=beach --style_image=great_wave",
    "beach_la_calanque": "style --content_image=beach --style_image=la_calanque",
    "columns_starry_night": "style --content_image=columns --style_image=starry_night",
    "columns_composition_vii": "style --content_image=columns --style_image=composition_vii",
    "flowers_etretat": "style --content_image=flowers --style_image=etretat",
    "flowers_woman_with_a_hat": "style --content_image=flowers --style_image=woman_with_a_hat",
    "chelsea_the_scream": "style --content_image=chelsea --style_image=the_scream",
    "chelsea_starry_night": "style --content_image=chelsea --style_image=starry_night",
    "astronaut_woman_with_a_hat": "style --content_image=astronaut --style_image=woman_with_a_hat",
    "astronaut_la_calanque": "style --content_image=astronaut --style_image=la_calanque",
    "brick": "texture --texture_image=brick --output_size={wide}x{size}",
    "gravel": "texture --texture_image=gravel",
    "starry_night": "texture --texture_image=starry_night",
    "great_wave": "texture --texture_image=great_wave",
}
_QUALITY = 90
_COMMANDS = {"style": style, "texture": texture}
_LEAD = """# Painted by random filters

No network was trained, and no constant was chosen for a picture: all have the defaults of `randviz
style` and `randviz texture`. The names are those of sample pictures, which `randviz --help` lists.
Each command makes the file beside it; `make gallery` makes all.
"""


@dataclasses.dataclass(frozen=True)
class Settings(CommandSettings):
    """Settings of the gallery."""

    image_size: int = setting(
        384,
        "Longest side of the pictures in pixels; one texture is half as wide again.",
        lower_bound=1,
        upper_bound=LARGEST_SIDE,
    )
    out_dir: str = "out/gallery"


def list_trials(settings: Settings) -> list[Trial]:
    """Each picture's command."""
    size = settings.image_size
    ends = f"--image_size={size} --output_image={{name}}.jpg --quality={_QUALITY}"
    return [
        {"command": f"randviz {flags} {ends}".format(name=name, size=size, wide=3 * size // 2)}
        for name, flags in PICTURES.items()
    ]


def measure(settings: Settings, trial: Trial) -> Record:
    """Runs a picture's command in the gallery's folder."""
    _, command, *args = shlex.split(trial["command"])
    asked = parse_flags(_COMMANDS[command].Settings, args)
    folder, picture = pathlib.Path(settings.out_dir), pathlib.Path(asked.output_image)
    # A folder each, or the record of one run would take the place of another's.
    run_folder = folder / "runs" / picture.stem
    found = dataclasses.replace(
        asked,
        out_dir=str(run_folder),
        output_image=str(folder / picture),
        dry_run=settings.dry_run,
    )
    _COMMANDS[command].run(found)
    if settings.dry_run:
        return {}
    record = json.loads((run_folder / "run.json").read_text())
    return {name: record[name] for name in ("schedule", "final_loss", "evaluations", "seconds")}


def format_gallery(trials: Sequence[Trial]) -> str:
    """The page in Markdown: a line for each picture, with its name and command.

    Args:
      trials: from `list_trials`.
    """
    lines = []
    for trial in trials:
        _, command, *args = shlex.split(trial["command"])
        picture = parse_flags(_COMMANDS[command].Settings, args).output_image
        name = pathlib.Path(picture).stem
        lines.append((name, f"![{name}]({picture})", f"`{trial['command']}`"))
    return f"{_LEAD}\n{format_markdown(('name', 'picture', 'command'), lines)}\n"


def plot(settings: Settings, records: list[Record], folder: pathlib.Path) -> None:
    """Writes the page; records of earlier lists of pictures are left out."""
    write_text(folder / "gallery.md", format_gallery(list_trials(settings)))


def run(settings: Settings) -> None:
    """Paints the pictures that are not there yet; or says what each would take."""
    if settings.dry_run:
        for trial in list_trials(settings):
            measure(settings, trial)
    else:
        run_study(gather(sys.modules[__name__]), settings)


main = functools.partial(run_command, "randviz.experiments.gallery", Settings, run, doc=__doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
