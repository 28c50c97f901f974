"""Scores as a table of text."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import Any


def score_table(report: Mapping[str, Any]) -> str:
    """The scores of a report of ``tools/score.py``, a line each, beside interval, chance and real images.

    A star stands after a score that has a notice.
    """
    judges = report["networks"]["judges"]
    lines = [("score", "value", "95 % interval", "chance", "real", "better")]
    for score in report["scores"]:
        judge = "" if score["judge"] is None or len(judges) < 2 else f", judge {score['judge'] + 1}"
        numbers = [plain(score[key]) for key in ("value", "chance", "real")]
        name, around = score["name"] + judge + (" *" if score["notice"] else ""), between(score["interval"])
        lines.append((name, numbers[0], around, *numbers[1:], score["better"]))
    return aligned(lines)


def aligned(lines: Sequence[Sequence[str]]) -> str:
    """A table: the first column to the left, the others to the right."""
    widths = [max(len(line[column]) for line in lines) for column in range(len(lines[0]))]
    return "\n".join(
        "  ".join([line[0].ljust(widths[0]), *(cell.rjust(w) for cell, w in zip(line[1:], widths[1:], strict=True))])
        for line in lines
    )


def plain(value: float | None) -> str:
    """A number in four digits; a dash for none."""
    return "–" if value is None else f"{value:.4g}" if abs(value) < 1000 else f"{value:.1f}"


def between(interval: Sequence[float] | None) -> str:
    """An interval; a dash for none."""
    return "–" if interval is None else " to ".join(map(plain, interval))
