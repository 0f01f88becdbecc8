"""Flags made from a settings class: types, defaults, files, and mistakes."""

import dataclasses
import os

import jax
import pytest

from randviz.host.settings import describe_flags, parse_flags, run_command, setting
from randviz.types import UserError


@dataclasses.dataclass(frozen=True)
class Common:
    num_steps: int = setting(10, "How many.", lower_bound=1, upper_bound=50)
    weight: float = setting(0.5, "How much.", lower_bound=0)


@dataclasses.dataclass(frozen=True)
class Settings(Common):
    layers: tuple[str, ...] = setting(("a", "b"), "Which.")
    kind: str = setting("x", "What kind.", choices=("x", "y"))
    loud: bool = setting(False, "Whether.")
    name: str = setting("", "Whose.")


def test_defaults_and_types():
    assert parse_flags(Settings, []) == Settings()
    words = "--num_steps=3 --weight=2 --layers=c,d,e --kind=y --loud --name=me".split()
    assert parse_flags(Settings, words) == Settings(3, 2.0, ("c", "d", "e"), "y", True, "me")
    assert parse_flags(Settings, ["--noloud", "--layers="]).layers == ()


def test_the_home_folder_is_found_in_every_flag(monkeypatch):
    monkeypatch.setenv("HOME", "/home/me")
    found = parse_flags(Settings, ["--name=~/a.png", "--layers=~/b.png,c~d"])
    assert (found.name, found.layers) == ("/home/me/a.png", ("/home/me/b.png", "c~d"))


@dataclasses.dataclass(frozen=True)
class Shorter(Common):
    num_steps: int = 20


def test_another_default_keeps_description_and_bounds():
    assert parse_flags(Shorter, []).num_steps == 20
    assert "--num_steps=20              How many." in describe_flags(Shorter)
    with pytest.raises(UserError, match="num_steps"):
        parse_flags(Shorter, ["--num_steps=51"])


@dataclasses.dataclass(frozen=True)
class Renamed:
    num_networks: int = setting(1, "How many.")


def test_flags_of_earlier_versions_are_still_read():
    assert parse_flags(Renamed, ["--num_samples=3"]).num_networks == 3


def test_flag_file_and_last_value_wins(tmp_path):
    (tmp_path / "a.flags").write_text("# a comment\n--num_steps=7\n--kind=y\n")
    found = parse_flags(Settings, [f"--flagfile={tmp_path / 'a.flags'}", "--num_steps=8"])
    assert (found.num_steps, found.kind) == (8, "y")


@pytest.mark.parametrize(
    ("words", "said"),
    [
        (["--num_steps=0"], "num_steps"),
        (["--num_steps=many"], "many"),
        (["--weight=-1"], "weight"),
        (["--kind=z"], "kind"),
        (["--steps=3"], "steps"),
        (["picture.png"], "picture.png"),
        (["--flagfile=nowhere.flags"], "nowhere.flags"),
        (["--num_steps=99"], "num_steps"),
        (["--weight=nan"], "weight=nan"),
        (["--weight=inf"], "weight=inf"),
        (["--loud=perhaps"], "perhaps"),
        (["--num_step=3"], "num_steps"),
    ],
)
def test_mistakes_are_one_sentence_and_exit_code_2(words, said, capsys):
    with pytest.raises(UserError, match=said):
        parse_flags(Settings, words)
    assert run_command("randviz x", Settings, lambda settings: None, words, "Doc.") == 2
    error = capsys.readouterr().err
    assert error.startswith("randviz x: ") and error.count("\n") == 1 and "Traceback" not in error


def test_help_tells_every_flag_with_its_default(capsys):
    assert run_command("randviz x", Settings, None, ["--helpfull"], "Does x.") == 0
    shown = capsys.readouterr().out
    assert shown.startswith("Does x.")
    for field in dataclasses.fields(Settings):
        assert f"  --{field.name}" in shown
    assert "--layers=a,b" in shown and "One of x, y." in shown and "--name=..." in shown
    # The command's own flags come before those it shares.
    assert shown.index("--layers") < shown.index("--num_steps")


@dataclasses.dataclass(frozen=True)
class Seldom(Common):
    num_steps: int = 20
    depth: int = setting(3, "How deep, from 1.5 on. From 1 it is shallow.")
    quiet: bool = setting(True, "Whether it is quiet.")
    gamma: float = setting(1.0, "What nobody asks for.", rare=True)


@pytest.mark.parametrize("flag", ["--help", "-h", "--helpshort"])
def test_the_short_help_is_a_sentence_on_each_flag_that_is_often_needed(capsys, flag):
    assert run_command("randviz x", Seldom, None, ["--depth=2", flag], "Does x.") == 0
    shown = capsys.readouterr().out
    assert "How deep, from 1.5 on.\n" in shown and "shallow" not in shown
    assert "--num_steps=20" in shown and "--noquiet" in shown and "gamma" not in shown
    assert "--helpfull describes all flags in full, and 1 more." in shown
    full = describe_flags(Seldom, full=True)
    assert "What nobody asks for." in full and "it is shallow" in full


@pytest.mark.parametrize(
    ("words", "said"),
    [
        ("--num-steps=3", "no flag --num-steps, perhaps --num_steps is meant"),
        ("--laud", "perhaps --loud is meant"),
        ("--nolaud", "no flag --nolaud"),
        ("--xyz=1", "no flag --xyz; --helpfull"),
        ("--num_steps=3.5", "--num_steps=3.5: not a whole number"),
        ("--weight=heavy", "--weight=heavy: not a number"),
    ],
)
def test_a_message_about_a_flag_says_what_may_be_meant(words, said):
    with pytest.raises(UserError, match=said):
        parse_flags(Settings, [words])


def test_a_mistake_of_ours_is_not_hidden():
    def broken(settings):
        raise ValueError("a bug")

    with pytest.raises(ValueError, match="a bug"):
        run_command("randviz x", Settings, broken, [], "Doc.")


def test_interruption_exits_with_130(capsys):
    def stopped(settings):
        raise KeyboardInterrupt

    assert run_command("randviz x", Settings, stopped, [], "Doc.") == 130
    assert capsys.readouterr().err == "randviz x: stopped.\n"


@dataclasses.dataclass(frozen=True)
class Precise(Common):
    precision: str = setting("highest", "How exact.", choices=("highest", "tf32", "bf16"))


@pytest.mark.parametrize(("words", "value"), [([], "highest"), (["--precision=tf32"], "tf32")])
def test_precision_is_full_unless_asked_otherwise(words, value):
    before = jax.config.jax_default_matmul_precision
    jax.config.update("jax_default_matmul_precision", None)
    seen = []
    run = lambda settings: seen.append(jax.config.jax_default_matmul_precision)
    try:
        assert run_command("randviz x", Precise, run, words, "Doc.") == 0
    finally:
        jax.config.update("jax_default_matmul_precision", before)
    assert seen == [{"highest": "highest", "tf32": "tensorfloat32"}[value]]


@pytest.mark.parametrize(
    ("version", "before", "after"),
    [
        ((0, 10, 2), "", "--xla_cpu_experimental_ynn_fusion_type="),
        ((0, 10, 2), "--a=1", "--a=1 --xla_cpu_experimental_ynn_fusion_type="),
        ((0, 10, 2), "--xla_cpu_experimental_ynn_fusion_type=dot", None),
        ((0, 9, 0), "--a=1", None),
        ((0, 12, 0), "", None),
    ],
)
def test_ynnpack_is_turned_off_where_the_flag_is_known(monkeypatch, version, before, after):
    monkeypatch.setenv("XLA_FLAGS", before)
    monkeypatch.setattr(jax, "__version_info__", version)
    assert run_command("randviz x", Settings, lambda settings: None, [], "Doc.") == 0
    assert os.environ["XLA_FLAGS"] == (before if after is None else after)
