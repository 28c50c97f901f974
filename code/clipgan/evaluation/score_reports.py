"""Reads the scores of a generator from the reports that ``main.py`` and the two score scripts leave beside its samples.

A score is a dictionary of the shape ``clipgan.runs.model_file.SCORE``.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Any

from clipgan.errors import UserError, one_line
from clipgan.evaluation.sampling import sample_folder
from clipgan.files import shapes
from clipgan.files.gate import MEGABYTE, read_json, reading

_LARGEST = 16 * MEGABYTE
_NUMBER, _SPREAD = shapes.number(-1e12, 1e12), shapes.number(0, 1e12)
_SIDE = shapes.record({"mean": _NUMBER, "std": _SPREAD, "images": shapes.whole(0, 10**9)}, others=True)
_JUDGE = shapes.record(
    {"judge": shapes.text(4000), "judge_trained_the_generator": shapes.flag, "generated": _SIDE, "real": _SIDE},
    others=True,
)
_R_PRECISION = shapes.record(
    {
        "generator_fingerprint": shapes.text(100),
        "protocol": shapes.text(1000),
        "judges": shapes.list_of(_JUDGE, at_least=1, at_most=20),
    },
    others=True,
)
_PROTOCOL = {"protocol": shapes.text(1000)}
_NOTICE = {"notice": shapes.either(shapes.nothing, shapes.text(1000))}
_FID = shapes.record({"metric": shapes.one_of("FID"), "value": _NUMBER, **_PROTOCOL}, _NOTICE, others=True)
_INCEPTION_SCORE = shapes.record(
    {"metric": shapes.one_of("Inception Score"), "mean": _NUMBER, "std": _SPREAD, **_PROTOCOL}, _NOTICE, others=True
)


def scores_beside(net_g: str, generator: str) -> tuple[list[dict[str, Any]], list[str]]:
    """The scores beside a generator's samples, if they are of these very weights.

    Args:
        net_g: the path of its snapshot.
        generator: the fingerprint of its weights.

    Returns:
        The scores, and a line for each report that is missing, damaged or of other weights.
    """
    folder = sample_folder(net_g).parent
    path = folder / "r_precision.json"
    if not os.path.lexists(path):
        return [], [f"no scores: {folder} has no {path.name}, which python main.py --cfg writes"]
    try:
        measured, scores = read_r_precision(path)
    except UserError as error:
        return [], [f"no scores: {error}"]
    if measured != generator:
        return [], [f"no scores: those in {folder} are of other weights: python main.py --cfg measures these"]
    said = []
    # A sampling removes the reports of the one before: these are of the same images as the first.
    for name, read in (("fid.json", read_fid), ("inception_score.json", read_inception_score)):
        if os.path.lexists(folder / name):
            try:
                scores.append(read(folder / name))
            except UserError as error:
                said.append(f"a score is left out: {error}")
    return scores, said


def read_r_precision(path: Path) -> tuple[str, list[dict[str, Any]]]:
    """The fingerprint of the measured generator, and a score by each judge.

    Raises:
        UserError: the report cannot be read, or is none.
    """
    report = _read(path, _R_PRECISION, "a report of R-precision, which python main.py --cfg writes")
    scores = []
    for judge in report["judges"]:
        flattered = ", which trained the generator" if judge["judge_trained_the_generator"] else ""
        name = one_line(judge["judge"].rpartition("/")[2].removesuffix(")"), 300)
        scores.append(
            {
                "name": "R-precision" if flattered else "R-precision by an independent judge",
                "value": judge["generated"]["mean"],
                "spread": judge["generated"]["std"],
                "of_real_images": judge["real"]["mean"],
                "protocol": f"{one_line(report['protocol'], 1000)}; {judge['generated']['images']} images; "
                f"judge {name}{flattered}",
            }
        )
    return report["generator_fingerprint"], scores


def read_fid(path: Path) -> dict[str, Any]:
    """The FID of a report; raises ``UserError`` for one that cannot be read, or is none."""
    report = _read(path, _FID, "a report of an FID, which python fid_score.py --cfg writes")
    return {"name": "FID", "value": report["value"], **_texts(report)}


def read_inception_score(path: Path) -> dict[str, Any]:
    """The Inception Score of a report; raises ``UserError`` for one that cannot be read, or is none."""
    report = _read(path, _INCEPTION_SCORE, "a report of an Inception Score, which python inception_score.py writes")
    return {"name": "Inception Score", "value": report["mean"], "spread": report["std"], **_texts(report)}


def _read(path: Path, shape: shapes.Shape, expected: str) -> dict[str, Any]:
    with reading(path, expected):
        report = read_json(path, _LARGEST)
        shape(report, "it")
    return report


def _texts(report: dict[str, Any]) -> dict[str, str]:
    """The protocol and, where there is one, the notice of a report."""
    notice = {"notice": one_line(report["notice"], 1000)} if report.get("notice") else {}
    return {"protocol": one_line(report["protocol"], 1000), **notice}
