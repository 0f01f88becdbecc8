"""What goes into the wheel, and that commands outside of it are named as they are started."""

import pathlib
import tomllib

from setuptools import find_packages

ROOT = pathlib.Path(__file__).parents[1]


def test_the_wheel_holds_the_package_alone():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    found = find_packages(
        str(ROOT), include=project["tool"]["setuptools"]["packages"]["find"]["include"]
    )
    assert "randviz.objectives.statistics" in found
    assert {name.split(".")[0] for name in found} == {"randviz"}
    for folder in (ROOT / "randviz").rglob("*.py"):
        assert ".".join(folder.relative_to(ROOT).parent.parts) in found


def test_the_wheel_holds_all_files_that_are_no_code():
    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    held = {
        path
        for package, patterns in project["tool"]["setuptools"]["package-data"].items()
        for pattern in patterns
        for path in (ROOT / package.replace(".", "/")).glob(pattern)
    }
    files = {path for path in (ROOT / "randviz").rglob("*") if path.is_file()}
    others = {path for path in files if path.suffix not in (".py", ".pyc")}
    assert ROOT / "randviz" / "samples" / "starry_night.jpg" in others
    assert others == held


def test_benchmarks_are_named_as_they_are_started():
    for path in (ROOT / "benchmarks").glob("*.py"):
        text = path.read_text()
        assert "randviz.experiments." + path.stem not in text
        if "def main" in text:
            assert f"python -m benchmarks.{path.stem} --" in text
