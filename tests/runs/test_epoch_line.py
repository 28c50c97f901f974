"""The line that sums up an epoch: its means, its costs, and the time left."""

import re
import time

import pytest
import torch

from clipgan.runs import epoch_line, hardware
from clipgan.runs.epoch_line import EpochLine, hours
from clipgan.runs.progress import Progress

CPU = torch.device("cpu")


def run(progress, steps, per_epoch=6, measured=None):
    """Make ``steps`` of epochs of six; the loss of a step is its number. Returns the epochs' lines."""
    said = []
    progress.say = said.append
    for step in steps:
        epoch = (step - 1) // per_epoch + 1
        progress.step(step, epoch, {"loss": torch.tensor(float(step)), "other": 1.0}, shown=())
        if step % per_epoch == 0:
            progress.end_epoch(epoch, ("loss",), measured)
    progress.close()
    return said


def losses(lines):
    return [re.search(r"epoch (\d+): loss ([0-9.]+)", line).groups() for line in lines]


def test_the_means_are_those_of_the_lines_that_ended_in_the_epoch(tmp_path):
    progress = Progress(tmp_path / "m.jsonl", 18, "x", every=4)
    progress.start(0)
    # Lines: steps 1-4 | 5-8 (ends in epoch 2), 9-12 | 13-16, 17-18.
    assert losses(run(progress, range(1, 19))) == [("1", "2.5"), ("2", "8.5"), ("3", "15.5")]


def test_lines_of_other_lengths_count_by_their_steps(tmp_path):
    progress = Progress(tmp_path / "m.jsonl", 6, "x", every=4)
    progress.start(0)
    assert losses(run(progress, range(1, 7))) == [("1", "3.5")]  # (2.5 · 4 + 5.5 · 2) / 6


def test_an_epoch_without_a_line_of_its_own_tells_the_last_one(tmp_path):
    progress = Progress(tmp_path / "m.jsonl", 12, "x", every=4)
    progress.start(0)
    lines = run(progress, range(1, 7), per_epoch=2)
    assert lines[0].startswith("epoch 1: ") and "loss" not in lines[0]
    assert losses(lines[1:]) == [("2", "2.5"), ("3", "2.5")]


def test_no_number_is_read_off_the_device_for_an_epoch(tmp_path, monkeypatch):
    progress = Progress(tmp_path / "m.jsonl", 100, "x", every=10)
    progress.start(0)
    for step in range(1, 4):
        progress.step(step, 1, {"loss": torch.tensor(1.0)}, shown=())

    def read(*_):
        raise AssertionError("the device was waited for")

    for name in ("tolist", "item", "__float__", "cpu"):
        monkeypatch.setattr(torch.Tensor, name, read)
    progress.end_epoch(1, ("loss",))
    progress.close()


@pytest.mark.parametrize("saved", [8, 9, 11])
def test_a_resumed_run_sums_up_the_whole_epoch(tmp_path, saved):
    whole = Progress(tmp_path / "whole.jsonl", 18, "x", every=2)
    whole.start(0)
    expected = losses(run(whole, range(1, 19)))
    cut = Progress(tmp_path / "cut.jsonl", 18, "x", every=2)
    cut.start(0)
    run(cut, range(1, saved + 1))
    state = cut.state_dict()
    run(cut, range(saved + 1, 12))  # lost
    resumed = Progress(tmp_path / "cut.jsonl", 18, "x", every=2)
    resumed.load_state_dict(state)
    resumed.start(saved, 1)
    assert losses(run(resumed, range(saved + 1, 19))) == expected[1:]


def test_measures_stand_beside_the_means_and_texts_do_not(tmp_path):
    progress = Progress(tmp_path / "m.jsonl", 6, "x", every=2)
    progress.start(0)
    (line,) = run(progress, range(1, 7), measured={"r1": 0.51234, "candidates": 100, "best_split": "train"})
    assert "; measured r1 0.5123, candidates 100; " in line and "train" not in line


class Clock:
    def __init__(self, monkeypatch):
        self.now = 1000.0
        monkeypatch.setattr(time, "monotonic", lambda: self.now)


def test_speed_is_that_of_the_steps_and_the_time_left_counts_measuring_too(monkeypatch):
    clock = Clock(monkeypatch)
    monkeypatch.setattr(epoch_line, "peak_memory", lambda device: 3 << 29)
    line = EpochLine(total=100, images=8, device=CPU)
    clock.now += 500  # networks are built
    line.start(20)
    for step in range(21, 31):
        clock.now += 2
        line.count(step)
    clock.now += 10  # measuring
    # 10 steps of 8 images in 20 s; 70 steps are left, at 30 s for ten.
    assert line.text(3, (), {}) == "epoch 3: 4 images/s, 1.5 GB, 0:04 left"
    for step in range(31, 101):
        clock.now += 0.125
        line.count(step)
    assert line.text(4, (), {}) == "epoch 4: 64 images/s, 1.5 GB, 0:00 left"


def test_an_epoch_whose_steps_were_made_before_the_run_was_resumed_has_no_speed(monkeypatch):
    monkeypatch.setattr(epoch_line, "peak_memory", lambda device: 0)
    line = EpochLine(total=100, images=8, device=CPU)
    line.start(20, [{"kind": "train", "step": 20, "epoch": 2, "loss": 0.25}])
    assert line.text(2, ("loss",), {}) == "epoch 2: loss 0.25"


def test_hours():
    assert [hours(seconds) for seconds in (0, 29, 31, 3570, 108_060)] == ["0:00", "0:00", "0:01", "1:00", "30:01"]


def test_the_peak_of_this_process_is_told_in_bytes(monkeypatch):
    before = hardware.peak_memory(CPU)
    held = torch.ones(300 << 20, dtype=torch.uint8)
    after = hardware.peak_memory(CPU)
    assert len(held) <= after < 1 << 40 and after >= before > 1 << 20
    monkeypatch.setattr(torch.cuda, "max_memory_allocated", lambda device: 5)
    assert hardware.peak_memory(torch.device("cuda", 0)) == 5


def test_only_the_first_process_says_the_line(tmp_path, monkeypatch, capsys):
    monkeypatch.setenv("RANK", "1")
    progress = Progress(tmp_path / "m.jsonl", 6, "x", every=2)
    progress.start(0)
    progress.end_epoch(1, ())
    progress.close()
    assert "epoch 1" not in capsys.readouterr().out
