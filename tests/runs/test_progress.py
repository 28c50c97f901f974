"""The lines of metrics.jsonl."""

import json
import resource

import pytest
import torch

from clipgan.errors import UserError
from clipgan.runs.progress import Progress, read_numbers


def lines_of(path):
    return [json.loads(line) for line in path.read_text().splitlines()]


def test_progress_writes_means_over_the_steps_between_two_lines(tmp_path):
    progress = Progress(tmp_path / "metrics.jsonl", 5, "test", every=2)
    for step in range(1, 6):
        progress.step(step, 1, {"loss": torch.tensor(float(step))}, shown=("loss",))
    progress.write("eval", 5, 1, {"r1": 0.5})
    progress.close()
    lines = [json.loads(line) for line in (tmp_path / "metrics.jsonl").read_text().splitlines()]
    assert [(line["kind"], line["step"]) for line in lines] == [("train", 2), ("train", 4), ("train", 5), ("eval", 5)]
    assert [line["loss"] for line in lines[:3]] == [1.5, 3.5, 5.0]


def test_a_resumed_run_writes_the_lines_of_the_run_that_went_on(tmp_path):
    def steps(progress, numbers):
        for step in numbers:
            progress.step(step, 1, {"loss": torch.tensor(step / 3), "rate": step / 7}, shown=())

    whole = Progress(tmp_path / "whole.jsonl", 9, "test", every=4)
    steps(whole, range(1, 10))
    cut = Progress(tmp_path / "cut.jsonl", 9, "test", every=4)
    steps(cut, range(1, 7))
    state = cut.state_dict()
    steps(cut, range(7, 9))  # lost
    resumed = Progress(tmp_path / "cut.jsonl", 9, "test", every=4)
    resumed.load_state_dict(state)
    steps(resumed, range(7, 10))
    for progress in (whole, cut, resumed):
        progress.close()
    both = [lines_of(tmp_path / f"{name}.jsonl") for name in ("whole", "cut")]
    for line in (*both[0], *both[1]):
        del line["seconds"]
    assert both[0] == both[1] and [line["step"] for line in both[0]] == [4, 8, 9]


def test_numbers_keep_six_digits_however_small_they_are(tmp_path):
    progress = Progress(tmp_path / "metrics.jsonl", 9, "test")
    progress.write("train", 1, 1, {"rate": 2.3456789e-9, "loss": 12345.6789, "bad": float("nan"), "steps": 3})
    (line,) = lines_of(tmp_path / "metrics.jsonl")
    assert (line["rate"], line["loss"], line["bad"], line["steps"]) == (2.34568e-9, 12345.7, None, 3)


def test_numbers_come_from_the_device_in_one_copy(monkeypatch):
    copies, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: copies.append(tensor.shape) or tolist(tensor))
    steps = [{"a": torch.tensor(1.5), "b": 2.0, "c": torch.tensor(3)}, {"a": torch.tensor(4.0), "b": 5, "c": 6.0}]
    assert read_numbers(steps) == [{"a": 1.5, "b": 2.0, "c": 3.0}, {"a": 4.0, "b": 5.0, "c": 6.0}]
    assert copies == [(3,)]
    assert read_numbers([{"b": 1.0}]) == [{"b": 1.0}] and read_numbers([]) == []


def resumed(path, had):
    """The lines and the messages of a run that goes on, whose file had so many bytes when its state was saved."""
    progress, said = Progress(path, 9, "test"), []
    progress.say = said.append
    progress.load_state_dict({"pending": [], "seconds": 1.0, "bytes": had})
    progress.write("eval", 5, 1, {"r1": 0.5})
    progress.close()
    assert b"\0" not in path.read_bytes()
    return [line for line in path.read_text().splitlines() if line], said


def test_a_lost_or_shortened_file_is_not_filled_with_nul(tmp_path):
    path = tmp_path / "metrics.jsonl"
    lines, said = resumed(path, 5000)
    assert len(lines) == 1 and len(said) == 1
    assert f"{path}: earlier lines are lost: it has 0 bytes, and had 5000" in said[0]
    path.write_text('{"kind": "train", "step": 3}\n{"kind": "tra')
    lines, said = resumed(path, 5000)
    assert lines[:2] == ['{"kind": "train", "step": 3}', '{"kind": "tra'] and json.loads(lines[2])["step"] == 5
    assert len(said) == 1


def test_a_longer_file_is_cut_silently(tmp_path):
    path = tmp_path / "metrics.jsonl"
    path.write_text("12345\n67890\n")
    lines, said = resumed(path, 6)
    assert lines[0] == "12345" and len(lines) == 2 and not said
    path.write_text("12345\n")
    assert len(resumed(path, 0)[0]) == 1
    path.unlink()
    assert len(resumed(path, 0)[0]) == 1


def test_a_full_disk_is_one_line_that_names_the_file(tmp_path):
    progress = Progress(tmp_path / "metrics.jsonl", 9, "test")
    soft, hard = resource.getrlimit(resource.RLIMIT_FSIZE)
    resource.setrlimit(resource.RLIMIT_FSIZE, (100, hard))
    try:
        with pytest.raises(
            UserError, match=r"metrics\.jsonl: cannot be written: .*make room.*training goes on with --resume"
        ):
            for step in range(9):
                progress.write("train", step, 1, {"loss": 0.5})
    finally:
        resource.setrlimit(resource.RLIMIT_FSIZE, (soft, hard))
        progress.close()
    (tmp_path / "folder.jsonl").mkdir()
    with pytest.raises(UserError, match=r"folder\.jsonl: cannot be written"):
        Progress(tmp_path / "folder.jsonl", 9, "test").write("train", 1, 1, {})
