"""Runs that are killed or stopped go on to the same weights, bit for bit."""

from __future__ import annotations

import json
import multiprocessing
import os
import shutil
import signal
import subprocess
import sys
import time
from pathlib import Path

import pytest
import torch

from clipgan.config import Config, load_config, save_config
from clipgan.data.toy import draw_toy_dataset
from clipgan.errors import Stopped, UserError
from clipgan.evaluation.monitor import Monitor
from clipgan.evaluation.retrieval import Validation
from clipgan.networks.clip_encoder import build_encoder
from clipgan.runs.progress import Progress
from clipgan.runs.snapshots import save_encoder
from clipgan.runs.state import StopSignals, random_state, set_random_state

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]
SCRIPTS = {"gan": "main.py", "damsm": "pretrain_DAMSM.py"}


class Runs:
    """Configs, and the run of each script that nothing interrupted: 4 steps an epoch, 10 steps, a state after each."""

    def __init__(self, folder: Path, clip: Path, script):
        self.folder, self._script = folder, script
        draw_toy_dataset(folder / "data", "birds", train=24, test=12, size=32, seed=3)
        torch.manual_seed(0)
        save_encoder(folder / "encoder.pth", build_encoder(str(clip), "", 28))
        config = Config(DATA_DIR=str(folder / "data"), WORKERS=1, GPU_ID=-1)
        config.TRAIN.BATCH_SIZE, config.TRAIN.MAX_STEPS, config.TRAIN.SNAPSHOT_INTERVAL = 6, 10, 1
        config.TRAIN.STATE_INTERVAL, config.TRAIN.MAX_EPOCH = 1e-9, 3
        config.TRAIN.CLIP_MODEL_BASE, config.TEXT.EMBEDDING_DIM = str(clip), 16
        config.TRAIN.CLIP_PRETRAINED = ""
        config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 8, 2
        config.GAN.GF_DIM, config.GAN.DF_DIM, config.GAN.CONDITION_DIM = 4, 2, 6
        config.TRAIN.CLIP_MODEL_CHECKPOINT = str(folder / "encoder.pth")
        save_config(config, folder / "gan.yml")
        config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 32, 1
        save_config(config, folder / "damsm.yml")
        self.whole = {kind: self.call(kind, "whole") for kind in SCRIPTS}

    def arguments(self, kind: str, name: str, *flags: str) -> list[str]:
        return ["--cfg", str(self.folder / f"{kind}.yml"), *flags, "--set", f"OUTPUT_DIR={self.folder / kind / name}"]

    def run_folder(self, kind: str, name: str) -> Path:
        return self.folder / kind / name / "birds_run"

    def call(self, kind: str, name: str, *flags: str) -> Path:
        self._script(SCRIPTS[kind]).main(self.arguments(kind, name, *flags))
        return self.run_folder(kind, name)

    def kill(self, kind: str, point: str, name: str) -> Path:
        """Run until the process kills itself; returns the run folder."""
        command = [sys.executable, str(HERE / "killed_run.py"), point, SCRIPTS[kind], *self.arguments(kind, name)]
        finished = subprocess.run(command, capture_output=True, text=True, check=False, timeout=300)
        assert finished.returncode == -signal.SIGKILL, finished.stderr[-3000:]
        return self.run_folder(kind, name)


@pytest.fixture(scope="module")
def runs(tmp_path_factory, tiny_clip, script) -> Runs:
    return Runs(tmp_path_factory.mktemp("resume"), tiny_clip, script)


def assert_same_run(one: Path, two: Path) -> None:
    """All weights of all snapshots bit for bit, and all numbers of the log but the seconds."""
    names = {path.name for path in (one / "Model").iterdir()}
    assert names == {path.name for path in (two / "Model").iterdir()} and len(names) >= 4
    for name in names:
        a, b = (torch.load(run / "Model" / name, weights_only=True)["weights"] for run in (one, two))
        assert a.keys() == b.keys()
        assert all(torch.equal(a[key], b[key]) for key in a), name
    logs = []
    for run in (one, two):
        lines = [json.loads(line) for line in (run / "metrics.jsonl").read_text().splitlines()]
        logs.append([{key: value for key, value in line.items() if key != "seconds"} for line in lines])
    assert logs[0] == logs[1] and len(logs[0]) >= 4
    assert not list(two.rglob(".*.tmp"))


@pytest.mark.parametrize(
    ("kind", "point"),
    [
        ("gan", "after_step:5"),
        ("gan", "while_writing:6"),
        ("gan", "while_evaluating:2"),
        ("damsm", "before_renaming:9"),
    ],
)
def test_a_killed_run_goes_on_to_the_same_weights(runs, kind, point):
    name = point.replace(":", "_")
    run = runs.kill(kind, point, name)
    assert not (run / "Model" / "netG_epoch_3.pth").exists() and not (run / "Model" / "clip3.pth").exists()
    runs.call(kind, name, "--resume", str(run))
    assert_same_run(runs.whole[kind], run)
    assert [session["ended"] for session in sessions(run)] == [None, "done"]


def sessions(run: Path) -> list[dict]:
    return json.loads((run / "run.json").read_text())["sessions"]


def signal_at_step(monkeypatch, number: int, step: int) -> None:
    original = Progress.step

    def signalling(self, now, *args, **kwargs):
        original(self, now, *args, **kwargs)
        if now == step:  # the loader's worker gets it, too, as from a cluster that ends a job
            processes = [*multiprocessing.active_children(), multiprocessing.current_process()]
            assert len(processes) > 1
            subprocess.run(["kill", f"-{int(number)}", *(str(process.pid) for process in processes)], check=True)
            time.sleep(0.3)  # a worker that dies is noticed

    monkeypatch.setattr(Progress, "step", signalling)


@pytest.mark.parametrize("kind", SCRIPTS)
@pytest.mark.parametrize("number", [signal.SIGTERM, signal.SIGINT])
def test_a_signal_ends_the_run_after_the_step_and_it_goes_on(runs, monkeypatch, kind, number):
    name = f"signal_{number}"
    with monkeypatch.context() as patch:
        signal_at_step(patch, number, 5)
        with pytest.raises(Stopped, match=r"stopped after step 5; the same command with --resume .*birds_run goes on"):
            runs.call(kind, name)
    run = runs.run_folder(kind, name)
    assert [path.name for path in sorted((run / "State").iterdir())] == ["step_00000004.pt", "step_00000005.pt"]
    runs.call(kind, name, "--resume", "auto")
    assert_same_run(runs.whole[kind], run)
    assert [session["ended"] for session in sessions(run)] == ["stopped", "done"]
    assert "--resume auto" in sessions(run)[1]["command"] and sessions(run)[0]["data"] == sessions(run)[1]["data"]


@pytest.mark.parametrize(("kind", "measuring"), [("gan", Monitor), ("damsm", Validation)])
def test_a_signal_ends_an_evaluation_at_once_and_it_is_made_up_for(runs, monkeypatch, kind, measuring):
    with monkeypatch.context() as patch:
        original = measuring.__call__

        def signalled(self, network, epoch):
            if epoch == 2:
                os.kill(os.getpid(), signal.SIGTERM)
                raise AssertionError("the evaluation went on")
            return original(self, network, epoch)

        patch.setattr(measuring, "__call__", signalled)
        with pytest.raises(Stopped, match="stopped after step 8"):
            runs.call(kind, "evaluating")
    run = runs.run_folder(kind, "evaluating")
    runs.call(kind, "evaluating", "--resume", str(run))
    assert_same_run(runs.whole[kind], run)


def test_a_second_interrupt_is_not_held_back():
    with StopSignals() as stop:
        os.kill(os.getpid(), signal.SIGINT)
        assert stop.received
        with pytest.raises(KeyboardInterrupt):
            os.kill(os.getpid(), signal.SIGINT)


def test_a_script_that_is_stopped_exits_with_0_and_says_how_to_go_on(capsys):
    from clipgan.flags import run_script

    def main():
        raise Stopped("stopped after step 5; the same command with --resume output/run goes on from there")

    run_script(main)
    assert "--resume output/run" in capsys.readouterr().out


def test_the_newest_two_states_are_kept_and_a_damaged_one_is_passed_over(runs, capsys):
    whole = runs.whole["gan"]
    assert [path.name for path in sorted((whole / "State").iterdir())] == ["step_00000009.pt", "step_00000010.pt"]
    run = runs.run_folder("gan", "damaged")
    shutil.copytree(whole, run)
    newest = run / "State" / "step_00000010.pt"
    newest.write_bytes(newest.read_bytes()[:1000])
    runs.call("gan", "damaged", "--resume", str(run), "--set", f"OUTPUT_DIR={run.parent}")
    assert "damaged: trying the one before" in capsys.readouterr().out
    assert_same_run(whole, run)


def test_a_finished_run_has_nothing_left_to_do(runs):
    run = runs.run_folder("gan", "again")
    shutil.copytree(runs.whole["gan"], run)
    runs.call("gan", "again", "--resume", str(run), "--set", f"OUTPUT_DIR={run.parent}")
    assert_same_run(runs.whole["gan"], run)


def test_a_run_that_is_made_longer_repeats_no_step(runs, script):
    """Its only state is that of its last step, in the middle of an epoch."""
    settings = "TRAIN.MAX_STEPS=6", "TRAIN.STATE_INTERVAL=0"
    script("main.py").main([*runs.arguments("gan", "longer"), *settings])
    run = runs.run_folder("gan", "longer")
    assert [path.name for path in (run / "State").iterdir()] == ["step_00000006.pt"]
    seen, step = [], Progress.step
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(Progress, "step", lambda self, now, *a, **k: seen.append(now) or step(self, now, *a, **k))
        arguments = runs.arguments("gan", "longer", "--resume", str(run))
        script("main.py").main([*arguments, "TRAIN.MAX_STEPS=10", settings[1]])
    assert seen == [7, 8, 9, 10]
    for name in ("netG_epoch_3.pth", "netD0.pth", "netD1.pth"):
        paths = [folder / "Model" / name for folder in (run, runs.whole["gan"])]
        a, b = (torch.load(path, weights_only=True)["weights"] for path in paths)
        assert all(torch.equal(a[key], b[key]) for key in a), name


def test_a_changed_key_is_refused_by_name_unless_it_is_said_again(runs, script):
    run = runs.run_folder("gan", "changed")
    shutil.copytree(runs.whole["gan"], run)
    config = load_config(run / "config.yml")
    config.GAN.Z_DIM, config.TRAIN.MAX_EPOCH, config.OUTPUT_DIR = 50, 4, str(run.parent)
    save_config(config, run / "config.yml")
    with pytest.raises(UserError, match=r"TRAIN\.MAX_EPOCH \(4, now 3\), GAN\.Z_DIM \(50, now 100\); to change it"):
        runs.call("gan", "changed", "--resume", str(run))
    config.GAN.Z_DIM = 100
    save_config(config, run / "config.yml")
    arguments = runs.arguments("gan", "changed", "--resume", str(run))
    script("main.py").main([*arguments, "TRAIN.MAX_EPOCH=5", "TRAIN.MAX_STEPS=11"])
    assert load_config(run / "config.yml").TRAIN.MAX_EPOCH == 5
    last = json.loads((run / "metrics.jsonl").read_text().splitlines()[-1])
    assert last["step"] == 11


def test_a_run_folder_alone_says_what_to_do(runs, script):
    run = runs.run_folder("gan", "alone")
    shutil.copytree(runs.whole["gan"], run)
    script("main.py").main(["--resume", str(run)])
    assert_same_run(runs.whole["gan"], run)


def test_nothing_to_resume_is_an_error_but_auto_starts_a_run(runs, tmp_path, capsys):
    with pytest.raises(UserError, match=r"no training state in .*nowhere.State"):
        runs.call("gan", "none", "--resume", str(tmp_path / "nowhere"))
    runs.call("gan", "fresh", "--resume", "auto")
    assert "no run of birds_run with a training state yet: starting one" in capsys.readouterr().out
    assert_same_run(runs.whole["gan"], runs.run_folder("gan", "fresh"))


def test_evaluation_does_not_take_resume(runs, script):
    run = runs.whole["gan"]
    with pytest.raises(UserError, match=r"--resume goes on with a training run, but TRAIN\.FLAG is False"):
        script("main.py").main([
            "--resume", str(run), "--set", "TRAIN.FLAG=False", f"TRAIN.NET_G={run / 'Model' / 'netG_epoch_3.pth'}",
        ])  # fmt: skip


def test_random_states_come_back():
    state = random_state()
    first = torch.rand(3), torch.randn(2)
    set_random_state(state)
    assert all(torch.equal(a, b) for a, b in zip(first, (torch.rand(3), torch.randn(2)), strict=True))
