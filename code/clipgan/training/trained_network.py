"""One network of the GAN, together with what trains it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clipgan.machine import distributed
from clipgan.machine.precision import Precision

ADAM_BETAS = (0.5, 0.999)


class TrainedNetwork:
    """A network, its optimizer and its gradient scaler.

    Call it for a forward pass in training, in which the processes share the batch. ``network`` is the module itself,
    for everything else.
    """

    def __init__(self, network: nn.Module, learning_rate: float, precision: Precision):
        self.network = network
        self.optimizer = torch.optim.Adam(network.parameters(), learning_rate, ADAM_BETAS, fused=True)
        self.scaler = precision.scaler()
        self._parallel = distributed.data_parallel(network)

    def __call__(self, *inputs: Any) -> Any:
        return self._parallel(*inputs)

    def update(self, loss: Tensor) -> None:
        """One optimizer step down the gradient of ``loss``, which came of one call of this object."""
        self.scaler.scale(loss).backward()
        self.scaler.step(self.optimizer)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)  # at once: in one process, the next update needs the memory

    def state_dict(self) -> dict[str, Any]:
        return {name: getattr(self, name).state_dict() for name in ("network", "optimizer", "scaler")}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name in ("network", "optimizer", "scaler"):
            getattr(self, name).load_state_dict(state[name])
