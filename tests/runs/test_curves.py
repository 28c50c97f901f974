"""Curves of a run: every number gets a panel, and a cut-off line does no harm."""

import json

import numpy as np
from PIL import Image

from clipgan.runs.curves import EVAL, TRAIN, draw_curves, read_metrics, series


def pixels(path):
    with Image.open(path) as image:
        return np.asarray(image)


LINES = [
    {"kind": "train", "step": 10, "epoch": 1, "loss": 3.0, "lr": 0.1},
    {"kind": "train", "step": 20, "epoch": 1, "loss": 1.0, "lr": 0.1},
    {"kind": "eval", "step": 20, "epoch": 1, "r1": 0.5, "best_split": "train"},
    {"kind": "train", "step": 30, "epoch": 2, "loss": float("inf"), "lr": 0.0},
]


def test_series_hold_finite_numbers_by_kind():
    assert series(LINES) == {
        ("train", "loss"): [(10, 3.0), (20, 1.0)],
        ("train", "lr"): [(10, 0.1), (20, 0.1), (30, 0.0)],
        ("eval", "r1"): [(20, 0.5)],
    }


def test_a_line_that_a_crash_cut_off_is_left_out(tmp_path):
    (tmp_path / "metrics.jsonl").write_text(json.dumps(LINES[0]) + '\n{"kind": "train", "st')
    assert read_metrics(tmp_path / "metrics.jsonl") == LINES[:1]


def test_the_picture_shows_training_and_evaluation_in_their_colours(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in LINES))
    assert draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    picture = pixels(tmp_path / "curves.png")
    for colour in (TRAIN, EVAL):
        assert (picture == colour).all(-1).sum() > 5


def test_a_falling_loss_falls_in_the_picture(tmp_path):
    lines = [{"kind": "train", "step": i, "loss": 10.0 - i} for i in range(10)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(json.dumps(line) for line in lines))
    draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    rows, columns = (pixels(tmp_path / "curves.png") == TRAIN).all(-1).nonzero()
    assert rows[columns == columns.min()].mean() < rows[columns == columns.max()].mean()


def test_nothing_to_draw_draws_nothing(tmp_path):
    (tmp_path / "metrics.jsonl").write_text("")
    assert not draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert not (tmp_path / "curves.png").exists()
