"""The gallery: pictures that their commands make, and a page that shows both."""

import json
import pathlib
import re
import shlex

import pytest

from randviz.__main__ import main
from randviz.experiments import gallery

PAINTED = pathlib.Path(__file__).parents[1] / "experiments" / "gallery" / "painted"

# One scale each, because each is compiled for itself.
FEW_STEPS = {
    "bridge_the_scream": "--num_steps=3",
    "brick": "--scale_sizes=48 --scale_steps=3",
}


@pytest.mark.slow
def test_each_command_on_the_page_makes_the_picture_beside_it(tmp_path, monkeypatch):
    pictures = {name: f"{gallery.PICTURES[name]} {flags}" for name, flags in FEW_STEPS.items()}
    monkeypatch.setattr(gallery, "PICTURES", pictures)
    folder = tmp_path / "gallery"
    assert gallery.main([f"--out_dir={folder}", "--image_size=32"]) == 0
    page = (folder / "gallery.md").read_text()
    rows = re.findall(r"^\| (\w+) \| !\[.*\]\((.*)\) \| `randviz (.*)` \|$", page, re.M)
    assert [name for name, _, _ in rows] == list(FEW_STEPS)
    monkeypatch.chdir(tmp_path)
    for _, picture, command in rows:
        assert main(shlex.split(command)) == 0
        assert (tmp_path / picture).read_bytes() == (folder / picture).read_bytes()
    records = [json.loads(line) for line in (folder / "records.jsonl").open()]
    assert [record["evaluations"] for record in records] == [3, 3]


def test_the_gallery_that_was_run_is_of_todays_commands_and_all_on_its_page():
    trials = [json.loads(line)["trial"] for line in (PAINTED / "records.jsonl").open()]
    known = gallery.list_trials(gallery.Settings())
    assert trials == [trial for trial in known if trial in trials]
    assert (PAINTED / "gallery.md").read_text() == gallery.format_gallery(trials)
    pictures = {path.name for path in PAINTED.glob("*.jpg")}
    assert pictures == set(re.findall(r"--output_image=(\S+)", "\n".join(map(str, trials))))
