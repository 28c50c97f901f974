"""When a training state is written, and what happens when it cannot be."""

import pytest
import torch

from clipgan.config import Config
from clipgan.errors import Stopped, UserError
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


class Part:
    """A part of a run with an optimizer, whose weights lie channels-last in memory."""

    def __init__(self):
        self.network = torch.nn.Conv2d(2, 3, 2).to(memory_format=torch.channels_last)
        self.optimizer = torch.optim.Adam(self.network.parameters(), fused=True)
        self.network(torch.ones(1, 2, 2, 2)).sum().backward()
        self.optimizer.step()


@pytest.fixture
def saved(tmp_path):
    """A state of one network and its optimizer, and what reads it again."""
    torch.manual_seed(0)
    config, part = Config(OUTPUT_DIR=str(tmp_path)), Part()
    trained = {"network": part.network, "optimizer": part.optimizer}
    run_state = TrainingState(RunFolder.create(config), trained, config, origin={"data": "abc"})
    with run_state:
        run_state.save(Position(step=5, epoch=1, batch=2))
    return run_state, part


def spoil(run_state, change):
    (path,) = run_state._folder.state_files
    content = torch.load(path, weights_only=True)
    change(content)
    torch.save(content, path)


def without(*keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        del content[keys[-1]]

    return change


def with_value(value, *keys):
    def change(content):
        for key in keys[:-1]:
            content = content[key]
        content[keys[-1]] = value

    return change


NAN, WEIGHT = torch.tensor([float("nan")]), ("trained", "network", "weight")
BROKEN = {
    **{f"no {key}": without(key) for key in ("random", "position", "config", "trained", "kind", "origin")},
    "no step": without("position", "step"),
    "a negative step": with_value(-5, "position", "step"),
    "a step of 10^30": with_value(10**30, "position", "step"),
    "a position that is a list": with_value([1, 2], "position"),
    "no states of random numbers": with_value([], "random"),
    "random numbers without NumPy's": without("random", 0, "numpy"),
    "NaN in a weight": lambda content: content["trained"]["network"]["bias"].fill_(float("nan")),
    "an infinite moment": lambda content: content["trained"]["optimizer"]["state"][0]["exp_avg"].fill_(float("inf")),
}


@pytest.mark.parametrize("name", BROKEN)
def test_a_state_of_another_shape_is_damaged_and_set_aside(saved, name, capsys):
    run_state, _ = saved
    spoil(run_state, BROKEN[name])
    with pytest.raises(UserError, match="no training state"):
        run_state.resume()
    assert "step_00000005.pt is damaged: trying the one before" in capsys.readouterr().out
    assert [path.name for path in run_state._folder.states.iterdir()] == ["step_00000005.pt.damaged"]


MISFITS = {
    "a batch size of 0": with_value(0, "config", "TRAIN", "BATCH_SIZE"),
    "a config that is no config": with_value({"TREE": 3}, "config"),
    "a weight of another shape": with_value(torch.zeros(3), *WEIGHT),
    "a weight that is a text": with_value("zero", *WEIGHT),
    "a weight too many": with_value(torch.zeros(3), "trained", "network", "more"),
    "no optimizer": without("trained", "optimizer"),
    "a moment of another shape": with_value(torch.zeros(3), "trained", "optimizer", "state", 0, "exp_avg"),
    "a moment of a weight that is not there": with_value({}, "trained", "optimizer", "state", 9),
    "groups of other weights": with_value([0], "trained", "optimizer", "param_groups", 0, "params"),
    "a rate that is a text": with_value("fast", "trained", "optimizer", "param_groups", 0, "lr"),
    "random numbers that are none": with_value([3, [1], None], "random", 0, "python"),
}


@pytest.mark.parametrize("name", MISFITS)
def test_a_state_that_does_not_fit_is_refused_by_name_before_anything_is_changed(saved, name):
    run_state, part = saved
    before = part.network.weight.detach().clone()
    spoil(run_state, MISFITS[name])
    with pytest.raises(UserError, match=r"step_00000005\.pt") as caught:
        run_state.resume()
    assert len(str(caught.value)) < 490
    assert torch.equal(part.network.weight, before)


def test_a_run_does_not_go_on_with_other_data(saved, tmp_path):
    run_state, part = saved
    other = TrainingState(run_state._folder, {"network": part.network}, Config(), origin={"data": "xyz"})
    with pytest.raises(UserError, match=r"trained on another data \(fingerprint abc\) than DATA_DIR holds now \(xyz\)"):
        other.resume()


def test_moments_take_the_layout_of_their_weights(saved):
    run_state, part = saved
    weight = part.network.weight
    expected = part.optimizer.state[weight]["exp_avg"].clone()
    weight.data = weight.data.contiguous()  # as without the fast forms, or on another device
    run_state.resume()
    moment = part.optimizer.state[weight]["exp_avg"]
    assert moment.stride() == weight.stride() and torch.equal(moment, expected)


def test_no_state_is_written_of_weights_that_are_not_finite_or_while_steps_are_skipped(tmp_path, clock):
    config, network = Config(OUTPUT_DIR=str(tmp_path)), torch.nn.Linear(2, 2)
    healthy = [False]
    run_state = TrainingState(RunFolder.create(config), {"network": network}, config, lambda: healthy[0])
    clock[0] = 100
    run_state.after_step(Position(step=1), StopSignals(), last=False)
    assert names(run_state) == []
    healthy[0] = True
    run_state.after_step(Position(step=2), StopSignals(), last=False)
    assert names(run_state) == ["step_00000002.pt"]
    torch.nn.init.constant_(network.bias, float("nan"))
    run_state.save(Position(step=3))
    with pytest.raises(UserError, match=r"step_00000003\.pt: is not written, because network\.bias holds NaN"):
        run_state._wait()
    assert names(run_state) == ["step_00000002.pt"]


def test_a_full_disk_is_told_in_the_next_step(tmp_path, monkeypatch):
    run_state, _ = training_state(tmp_path, minutes=0)

    def fail(content, file):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr(torch, "save", fail)
    run_state.save(Position(step=1))
    run_state._writer.join()
    with pytest.raises(UserError, match=r"step_00000001\.pt: cannot be written \(No space left.*make room.*--resume"):
        run_state.after_step(Position(step=2), StopSignals(), last=False)
    assert not list(run_state._folder.states.iterdir())
