"""A run's numbers and pictures for TensorBoard while it trains, where the package ``tensorboard`` is installed.

``metrics.jsonl`` and ``Image/`` are the truth. A run that starts or goes on writes what they hold anew, and then adds
each line and each picture when it appears. So a resumed run doubles nothing, and what it lost is gone here, too.
"""

from __future__ import annotations

import contextlib
import re
import time
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import numpy as np
from PIL import Image
from tqdm import tqdm

from clipgan.errors import UserError, one_line
from clipgan.machine import distributed
from clipgan.runs.curves import read_metrics, series

SECONDS = 10  # after which what was written is on the disk
_OF_EPOCH = re.compile(r"(.+)_epoch_([0-9]{1,9})\.png")


class Board:
    """Writes ``<run>/tensorboard``; does nothing in other processes than the first, and without the package.

    Numbers stand at their step, under the names ``train/…`` and ``eval/…``. Pictures named ``<name>_epoch_<N>.png``
    stand under ``<name>``, at their epoch. What goes wrong here ends the board with one line, never the run.

    Args:
        folder: to write to.
        metrics: the ``metrics.jsonl`` of the run.
        images: the folder of the run's pictures.
    """

    def __init__(self, folder: Path, metrics: Path, images: Path):
        self._folder, self._metrics, self._images = folder, metrics, images
        self._writer: Any = None

    def start(self, epoch: int) -> None:
        """Write anew what the run has so far: all lines, and the pictures up to ``epoch``."""
        if not distributed.is_main():
            return
        with self._guarded():
            try:
                from torch.utils.tensorboard import SummaryWriter
            except ImportError:
                return
            for old in self._folder.glob("events.out.tfevents.*"):
                old.unlink()
            # A TensorBoard that runs forgets at `purge_step` what it read from files that were removed.
            self._writer = SummaryWriter(str(self._folder), purge_step=0, flush_secs=SECONDS)
            lines = []
            if self._metrics.is_file():
                with contextlib.suppress(UserError):  # nobody could read it later, either
                    lines = read_metrics(self._metrics)
            began = time.time() - max(map(_seconds, lines), default=0.0)
            for line in lines:
                self._add(line, began + _seconds(line))
            self._add_pictures(range(epoch + 1))

    def write(self, line: dict) -> None:
        """Add the numbers of a line of ``metrics.jsonl``."""
        if self._writer is not None:
            with self._guarded():
                self._add(line, time.time())

    def add_pictures(self, epoch: int) -> None:
        """Add the pictures that were drawn after ``epoch``."""
        if self._writer is not None:
            with self._guarded():
                self._add_pictures(range(epoch, epoch + 1))

    def close(self) -> None:
        """Bring all to the disk."""
        if self._writer is not None:
            with self._guarded():
                self._writer.close()
            self._writer = None

    def _add(self, line: dict, at: float) -> None:
        for (kind, name), points in series([line]).items():
            for step, value in points:
                self._writer.add_scalar(f"{kind}/{name}", value, int(step), at)

    def _add_pictures(self, epochs: range) -> None:
        found = [(path, match) for path in self._images.glob("*.png") if (match := _OF_EPOCH.fullmatch(path.name))]
        for path, match in sorted(found, key=lambda pair: int(pair[1][2])):
            if int(match[2]) in epochs:
                with Image.open(path) as picture:
                    pixels = np.asarray(picture.convert("RGB"))  # [H, W, 3]
                written = path.stat().st_mtime
                self._writer.add_image(match[1], pixels, int(match[2]), written, dataformats="HWC")

    @contextlib.contextmanager
    def _guarded(self) -> Iterator[None]:
        """What fails in the block ends the board, with a line. Its writer is not closed: that could wait for ever."""
        try:
            yield
        except Exception as error:  # the package is not ours: it raises what it likes, also when it is imported
            self._writer = None
            reason = one_line(str(error), 200) or type(error).__name__
            tqdm.write(f"TensorBoard: nothing more is written to {self._folder} ({reason})")


def _seconds(line: dict) -> float:
    """Since the start of the run; 0 in a line that does not say it."""
    seconds = line.get("seconds")
    return float(seconds) if isinstance(seconds, int | float) else 0.0
