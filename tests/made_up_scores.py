"""Made-up JSON of scores, in the form that ``tools/score.py`` writes."""

import json
from collections.abc import Sequence
from pathlib import Path
from typing import Any

from clipgan.evaluation.comparing import KIND, PROGRAM
from clipgan.evaluation.inception import RESIZE
from clipgan.evaluation.metrics.registry import cards, metric_of
from clipgan.evaluation.outputs import JUDGED
from clipgan.evaluation.protocols import PROTOCOLS

RANDOM = "random Inception weights: this score compares only with itself, not with published ones"


def made_up_scores(**values: Sequence[float]) -> dict[str, Any]:
    """The JSON of scores, those that need a judge by the first one; ``values``: arguments of :func:`score` by key."""
    values = values or {"r_precision": (0.5, 0.4, 0.6), "fid": (20.0, 18.0, 22.0), "inception_score": (4.0, 3.9, 4.1)}
    return {
        "kind": KIND,
        "program": PROGRAM,
        "protocol": {"resize": RESIZE} | PROTOCOLS["here"].describe(),
        "generated": {"path": "made/up", "count": 400, "duplicates": 0, "size": [256, 256], "examples": {}},
        "reference": {
            "dataset": "birds", "split": "test", "images": 2933, "image_size": 256, "box_crop": True,
            "crop_scale": 1.1875, "reading": 2, "captions": "fedcba9876543210", "files": "0123456789abcdef",
            "path": "data/birds",
        },
        "networks": {
            "inception": {"source": "https://x/fid.pth", "sha256": "a" * 64, "random": False, "dims": 2048},
            "probabilities": {"source": "https://x/is.pth", "sha256": "b" * 64, "random": False, "classes": 1000},
            "judges": [
                {"judge": "ViT-B-32 (encoder.pth)", "fingerprint": "f" * 16, "trained_the_generator": True},
                {"judge": "ViT-B-16 (openai)", "fingerprint": "e" * 16, "trained_the_generator": False},
            ],
        },
        "scores": [score(key, *numbers) for key, numbers in values.items()],
        "left_out": ["attributes: only the drawn data set has an oracle"],
        "warnings": [],
        "seed": 100,
        "versions": {"torch": "2.6.0"},
        "dataset": "birds",
        "generator": None,
    }  # fmt: skip


def score(key: str, value: float, *interval: float, judge: int = 0) -> dict[str, Any]:
    """A score in that JSON, with or without an interval."""
    card, judged = cards()[key], metric_of(key, "a test").needs in JUDGED
    return {
        "metric": key, "name": card.name, "judge": judge if judged else None,
        "value": value, "interval": list(interval) or None, "better": card.better, "chance": None,
        "real": None, "notice": "", "details": {"images": 400},
    }  # fmt: skip


def write_scores(path: Path, report: Any) -> str:
    path.parent.mkdir(parents=True, exist_ok=True)
    path.write_text(json.dumps(report))
    return str(path)
