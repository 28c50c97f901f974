"""Devices, run folders and error lines."""

import json
import os
import platform
import subprocess
import sys

import pytest
import torch

from clipgan import runtime
from clipgan.config import Config, load_config
from clipgan.errors import UserError


def test_a_users_mistake_is_one_line_and_exit_status_2(capsys):
    def main():
        raise UserError("no config file at x.yml")

    with pytest.raises(SystemExit) as caught:
        runtime.run_script(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: no config file at x.yml\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        runtime.run_script(lambda: 1 / 0)


@pytest.mark.parametrize(("count", "expected"), [(0, "no CUDA device"), (1, "one CUDA device"), (2, "0 to 1")])
def test_a_device_that_is_not_there_is_refused(monkeypatch, count, expected):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: count > 0)
    monkeypatch.setattr(torch.cuda, "device_count", lambda: count)
    with pytest.raises(UserError, match=f"--gpu 3: .*{expected}"):
        runtime.choose_device(3)


def test_the_cpu_is_taken_silently_when_asked_for_and_with_a_line_when_not(monkeypatch, capsys):
    monkeypatch.setattr(torch.cuda, "is_available", lambda: False)
    assert runtime.choose_device(-1).type == "cpu"
    assert runtime.choose_device(0, use_cuda=False).type == "cpu"
    assert capsys.readouterr().out == ""
    assert runtime.choose_device(None).type == "cpu"
    assert "computing on the CPU" in capsys.readouterr().out


PAGES_OF_A_SECOND_BLOCK = """
import ctypes, resource, torch
from clipgan.runtime import keep_freed_memory
libc = ctypes.CDLL(None)
libc.malloc.restype = ctypes.c_void_p

def new_pages(size=2**26):
    before = resource.getrusage(resource.RUSAGE_SELF).ru_minflt
    block = ctypes.c_void_p(libc.malloc(ctypes.c_size_t(size)))
    libc.memset(block, 1, ctypes.c_size_t(size))
    libc.free(block)
    return resource.getrusage(resource.RUSAGE_SELF).ru_minflt - before

new_pages()
as_it_is, kept = new_pages(), keep_freed_memory(torch.device("cpu"))
new_pages()
print(kept, as_it_is, new_pages())
"""


@pytest.mark.skipif(platform.libc_ver()[0] != "glibc", reason="another C library than glibc")
def test_freed_memory_is_kept_for_the_next_block_unless_the_environment_says_otherwise(monkeypatch):
    environment = {name: value for name, value in os.environ.items() if not name.startswith(("MALLOC_", "GLIBC_"))}
    environment["PYTHONPATH"] = str(runtime.REPOSITORY / "code")
    command = [sys.executable, "-c", PAGES_OF_A_SECOND_BLOCK]
    kept, before, after = subprocess.check_output(command, env=environment, text=True).split()
    assert kept == "True" and int(after) < int(before) / 10
    assert runtime.keep_freed_memory.__wrapped__(torch.device("cuda")) is False
    monkeypatch.setenv("MALLOC_TRIM_THRESHOLD_", "1000000")
    assert runtime.keep_freed_memory.__wrapped__(torch.device("cpu")) is False


def test_an_earlier_run_is_moved_aside_and_the_config_of_the_new_one_runs_again(tmp_path, capsys):
    config = Config(OUTPUT_DIR=str(tmp_path), CONFIG_NAME="x", DATASET_NAME="birds")
    first = runtime.RunFolder.create(config)
    (first.models / "netG_epoch_1.pth").write_text("precious")
    second = runtime.RunFolder.create(config)
    assert first.root == second.root == tmp_path / "birds_x"
    assert not list(second.models.iterdir())
    kept = [path for path in tmp_path.iterdir() if path.name != "birds_x"]
    assert len(kept) == 1 and (kept[0] / "Model" / "netG_epoch_1.pth").read_text() == "precious"
    assert "is now in" in capsys.readouterr().out
    assert load_config(second.config) == config


def test_json_is_written_whole_or_not_at_all(tmp_path):
    path = tmp_path / "scores" / "fid.json"
    runtime.write_json(path, {"value": 1.5})
    with pytest.raises(TypeError):
        runtime.write_json(path, {"value": object()})
    assert json.loads(path.read_text()) == {"value": 1.5}
    assert [file.name for file in path.parent.iterdir()] == ["fid.json"]


def test_flags_override_the_config(tmp_path):
    import argparse

    (tmp_path / "run.yml").write_text("SEED: 1\n")
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg")
    runtime.add_common_flags(parser)
    flags = ["--cfg", str(tmp_path / "run.yml"), "--gpu", "-1", "--data_dir", "d", "--NET_G", "g.pth"]
    flags += ["--manualSeed", "7", "--set", "TRAIN.BATCH_SIZE=4", "WORKERS=0", "--set", "SEED=9"]
    config = runtime.config_from_flags(parser.parse_args(flags))
    assert (config.GPU_ID, config.DATA_DIR, config.TRAIN.NET_G) == (-1, "d", "g.pth")
    assert (config.SEED, config.TRAIN.BATCH_SIZE, config.WORKERS) == (7, 4, 0)
