"""The lines of metrics.jsonl."""

import json

import torch

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


def test_numbers_come_from_the_device_in_one_copy(monkeypatch):
    copies, tolist = [], torch.Tensor.tolist
    monkeypatch.setattr(torch.Tensor, "tolist", lambda tensor: copies.append(tensor.shape) or tolist(tensor))
    steps = [{"a": torch.tensor(1.5), "b": 2.0, "c": torch.tensor(3)}, {"a": torch.tensor(4.0), "b": 5, "c": 6.0}]
    assert read_numbers(steps) == [{"a": 1.5, "b": 2.0, "c": 3.0}, {"a": 4.0, "b": 5.0, "c": 6.0}]
    assert copies == [(3,)]
    assert read_numbers([{"b": 1.0}]) == [{"b": 1.0}] and read_numbers([]) == []
