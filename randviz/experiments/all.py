"""Runs every figure at one scale, and gathers pictures, tables and claims on one page.

Claim: none of its own; claims.json has those of all figures with their verdicts.
Expect: a folder for each figure, index.html, which opens from a file, claims.json and claims.md,
the same as a table. Smoke takes minutes on two cores, laptop scale hours, paper scale hours on a
GPU. What is measured already is not measured again.

Example:
  python -m randviz.experiments.all --scale=smoke --out_dir=out/smoke
"""

import dataclasses
import functools
import importlib
import inspect
import json
import pathlib
import sys
from collections.abc import Mapping, Sequence
from types import ModuleType
from typing import Any

from randviz.experiments.claims import RULE, VERDICTS
from randviz.experiments.page import Section, format_page
from randviz.host.charts import format_markdown
from randviz.host.images import write_text
from randviz.host.runs import Stopped, write_record
from randviz.host.settings import run_command, setting
from randviz.host.workers import WorkerSettings
from randviz.types import UserError

FIGURES = (
    "fig1_inversion",
    "fig2_pools",
    "fig3_variance",
    "fig4_convergence",
    "fig5_textures",
    "fig6_style",
    "fig7_chinese",
    "ablation",
    "theory_panel",
    "why_random",
    "infinite_width",
    "league",
    "prediction",  # which reads the league's records
)
SCALES = ("smoke", "laptop", "paper")
_LEAD = (
    "What a VGG-19 with random weights knows of pictures: every figure of He, Wang and Hopcroft,"
    " “A powerful generative model using random weights for the deep image representation” (2016),"
    " measured again, and what came out for each of its sentences that can be tested."
)


@dataclasses.dataclass(frozen=True)
class Settings(WorkerSettings):
    """Settings of all figures together."""

    scale: str = setting("smoke", "Whose flag files are read.", choices=SCALES)
    figures: tuple[str, ...] = setting(FIGURES, "Which figures.")
    flags_dir: str = setting(
        "experiments", "Folder with smoke, laptop and paper, which hold a flag file each."
    )
    trained_weights: str = setting(
        "", "A file with trained weights of VGG-19; without it the trained columns are not run."
    )
    out_dir: str = "out/all"


def run(settings: Settings) -> None:
    """Runs the figures one after another and writes the page.

    Raises:
      UserError: for an unknown figure, a flag file that is not there, or a figure that failed.
      Stopped: if the user stopped one.
    """
    for name in settings.figures:
        if name not in FIGURES:
            raise UserError(f"figure {name!r} is unknown; use some of {', '.join(FIGURES)}.")
        if not _flag_file(settings, name).exists():
            raise UserError(
                f"there is no flag file {_flag_file(settings, name)}; name the folder that has"
                f" {settings.scale}/{name}.flags with --flags_dir."
            )
    modules = {
        name: importlib.import_module(f"randviz.experiments.{name}") for name in settings.figures
    }
    for name, module in modules.items():
        code = module.main(_list_args(settings, name, module))
        if code == 130:
            raise Stopped(f"stopped at {name}; the same command goes on there.")
        if code:
            raise UserError(f"{name} failed, for the reason above; the same command goes on there.")
    if settings.dry_run:
        return
    folder = pathlib.Path(settings.out_dir)
    sections = [_make_section(settings, name, module) for name, module in modules.items()]
    claims = [
        {"experiment": section.name, **claim} for section in sections for claim in section.claims
    ]
    write_record(folder / "claims.json", {"scale": settings.scale, "claims": claims})
    write_text(folder / "claims.md", f"{RULE}\n\n{format_claims(claims)}\n")
    lead = f"{_LEAD}\n\n{RULE.replace('*', '')}"
    page = format_page("What an untrained network knows", lead, sections)
    write_text(folder / "index.html", page)
    counts = [sum(claim["verdict"] == verdict for claim in claims) for verdict in VERDICTS]
    print(format_markdown(["verdict", "claims"], zip(VERDICTS, counts, strict=True)))
    print(f"all: wrote {folder / 'index.html'}, claims.json and claims.md")


def format_claims(claims: Sequence[Mapping[str, Any]]) -> str:
    """The claims as a table in Markdown, a line each."""
    lines = []
    for claim in claims:
        effect = "" if claim["effect"] is None else f"{claim['effect']:.3g}"
        if claim["interval"]:
            effect += " [{:.3g}, {:.3g}]".format(*claim["interval"])
        p, corrected_p = (
            "" if claim[name] is None else f"{claim[name]:.2g}" for name in ("p", "corrected_p")
        )
        measure = claim["measure"].replace("|", "\\|")
        statement = claim["statement"].replace("|", "\\|")
        units = f"{claim['n']} ({claim['units']})"
        verdict = f"**{claim['verdict']}**" + ", post hoc" * claim["post_hoc"]
        lines.append([claim["figure"], statement, measure, units, effect, p, corrected_p, verdict])
    header = ["figure", "claim", "measure", "units", "effect, 95 % interval", "p", "corrected p"]
    header.append("verdict")
    return format_markdown(header, lines)


def _flag_file(settings: Settings, name: str) -> pathlib.Path:
    return pathlib.Path(settings.flags_dir, settings.scale, f"{name}.flags")


def _list_args(settings: Settings, name: str, module: ModuleType) -> list[str]:
    """The arguments that a figure is run with."""
    args = [f"--flagfile={_flag_file(settings, name)}", f"--out_dir={settings.out_dir}/{name}"]
    known = [field.name for field in dataclasses.fields(module.Settings)]
    if settings.trained_weights and "trained_weights" in known:
        args.append(f"--trained_weights={settings.trained_weights}")
    if settings.num_workers > 1 and "num_workers" in known:
        args.append(f"--num_workers={settings.num_workers}")
    return args + ["--dry_run"] * settings.dry_run


def _make_section(settings: Settings, name: str, module: ModuleType) -> Section:
    """A figure's part of the page, from what lies in its folder."""
    folder = pathlib.Path(settings.out_dir, name)
    title, _, description = inspect.cleandoc(module.__doc__).partition("\n\n")
    found = folder / "claims.json"
    return Section(
        name=name,
        title=title,
        description=description,
        command=" ".join(
            [f"python -m randviz.experiments.{name}", *_list_args(settings, name, module)[:2]]
        ),
        metadata=json.loads((folder / "run.json").read_text()),
        pictures=sorted([*folder.glob("*.jpg"), *folder.glob("*.png")]),
        tables=sorted(folder.glob("*.md")),
        claims=json.loads(found.read_text())["claims"] if found.exists() else [],
    )


main = functools.partial(run_command, "randviz.experiments.all", Settings, run, doc=__doc__)


if __name__ == "__main__":
    sys.exit(main(sys.argv[1:]))
