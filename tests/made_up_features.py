"""Made-up features for the tests of the scores."""

import numpy as np
import torch
from torch import Tensor


def made_up(count: int, dims: int, seed: int, shift: float = 0.0, scale: float = 1.0) -> Tensor:
    """Correlated features [count, dims] float32, far from zero as Inception's are."""
    mixing = np.random.default_rng(99).standard_normal((dims, dims)) / dims**0.5
    rows = np.random.default_rng(seed).standard_normal((count, dims)) @ mixing
    return torch.from_numpy(np.abs(scale * rows + shift) + 0.5).float()


def moved_along(features: Tensor, effects: np.ndarray) -> tuple[Tensor, float]:
    """The features with 0.5 % of the rows replaced by rows of large effect, and the change to be expected."""
    count, rows = len(features), np.arange(len(features))
    lowest_first = np.argsort(effects)
    rows[lowest_first[count // 2 : count // 2 + count // 200]] = lowest_first[-count // 10 :][: count // 200]
    return features[torch.from_numpy(rows)], float(effects[rows].mean())
