"""Output folders: one process at a time, leftovers, and records that are damaged."""

import fcntl
import os
import pathlib

import pytest

from randviz.__main__ import main
from randviz.host.folders import lock_folder
from randviz.host.records import Records
from randviz.types import UserError


def test_a_folder_is_one_process_at_a_time(tmp_path):
    with lock_folder(tmp_path) as folder:
        assert folder == tmp_path
        said = f"process {os.getpid()} is at work in the folder {tmp_path};"
        with pytest.raises(UserError, match=said), lock_folder(tmp_path):
            pass
        with pytest.raises(UserError, match=said), lock_folder(tmp_path):
            pass  # the refused one took no lock away
    with lock_folder(tmp_path):
        pass
    assert list(tmp_path.iterdir()) == []


def test_a_lock_file_left_over_locks_nothing(tmp_path):
    (tmp_path / ".lock").write_text("123456789")
    with lock_folder(tmp_path):
        assert (tmp_path / ".lock").read_text() == str(os.getpid())


def test_a_lock_file_that_vanishes_while_it_is_taken_is_no_lock(tmp_path, monkeypatch):
    lock = fcntl.flock

    def remove_first(file, operation):
        monkeypatch.setattr(fcntl, "flock", lock)
        (tmp_path / ".lock").unlink()
        lock(file, operation)

    monkeypatch.setattr(fcntl, "flock", remove_first)
    with lock_folder(tmp_path), pytest.raises(UserError, match="at work"), lock_folder(tmp_path):
        pass


def test_a_folder_made_for_nothing_is_removed(tmp_path):
    (tmp_path / "old").mkdir()
    for name in ("old", "new"):
        with pytest.raises(UserError, match="mistake"), lock_folder(tmp_path / name):
            raise UserError("a mistake.")
    assert [path.name for path in tmp_path.iterdir()] == ["old"]


def test_a_study_does_not_touch_the_folder_of_another(tmp_path, capsys):
    words = ["select", "--reference_image=astronaut", "--image_size=16", "--last_layer=conv1_1"]
    with lock_folder(tmp_path):
        assert main([*words, f"--out_dir={tmp_path}"]) == 2
    assert f"process {os.getpid()} is at work" in capsys.readouterr().err
    assert list(tmp_path.iterdir()) == []


def test_clear_removes_what_is_left_over_and_nothing_else(tmp_path, capsys):
    (tmp_path / ".unfinished-1" / "frames").mkdir(parents=True)
    (tmp_path / ".randviz-2.png").write_text("half")
    (tmp_path / "out.png").write_text("whole")
    words = ["clear", f"--out_dir={tmp_path}"]
    with lock_folder(tmp_path):
        assert main(words) == 2
    assert main([*words, "--dry_run"]) == 0
    assert len(list(tmp_path.iterdir())) == 3
    assert main(words) == 0
    assert capsys.readouterr().out.splitlines() == [
        f"clear: {done} .randviz-2.png, .unfinished-1 in {tmp_path}"
        for done in ("would remove", "removed")
    ]
    assert [path.name for path in tmp_path.iterdir()] == ["out.png"]
    assert main(["clear", f"--out_dir={tmp_path / 'nowhere'}"]) == 2
    assert main(["clear"]) == 2


def make_records(folder):
    records = Records(folder, {"seed": 1})
    for number in range(3):
        records.append({"trial": {"number": number}, "value": 0.5})
    return folder / "records.jsonl"


def test_a_record_cut_off_at_the_end_is_measured_again(tmp_path):
    path = make_records(tmp_path)
    whole = path.read_text()
    path.write_text(whole[:-9])
    assert len(Records(tmp_path, {"seed": 1}).records) == 2
    assert path.read_text() == "".join(whole.splitlines(keepends=True)[:2])


@pytest.mark.parametrize("damage", ['{"trial": {"num', "[]", '{"value": 1}', "\x00\x00"])
def test_a_damaged_record_costs_no_other(tmp_path, damage):
    path = make_records(tmp_path)
    lines = path.read_text().splitlines()
    path.write_text("\n".join([lines[0], damage, lines[2]]) + "\n")
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"line 2 of .*records\.jsonl is damaged"):
        Records(tmp_path, {"seed": 1})
    assert path.read_bytes() == before


@pytest.mark.parametrize("text", ['{"seed"', "[1]", None])
def test_records_whose_settings_are_damaged_are_said_and_stay(tmp_path, text):
    path = make_records(tmp_path)
    (tmp_path / "run.json").unlink() if text is None else (tmp_path / "run.json").write_text(text)
    before = path.read_bytes()
    with pytest.raises(UserError, match=r"run\.json.*missing or damaged"):
        Records(tmp_path, {"seed": 1})
    assert path.read_bytes() == before


def test_a_full_disk_is_said_and_records_stay(tmp_path, monkeypatch):
    make_records(tmp_path)
    records = Records(tmp_path, {"seed": 1})

    def fail(*arguments, **options):
        raise OSError(28, os.strerror(28))

    with monkeypatch.context() as patch:
        patch.setattr(pathlib.Path, "open", fail)
        with pytest.raises(UserError, match="No space left.*same command goes on"):
            records.append({"trial": {"number": 3}})
    found = Records(tmp_path, {"seed": 1}).records
    assert found == records.records and len(found) == 3
