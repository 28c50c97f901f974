"""One progress bar and one ``metrics.jsonl`` for a training run."""

from __future__ import annotations

import json
import math
import os
import time
from pathlib import Path

import torch
from tqdm import tqdm

from clipgan import distributed


class Progress:
    """Shows a bar with a rate, the time left and the latest losses; appends every number to a file.

    A line of the file is one JSON object with ``kind`` ("train" or "eval"), ``step``, ``epoch``, ``seconds`` since the
    start, and the numbers. Training lines are means over the steps since the line before.
    """

    def __init__(self, path: Path, total_steps: int, name: str, *, every: int = 10):
        self._path = path
        self._every = every
        self._started = time.monotonic()
        self._sums: dict[str, torch.Tensor | float] = {}
        self._count = 0
        self._total = total_steps
        silent = not distributed.is_main()
        self._bar = tqdm(total=total_steps, desc=name, unit="step", dynamic_ncols=True, disable=silent)

    def state_dict(self) -> dict:
        """What a resumed run goes on with: the sums since the last line, the time so far, the length of the file."""
        return {
            "sums": {key: float(value) for key, value in self._sums.items()},
            "count": self._count,
            "seconds": time.monotonic() - self._started,
            "bytes": self._path.stat().st_size if self._path.is_file() else 0,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from there; lines that were written after the state are cut off."""
        self._sums, self._count = dict(state["sums"]), state["count"]
        self._started = time.monotonic() - state["seconds"]
        if distributed.is_main() and self._path.is_file():
            os.truncate(self._path, state["bytes"])

    def start(self, step: int) -> None:
        """Let the bar begin at a step, which does not count for its rate."""
        self._bar.initial = self._bar.n = self._bar.last_print_n = step
        self._bar.unpause()

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
            # A process's losses are of its share; their mean is that of the whole batch.
            sums = distributed.mean(torch.tensor([float(value) for value in self._sums.values()], dtype=torch.float64))
            means = {key: float(total) / self._count for key, total in zip(self._sums, sums, strict=True)}
            self._sums, self._count = {}, 0
            self.write("train", step, epoch, means)
            self._bar.set_postfix({"epoch": epoch, **{key: f"{means[key]:.3g}" for key in shown if key in means}})

    def write(self, kind: str, step: int, epoch: int, numbers: dict) -> None:
        """Append one line to the file."""
        if not distributed.is_main():
            return
        line = {"kind": kind, "step": step, "epoch": epoch, "seconds": round(time.monotonic() - self._started, 2)}
        line.update({key: _plain(value) for key, value in numbers.items()})
        with open(self._path, "a", encoding="utf-8") as file:
            file.write(json.dumps(line) + "\n")

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if distributed.is_main():
            self._bar.write(text)

    def close(self) -> None:
        self._bar.close()


def _plain(value: float | int | str) -> float | int | str | None:
    """Six digits are enough; JSON has no infinities."""
    if isinstance(value, float):
        return round(value, 6) if math.isfinite(value) else None
    return value
