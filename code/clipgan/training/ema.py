"""Exponential moving average of a network's weights: the generator that is saved, sampled and measured."""

from __future__ import annotations

import copy
from typing import Any

import torch
from torch import Tensor, nn

from clipgan.files import shapes
from clipgan.machine import distributed


class _Count:
    STATE = shapes.whole(0, 10**12)


class EMA:
    """Keeps ``average ← decay · average + (1 − decay) · weights``.

    The first steps use the smaller decay (1 + n) / (10 + n), so that the random start is forgotten at once. The
    statistics of the batch norms are averaged like the weights that they belong to; where each process has its own,
    over the processes, too.
    """

    def __init__(self, network: nn.Module, decay: float):
        self.network = copy.deepcopy(network).requires_grad_(False).eval()
        self.decay = decay
        self.updates = torch.zeros((), dtype=torch.float64, device=next(network.parameters()).device)

    @torch.no_grad()
    def update(self, network: nn.Module, made: Tensor | float = 1.0) -> None:
        """Take in the weights of ``network`` after one optimizer step; decay 0 copies them.

        Args:
            network: as trained.
            made: 0.0 for a step that was skipped, which leaves the average as it is; a scalar, on the device.
        """
        distributed.average_running_statistics(network)
        self.updates = self.updates + made
        updates = torch.as_tensor(self.updates, dtype=torch.float64)
        decay = ((1 + updates) / (10 + updates)).clamp_max(self.decay)
        weight = ((1 - decay) * made).float()
        pairs = list(zip(self.network.state_dict().values(), network.state_dict().values(), strict=True))
        averaged, latest = zip(*(pair for pair in pairs if pair[0].is_floating_point()), strict=True)
        torch._foreach_lerp_(averaged, latest, [weight] * len(averaged))
        counts = [pair for pair in pairs if not pair[0].is_floating_point()]  # of batches that a norm has seen
        if counts:
            torch._foreach_copy_(*map(list, zip(*counts, strict=True)))

    def parts(self) -> dict[str, Any]:
        """What :meth:`state_dict` is made of, with the shapes of its states."""
        return {"network": self.network, "updates": _Count()}

    def state_dict(self) -> dict:
        return {"network": self.network.state_dict(), "updates": int(self.updates)}

    def load_state_dict(self, state: dict) -> None:
        self.network.load_state_dict(state["network"])
        self.updates = torch.full_like(self.updates, state["updates"])
