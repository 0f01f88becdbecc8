"""Populations: the same records on any machine, prefixes that stay, and numbers that are right."""

import json
import os
import pathlib
import socket
import subprocess
import sys

import jax
import numpy as np
import pytest
import scipy.stats
from PIL import Image as Pillow

import randviz as rv
from randviz.__main__ import main
from randviz.commands.inputs import make_keys
from randviz.descent.descent import minimize
from randviz.host.charts import format_table, plot_boxes
from randviz.host.records import Records
from randviz.networks.catalog import NETWORKS
from randviz.networks.gaussian import sample_noise_image
from randviz.networks.network import features
from randviz.networks.weights import random_weights
from randviz.search import population
from randviz.search.recipe import Recipe, format_recipe
from randviz.tasks.inversion import NOISE_STD, Inversion

HERE = pathlib.Path(__file__).parent
SMALL = [
    "population", "--image=chelsea", "--layers=conv1_2,pool1", "--image_size=16", "--num_steps=5",
    "--num_candidates=2", "--selection_steps=3",
]  # fmt: skip
# The command with the tests' small network in the place of VGG-19.
TINY_PROGRAM = """
import sys
from conftest import TINY
from randviz.networks.catalog import NETWORKS
NETWORKS["vgg19"] = TINY
from randviz.__main__ import main
sys.exit(main(sys.argv[1:]))
"""


@pytest.fixture
def small(monkeypatch, tiny):
    """Runs the command on the small network."""
    monkeypatch.setitem(NETWORKS, "vgg19", tiny)
    return lambda folder, *words: main([*SMALL, f"--out_dir={folder}", *words])


def records_of(folder):
    """The records in the order of their trials, without the time they took and its checksum."""
    records = [json.loads(line) for line in (folder / "records.jsonl").read_text().splitlines()]
    for record in records:
        del record["seconds"], record["check"]
    return sorted(records, key=lambda record: json.dumps(record["trial"]))


def start(program, *words, devices=1):
    """Starts a process that has so many simulated devices."""
    flags = f"--xla_force_host_platform_device_count={devices}"
    environment = {**os.environ, "XLA_FLAGS": flags, "JAX_PLATFORMS": "cpu"}
    return subprocess.Popen(
        [sys.executable, *program, *words],
        cwd=HERE,
        env=environment,
        stdout=subprocess.PIPE,
        stderr=subprocess.PIPE,
        text=True,
    )


def start_two(program, *words):
    """Starts two processes that meet on loopback."""
    with socket.socket() as free:
        free.bind(("127.0.0.1", 0))
        address = f"--coordinator_address=127.0.0.1:{free.getsockname()[1]}"
    return [
        start(program, *words, address, "--num_processes=2", f"--process_id={number}")
        for number in (0, 1)
    ]


def finish(*processes):
    """Waits, and returns what each said: (exit code, output, errors)."""
    said = [process.communicate(timeout=300) for process in processes]
    return [(process.returncode, *words) for process, words in zip(processes, said, strict=True)]


@pytest.mark.slow
def test_records_are_the_same_on_one_device_on_eight_and_in_two_processes(tmp_path, small):
    words = ["--layers=conv1_2", "--num_networks=3", "--num_noises=2"]
    program = ["-c", TINY_PROGRAM, *SMALL, *words]
    started = start(program, f"--out_dir={tmp_path / 'eight'}", devices=8)
    started_two = start_two(program, f"--out_dir={tmp_path / 'two'}")
    assert small(tmp_path / "one", *words) == 0
    eight, first, second = finish(started, *started_two)
    for code, _, errors in (eight, first, second):
        assert code == 0, errors
    assert "and 2 more" in eight[2] and "and 1 more" in first[2]
    assert "population" not in second[1] + second[2], "only the first process reports"
    one = records_of(tmp_path / "one")
    assert len(one) == 3 * 2 * 2 and len({json.dumps(record) for record in one}) == len(one)
    assert records_of(tmp_path / "eight") == one
    assert records_of(tmp_path / "two") == one
    summaries = [(tmp_path / name / "summary.json").read_bytes() for name in ("one", "eight")]
    assert summaries[0] == summaries[1]


@pytest.mark.slow
def test_records_of_vgg_are_the_same_on_one_device_on_eight_and_in_two_processes(tmp_path):
    words = [*SMALL, "--layers=pool2", "--image_size=32", "--num_networks=4", "--num_steps=30"]
    program = ["-m", "randviz", *words]
    finished = finish(start(program, f"--out_dir={tmp_path / 'one'}"))
    finished += finish(start(program, f"--out_dir={tmp_path / 'eight'}", devices=8))
    finished += finish(*start_two(program, f"--out_dir={tmp_path / 'two'}"))
    assert [code for code, _, _ in finished] == [0] * 4
    one = records_of(tmp_path / "one")
    assert len(one) == 8
    assert records_of(tmp_path / "eight") == one and records_of(tmp_path / "two") == one


@pytest.mark.slow
def test_a_mistake_in_one_process_ends_all(tmp_path):
    program = ["-c", TINY_PROGRAM, *SMALL, "--kinds=random", "--num_networks=2"]
    assert finish(start(program, f"--out_dir={tmp_path}"))[0][0] == 0
    before = (tmp_path / "records.jsonl").read_bytes()
    first, second = finish(*start_two([*program, "--num_steps=6"], f"--out_dir={tmp_path}"))
    assert first[0] == second[0] == 2
    assert "other settings" in first[2] and "process 0 stopped" in second[2]
    assert (tmp_path / "records.jsonl").read_bytes() == before


@pytest.mark.slow
def test_more_networks_and_more_noises_keep_the_records_there_are(tmp_path, small, capsys):
    assert small(tmp_path / "grown", "--num_networks=2") == 0
    first = (tmp_path / "grown" / "records.jsonl").read_bytes()
    assert small(tmp_path / "grown", "--num_networks=3") == 0
    second = (tmp_path / "grown" / "records.jsonl").read_bytes()
    assert second.startswith(first) and len(second.splitlines()) == 3 * 2 * 2
    assert small(tmp_path / "grown", "--num_networks=3", "--num_noises=2") == 0
    assert (tmp_path / "grown" / "records.jsonl").read_bytes().startswith(second)
    assert small(tmp_path / "whole", "--num_networks=3", "--num_noises=2") == 0
    assert records_of(tmp_path / "grown") == records_of(tmp_path / "whole")
    names = ("grown", "whole")
    summaries = [json.loads((tmp_path / name / "summary.json").read_text()) for name in names]
    assert summaries[0] == summaries[1]

    # Fewer than there are: nothing is measured, and the summary is of those asked for.
    capsys.readouterr()
    assert small(tmp_path / "grown", "--num_networks=2") == 0
    assert "trial" not in capsys.readouterr().err
    groups = json.loads((tmp_path / "grown" / "summary.json").read_text())["groups"]
    assert [group["num_networks"] for group in groups] == [2] * 4


def test_a_run_interrupted_anywhere_ends_with_the_same_rows(tmp_path, small, monkeypatch, capsys):
    words = ["--num_networks=2", "--kinds=random"]
    assert small(tmp_path / "whole", *words) == 0
    kept = Records.append

    def keep_three(self, record):
        if len(self.records) == 3:
            raise KeyboardInterrupt
        kept(self, record)

    with monkeypatch.context() as patch:
        patch.setattr(Records, "append", keep_three)
        assert small(tmp_path / "parts", *words) == 130
    assert "the same command goes on" in capsys.readouterr().err
    path = tmp_path / "parts" / "records.jsonl"
    path.write_text(path.read_text() + '{"trial": {"netw')  # killed while writing
    assert not (tmp_path / "parts" / "summary.json").exists()
    assert small(tmp_path / "parts", *words) == 0
    assert records_of(tmp_path / "parts") == records_of(tmp_path / "whole")


def test_a_record_is_what_inverting_that_network_gives(tmp_path, small, tiny, image):
    weights_key, noise_key = make_keys(3)
    kind = rv.RandomNetwork(0.015, 0.0, network=tiny, last_layer="pool1")
    mesh = jax.sharding.Mesh(np.array(jax.devices()), (population.AXIS,))
    which, noises = (np.array([number] * mesh.size, np.int32) for number in (4, 2))
    made = population.make_networks(weights_key, kind, which, mesh=mesh)
    params = random_weights(
        jax.random.fold_in(weights_key, 4), tiny, last_layer="pool1", scale=0.015
    )
    jax.tree.map(lambda a, b: np.testing.assert_array_equal(a[0], b), dict(made), dict(params))
    found = population.reconstruct_through(
        noise_key, tiny, made, image, noises=noises, layer="pool1", num_steps=6, mesh=mesh
    )
    key = jax.random.fold_in(noise_key, 2)
    start = sample_noise_image(key, image.shape[:2], std=NOISE_STD)
    expected = minimize(Inversion("pool1").of(tiny.bind(params), image), start, num_steps=6)
    np.testing.assert_allclose(found.image[0], expected.image, atol=1e-4)
    assert found.evaluations[0] == expected.trace.evaluations.sum()
    target = features(tiny, params, image, "pool1")["pool1"]
    matched = features(tiny, params, found.image[0], "pool1")["pool1"]
    error = np.linalg.norm(matched - target) / np.linalg.norm(target)
    assert found.feature_error[0] == pytest.approx(error, rel=1e-3)


def test_one_candidate_is_the_random_network(tmp_path, small):
    assert small(tmp_path, "--num_networks=2", "--num_candidates=1") == 0
    records = records_of(tmp_path)
    random, stacked = (
        [
            {**record, "trial": {**record["trial"], "weights": ""}}
            for record in records
            if record["trial"]["weights"] == kind
        ]
        for kind in ("random", "ranvgg")
    )
    assert random == stacked


def test_a_given_network_varies_with_the_noise_only(tmp_path, small):
    recipe = Recipe(
        network="vgg19", seed=5, draws=(1, 0, 2), last_layer="conv2_1", scale=0.015,
        bias_scale=0.0, pooling="avg", padding="zero", input_offset=None,
    ).signed(make_keys(5)[0])  # fmt: skip
    words = ["--kinds=given,random", f"--network={format_recipe(recipe)}", "--num_noises=3"]
    assert small(tmp_path, *words, "--num_networks=2") == 0
    trials = [record["trial"] for record in records_of(tmp_path)]
    given = [trial for trial in trials if trial["weights"] == "given"]
    assert [(trial["network"], trial["noise"]) for trial in given] == [(0, m) for m in range(3)] * 2
    group = json.loads((tmp_path / "summary.json").read_text())["groups"][0]
    assert group["weights"] == "given" and group["variance"] is None
    # With one network the noises are the units: t is 4.303 at two degrees of freedom.
    low, high = group["mean_interval"]
    assert high - low == pytest.approx(2 * 4.3027 * group["std"] / 3**0.5, rel=1e-4)


def test_describe_agrees_with_numbers_worked_by_hand():
    found = population.describe(np.array([[1.0, 2.0], [3.0, 4.0], [5.0, 9.0]]))
    assert (found["num_networks"], found["num_noises"]) == (3, 2)
    assert (found["min"], found["max"], found["mean"], found["median"]) == (1, 9, 4, 3.5)
    assert (found["lower_quartile"], found["upper_quartile"]) == (2.25, 4.75)
    assert found["std"] == pytest.approx(8**0.5)  # squares 9 + 4 + 1 + 0 + 1 + 25 over 5
    # Mean squares 15.5 of networks, 6 of noises, 1.5 of the rest: the mean's variance is
    # 15.5/6 + 6/6 - 1.5/6 = 10/3, with two degrees of freedom of 15.5/6 and one of 6/6.
    degrees = (15.5 / 6 + 1) ** 2 / ((15.5 / 6) ** 2 / 2 + 1)
    half = scipy.stats.t.ppf(0.975, degrees) * (10 / 3) ** 0.5
    assert found["mean_interval"] == pytest.approx([4 - half, 4 + half], rel=1e-6)
    alone = population.describe(np.array([[2.0]]))
    assert (
        alone["mean"] == 2 and alone["std"] is alone["mean_interval"] is alone["variance"] is None
    )


def test_networks_are_units_and_intervals_hold_the_mean_as_often_as_they_say():
    rng = np.random.default_rng(0)
    # Three noises that say the same are one observation of their network, not three.
    tables = [np.repeat(rng.normal(size=(25, 1)), 3, 1) for _ in range(100)]
    intervals = [population.describe(table)["mean_interval"] for table in tables]
    hits = sum(low < 0 < high for low, high in intervals)
    assert 87 <= hits <= 99
    width = np.mean([high - low for low, high in intervals])
    assert width == pytest.approx(2 * 1.96 / 5, rel=0.1)


def test_variance_is_split_as_it_was_put_together():
    of_network, of_noise = np.array([[-3.0], [0.0], [3.0]]), np.array([[-1.0, 1.0]])
    split = population.split_variance(10 + of_network + of_noise)
    assert split == pytest.approx({"weights": 9.0, "noise": 2.0, "both": 0.0})
    # By hand: mean squares 16 between networks, 0 between noises, 4 for what is left.
    split = population.split_variance(np.array([[3.0, 1.0], [-3.0, -1.0]]))
    assert split == pytest.approx({"weights": 6.0, "noise": 0.0, "both": 4.0})

    rng = np.random.default_rng(1)
    effects = 2 * rng.normal(size=(400, 1)) + rng.normal(size=(1, 400))
    split = population.split_variance(effects + 0.5 * rng.normal(size=(400, 400)))
    assert split == pytest.approx({"weights": 4.0, "noise": 1.0, "both": 0.25}, rel=0.2)
    assert population.split_variance(np.ones((1, 5))) is None
    assert population.split_variance(np.ones((5, 1))) is None


def make_records(kinds=("random", "ranvgg")):
    return [
        {
            "trial": {
                "network": n, "weights": kind, "image": "a.png", "layer": layer, "noise": m,
            },
            "distance": float(10 * k + n + m), "psnr": None if n else 20.0, "ssim": None,
            "feature_error": 0.5,
        }
        for k, kind in enumerate(kinds) for layer in ("pool1", "pool2") for n in (0, 1, 2)
        for m in (0, 1)
    ]  # fmt: skip


def test_summary_has_a_group_for_each_kind_and_layer():
    groups = population.summarize(make_records()[::-1])
    assert len(groups) == 4
    assert [(g["weights"], g["layer"], g["mean"]) for g in groups][-1] == ("random", "pool1", 1.5)
    assert groups[0]["median_psnr"] == 20 and groups[0]["median_ssim"] is None
    table = format_table(groups).splitlines()
    assert len(table) == 5 and table[1].startswith(
        "ranvgg  a.png            pool2        6   11.50"
    )


def test_boxes_reach_from_the_minimum_to_the_maximum():
    groups = population.summarize(make_records())
    figure = plot_boxes(groups)
    assert [panel.get_title() for panel in figure.axes] == ["a.png, pool1", "a.png, pool2"]
    heights = {float(y) for line in figure.axes[0].lines for y in np.ravel(line.get_ydata())}
    # Minimum, quartiles, median (the mean, too) and maximum of 0, 1, 1, 2, 2, 3; and ten more.
    assert heights == {0, 1, 1.5, 2, 3, 10, 11, 11.5, 12, 13}


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--kinds=learned", "'learned'"),
        ("--kinds=trained", "--trained_weights="),
        ("--trained_weights=vgg.h5", "add trained to --kinds"),
        ("--kinds=", "--kinds="),
        ("--kinds=random,random", "twice"),
        ("--kinds=given", "recipe"),
        ("--num_networks=0", "num_networks"),
        ("--num_noises=0", "num_noises"),
        ("--num_candidates=0", "num_candidates"),
        ("--selection_steps=0", "selection_steps"),
        ("--image=", "--image="),
        ("--image=chelsea,chelsea", "twice"),
        ("--image=nowhere.png", "nowhere.png"),
        ("--image={}/black.png", "black.png"),
        ("--reference_image={}/black.png", "black.png"),
        ("--reference_image={}/dot.png", "dot.png"),
        ("--layers=pool9", "pool9"),
        ("--layers=pool1,pool1", "twice"),
        ("--layers=pool4 --image_size=8", "pool4"),
        ("--coordinator_address=localhost", "host:port"),
        ("--num_processes=-1", "cluster"),
    ],
)
def test_mistakes_get_a_sentence_and_leave_nothing(tmp_path, monkeypatch, capsys, words, said):
    Pillow.new("RGB", (20, 16)).save(tmp_path / "black.png")
    Pillow.new("RGB", (1, 1)).save(tmp_path / "dot.png")

    def find_no_cluster(*arguments):
        raise ValueError("coordinator_address should be defined.")

    monkeypatch.setattr(jax.distributed, "initialize", find_no_cluster)
    out = tmp_path / "out"
    assert main([*SMALL, f"--out_dir={out}", *words.format(tmp_path).split()]) == 2
    error = capsys.readouterr().err
    assert said in error and error.count("\n") == 1 and error.endswith(".\n")
    assert not out.exists()


def test_a_folder_with_other_settings_is_refused_and_untouched(tmp_path, small, capsys):
    assert small(tmp_path, "--kinds=random", "--num_networks=1") == 0
    before = {path.name: path.read_bytes() for path in tmp_path.iterdir()}
    for words in ("--seed=1", "--kinds=ranvgg", "--num_steps=6", "--image=coffee"):
        assert small(tmp_path, "--kinds=random", "--num_networks=1", words) == 2
        assert "other settings" in capsys.readouterr().err
    assert {path.name: path.read_bytes() for path in tmp_path.iterdir()} == before
