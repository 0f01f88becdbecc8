"""Runs the tests under other versions of Python and of the libraries that the package stands on.

Each row has a virtual environment of its own, made anew: the lowest versions that pyproject.toml
admits, as written there, or the newest that pip finds. Prints a table in Markdown, a row as soon as
it is done; what pytest said is in build/versions/. Exits with 1 if a row has failures, or if none
could be run.

Examples:
  python -m checks.versions
  python -m checks.versions 3.11-lowest
"""

import pathlib
import re
import shutil
import subprocess
import sys
import time
import tomllib
import xml.etree.ElementTree as ElementTree
from collections.abc import Sequence
from typing import NamedTuple

ROOT = pathlib.Path(__file__).parents[1]
ROWS = (("3.11", "lowest"), ("3.12", "newest"), ("3.13", "newest"))
_FOLDER = ROOT / "build" / "versions"
_SHOWN = ("jax", "flax", "optax", "orbax-checkpoint", "numpy")
_REQUIREMENT = re.compile(r"([A-Za-z0-9._-]+)(?:\[.*\])?>=([0-9.]+)")


class Outcome(NamedTuple):
    """What the tests of one row came to."""

    versions: dict[str, str]
    passed: int
    failed: int
    skipped: int
    minutes: float


def list_floors(requirements: Sequence[str]) -> list[str]:
    """The lowest version of each requirement, as pip's constraints.

    Args:
      requirements: as in pyproject.toml, each with a lower bound.

    Raises:
      ValueError: for a requirement without one.
    """
    floors = []
    for requirement in requirements:
        found = _REQUIREMENT.match(requirement)
        if not found:
            raise ValueError(f"{requirement!r} has no lower bound")
        floors.append(f"{found[1]}=={found[2]}")
    return floors


def find_python(version: str) -> str | None:
    """The path of an interpreter that runs, or None."""
    path = shutil.which(f"python{version}")
    if path and subprocess.run([path, "--version"], capture_output=True).returncode == 0:
        return path
    return None


def run_row(python: str, version: str, kind: str) -> Outcome:
    """Installs the package with one set of versions and runs its tests.

    Args:
      python: the interpreter.
      version: of it.
      kind: "lowest" or "newest".

    Raises:
      subprocess.CalledProcessError: if the versions cannot be installed, or pytest ends without a
        report.
    """
    folder = _FOLDER / f"{version}-{kind}"
    shutil.rmtree(folder, ignore_errors=True)
    subprocess.run([python, "-m", "venv", folder], check=True)
    inside = folder / "bin" / "python"
    constraints = folder / "constraints.txt"
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())["project"]
    required = [*project["dependencies"], *project["optional-dependencies"]["studio"]]
    constraints.write_text("\n".join(list_floors(required) if kind == "lowest" else []))
    install = [inside, "-m", "pip", "install", "--quiet", "--disable-pip-version-check"]
    subprocess.run(
        [*install, "--constraint", constraints, "--editable", ".[dev]"], cwd=ROOT, check=True
    )
    ask = "import importlib.metadata, sys; print(*map(importlib.metadata.version, sys.argv[1:]))"
    answer = subprocess.run(
        [inside, "-c", ask, *_SHOWN], check=True, capture_output=True, text=True
    )
    report = folder / "tests.xml"
    began = time.monotonic()
    words = ["-m", "pytest", "-n", "auto", "--dist", "worksteal", f"--junitxml={report}"]
    with open(folder / "tests.log", "w") as log:
        tests = subprocess.run([inside, *words], cwd=ROOT, stdout=log, stderr=subprocess.STDOUT)
    minutes = (time.monotonic() - began) / 60
    if not report.exists():
        tests.check_returncode()
    suites = ElementTree.parse(report).getroot().iter("testsuite")
    counts = {name: 0 for name in ("tests", "failures", "errors", "skipped")}
    for suite in suites:
        for name in counts:
            counts[name] += int(suite.get(name, 0))
    failed = counts["failures"] + counts["errors"]
    passed = counts["tests"] - failed - counts["skipped"]
    versions = dict(zip(_SHOWN, answer.stdout.split(), strict=True))
    return Outcome(versions, passed, failed, counts["skipped"], minutes)


def main() -> int:
    """Runs the rows whose interpreters are there, or those named in the arguments."""
    wanted = sys.argv[1:]
    failures, num_run = 0, 0
    heads = ["Python", "versions", *_SHOWN, "passed", "failed", "skipped", "minutes"]
    print(f"| {' | '.join(heads)} |\n|{'---|' * len(heads)}", flush=True)
    for version, kind in ROWS:
        if wanted and f"{version}-{kind}" not in wanted:
            continue
        cells = [version, kind]
        python = find_python(version)
        if python is None:
            cells[1] += f": there is no python{version}"
        else:
            outcome = run_row(python, version, kind)
            failures, num_run = failures + outcome.failed, num_run + 1
            cells += [*outcome.versions.values(), *outcome[1:4], f"{outcome.minutes:.1f}"]
        cells += [""] * (len(heads) - len(cells))
        print(f"| {' | '.join(map(str, cells))} |", flush=True)
    return int(failures > 0 or not num_run)


if __name__ == "__main__":
    sys.exit(main())
