"""Trained weights on the commands, and the command that puts them beside random ones."""

import json

import numpy as np
import pytest
from PIL import Image as Pillow

from randviz.__main__ import main
from randviz.commands import trials
from randviz.commands.trials import find_record
from randviz.host.images import load_image
from randviz.host.runs import Stopped, as_json
from randviz.networks.catalog import NETWORKS

SMALL = ["--network=tiny", "--image_size=24", "--num_steps=3"]
COMPARE = ["compare", *SMALL, "--image=chelsea,coffee", "--layers=conv1_2,pool2"]
INVERT = ["invert", *SMALL, "--image=chelsea", "--layer=pool2"]


@pytest.fixture(autouse=True)
def only_tiny(monkeypatch, tiny):
    """The commands' architecture is the small one."""
    monkeypatch.setitem(NETWORKS, "tiny", tiny)


@pytest.fixture(scope="module")
def trained(tmp_path_factory, params):
    """A file of weights, without the fully connected layers."""
    path = tmp_path_factory.mktemp("weights") / "tiny.npz"
    arrays = {
        f"{layer}_{there}": np.asarray(params[layer][here])[..., ::-1]
        for layer in ("conv1_1", "conv1_2", "conv2_1")
        for there, here in (("weight", "kernel"), ("bias", "bias"))
    }
    np.savez(path, **arrays)
    return path


def read_records(folder):
    return [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]


def test_every_trial_is_measured_drawn_and_tabled(tmp_path, capsys, trained):
    words = [*COMPARE, f"--trained_weights={trained}", f"--out_dir={tmp_path}"]
    assert main(words) == 0
    all_records = read_records(tmp_path)
    records = [record for record in all_records if "weights" in record["trial"]]
    assert [tuple(record["trial"].values()) for record in records] == [
        (image, weights, layer)
        for image in ("chelsea", "coffee")
        for weights in ("random", "trained")
        for layer in ("conv1_2", "pool2")
    ]
    assert [tuple(record["trial"].values()) for record in all_records[len(records) :]] == [
        (image, baseline, layer)
        for image in ("chelsea", "coffee")
        for layer in ("conv1_2", "pool2")
        for baseline in trials.BASELINES
    ]
    table = (tmp_path / "table.md").read_text()
    assert table in capsys.readouterr().out
    for record in records:
        image, weights, layer = record["trial"].values()
        picture = load_image(tmp_path / "pictures" / f"{image}_{weights}_{layer}.png")
        target = load_image(image, image_size=24)
        assert picture.shape == target.shape
        # What is written is what is seen, up to the rounding to eight bits.
        distance = 255 * np.linalg.norm(picture - target, axis=-1).mean()
        assert record["distance"] == pytest.approx(distance, abs=0.6)
        line = next(x for x in table.splitlines() if x.startswith(f"| {image} | {layer} |"))
        values = dict(zip(table.splitlines()[0].split(" | "), line.split(" | "), strict=True))
        assert values[f"psnr, {weights}"] == f"{record['psnr']:.1f}"
    assert load_image(tmp_path / "coffee_panel.jpg").shape[1] > 3 * 128
    record = json.loads((tmp_path / "run.json").read_text())
    assert record["network"] == {"weights": "random"}
    assert set(record["pictures"]) == {"image chelsea", "image coffee"}
    assert all("weights_sha256" in r for r in records if r["trial"]["weights"] == "trained")


@pytest.mark.slow
def test_a_stopped_comparison_goes_on_and_a_finished_one_measures_nothing(
    tmp_path, monkeypatch, trained
):
    words = [*COMPARE, f"--trained_weights={trained}"]
    assert main([*words, f"--out_dir={tmp_path / 'whole'}"]) == 0
    descend, starts = trials.descend, []

    def stop_at_the_sixth(objective, start, **options):
        starts.append(np.asarray(start))
        if len(starts) == 6:
            raise Stopped("stopped.")
        return descend(objective, start, **options)

    monkeypatch.setattr(trials, "descend", stop_at_the_sixth)
    words.append(f"--out_dir={tmp_path / 'parts'}")
    assert main(words) == 130
    kept = (tmp_path / "parts" / "records.jsonl").read_text()
    assert kept.count("\n") == 5
    assert main(words) == 0
    assert (tmp_path / "parts" / "records.jsonl").read_text().startswith(kept)
    # The same noise for random and for trained.
    np.testing.assert_array_equal(starts[0], starts[2])
    for part, whole in zip(*(read_records(tmp_path / n) for n in ("parts", "whole")), strict=True):
        for record in (part, whole):
            record.pop("seconds", None)  # baselines have none
            del record["check"]  # the checksum is of the seconds, too
        assert part == whole
    (tmp_path / "parts" / "coffee_panel.jpg").unlink()
    monkeypatch.setattr(trials, "descend", None)
    assert main(words) == 0
    assert (tmp_path / "parts" / "coffee_panel.jpg").exists()


def test_without_weights_the_trained_record_is_not_run(tmp_path):
    assert main([*COMPARE, f"--out_dir={tmp_path}"]) == 0
    records = read_records(tmp_path)
    assert sum("weights" in record["trial"] for record in records) == 4
    assert (tmp_path / "table.md").read_text().count("not run") == 3 * 4
    target = np.asarray(load_image("coffee", image_size=24))
    mean = find_record(records, image="coffee", baseline="mean", layer="pool2")
    distance = 255 * np.linalg.norm(target - target.mean((0, 1)), axis=-1).mean()
    assert mean["distance"] == pytest.approx(distance, rel=1e-5)


def test_trained_weights_and_their_options_reach_the_picture(tmp_path, trained):
    pictures = []
    for index, option in enumerate(
        ["", "--trained_weights={}", "--normalization_images=", "--input_convention=torch"]
    ):
        option = option.format(trained)
        words = [f"--trained_weights={trained}", option] if index > 1 else [option] * bool(option)
        assert main([*INVERT, *words, f"--out_dir={tmp_path / str(index)}"]) == 0
        pictures.append(load_image(tmp_path / str(index) / "out.png"))
        for other in pictures[:-1]:
            assert np.abs(pictures[-1] - other).max() > 1 / 255, option
    record = json.loads((tmp_path / "3" / "run.json").read_text())["network"]
    assert record["weights"] == "trained" and record["source"] == str(trained)
    assert record["input_scale"][0] == pytest.approx(1 / (255 * 0.229))
    assert len(record["sha256"]) == 16


def test_a_square_is_cut_from_the_middle(tmp_path):
    # The fully connected layers take nothing else.
    words = [*INVERT, "--layer=fc6", "--square", "--image_size=12", f"--out_dir={tmp_path}"]
    assert main(words) == 0
    assert load_image(tmp_path / "out.png").shape == (12, 12, 3)


def test_two_pictures_of_one_name_keep_two_names():
    assert list(trials.name_pictures(["a/x.png", "b/x.jpg", "x_2.png"]).values()) == [
        "x",
        "x_2",
        "x_2_2",
    ]


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("compare --image=chelsea --trained_weights=nowhere.h5", "nowhere.h5"),
        ("compare", "--image="),
        ("compare --image=chelsea,chelsea", "twice"),
        ("compare --image=chelsea --layers=pool9", "pool9"),
        ("compare --image=chelsea --network=", "--network="),
        ("compare --image={black}", "black.png"),
        ("invert --image=chelsea --network=ranvgg --trained_weights={}", "recipe"),
        ("invert --image=chelsea --layer=pool1 --trained_weights={} --scale=1", "--scale"),
        ("invert --image=chelsea --trained_weights={} --layer=fc6 --network=tiny --square"
         " --image_size=12", "fully connected"),
        ("invert --image=chelsea --layer=fc6 --network=tiny", "--square --image_size=12"),
        ("invert --image=chelsea --trained_weights={} --layer=pool1 --network=vgg19", "conv2_2"),
        ("invert --image=chelsea --trained_weights={} --network=tiny --layer=pool1"
         " --normalization_images=nowhere.png", "nowhere.png"),
        ("select --reference_image=chelsea --trained_weights={}", "--trained_weights"),
    ],
)  # fmt: skip
def test_mistakes_get_a_sentence_and_leave_nothing(tmp_path, capsys, trained, words, said):
    out, black = tmp_path / "out", tmp_path / "black.png"
    Pillow.new("RGB", (40, 40)).save(black)
    assert main([*words.format(trained, black=black).split(), f"--out_dir={out}"]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.endswith(".\n")
    assert not out.exists()


def test_a_picture_that_came_back_exactly_has_no_number_for_psnr():
    measures = as_json({"distance": 0.0, "psnr": float("inf"), "ssim": 1.0})
    assert trials.describe_distance(measures) == "distance 0.0\n∞ dB, SSIM 1.00"
    assert trials.format_measure(None, "psnr") == "not run"
