"""The gallery: pictures that their commands make, and a page that shows both."""

import json
import pathlib
import re
import shlex

import pytest

from randviz.__main__ import main
from randviz.experiments import gallery

PAINTED = pathlib.Path(__file__).parents[1] / "experiments" / "gallery" / "painted"


@pytest.fixture
def two_pictures(monkeypatch):
    few = {
        "bridge_the_scream": "--num_steps=3",
        "brick": "--scale_sizes=24,48 --scale_steps=2,1",
    }
    pictures = {name: f"{gallery.PICTURES[name]} {flags}" for name, flags in few.items()}
    monkeypatch.setattr(gallery, "PICTURES", pictures)


def test_each_command_on_the_page_makes_the_picture_beside_it(two_pictures, tmp_path, monkeypatch):
    folder = tmp_path / "gallery"
    assert gallery.main([f"--out_dir={folder}", "--image_size=32"]) == 0
    page = (folder / "gallery.md").read_text()
    rows = re.findall(r"^\| (\w+) \| !\[.*\]\((.*)\) \| `randviz (.*)` \|$", page, re.M)
    assert [name for name, _, _ in rows] == ["bridge_the_scream", "brick"]
    monkeypatch.chdir(tmp_path)
    for _, picture, command in rows:
        assert main(shlex.split(command)) == 0
        assert (tmp_path / picture).read_bytes() == (folder / picture).read_bytes()
    records = [json.loads(line) for line in (folder / "records.jsonl").open()]
    assert [record["evaluations"] for record in records] == [3, 3]


def test_a_picture_of_an_earlier_list_is_not_on_the_page(two_pictures, tmp_path, monkeypatch):
    settings = gallery.Settings(out_dir=str(tmp_path), image_size=32)
    earlier = [{"trial": trial} for trial in gallery.list_trials(settings)]
    monkeypatch.setattr(gallery, "PICTURES", {"gravel": gallery.PICTURES["gravel"]})
    gallery.plot(settings, earlier, tmp_path)
    page = (tmp_path / "gallery.md").read_text()
    assert "gravel.jpg" in page and "brick" not in page


def test_the_gallery_that_was_run_is_the_one_that_would_be():
    trials = gallery.list_trials(gallery.Settings())
    assert (PAINTED / "gallery.md").read_text() == gallery.format_gallery(trials)
    records = [json.loads(line)["trial"] for line in (PAINTED / "records.jsonl").open()]
    assert records == trials
    assert {path.stem for path in PAINTED.glob("*.jpg")} == set(gallery.PICTURES)
