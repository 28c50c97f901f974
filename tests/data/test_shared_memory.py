"""The workers of a loader are limited by the free shared memory."""

from types import SimpleNamespace

import pytest
import torch

from clipgan.data import shared_memory
from clipgan.data.dataset import EpochBatchSampler, TextImageDataset, make_loader
from clipgan.data.shared_memory import fit_workers

MB = 10**6


@pytest.fixture
def free(monkeypatch, tmp_path):
    """Sets how many bytes are free."""
    monkeypatch.setattr(shared_memory, "_SHARED", tmp_path)

    def set_free(count):
        monkeypatch.setattr(shared_memory.shutil, "disk_usage", lambda path: SimpleNamespace(free=count))

    return set_free


@pytest.mark.parametrize(
    ("megabytes", "expected"),
    [(1000, (4, 4)), (64, (4, 1)), (150, (4, 2)), (40, (2, 1)), (20, (0, 1)), (1, (0, 1))],
)
def test_the_workers_batches_fit_half_of_the_free_memory(free, capsys, megabytes, expected):
    free(megabytes * MB)
    workers, ahead = fit_workers(4, 4, 6 * MB)
    assert (workers, ahead) == expected
    assert workers == 0 or (workers * ahead + 1) * 6 * MB <= megabytes * MB / 2
    said = capsys.readouterr().out
    assert (said == "") == (workers == 4)
    if workers < 4:
        assert f"{megabytes} MB free" in said and f"{workers} instead of 4 workers" in said and "--shm-size" in said


def test_the_processes_of_a_machine_share_the_free_memory(free, monkeypatch):
    free(1000 * MB)
    monkeypatch.setenv("LOCAL_WORLD_SIZE", "8")
    assert fit_workers(4, 4, 6 * MB) == (4, 2)


def test_systems_without_dev_shm_have_no_limit(monkeypatch, tmp_path):
    monkeypatch.setattr(shared_memory, "_SHARED", tmp_path / "none")
    assert fit_workers(4, 4, 10**15) == (4, 4)


def test_a_loader_counts_the_bytes_of_its_batches(free):
    dataset = TextImageDataset([None] * 40, [64, 128], lambda captions: None, seed=0)
    assert dataset.image_bytes == 3 * (64**2 + 128**2)
    batch = 10 * dataset.image_bytes
    free(2 * 6 * batch)
    sampler = EpochBatchSampler(40, 20, 0, rank=0, world_size=2)
    loader = make_loader(dataset, sampler, 2, torch.device("cpu"))
    assert (loader.num_workers, loader.prefetch_factor) == (2, 2)  # and one batch in use
    free(4 * batch)
    loader = make_loader(dataset, [[(0, 1)] * 10, [(0, 2)]], 2, torch.device("cpu"))
    assert (loader.num_workers, loader.prefetch_factor) == (1, 1)
