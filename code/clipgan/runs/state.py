"""Training states: all that a killed run needs to go on as if nothing had happened, and the signals that end a run.

Published snapshots hold the networks that people use; a state holds the run: all weights, the average, the optimizers,
the schedule, the gradient scalers, the place in the data and the random states of every process. It is copied to the
host, and then written by a thread while the run goes on.
"""

from __future__ import annotations

import contextlib
import random
import signal
import threading
import time
from collections.abc import Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipgan.config import Config
from clipgan.errors import Stopped, UserError
from clipgan.machine import distributed
from clipgan.runs import checkpoint
from clipgan.runs.folder import RunFolder

KIND = "training state"
KEPT = 2  # the newest state, and the one before


@dataclass
class Position:
    """How far a run has come."""

    step: int = 0  # optimizer steps
    epoch: int = 0  # whole epochs
    batch: int = 0  # batches of the epoch that has begun
    best: float = -float("inf")  # the highest measure so far

    def count_step(self) -> None:
        self.step += 1
        self.batch += 1

    def end_epoch(self) -> None:
        self.epoch += 1
        self.batch = 0


class TrainingState:
    """Saves and restores the parts of a run, in ``<run folder>/State/step_<step>.pt``.

    For ``with``: at the end of the block, what is being written is on the disk.

    Args:
        folder: the run's.
        trained: everything with ``state_dict`` and ``load_state_dict`` that changes while training, by name.
        config: the run's configuration, kept beside. ``TRAIN.STATE_INTERVAL`` counts minutes.
    """

    def __init__(self, folder: RunFolder, trained: dict[str, Any], config: Config):
        self._folder, self._trained, self._config = folder, trained, config
        self._interval = 60 * config.TRAIN.STATE_INTERVAL  # seconds
        self._last_save = time.monotonic()
        self._saved_step: int | None = None  # of the newest state of this process
        self._writer: threading.Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> TrainingState:
        return self

    def __exit__(self, *error: object) -> None:
        self._wait(raise_failure=error[0] is None)

    def after_step(self, position: Position, stop: StopSignals, last: bool) -> None:
        """Save when TRAIN.STATE_INTERVAL says so, after the ``last`` step, or when the run is asked to end.

        Raises:
            Stopped: it was asked to end.
        """
        due = last or bool(self._interval and time.monotonic() - self._last_save >= self._interval)
        asked, due = distributed.any_process_for_each(stop.received, due)
        if asked or due:
            self.save(position)
        if asked:
            raise self._stopped(position)

    @contextlib.contextmanager
    def during_evaluation(self, position: Position, stop: StopSignals) -> Iterator[None]:
        """Around what is done between two epochs, which may take long: asked to end, a process alone ends at once.

        The run then goes on with the evaluation. Processes that wait for one another finish it first.

        Raises:
            Stopped: the run was asked to end.
        """
        before = replace(position)
        try:
            with stop.at_once() if distributed.world_size() == 1 else contextlib.nullcontext():
                yield
        except _StopNow:
            self.save(before)
            raise self._stopped(before) from None

    def _stopped(self, position: Position) -> Stopped:
        self._wait()
        command = f"the same command with --resume {self._folder.root}"
        return Stopped(f"stopped after step {position.step}; {command} goes on from there")

    def save(self, position: Position) -> None:
        """Copy the state and begin to write it, whole or not at all; then remove all but the newest ones."""
        if self._saved_step == position.step:
            return
        self._wait()
        self._saved_step = position.step
        random_states = distributed.gather_objects(random_state())
        if distributed.is_main():
            content = {
                "format": checkpoint.FORMAT,
                "kind": KIND,
                "position": asdict(position),
                "trained": _copy({name: part.state_dict() for name, part in self._trained.items()}),
                "random": random_states,
                "config": asdict(self._config),
            }
            path = self._folder.states / f"step_{position.step:08d}.pt"
            self._writer = threading.Thread(target=self._write, args=(path, content))
            self._writer.start()
        self._last_save = time.monotonic()

    def _write(self, path: Path, content: dict) -> None:
        try:
            checkpoint.write_atomically(path, content)
            for old in self._folder.state_files[:-KEPT]:
                old.unlink()
        except BaseException as failure:  # raised in the run's own thread
            self._failure = failure

    def _wait(self, raise_failure: bool = True) -> None:
        """Until the state is on the disk; raises what went wrong with it."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        failure, self._failure = self._failure, None
        if failure is not None and raise_failure:
            raise failure

    def resume(self) -> Position:
        """Restore the newest state.

        Raises:
            UserError: there is none, or it does not fit the networks of this config.
        """
        path, content = newest_state(self._folder)
        for name, part in self._trained.items():
            try:
                part.load_state_dict(content["trained"][name])
            except (RuntimeError, ValueError, KeyError) as error:
                reason = " ".join(str(error).split())[:300]
                raise UserError(f"{path} does not fit this config: {name}: {reason}") from None
        states = content["random"]
        if len(states) == distributed.world_size():
            set_random_state(states[distributed.rank()])
        position = Position(**content["position"])
        position.batch = position.batch * content["config"]["TRAIN"]["BATCH_SIZE"] // self._config.TRAIN.BATCH_SIZE
        self._saved_step = position.step
        return position


def _copy(value: Any) -> Any:
    """Dictionaries and lists with copies of their tensors on the host: training changes the tensors themselves."""
    if torch.is_tensor(value):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return type(value)(map(_copy, value)) if isinstance(value, list | tuple) else value


def newest_state(folder: RunFolder) -> tuple[Path, dict]:
    """The newest state that can be read, and its content.

    Raises:
        UserError: there is none.
    """
    for path in reversed(folder.state_files):
        try:
            return path, checkpoint.load(path, KIND, made_by="training")
        except UserError:
            print(f"{path} is damaged: trying the one before")
    raise UserError(f"no training state in {folder.states}: nothing to go on from (TRAIN.STATE_INTERVAL keeps them)")


def random_state() -> dict[str, Any]:
    """Where the random numbers of this process are, as plain data."""
    name, keys, place, has_gauss, gauss = np.random.get_state()
    version, internal, next_gauss = random.getstate()
    return {
        "python": [version, list(internal), next_gauss],
        "numpy": [name, keys.tolist(), place, has_gauss, gauss],
        "torch": torch.get_rng_state(),
        "cuda": torch.cuda.get_rng_state() if torch.cuda.is_initialized() else None,
    }


def set_random_state(state: dict[str, Any]) -> None:
    """Go back to where :func:`random_state` was taken."""
    version, internal, next_gauss = state["python"]
    random.setstate((version, tuple(internal), next_gauss))
    name, keys, place, has_gauss, gauss = state["numpy"]
    np.random.set_state((name, np.array(keys, dtype=np.uint32), place, has_gauss, gauss))
    torch.set_rng_state(state["torch"])
    if state["cuda"] is not None and torch.cuda.is_available():
        torch.cuda.set_rng_state(state["cuda"])


class _StopNow(BaseException):
    """Raised by a signal where the run can end at once."""


class StopSignals:
    """While this is entered, SIGTERM and SIGINT ask the run to end instead of forcing it; a second SIGINT forces it."""

    def __init__(self) -> None:
        self.received = False
        self._at_once = False
        self._previous: dict[int, Any] = {}

    def __enter__(self) -> StopSignals:
        self._previous = {number: signal.signal(number, self._receive) for number in (signal.SIGTERM, signal.SIGINT)}
        return self

    def __exit__(self, *error: object) -> None:
        for number, handler in self._previous.items():
            signal.signal(number, handler)

    @contextlib.contextmanager
    def at_once(self) -> Iterator[None]:
        """Inside, a signal raises where the program is."""
        if self.received:
            raise _StopNow
        self._at_once = True
        try:
            yield
        finally:
            self._at_once = False

    def _receive(self, number: int, _frame: Any) -> None:
        if number == signal.SIGINT and self.received:
            raise KeyboardInterrupt
        self.received = True
        if self._at_once:
            raise _StopNow
