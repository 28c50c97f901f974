"""Curves of a run: every number gets a panel, and a cut-off line does no harm."""

import json
import os
import tracemalloc

import numpy as np
import pytest
from PIL import Image

from clipgan.errors import UserError
from clipgan.runs.curves import EVAL, LONGEST_LINE, TRAIN, draw_curves, read_metrics, series


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


GOOD = json.dumps(LINES[0]).encode()
BROKEN = [
    b"5",
    b"null",
    b"[]",
    b'"text"',
    b'{"step": 1, "loss": 2}',
    b'{"kind": "train", "loss": 2}',
    b'{"kind": "other", "step": 1}',
    b'{"kind": ["train"], "step": 1}',
    b'{"kind": "train", "step": "1"}',
    b'{"kind": "train", "step": -1}',
    b'{"kind": "train", "step": 1.5}',
    b'{"kind": "train", "step": true}',
    b'{"kind": "train", "step": 1' + b"0" * 100 + b"}",
    b'{"kind": "train", "step": 1, "loss": Infinity}',
    b'{"kind": "train", "step": 1, "loss": NaN}',
    b'{"kind": "train", "step": 1, "loss": 1e999}',
    b'{"kind": "train", "step": 1, "loss": 1e60}',
    b'{"kind": "train", "step": 1, "loss": 1' + b"0" * 4000 + b"}",
    b'{"kind": "train", "step": 1, "loss": 1' + b"0" * 9000 + b"}",
    b'{"kind": "train", "step": 1, "loss": [1]}',
    b'{"kind": "train", "step": 1, "loss": ' + b"[" * 50_000 + b"}",
    b'{"kind": "train", "step": 1, "note": "' + b"x" * 10**6 + b'"}',
    b'{"kind": "train", "step": 1, ' + b",".join(b'"k%d": 1' % number for number in range(1000)) + b"}",
    b"\0" * 3000 + b'{"kind": "train", "step": 1}',
    bytes(range(1, 10)) + bytes(range(128, 256)),
    b"",
]


def test_broken_lines_are_left_out_and_the_others_stay(tmp_path):
    path = tmp_path / "metrics.jsonl"
    for number, broken in enumerate(BROKEN):
        path.write_bytes(GOOD + b"\n" + broken + b"\r\n" + GOOD)
        assert read_metrics(path) == [LINES[0]] * 2, number
    path.write_bytes(b"x" * LONGEST_LINE + GOOD + b"\n" + GOOD)  # the rest of a line that is too long
    assert read_metrics(path) == [LINES[0]]
    path.write_bytes(b"\n".join(BROKEN))
    assert not draw_curves(path, tmp_path / "curves.png")


def test_lines_of_progress_come_back_as_they_are(tmp_path):
    line = {
        **LINES[0],
        "seconds": 1.25,
        "best_by": "r_precision",
        "bad": None,
        "skipped": 3,
        "large": 3.4e38,
        "ok": True,
    }
    (tmp_path / "metrics.jsonl").write_bytes(b"\xef\xbb\xbf" + json.dumps(line).encode())
    assert read_metrics(tmp_path / "metrics.jsonl") == [line]
    assert draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")


def test_a_line_of_hundreds_of_megabytes_is_not_held_in_memory(tmp_path):
    path = tmp_path / "metrics.jsonl"
    with open(path, "wb") as file:
        file.write(GOOD + b"\n")
        file.seek(400 << 20, os.SEEK_CUR)  # a hole, which reads as NUL
        file.write(b"\n" + GOOD)
    tracemalloc.start()
    try:
        assert read_metrics(path) == [LINES[0]] * 2
        assert tracemalloc.get_traced_memory()[1] < 5 << 20
    finally:
        tracemalloc.stop()
    with open(path, "ab") as file:
        file.truncate(1 << 30)
    with pytest.raises(UserError, match=r"metrics\.jsonl: has 1,024 MB; such a file has at most 512 MB"):
        draw_curves(path, tmp_path / "curves.png")


def test_names_by_the_thousand_make_no_endless_picture(tmp_path):
    lines = [{"kind": "train", "step": 1, **{f"{part}_{i}": 1 for i in range(90)}} for part in range(100)]
    (tmp_path / "metrics.jsonl").write_text("\n".join(map(json.dumps, lines)))
    assert draw_curves(tmp_path / "metrics.jsonl", tmp_path / "curves.png")
    assert pixels(tmp_path / "curves.png").shape[0] < 20_000
