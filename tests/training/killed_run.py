"""A training script that kills itself, without any chance to clean up, at a point that a test names.

    python killed_run.py POINT SCRIPT ARGUMENT…
"""

from __future__ import annotations

import importlib.util
import os
import signal
import sys
from collections.abc import Callable
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))

from clipgan.runs import checkpoint
from clipgan.runs.state import TrainingState

ROOT = Path(__file__).resolve().parents[2]


def die(*_: object, **__: object) -> None:
    os.kill(os.getpid(), signal.SIGKILL)


def after_step(number: int) -> None:
    original = TrainingState.after_step

    def dying(self, position, stop, last):
        original(self, position, stop, last)
        if position.step == number:
            die()

    TrainingState.after_step = dying


def in_state(number: int, prepare: Callable[[], None]) -> None:
    """Call ``prepare`` just before the state of step ``number`` is saved."""
    save = TrainingState.save

    def saving(self, position):
        if position.step == number:
            self._wait()  # the state before is not the one to be cut
            prepare()
        save(self, position)

    TrainingState.save = saving


def while_writing(number: int) -> None:
    """In the middle of the file of a state."""
    original = checkpoint.torch.save

    def half(content, file):
        original(content, file)
        file.truncate(file.tell() // 2)
        die()

    in_state(number, lambda: setattr(checkpoint.torch, "save", half))


def before_renaming(number: int) -> None:
    in_state(number, lambda: setattr(checkpoint.os, "replace", die))


def while_evaluating(epoch: int) -> None:
    original = TrainingState.during_evaluation

    def dying(self, position, stop):
        if position.epoch == epoch - 1:
            die()
        return original(self, position, stop)

    TrainingState.during_evaluation = dying


POINTS = {f.__name__: f for f in (after_step, while_writing, before_renaming, while_evaluating)}

if __name__ == "__main__":
    point, _, number = sys.argv[1].partition(":")
    POINTS[point](int(number))
    spec = importlib.util.spec_from_file_location("script", ROOT / sys.argv[2])
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    script.main(sys.argv[3:])
