"""The benchmark of painting beside Gatys' method: what its numbers mean."""

import json

import numpy as np
import pytest

from benchmarks import painting_speed
from randviz.host.images import save_image

JUDGES = painting_speed.STYLE_JUDGES


def make_records(distance, curve):
    judged = lambda value: dict.fromkeys((*JUDGES, "content", "edges"), value)
    filters = {
        "trial": {"method": "filters", "size": 64}, "threads": 2, "first_s": 20.0, "warm_s": 10.0,
        "peak_gb": 0.5, **judged(distance),
    }  # fmt: skip
    points = [{"seconds": seconds, **judged(value)} for seconds, value in curve]
    return [filters, {"trial": {"method": "gatys", "size": 64}, "curve": points}]


@pytest.mark.parametrize(
    ("distance", "ratio"),
    [
        (0.5, 3.0),  # reached after 30 s
        (0.9, 0.5),
        (0.1, 8.0),  # never reached: the nearest that the rival comes counts
    ],
)
def test_a_ratio_is_of_the_times_to_one_distance(distance, ratio):
    records = make_records(distance, [(5.0, 0.8), (30.0, 0.45), (80.0, 0.2), (90.0, 0.25)])
    assert painting_speed.find_ratios(*records) == dict.fromkeys(JUDGES, ratio)


def test_the_last_line_is_json(tmp_path, capsys):
    records = make_records(0.5, [(5.0, 0.8), (40.0, 0.2)])
    save_image(painting_speed.picture_path(tmp_path, records[0]["trial"]), np.zeros((8, 8, 3)))
    painting_speed.plot(painting_speed.Settings(), records, tmp_path)
    found = json.loads(capsys.readouterr().out.splitlines()[-1])
    assert found["seconds"] == {"64": 10.0} and found["peak_gb"] == {"64": 0.5}
    assert found["ratio_to_gatys"] == {"64": pytest.approx(4.0)}
    assert (tmp_path / "sizes.jpg").exists()
    assert (tmp_path / "table.md").read_text().count("\n") == 4


@pytest.mark.parametrize(
    ("flags", "sentence"),
    [
        (["--sizes=x"], "size 'x' is no whole number"),
        (["--sizes=64", "--gatys_sizes=128"], "--gatys_sizes has 128, which --sizes has not"),
    ],
)
def test_sizes_are_checked(flags, sentence, tmp_path, capsys):
    assert painting_speed.main([*flags, f"--out_dir={tmp_path}"]) == 2
    assert sentence in capsys.readouterr().err
