"""Keeps what is not a finite number away from the weights.

A loss that overflows gives gradients that are NaN, and one update by them would make every weight NaN, then the
average, then every file that is written. So an update with a loss or a gradient that is not finite is left out, and
what follows in its step with it. Such steps are counted, and ten of them in a row end the run.
"""

from __future__ import annotations

from collections.abc import Callable

import torch
from torch import Tensor, nn

from clipgan.errors import UserError
from clipgan.files import shapes
from clipgan.machine import distributed
from clipgan.runs.folder import RunFolder

PATIENCE = 10  # skipped steps in a row that end a run
EVERY = 10  # steps between two looks at what the device found: looking waits for it


class Guard:
    """Decides for each update whether it is made. The decision stays on the device, so nothing has to be waited for.

    A step calls :meth:`begin`, :meth:`allow` before each update, and :meth:`end`.

    Args:
        folder: of the run, to name its last state when the run ends.
        remedy: what to try then.
        say: prints a line.
    """

    STATE = shapes.record({"skipped": shapes.whole(0, 10**12), "in_a_row": shapes.whole(0, PATIENCE)})

    def __init__(self, device: torch.device, folder: RunFolder, remedy: str, say: Callable[[str], None] = print):
        self.skipped = 0  # steps, as far as the host knows
        self._in_a_row = 0
        self._device, self._folder, self._remedy, self._say = device, folder, remedy, say
        self._bad = torch.zeros((), device=device)
        self._found: list[tuple[str, Tensor]] = []  # of this step: a loss, and whether it was refused
        self._unread: list[tuple[int, list[str], Tensor]] = []  # of steps that the host does not know yet
        self._kept: list[tuple[Tensor, Tensor]] = []

    def begin(self, *networks: nn.Module) -> None:
        """A step begins; the running statistics of the ``networks`` come back if it is skipped."""
        self._bad = torch.zeros((), device=self._device)
        self._found = []
        buffers = [buffer for network in networks for buffer in network.buffers()]
        self._kept = [(buffer, buffer.clone()) for buffer in buffers]

    def allow(self, name: str, loss: Tensor, gradient_norm: Tensor) -> Tensor:
        """Whether an update may be made.

        Args:
            name: of the loss, for the message.
            loss: a scalar.
            gradient_norm: a scalar; of gradients without the scale of fp16, averaged over the processes.

        Returns:
            For ``found_inf`` of an optimizer: 1.0 if this or an earlier update of this step is left out, else 0.0.
        """
        finite = torch.isfinite(gradient_norm) & torch.isfinite(loss.detach())
        statistics = [buffer for buffer, _ in self._kept if buffer.is_floating_point()]
        if statistics and not self._found:  # a large batch norm can hide an overflow: its output stays finite
            finite = finite & torch.isfinite(torch.nn.utils.get_total_norm(statistics))
        bad = distributed.highest((~finite).float())
        self._found.append((name, bad))
        self._bad = torch.maximum(self._bad, bad)
        return self._bad

    def end(self, step: int) -> Tensor:
        """The step ends.

        Returns:
            1.0 if it was made, 0.0 if it was skipped.

        Raises:
            UserError: it is the tenth in a row that is skipped.
        """
        for buffer, before in self._kept:
            buffer.copy_(torch.where(self._bad > 0, before, buffer))
        self._kept = []
        names = [name for name, _ in self._found]
        self._unread.append((step, names, torch.stack([bad for _, bad in self._found])))
        if self._device.type == "cpu" or step % EVERY == 0:
            self.look()
        return 1 - self._bad

    def look(self) -> None:
        """Count the skipped steps that the host does not know yet; raises as :meth:`end`."""
        unread, self._unread = self._unread, []
        flags = torch.stack([bad for _, _, bad in unread]).tolist() if unread else []
        for (step, names, _), bad in zip(unread, flags, strict=True):
            if not any(bad):
                self._in_a_row = 0
                continue
            self.skipped += 1
            self._in_a_row += 1
            name = names[bad.index(1.0)]
            if self._in_a_row == PATIENCE:
                states = self._folder.state_files
                kept = f"the last good state is {states[-1]}" if states else "no training state was written before"
                raise UserError(
                    f"{name} or its gradient was not finite in {PATIENCE} steps in a row, the last of them step "
                    f"{step}; {kept}: {self._remedy}, and go on with --resume"
                )
            self._say(f"step {step}: {name} or its gradient is not finite: skipped, {self.skipped} so far")

    def healthy(self) -> bool:
        """Whether the last step was made."""
        self.look()
        return self._in_a_row == 0

    def state_dict(self) -> dict[str, int]:
        self.look()
        return {"skipped": self.skipped, "in_a_row": self._in_a_row}

    def load_state_dict(self, state: dict[str, int]) -> None:
        self.skipped, self._in_a_row = state["skipped"], 0  # a resumed run gets its patience anew


def step_if_allowed(optimizer: torch.optim.Optimizer, bad: Tensor) -> None:
    """One step of a *fused* optimizer, which does nothing where ``bad`` is 1.0; the host does not learn which."""
    optimizer.grad_scale, optimizer.found_inf = None, bad
    try:
        optimizer.step()
    finally:
        del optimizer.grad_scale, optimizer.found_inf
