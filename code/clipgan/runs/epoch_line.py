"""The line that sums up an epoch: mean losses, what was measured, images a second, memory, the time left."""

from __future__ import annotations

import time
from collections.abc import Iterable, Sequence

import torch

from clipgan.runs.hardware import GIGABYTE, peak_memory


class EpochLine:
    """Collects what an epoch's line says. All numbers come from lines of the log, so that no GPU is waited for.

    Args:
        total: optimizer steps of the run.
        images: of a step, of all processes.
        device: whose memory is told.
    """

    def __init__(self, total: int, images: int, device: torch.device):
        self._total, self._images, self._device = total, images, device
        self._lines: list[dict] = []  # of the log: those of this epoch, or else the last one before
        self._last = 0  # step of the last line
        self._begin(0)
        self._first_step, self._began = 0, self._epoch_began

    def start(self, step: int, lines: Iterable[dict] = ()) -> None:
        """The run begins or goes on after ``step``; ``lines`` of its log (``kind`` is "train") are there already."""
        for line in lines:
            self.add(line)
        self._begin(step)
        self._first_step, self._began = step, self._epoch_began

    def _begin(self, step: int) -> None:
        self._epoch_step = self._step = step
        self._epoch_began = self._step_ended = time.monotonic()

    def count(self, step: int) -> None:
        """A step has ended."""
        self._step, self._step_ended = step, time.monotonic()

    def add(self, line: dict) -> None:
        """A line of the log: means over the steps since the line before. It belongs to the epoch in which it ended."""
        if self._lines and self._lines[-1]["epoch"] != line["epoch"]:
            self._lines = []
        self._lines.append({**line, "steps": max(1, line["step"] - self._last)})
        self._last = line["step"]

    def text(self, epoch: int, shown: Sequence[str], measured: dict[str, float | str]) -> str:
        """The line of the ``epoch`` that ends now, which begins the next one.

        Args:
            epoch: counted from 1.
            shown: names of the means that it tells.
            measured: the numbers of this epoch's measurement, by name; empty where there was none.
        """
        parts = [_numbers({name: self._mean(name) for name in shown})]
        if measured:
            parts.append(f"measured {_numbers(measured)}")
        parts.append(self._costs())
        self._begin(self._step)
        return f"epoch {epoch}: {'; '.join(filter(None, parts))}"

    def _mean(self, name: str) -> float | None:
        pairs = [(line[name], line["steps"]) for line in self._lines if isinstance(line.get(name), int | float)]
        return sum(value * steps for value, steps in pairs) / sum(steps for _, steps in pairs) if pairs else None

    def _costs(self) -> str:
        """Speed of the epoch's steps, peak memory, and the time that the other steps take at the pace so far."""
        costs = []
        steps, seconds = self._step - self._epoch_step, self._step_ended - self._epoch_began
        if steps and seconds > 0:
            speed = steps * self._images / seconds
            costs.append(f"{speed:.0f} images/s" if speed >= 100 else f"{speed:.3g} images/s")
        memory = peak_memory(self._device)
        if memory:
            costs.append(f"{memory / GIGABYTE:.1f} GB")
        made = self._step - self._first_step
        if made:
            left = (self._total - self._step) * (time.monotonic() - self._began) / made
            costs.append(f"{hours(left)} left")
        return ", ".join(costs)


def hours(seconds: float) -> str:
    """A time as h:mm, rounded to the minute."""
    minutes = round(seconds / 60)
    return f"{minutes // 60}:{minutes % 60:02}"


def _numbers(values: dict[str, float | str | None]) -> str:
    return ", ".join(f"{name} {value:.4g}" for name, value in values.items() if isinstance(value, int | float))
