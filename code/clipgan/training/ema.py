"""Exponential moving average of a network's weights: the generator that is saved, sampled and measured."""

from __future__ import annotations

import copy

import torch
from torch import nn

from clipgan.machine import distributed


class EMA:
    """Keeps ``average ← decay · average + (1 − decay) · weights``.

    The first steps use the smaller decay (1 + n) / (10 + n), so that the random start is forgotten at once. The
    statistics of the batch norms are averaged like the weights that they belong to; where each process has its own,
    over the processes, too.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self.updates = 0

    @torch.no_grad()
    def update(self, network: nn.Module) -> None:
        """Take in the weights of ``network`` after one optimizer step; decay 0 copies them."""
        distributed.average_running_statistics(network)
        self.updates += 1
        decay = min(self.decay, (1 + self.updates) / (10 + self.updates)) if self.decay else 0.0
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        averaged, latest = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(averaged, latest, 1 - decay)
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]  # of batches that a norm has seen
        if counts:
            torch._foreach_copy_(*map(list, zip(*counts, strict=True)))

    def state_dict(self) -> dict:
        return {"network": self.network.state_dict(), "updates": self.updates}

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.updates = state["updates"]
