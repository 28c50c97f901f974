"""Training states: all that a killed run needs to go on as if nothing had happened, and the signals that end a run.

Published snapshots hold the networks that people use; a state holds the run: all weights, the average, the optimizers,
the schedule, the gradient scalers, the place in the data and the random states of every process. It is copied to the
host, and then written by a thread while the run goes on.
"""

from __future__ import annotations

import contextlib
import random
import signal
import sys
import threading
import time
from collections.abc import Callable, Iterator
from dataclasses import asdict, dataclass, replace
from pathlib import Path
from typing import Any

import numpy as np
import torch

from clipgan.config import Config, config_from_dict
from clipgan.errors import Stopped, UserError
from clipgan.files import shapes
from clipgan.files.gate import reading
from clipgan.files.torch_file import read_torch_file
from clipgan.machine import distributed
from clipgan.runs import checkpoint
from clipgan.runs.folder import RunFolder
from clipgan.runs.state_shapes import match_layouts, require_state

KIND = "training state"
KEPT = 2  # the newest state, and the one before


_RANDOM = shapes.record(
    {
        "python": shapes.list_of(shapes.anything, 3, 3),
        "numpy": shapes.list_of(shapes.anything, 5, 5),
        "torch": shapes.tensor,
        "cuda": shapes.either(shapes.nothing, shapes.tensor),
    }
)
_COUNT = shapes.whole(0, 10**12)
STATE = shapes.record(
    {
        "format": shapes.one_of(checkpoint.FORMAT),
        "kind": shapes.one_of(KIND),
        "position": shapes.record(
            {"step": _COUNT, "epoch": _COUNT, "batch": _COUNT, "best": shapes.number(finite=False)}
        ),
        "trained": shapes.mapping_of(shapes.anything, at_most=100),
        "random": shapes.list_of(_RANDOM, 1, 65536),
        "config": shapes.mapping_of(shapes.anything, at_most=100),
        "origin": shapes.mapping_of(shapes.text(100), at_most=100),
    }
)


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
        healthy: asked before a state that is due: while it says no, none is saved.
        origin: fingerprints of what the run is trained on, by name; another one is no run to go on with.
    """

    def __init__(
        self,
        folder: RunFolder,
        trained: dict[str, Any],
        config: Config,
        healthy: Callable[[], bool] = lambda: True,
        origin: dict[str, str] | None = None,
    ):
        self._folder, self._trained, self._config = folder, trained, config
        self._healthy, self._origin = healthy, origin or {}
        self._interval = 60 * config.TRAIN.STATE_INTERVAL  # seconds
        self._last_save = time.monotonic()
        self._saved_step: int | None = None  # of the newest state of this process
        self._writer: threading.Thread | None = None
        self._failure: BaseException | None = None

    def __enter__(self) -> TrainingState:
        return self

    def __exit__(self, *error: object) -> None:
        try:
            self._wait()
        except Exception as failure:
            if error[0] is None:
                raise
            print(f"error: {failure}", file=sys.stderr)  # beside the error that ends the run

    def after_step(self, position: Position, stop: StopSignals, last: bool) -> None:
        """Save when TRAIN.STATE_INTERVAL says so, after the ``last`` step, or when the run is asked to end.

        Raises:
            Stopped: it was asked to end.
            UserError: the state before could not be written.
        """
        due = last or bool(self._interval and time.monotonic() - self._last_save >= self._interval)
        asked, due, failed = distributed.any_process_for_each(stop.received, due, self._failure is not None)
        if failed:
            self._wait()
            raise UserError("the first process could not write the training state")
        if asked or last or (due and self._healthy()):
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
                "origin": self._origin,
            }
            path = self._folder.states / f"step_{position.step:08d}.pt"
            self._writer = threading.Thread(target=self._write, args=(path, content))
            self._writer.start()
        self._last_save = time.monotonic()

    def _write(self, path: Path, content: dict) -> None:
        try:
            broken = shapes.not_finite(_tensors(content["trained"]))
            if broken:
                raise UserError(f"{path}: is not written, because {broken} holds NaN or infinities")
            checkpoint.write_atomically(path, content)
            for old in self._folder.state_files[:-KEPT]:
                old.unlink()
        except BaseException as failure:  # raised in the run's own thread
            self._failure = failure

    def _wait(self) -> None:
        """Until the state is on the disk; raises what went wrong with it."""
        if self._writer is not None:
            self._writer.join()
            self._writer = None
        failure, self._failure = self._failure, None
        if failure is not None:
            raise failure

    def resume(self) -> Position:
        """Restore the newest state.

        Raises:
            UserError: there is none, or it does not fit the networks of this config, or the run was trained on
                something else than what is there now.
        """
        path, content = newest_state(self._folder)
        for name, now in self._origin.items():
            before = content["origin"].get(name)
            if before != now:
                what = {"encoder": "TRAIN.CLIP_MODEL_CHECKPOINT", "data": "DATA_DIR"}.get(name, name)
                raise UserError(
                    f"{path}: this run was trained on another {name} (fingerprint {before}) than {what} holds now "
                    f"({now}): put that one back, or start a new run"
                )
        before = config_from_dict(content["config"], str(path))
        with reading(path, "the state of a run of this config"):
            for name, part in self._trained.items():
                if name not in content["trained"]:
                    raise UserError(f"{path} does not fit this config: it lacks the {name}")
                require_state(part, content["trained"][name], name)
            for name, part in self._trained.items():
                part.load_state_dict(content["trained"][name])
                match_layouts(part)
            states = content["random"]
            if len(states) == distributed.world_size():
                set_random_state(states[distributed.rank()])
        position = Position(**content["position"])
        position.batch = position.batch * before.TRAIN.BATCH_SIZE // self._config.TRAIN.BATCH_SIZE
        self._saved_step = position.step
        return position


def _copy(value: Any) -> Any:
    """Dictionaries and lists with copies of their tensors on the host: training changes the tensors themselves."""
    if torch.is_tensor(value):
        return value.detach().to("cpu", copy=True)
    if isinstance(value, dict):
        return {key: _copy(item) for key, item in value.items()}
    return type(value)(map(_copy, value)) if isinstance(value, list | tuple) else value


def _tensors(value: Any, name: str = "") -> Iterator[tuple[str, torch.Tensor]]:
    """All tensors of nested dictionaries and lists, with their places."""
    if torch.is_tensor(value):
        yield name, value
    elif isinstance(value, dict | list | tuple):
        for key, item in value.items() if isinstance(value, dict) else enumerate(value):
            yield from _tensors(item, f"{name}.{key}" if name else str(key))


def newest_state(folder: RunFolder) -> tuple[Path, dict]:
    """The newest state that can be read, and its content. Damaged ones are set aside under another name.

    Raises:
        UserError: there is none.
    """
    for path in reversed(folder.state_files):
        try:
            return path, read_state(path)
        except UserError as error:
            print(f"{path} is damaged: trying the one before ({error})")
            if distributed.is_main():
                with contextlib.suppress(OSError):
                    path.rename(path.with_name(f"{path.name}.damaged"))
    raise UserError(f"no training state in {folder.states}: nothing to go on from (TRAIN.STATE_INTERVAL keeps them)")


def read_state(path: Path) -> dict:
    """The content of a state, in the shape of ``STATE``; every tensor is finite.

    Raises:
        UserError: it is missing, damaged or of another shape.
    """
    expected = "a training state, which training writes"
    content = read_torch_file(path, expected=expected)
    with reading(path, expected):
        STATE(content, "it")
        broken = shapes.not_finite(_tensors(content["trained"]))
        if broken:
            raise UserError(f"{path}: {broken} holds NaN or infinities")
    return content


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
