"""The exercise of docs/extending.md does what the page says."""

import re
from types import ModuleType

import numpy as np
import pytest

from clipgan.config import Config
from clipgan.evaluation.chosen import Chosen
from clipgan.evaluation.metrics import registry
from clipgan.evaluation.metrics.card import Rules
from clipgan.flags import REPOSITORY

PAGE = (REPOSITORY / "docs" / "extending.md").read_text(encoding="utf-8")


@pytest.fixture
def metric(monkeypatch):
    """The metric of the page's code, in the registry."""
    module = ModuleType("classes_seen")
    exec(re.search(r"```python\n(.*?)```", PAGE, re.DOTALL)[1], module.__dict__)
    monkeypatch.setattr(registry, "METRICS", (*registry.METRICS, module.METRIC))
    return module.METRIC


def test_the_score_counts_classes_and_its_effects_foretell_a_changed_image(metric):
    (measured,) = metric.measure(np.eye(8)[[0, 1, 2, 3] * 5], rules=Rules())
    assert measured.value == pytest.approx(4)
    rng = np.random.default_rng(0)
    probabilities = rng.dirichlet(np.ones(8) / 2, size=500)
    (measured,) = metric.measure(probabilities, rules=Rules())
    rows = np.append(np.arange(499), int(measured.effects[0].argmax()))
    (changed,) = metric.measure(probabilities[rows], rules=Rules())
    assert changed.value - measured.value == pytest.approx(measured.effects[0][rows].mean(), rel=0.15)


def test_a_config_and_the_command_line_take_its_name(metric):
    config = Config()
    config.EVAL.BEST_BY, config.EVAL.SCORE_WEIGHTS = "classes_seen", "random"
    chosen = Chosen.of(config)
    assert "classes_seen" in chosen.keys and metric in chosen.metrics
    assert chosen.best({"train_classes_seen": 3.0, "train_r_precision": 0.5}) == 3.0
    assert registry.metrics_of(["classes_seen"], "--metrics") == [metric]


def test_the_lines_around_the_diff_stand_in_the_registry():
    lines = [line[1:].strip() for line in re.search(r"```diff\n(.*?)```", PAGE, re.DOTALL)[1].splitlines()
             if line.startswith(" ")]  # fmt: skip
    source = (REPOSITORY / "code/clipgan/evaluation/metrics/registry.py").read_text(encoding="utf-8")
    for before, after in ((0, 1), (2, 3)):
        assert re.search(rf"{re.escape(lines[before])}\n\s*{re.escape(lines[after])}", source)
