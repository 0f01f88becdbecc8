"""The built wheel, in an empty environment, from a folder with nothing of the repository in it."""

import importlib.metadata
import json
import os
import pathlib
import shutil
import subprocess
import sys
import sysconfig
import tarfile
import zipfile

import pytest

from randviz.__main__ import COMMANDS, main
from randviz.host.samples import SAMPLES, SCIKIT_IMAGE_SAMPLES

ROOT = pathlib.Path(__file__).parents[1]
EVERY_HELP = f"""
import pkgutil, randviz, randviz.experiments
from randviz.__main__ import main
for name in {COMMANDS}:
    assert main([name, "--help"]) == 0
for module in pkgutil.iter_modules(randviz.experiments.__path__, "randviz.experiments."):
    __import__(module.name)
print(randviz.__file__)
"""


def build(kind, source, folder):
    """Builds an sdist or a wheel by the project's own backend, which downloads nothing."""
    call = f"from setuptools import build_meta; build_meta.build_{kind}({str(folder)!r})"
    subprocess.run([sys.executable, "-c", call], cwd=source, check=True, capture_output=True)
    (found,) = folder.glob({"sdist": "*.tar.gz", "wheel": "*.whl"}[kind])
    return found


@pytest.fixture(scope="module")
def wheel(tmp_path_factory):
    """Built of the unpacked sdist, so that both are whole."""
    folder = tmp_path_factory.mktemp("wheel")
    source = folder / "source"
    ignored = shutil.ignore_patterns("__pycache__")
    shutil.copytree(ROOT / "randviz", source / "randviz", ignore=ignored)
    for name in ("pyproject.toml", "README.md", "LICENSE"):
        shutil.copy(ROOT / name, source)
    with tarfile.open(build("sdist", source, folder)) as archive:
        archive.extractall(folder, filter="data")
    return build("wheel", next(folder.glob("randviz-*/")), folder)


@pytest.fixture(scope="module")
def environment(wheel, tmp_path_factory):
    """An environment with the wheel alone; what it depends on comes from this one."""
    folder = tmp_path_factory.mktemp("environment")
    subprocess.run([sys.executable, "-m", "venv", "--without-pip", folder], check=True)
    python = folder / "bin" / "python"
    pip = [sys.executable, "-m", "pip", "--python", python, "install", "--quiet"]
    subprocess.run([*pip, "--no-deps", "--no-index", wheel], check=True, env=list_variables())
    paths = sysconfig.get_paths(vars={"base": str(folder), "platbase": str(folder)})
    (pathlib.Path(paths["purelib"]) / "others.pth").write_text(sysconfig.get_path("purelib"))
    return folder


def list_variables():
    """The environment's, but for a path that may lead to the repository."""
    return {name: value for name, value in os.environ.items() if name != "PYTHONPATH"}


def run(environment, folder, program, *args):
    command = [environment / "bin" / program, *args]
    options = {"cwd": folder, "env": list_variables(), "text": True}
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, **options).stdout


def test_the_wheel_holds_pictures_recipes_and_licences(wheel):
    with zipfile.ZipFile(wheel) as archive:
        names = set(archive.namelist())
        (metadata,) = (name for name in names if name.endswith(".dist-info/METADATA"))
        about = archive.read(metadata).decode()
    own = set(SAMPLES) - set(SCIKIT_IMAGE_SAMPLES)
    assert own and {f"randviz/samples/{name}.jpg" for name in own} <= names
    assert {f"randviz/search/recipes/{name}.txt" for name in ("ranvgg", "ranvgg_chelsea")} <= names
    licences = pathlib.PurePath(metadata).parent / "licenses"
    assert f"{licences}/LICENSE" in names and f"{licences}/randviz/samples/samples.toml" in names
    assert "License-Expression: Apache-2.0" in about
    assert {name.split("/")[0].split("-")[0] for name in names} == {"randviz"}


def test_a_descent_and_every_help_run_without_the_repository(environment, tmp_path):
    where = run(environment, tmp_path, "python", "-c", EVERY_HELP).splitlines()[-1]
    assert pathlib.Path(where).is_relative_to(environment)
    flags = "--image=starry_night --network=ranvgg_chelsea --layer=conv1_1 --image_size=16"
    run(
        environment, tmp_path, "randviz", "invert", *flags.split(), "--num_steps=2", "--out_dir=out"
    )
    record = json.loads((tmp_path / "out" / "run.json").read_text())
    assert record["versions"]["randviz"] == importlib.metadata.version("randviz")
    assert len(record["losses"]) == 2 and (tmp_path / "out" / "out.png").exists()


def test_the_version_is_the_projects(capsys):
    assert main(["--version"]) == 0
    version = capsys.readouterr().out.split()[1]
    assert version == importlib.metadata.version("randviz")
    for name, line in (
        ("pyproject.toml", f'version = "{version}"'),
        ("CITATION.cff", f"version: {version}"),
        ("CHANGELOG.md", f"## {version} "),
    ):
        assert line in (ROOT / name).read_text()
