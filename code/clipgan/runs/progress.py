"""One progress bar, one ``metrics.jsonl`` and one line an epoch for a training run."""

from __future__ import annotations

import contextlib
import json
import math
import os
import time
from collections.abc import Sequence
from pathlib import Path

import torch
from tqdm import tqdm

from clipgan.config import Config
from clipgan.errors import UserError
from clipgan.files import shapes
from clipgan.files.writing import write_failure
from clipgan.machine import distributed
from clipgan.runs.curves import read_metrics
from clipgan.runs.epoch_line import EpochLine
from clipgan.runs.folder import RunFolder
from clipgan.runs.tensorboard import Board


class Progress:
    """Shows a bar with a rate, the time left and the latest losses; appends every number to a file.

    A line of the file is one JSON object with ``kind`` ("train" or "eval"), ``step``, ``epoch``, ``seconds`` since the
    start, and the numbers. Training lines are means over the steps since the line before, without those whose number
    is not finite; ``skipped`` counts the steps that the guard left out.

    Args:
        path: of the file.
        total_steps: of the run.
        name: stands before the bar.
        every: so many steps make a line.
        images: of a step, for the speed that an epoch's line tells.
        device: that computes, for the memory that an epoch's line tells.
        board: gets every line, and the pictures of every epoch.
    """

    STATE = shapes.record(
        {
            "pending": shapes.list_of(shapes.mapping_of(shapes.number(finite=False), at_most=100), at_most=1000),
            "seconds": shapes.number(0, 1e12),
            "bytes": shapes.whole(0, 10**15),
        }
    )

    def __init__(
        self,
        path: Path,
        total_steps: int,
        name: str,
        *,
        every: int = 10,
        images: int = 0,
        device: torch.device | None = None,
        board: Board | None = None,
    ):
        self._path = path
        self._every = every
        self._started = time.monotonic()
        self._pending: list[dict[str, torch.Tensor | float]] = []  # the numbers of the steps since the last line
        self._name, self._total = name, total_steps
        self._bar: tqdm | None = None
        self._epoch = EpochLine(total_steps, images, device or torch.device("cpu"))
        self._board = board

    @staticmethod
    def of(folder: RunFolder, name: str, total_steps: int, config: Config, device: torch.device) -> Progress:
        """That of a run of ``config`` in ``folder``."""
        watched = {"images": config.TRAIN.BATCH_SIZE, "device": device, "board": folder.board()}
        return Progress(folder.metrics, total_steps, name, **watched)

    def state_dict(self) -> dict:
        """What a resumed run goes on with: the numbers since the last line, the time so far, the length of the file."""
        return {
            "pending": read_numbers(self._pending),
            "seconds": time.monotonic() - self._started,
            "bytes": self._path.stat().st_size if self._path.is_file() else 0,
        }

    def load_state_dict(self, state: dict) -> None:
        """Go on from there; lines that were written after the state are cut off.

        Raises:
            UserError: the file cannot be written to.
        """
        self._pending = list(state["pending"])
        self._started = time.monotonic() - state["seconds"]
        if distributed.is_main() and (state["bytes"] or self._path.exists()):
            self._cut(state["bytes"])

    def _cut(self, length: int) -> None:
        """Shorten the file to ``length`` bytes. What was lost from it stays lost, but the next line begins anew."""
        try:
            with open(self._path, "ab+") as file:
                have = file.tell()
                if have < length:
                    self.say(f"{self._path}: earlier lines are lost: it has {have} bytes, and had {length}")
                file.truncate(min(have, length))
                if file.seek(0, os.SEEK_END):
                    file.seek(-1, os.SEEK_END)
                    if file.read(1) != b"\n":
                        file.write(b"\n")
        except OSError as error:
            raise write_failure(error, self._path) from None

    def start(self, step: int, epoch: int = 0) -> None:
        """Show the bar, from a step on, which does not count for its rate; ``epoch`` epochs are whole."""
        silent = not distributed.is_main()
        self._epoch.start(step, self._lines_so_far())
        if self._board is not None:
            self._board.start(epoch)
        options = {"unit": "step", "dynamic_ncols": True, "disable": silent}
        self._bar = tqdm(total=self._total, initial=step, desc=self._name, **options)

    def _lines_so_far(self) -> list[dict]:
        """The training lines that a run which goes on has written already."""
        if not (distributed.is_main() and self._path.is_file()):
            return []
        with contextlib.suppress(UserError):  # a file that nobody can read
            lines = read_metrics(self._path)
            return [line for line in lines if line["kind"] == "train" and isinstance(line.get("epoch"), int)]
        return []

    def step(self, step: int, epoch: int, numbers: dict[str, torch.Tensor | float], shown: tuple[str, ...]) -> None:
        """Count one optimizer step.

        ``numbers`` may be tensors: they are read off the device only when a line is due. ``shown`` ones stand beside
        the bar.
        """
        numbers = {key: value.detach() if torch.is_tensor(value) else value for key, value in numbers.items()}
        if self._pending and self._pending[0].keys() != numbers.keys():  # of a run that was resumed with another loss
            self._pending = []
        self._pending.append(numbers)
        if self._bar is None:
            self.start(step - 1)
        self._bar.update()
        self._epoch.count(step)
        if step % self._every == 0 or step == self._total:
            steps, self._pending = read_numbers(self._pending), []
            values = torch.tensor([list(numbers.values()) for numbers in steps], dtype=torch.float64)
            means = values.where(values.isfinite(), torch.nan).nanmean(dim=0)
            # A process's losses are of its share; their mean is that of the whole batch.
            means = dict(zip(steps[0], distributed.mean(means).tolist(), strict=True))
            if "skipped" in means:
                means["skipped"] = round(means["skipped"] * len(steps))
            self.write("train", step, epoch, means)
            self._bar.set_postfix({"epoch": epoch, **{key: f"{means[key]:.3g}" for key in shown if key in means}})

    def write(self, kind: str, step: int, epoch: int, numbers: dict) -> None:
        """Append one line to the file.

        Raises:
            UserError: it cannot be written, on a full disk for example.
        """
        if not distributed.is_main():
            return
        line = {"kind": kind, "step": step, "epoch": epoch, "seconds": round(time.monotonic() - self._started, 2)}
        line.update({key: _plain(value) for key, value in numbers.items()})
        if kind == "train":
            self._epoch.add(line)
        try:
            with open(self._path, "a", encoding="utf-8") as file:
                file.write(json.dumps(line) + "\n")
        except OSError as error:
            raise write_failure(error, self._path) from None
        if self._board is not None:
            self._board.write(line)

    def end_epoch(self, epoch: int, shown: Sequence[str], measured: dict[str, float | str] | None = None) -> None:
        """Print one line that sums the epoch up, above the bar.

        Args:
            epoch: that has ended, counted from 1.
            shown: the numbers of the steps whose means it tells.
            measured: what was measured after it.
        """
        self.say(self._epoch.text(epoch, shown, measured or {}))
        if self._board is not None:
            self._board.add_pictures(epoch)

    def say(self, text: str) -> None:
        """Print a line above the bar."""
        if distributed.is_main():
            tqdm.write(text)

    def __enter__(self) -> Progress:
        return self

    def __exit__(self, *error: object) -> None:
        self.close()

    def close(self) -> None:
        """End the bar, so that what is printed next has a line of its own."""
        if self._bar is not None:
            self._bar.close()
        if self._board is not None:
            self._board.close()


def read_numbers(steps: list[dict[str, torch.Tensor | float]]) -> list[dict[str, float]]:
    """The same with plain numbers: all that are tensors (scalars of one device) come to the host in one copy."""
    tensors = [value.float() for numbers in steps for value in numbers.values() if torch.is_tensor(value)]
    values = iter(torch.stack(tensors).tolist() if tensors else [])
    return [
        {key: next(values) if torch.is_tensor(value) else float(value) for key, value in numbers.items()}
        for numbers in steps
    ]


def _plain(value: float | int | str) -> float | int | str | None:
    """Six digits are enough; JSON has no infinities."""
    if isinstance(value, float):
        return float(f"{value:.6g}") if math.isfinite(value) else None
    return value
