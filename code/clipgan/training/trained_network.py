"""One network of the GAN, together with what trains it."""

from __future__ import annotations

from typing import Any

import torch
from torch import Tensor, nn

from clipgan.machine import distributed
from clipgan.machine.precision import Precision
from clipgan.training.guard import Guard, step_if_allowed

ADAM_BETAS = (0.5, 0.999)


class TrainedNetwork:
    """A network, its optimizer, its gradient scaler, and the guard of its updates.

    Call it for a forward pass in training, in which the processes share the batch. ``network`` is the module itself,
    for everything else. ``loss`` is the name of what it is trained on.
    """

    def __init__(self, network: nn.Module, learning_rate: float, precision: Precision, guard: Guard, loss: str):
        self.network = network
        self._guard, self._loss = guard, loss
        self.optimizer = torch.optim.Adam(network.parameters(), learning_rate, ADAM_BETAS, fused=True)
        self.scaler = precision.scaler()
        self._parallel = distributed.data_parallel(network)

    def __call__(self, *inputs: Any) -> Any:
        return self._parallel(*inputs)

    def update(self, loss: Tensor) -> None:
        """One optimizer step down the gradient of ``loss``, which came of one call of this object.

        It is left out where the guard says so.
        """
        self.scaler.scale(loss).backward()
        self.scaler.unscale_(self.optimizer)
        gradients = [weight.grad for weight in self.network.parameters() if weight.grad is not None]
        bad = self._guard.allow(self._loss, loss, torch.nn.utils.get_total_norm(gradients))
        step_if_allowed(self.optimizer, bad)
        self.scaler.update()
        self.optimizer.zero_grad(set_to_none=True)  # at once: in one process, the next update needs the memory

    def parts(self) -> dict[str, Any]:
        """What :meth:`state_dict` is made of."""
        return {"network": self.network, "optimizer": self.optimizer, "scaler": self.scaler}

    def state_dict(self) -> dict[str, Any]:
        return {name: part.state_dict() for name, part in self.parts().items()}

    def load_state_dict(self, state: dict[str, Any]) -> None:
        for name, part in self.parts().items():
            part.load_state_dict(state[name])
