"""When a training state is written, and what happens when it cannot be."""

import pytest
import torch

from clipgan.config import Config
from clipgan.errors import Stopped
from clipgan.runs import checkpoint, state
from clipgan.runs.folder import RunFolder
from clipgan.runs.state import Position, StopSignals, TrainingState


@pytest.fixture
def clock(monkeypatch):
    """A clock in minutes that a test sets."""
    minutes = [0.0]
    monkeypatch.setattr(state.time, "monotonic", lambda: 60 * minutes[0])
    return minutes


def training_state(tmp_path, minutes):
    config = Config(OUTPUT_DIR=str(tmp_path))
    config.TRAIN.STATE_INTERVAL = minutes
    network = torch.nn.Linear(2, 2)
    return TrainingState(RunFolder.create(config), {"network": network}, config), network


def names(run_state):
    run_state._wait()
    return [path.name for path in run_state._folder.state_files]


def test_a_state_is_due_after_so_many_minutes_and_after_the_last_step(tmp_path, clock):
    run_state, _ = training_state(tmp_path, minutes=10)
    stop = StopSignals()
    saved = []
    for step, minute in enumerate([3, 9.9, 10.1, 11, 20, 20.2, 25], start=1):
        clock[0] = minute
        run_state.after_step(Position(step=step), stop, last=step == 7)
        saved.append(names(run_state)[-1:] == [f"step_{step:08d}.pt"])
    assert saved == [False, False, True, False, False, True, True]


def test_interval_0_writes_after_the_last_step_and_when_stopped_only(tmp_path, clock):
    run_state, _ = training_state(tmp_path, minutes=0)
    stop = StopSignals()
    clock[0] = 10**6
    run_state.after_step(Position(step=1), stop, last=False)
    assert names(run_state) == []
    run_state.after_step(Position(step=2), stop, last=True)
    assert names(run_state) == ["step_00000002.pt"]
    stop.received = True
    with pytest.raises(Stopped):
        run_state.after_step(Position(step=3), stop, last=False)
    assert names(run_state) == ["step_00000002.pt", "step_00000003.pt"]


def test_what_is_written_is_the_state_of_the_step_though_training_goes_on_meanwhile(tmp_path, monkeypatch):
    run_state, network = training_state(tmp_path, minutes=0)
    before, write = network.weight.detach().clone(), checkpoint.write_atomically
    started, go_on = state.threading.Event(), state.threading.Event()

    def slow(path, content):
        started.set()
        assert go_on.wait(10)
        write(path, content)

    monkeypatch.setattr(checkpoint, "write_atomically", slow)
    with run_state:
        run_state.save(Position(step=4))
        assert started.wait(10)
        torch.nn.init.zeros_(network.weight)
        go_on.set()
    torch.nn.init.ones_(network.weight)
    assert run_state.resume().step == 4
    assert torch.equal(network.weight, before)


def test_a_state_that_cannot_be_written_is_told_at_the_next_one_or_at_the_end(tmp_path, monkeypatch):
    run_state, _ = training_state(tmp_path, minutes=0)

    def fail(path, content):
        raise OSError("no space left")

    monkeypatch.setattr(checkpoint, "write_atomically", fail)
    run_state.save(Position(step=1))
    with pytest.raises(OSError, match="no space left"):
        run_state.save(Position(step=2))
    with pytest.raises(OSError, match="no space left"), run_state:
        run_state.save(Position(step=3))
    with pytest.raises(KeyError), run_state:  # the error of the run itself goes first
        run_state.save(Position(step=4))
        raise KeyError
