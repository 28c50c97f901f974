"""Which device is computed on, and what is said about it."""

import pytest
import torch
from fake_cuda import fake_cuda
from torch import nn

from clipgan.errors import UserError
from clipgan.machine import distributed
from clipgan.machine.device import choose_device, fastest_layout


@pytest.mark.parametrize(("count", "expected"), [(0, "no CUDA device"), (1, "one CUDA device"), (2, "0 to 1")])
def test_a_device_that_is_not_there_is_refused(monkeypatch, count, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError, match=f"--gpu 3: .*{expected}"):
        choose_device(3)


def test_the_cpu_is_taken_silently_when_asked_for_and_with_a_line_when_not(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert choose_device(-1).type == "cpu"
    assert choose_device(0, use_cuda=False).type == "cpu"
    assert capsys.readouterr().out == ""
    assert choose_device(None).type == "cpu"
    assert "computing on the CPU" in capsys.readouterr().out


@pytest.mark.parametrize(
    ("visible", "gpu", "rank", "expected"),
    [(4, None, 2, 2), (4, 1, 2, 3), (1, None, 0, 0), (1, None, 3, 0), (1, 0, 3, 0)],
)
def test_each_process_takes_a_gpu_and_the_only_one_that_it_sees(monkeypatch, visible, gpu, rank, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: True)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: visible)
    monkeypatch.setattr(torch.cuda, "set_device", lambda index: None)
    monkeypatch.setenv("LOCAL_RANK", str(rank))
    assert choose_device(gpu) == torch.device("cuda", expected)


def test_two_processes_on_one_gpu_are_refused():
    distributed._refuse_shared_gpus([("node1", "gpu-a"), ("node1", "gpu-b"), ("node2", "gpu-a")])
    with pytest.raises(UserError, match=r"3 processes, but only 2 GPUs .*CUDA_VISIBLE_DEVICES"):
        distributed._refuse_shared_gpus([("node1", "gpu-a"), ("node1", "gpu-b"), ("node1", "gpu-a")])


def test_on_cuda_batch_norms_are_synchronised_by_pytorchs_own(monkeypatch):
    monkeypatch.setattr(distributed.dist, "is_initialized", lambda: True)
    with fake_cuda():
        network = distributed.synchronise_batch_norm(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    assert isinstance(network[1], nn.SyncBatchNorm)
    network = distributed.synchronise_batch_norm(nn.Sequential(nn.Linear(2, 3), nn.BatchNorm1d(3)))
    assert isinstance(network[1], distributed.GlooBatchNorm)


@pytest.mark.parametrize(
    ("device", "low", "expected"),
    [
        ("cuda", None, torch.preserve_format),
        ("cuda", torch.bfloat16, torch.channels_last),
        ("cpu", None, torch.channels_last),
        ("cpu", torch.bfloat16, torch.channels_last),
    ],
)
def test_convolutions_are_channels_last_on_cpus_and_on_cuda_in_16_bits(device, low, expected):
    assert fastest_layout(torch.device(device), low) == expected
