"""The schedule of pretraining and the running average of GAN training."""

import pytest
import torch

from clipgan.training.damsm_loop import one_cycle
from clipgan.training.ema import EMA


@pytest.mark.parametrize("warmup", [0.1, 0.3])
def test_one_cycle_is_torchs(warmup):
    """torch's OneCycleLR with cosine annealing, its pct_start the warm-up, on the same number of steps."""
    total = 50
    parameter = torch.nn.Parameter(torch.zeros(1))
    optimizer = torch.optim.SGD([parameter], lr=1.0)
    schedule = torch.optim.lr_scheduler.OneCycleLR(optimizer, 1.0, total, pct_start=warmup, cycle_momentum=False)
    rise = warmup * total - 1  # torch counts the peak itself into the rise
    for step in range(total):
        ours = one_cycle(step, total, rise / total)
        assert ours == pytest.approx(schedule.get_last_lr()[0], rel=1e-6, abs=1e-9)
        optimizer.step()
        schedule.step()


def test_one_cycle_rises_to_one_and_falls_to_almost_nothing():
    values = [one_cycle(step, 1000, 0.02) for step in range(1000)]
    assert values[0] == pytest.approx(1 / 25)
    assert max(values) == values[20] == pytest.approx(1.0)
    assert values[-1] == pytest.approx(4e-6)


def test_the_average_follows_the_weights_with_the_given_decay():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    average = EMA(network, decay=0.9)
    average.updates = 10_000  # past the warm-up
    torch.nn.init.ones_(network.weight)
    average.update(network)
    assert average.network.weight.item() == pytest.approx(0.1)
    average.update(network)
    assert average.network.weight.item() == pytest.approx(0.19)
    assert not average.network.weight.requires_grad


def test_the_average_forgets_the_random_start_at_once():
    network = torch.nn.Linear(1, 1, bias=False)
    torch.nn.init.zeros_(network.weight)
    average = EMA(network, decay=0.999)
    torch.nn.init.ones_(network.weight)
    average.update(network)
    assert average.network.weight.item() == pytest.approx(1 - 2 / 11)


def test_decay_zero_copies_and_buffers_are_averaged():
    network = torch.nn.BatchNorm1d(1)
    average = EMA(network, decay=0.0)
    network.running_mean.fill_(4.0)
    network.num_batches_tracked.fill_(5)
    average.update(network)
    assert average.network.running_mean.item() == 4.0
    assert average.network.num_batches_tracked.item() == 5
