"""Exponential moving average of a network's weights: the generator that is saved, sampled and measured."""

from __future__ import annotations

import copy

import torch
from torch import nn


class EMA:
    """Keeps ``average ← decay · average + (1 − decay) · weights``.

    The first steps use the smaller decay (1 + n) / (10 + n), so that the random start is forgotten at once. The
    statistics of the batch norms are averaged like the weights that they belong to.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights of ``network`` after one optimizer step; decay 0 copies them."""
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.decay else 0.0
        new = network.state_dict()
        averaged, latest = [], []
        for name, value in self.network.state_dict().items():
            if value.is_floating_point():
                averaged.append(value)
                latest.append(new[name])
            else:
                value.copy_(new[name])
        torch._foreach_lerp_(averaged, latest, 1 - decay)

    def state_dict(self) -> dict:
        return {"network": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.updates = state["updates"]
