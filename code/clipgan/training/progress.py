"""One progress bar and one ``metrics.jsonl`` for a training run."""

from __future__ import annotations

import json
import time
from pathlib import Path

import torch
from tqdm import tqdm

from clipgan.distributed import is_main


class Progress:
    """Shows a bar with a rate, the time left and the latest losses; appends every number to a file.

    A line of the file is one JSON object with ``kind`` ("train" or "eval"), ``step``, ``epoch``, ``seconds`` since the
    start, and the numbers. Training lines are means over the steps since the line before.
    """

    def __init__(self, path: Path, total_steps: int, name: str, *, every: int = 10, first_step: int = 0):
        self._path = path
        self._every = every
        self._started = time.monotonic()
        self._sums: dict[str, torch.Tensor | float] = {}
        self._count = 0
        self._total = total_steps
        self._bar = tqdm(
            total=total_steps, initial=first_step, desc=name, unit="step", dynamic_ncols=True, disable=not is_main()
        )

    def step(self, step: int, epoch: int, numbers: dict[str, torch.Tensor | float], shown: tuple[str, ...]) -> None:
        """Count one optimizer step.

        ``numbers`` may be tensors: they are read off the device only when a line is due. ``shown`` ones stand beside
        the bar.
        """
        for key, value in numbers.items():
            value = value.detach() if torch.is_tensor(value) else value
            self._sums[key] = self._sums.get(key, 0.0) + value
        self._count += 1
        self._bar.update()
        if step % self._every == 0 or step == self._total:
            means = {key: float(value) / self._count for key, value in self._sums.items()}
            self._sums, self._count = {}, 0
            self.write("train", step, epoch, means)
            self._bar.set_postfix({"epoch": epoch, **{key: f"{means[key]:.3g}" for key in shown if key in means}})

    def write(self, kind: str, step: int, epoch: int, numbers: dict) -> None:
        """Append one line to the file."""
        if not is_main():
            return
        line = {"kind": kind, "step": step, "epoch": epoch, "seconds": round(time.monotonic() - self._started, 2)}
        line.update({key: round(value, 6) if isinstance(value, float) else value for key, value in numbers.items()})
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if is_main():
            self._bar.write(text)

    def close(self) -> None:
        self._bar.close()
