"""Two processes of torchrun compute what one computes. They run once, in ``worker.py``; the tests compare."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from pathlib import Path

import pytest
import torch

from clipgan.config import Config, save_config
from clipgan.data.toy import draw_toy_dataset
from clipgan.networks.clip_encoder import build_encoder
from clipgan.networks.generator import Generator
from clipgan.runs.snapshots import save_encoder, save_generator

HERE = Path(__file__).resolve().parent
ROOT = HERE.parents[1]


def launch(processes: int, *arguments: str) -> subprocess.CompletedProcess:
    """A script under torchrun, or as it is for one process."""
    command = [sys.executable]
    if processes > 1:
        command += ["-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    environment = {**os.environ, "OMP_NUM_THREADS": "1"}
    return subprocess.run(
        [*command, *arguments], cwd=ROOT, env=environment, capture_output=True, text=True, check=False, timeout=300
    )


def share_captions(folder: Path) -> None:
    """Give six training images at a time the same three captions, and two test images the same ten."""
    train, test = (sorted(folder.rglob(f"*_{split}_*.txt")) for split in ("train", "test"))
    lines = [path.read_text().splitlines() for path in train]
    for number, path in enumerate(train):
        path.write_text("\n".join(lines[number % 4][:3]))
    assert test[0].parent != test[-1].parent  # their classes
    test[-1].write_text(test[0].read_text())


@pytest.fixture(scope="module")
def folder(tmp_path_factory, tiny_clip) -> Path:
    root = tmp_path_factory.mktemp("processes")
    draw_toy_dataset(root / "data", "birds", train=24, test=14, size=32, seed=3)
    share_captions(root / "data" / "text")
    config = Config(DATA_DIR=str(root / "data"), WORKERS=0)
    config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 8, 2
    config.TRAIN.BATCH_SIZE, config.TRAIN.MAX_STEPS, config.TRAIN.SNAPSHOT_INTERVAL = 8, 2, 1
    config.TRAIN.CLIP_MODEL_BASE, config.TEXT.EMBEDDING_DIM = str(tiny_clip), 16
    config.TRAIN.CLIP_MODEL_CHECKPOINT = str(root / "encoder.pth")
    config.GAN.GF_DIM, config.GAN.DF_DIM, config.GAN.CONDITION_DIM = 4, 2, 6
    config.EVAL.BATCH_SIZE = 8
    save_config(config, root / "config.yml")
    torch.manual_seed(0)
    save_encoder(root / "encoder.pth", build_encoder(str(tiny_clip), "", 28))
    arguments = config.generator_arguments(16, 24)
    generator = Generator(**arguments)
    with torch.no_grad():
        for head in generator.heads:
            head.conv.weight *= 8  # images that are not grey
    save_generator(root / "generator.pth", generator, arguments)
    return root


@pytest.fixture(scope="module")
def one_and_two(folder) -> tuple[dict, dict]:
    """What one process and what two made of the same work."""
    for processes in (1, 2):
        finished = launch(processes, str(HERE / "worker.py"), str(folder))
        assert finished.returncode == 0, finished.stderr[-3000:]
    return tuple(torch.load(folder / f"{n}.pt", weights_only=False) for n in (1, 2))


def largest_difference(one: dict, two: dict) -> float:
    """Between two sets of gradients, in units of the largest entry of all."""
    assert one.keys() == two.keys() and one
    scale = max(float(value.abs().max()) for value in one.values())
    return max(float((one[name] - two[name]).abs().max()) for name in one) / scale


@pytest.mark.parametrize("parts", [1, 2])
def test_pretraining_has_the_same_loss_and_gradients(one_and_two, parts):
    one, two = (result["pretraining"] for result in one_and_two)
    assert two[f"losses in {parts}"] == pytest.approx(one["losses in 1"], rel=1e-5)
    assert largest_difference(one["gradients in 1"], two[f"gradients in {parts}"]) < 1e-5


def test_accumulated_parts_give_the_gradients_of_the_whole_batch(one_and_two):
    one = one_and_two[0]["pretraining"]
    assert one["losses in 2"] == pytest.approx(one["losses in 1"], rel=1e-5)
    assert largest_difference(one["gradients in 1"], one["gradients in 2"]) < 1e-5


def test_discriminators_and_generator_have_the_same_losses_and_gradients(one_and_two):
    one, two = (result["gan"]["updates"] for result in one_and_two)
    assert len(one) == len(two) == 2 * 3  # two steps of two discriminators and the generator
    for (loss_one, gradients_one), (loss_two, gradients_two) in zip(one[:3], two[:3], strict=True):
        assert loss_two == pytest.approx(loss_one, rel=1e-5)
        assert largest_difference(gradients_one, gradients_two) < 1e-4
    for (loss_one, _), (loss_two, _) in zip(one[3:], two[3:], strict=True):  # after an update by Adam
        assert loss_two == pytest.approx(loss_one, rel=1e-2)


def test_the_log_tells_the_losses_of_the_whole_batch(one_and_two, folder):
    logs = []
    for processes in (1, 2):
        lines = (folder / f"output_{processes}" / "birds_run" / "metrics.jsonl").read_text().splitlines()
        logs.append(next(line for line in map(json.loads, lines) if line["kind"] == "train"))
        del logs[-1]["seconds"], logs[-1]["kind"]
    assert {"loss_d", "loss_g", "adversarial", "kl", "words"} < logs[0].keys()
    assert logs[1] == pytest.approx(logs[0], rel=5e-3)


def test_the_running_statistics_are_those_of_the_whole_batch(one_and_two):
    one, two = (result["gan"]["statistics"] for result in one_and_two)
    names = [name for name in one if name.endswith(("running_mean", "running_var"))]
    assert len(names) > 4
    for name in names:
        torch.testing.assert_close(two[name], one[name], rtol=1e-2, atol=1e-4)


def test_validation_and_measurements_while_training_are_the_same(one_and_two, folder):
    one, two = (result["pretraining"]["validation"] for result in one_and_two)
    assert two == pytest.approx(one, rel=1e-4)


def test_samples_are_the_same_files_byte_for_byte(one_and_two, folder):
    files = {n: sorted((folder / f"samples_{n}").rglob("*.png")) for n in (1, 2)}
    assert len(files[1]) == len(files[2]) > 14
    for one, two in zip(files[1], files[2], strict=True):
        assert one.name == two.name
        assert one.read_bytes() == two.read_bytes()
    assert len({path.read_bytes() for path in files[1]}) > 14  # not all alike


def test_the_report_of_an_evaluation_is_the_same(one_and_two):
    one, two = (result["report"] for result in one_and_two)
    assert one == two
    assert one["captions_shared"] == 20 and "equal captions are no mismatch" in one["protocol"]


def test_only_one_process_prints_and_an_uneven_batch_is_refused_in_a_line(folder):
    finished = launch(
        2, "main.py", "--cfg", str(folder / "config.yml"), "--gpu", "-1", "--set", "TRAIN.BATCH_SIZE=7",
        f"OUTPUT_DIR={folder / 'uneven'}",
    )  # fmt: skip
    assert finished.returncode != 0
    assert "TRAIN.BATCH_SIZE = 7 cannot be shared out evenly among 2 processes" in finished.stderr
    assert "Traceback" not in finished.stderr.split("torch/distributed")[0]
    assert not (folder / "uneven").exists()


def test_training_and_scores_run_under_torchrun(folder):
    """The scripts themselves: each says what it has to say once, and leaves one set of files."""
    output = folder / "scripts"
    settings = ["--set", f"OUTPUT_DIR={output}"]
    common = ["--cfg", str(folder / "config.yml"), "--gpu", "-1"]
    finished = launch(2, "main.py", *common, *settings)
    assert finished.returncode == 0, finished.stderr[-3000:]
    assert finished.stdout.count("batch 8 in all, 4 for each of 2 processes") == 1
    assert finished.stdout.count("the last generator is") == 1
    run = output / "birds_run"
    assert {path.name for path in (run / "Model").iterdir()} == {
        "netG_epoch_1.pth", "netG_best.pth", "netD0.pth", "netD1.pth",
    }  # fmt: skip


@pytest.fixture(scope="module")
def small(tmp_path_factory) -> dict:
    """What two processes made in ``small_worker.py``."""
    path = tmp_path_factory.mktemp("small") / "results.pt"
    finished = launch(2, str(HERE / "small_worker.py"), str(path))
    assert finished.returncode == 0, finished.stderr[-3000:]
    return torch.load(path, weights_only=False)


def test_the_others_wait_for_a_download_longer_than_for_anything_else(small):
    assert all(4 <= seconds < 20 for seconds in small["waited"])


def test_what_is_gathered_gets_the_sum_of_all_processes_gradients(small):
    weights = torch.arange(12.0).view(3, 4)
    expected = (weights + weights**2).T
    assert torch.equal(torch.cat(small["gradients"]), expected)


def test_batch_norms_of_one_process_each_have_one_average(small):
    """The numbers 1 to 4 and 5 to 8: means 2.5 and 6.5, variances 5/3 in both."""
    first, second = small["own"]
    assert first.keys() == second.keys() and all(torch.equal(first[name], second[name]) for name in first)
    torch.testing.assert_close(first["1.running_mean"], torch.full((2,), 0.1 * 4.5))
    torch.testing.assert_close(first["1.running_var"], torch.full((2,), 0.9 + 0.1 * 5 / 3))


@pytest.mark.parametrize(("name", "count"), [("synchronised", 8), ("one value each", 2)])
def test_a_synchronised_batch_norm_has_the_statistics_of_all_numbers(small, name, count):
    numbers = torch.arange(1.0, count + 1)
    for state in small[name]:
        torch.testing.assert_close(state["1.running_mean"], torch.full((2,), 0.1 * numbers.mean().item()))
        torch.testing.assert_close(state["1.running_var"], torch.full((2,), 0.9 + 0.1 * numbers.var().item()))


def test_a_synchronised_batch_norm_keeps_its_digits_far_from_zero(small):
    for found in small["far"]:
        torch.testing.assert_close(found["variance"].double(), found["exact variance"], rtol=1e-3, atol=0)
        torch.testing.assert_close(found["out"][:, :4].double(), found["exact"][:, :4], rtol=0, atol=0.02)
        assert found["out"][:, 4:].abs().max() < 1e-3  # a constant is its own mean
