"""Training on a real GPU; left out where there is none. What a GPU that is not there can tell, test_dry_run.py asks."""

from __future__ import annotations

import copy
import json

import pytest
import torch

from clipgan.config import Config
from clipgan.data.from_config import read_split, training_set
from clipgan.data.toy import draw_toy_dataset
from clipgan.machine.device import place
from clipgan.networks.clip_encoder import build_encoder
from clipgan.runs.folder import RunFolder
from clipgan.training.damsm_loop import pretrain
from clipgan.training.gan_loop import train_gan
from clipgan.training.gan_networks import GanNetworks
from clipgan.training.guard import Guard

pytestmark = pytest.mark.skipif(not torch.cuda.is_available(), reason="needs a CUDA device")
STEPS = 4


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    folder = tmp_path_factory.mktemp("drawn")
    draw_toy_dataset(folder, "birds", train=24, test=8, size=48, seed=3)
    return folder


@pytest.fixture
def waiting_is_an_error(monkeypatch):
    """Whatever waits for the GPU in the middle of a step raises. (The first step may: it sets things up.)"""
    begin, end, begun = Guard.begin, Guard.end, []

    def strict_begin(self, *networks):
        begin(self, *networks)
        begun.append(len(begun))
        torch.cuda.set_sync_debug_mode("error" if len(begun) > 1 else "default")

    def strict_end(self, step):
        made = end(self, step)
        torch.cuda.set_sync_debug_mode("default")
        return made

    monkeypatch.setattr(Guard, "begin", strict_begin)
    monkeypatch.setattr(Guard, "end", strict_end)
    yield begun
    torch.cuda.set_sync_debug_mode("default")


def tiny_config(data, output):
    config = Config(DATA_DIR=str(data), OUTPUT_DIR=str(output), WORKERS=0)
    config.TRAIN.BATCH_SIZE, config.TRAIN.MAX_STEPS, config.TRAIN.MAX_EPOCH = 6, STEPS, 2
    config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 16, 2
    config.GAN.GF_DIM, config.GAN.DF_DIM, config.GAN.CONDITION_DIM, config.GAN.Z_DIM = 8, 8, 6, 5
    return config


def trained(kind, data, clip, output, device, **keys):
    """The numbers of every line of the log, and what was trained."""
    config = tiny_config(data, output)
    for name, value in keys.items():
        setattr(config.TRAIN, name, value)
    torch.manual_seed(0)
    encoder = build_encoder(str(clip), "", 28)
    if kind == "pretraining":
        config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 32, 1
    else:
        encoder.freeze()
    networks = GanNetworks.build(config, encoder)
    dataset = training_set(config, read_split(config, "train"), config.image_sizes, encoder.tokenize)
    folder, device = RunFolder.create(config), torch.device(device)
    encoder.to(device)
    if kind == "pretraining":
        pretrain(config, encoder, dataset, device, folder, lambda *of: {"r1": 0.0})
    else:
        train_gan(config, networks, encoder, dataset, device, folder)
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train"], encoder if kind == "pretraining" else networks


def assert_same_losses(here, there, tolerance):
    assert len(here) == len(there) >= 1
    for one, other in zip(here, there, strict=True):
        numbers = {key for key, value in one.items() if isinstance(value, float) and key != "seconds"}
        assert numbers and numbers <= other.keys()
        for key in numbers:
            assert other[key] == pytest.approx(one[key], rel=tolerance, abs=tolerance), key


@pytest.mark.parametrize("kind", ["gan", "pretraining"])
def test_the_losses_are_the_cpu_s_and_no_step_waits(kind, data, tiny_clip, tmp_path, waiting_is_an_error):
    on_gpu, _ = trained(kind, data, tiny_clip, tmp_path / "gpu", "cuda")
    assert len(waiting_is_an_error) == STEPS
    on_cpu, _ = trained(kind, data, tiny_clip, tmp_path / "cpu", "cpu")
    assert_same_losses(on_cpu, on_gpu, 2e-3)


@pytest.mark.parametrize("kind", ["gan", "pretraining"])
@pytest.mark.parametrize("precision", ["tf32", "bf16", "fp16"])
def test_no_precision_makes_a_step_wait_or_skip(kind, precision, data, tiny_clip, tmp_path, waiting_is_an_error):
    on_gpu, _ = trained(kind, data, tiny_clip, tmp_path, "cuda", PRECISION=precision)
    assert len(waiting_is_an_error) == STEPS
    assert precision == "fp16" or on_gpu[-1]["skipped"] == 0  # fp16 finds its scale by skipping
    in_full, _ = trained(kind, data, tiny_clip, tmp_path / "fp32", "cuda")
    assert_same_losses(in_full, on_gpu, 0.2)


def test_compiled_training_is_near_and_nothing_runs_uncompiled(data, tiny_clip, tmp_path, capsys):
    plain, _ = trained("gan", data, tiny_clip, tmp_path / "plain", "cuda")
    compiled, _ = trained("gan", data, tiny_clip, tmp_path / "compiled", "cuda", COMPILE=True)
    assert_same_losses(plain, compiled, 2e-2)
    assert "uncompiled" not in capsys.readouterr().out


def test_an_image_is_the_cpu_s(data, tiny_clip, tmp_path):
    encoder = build_encoder(str(tiny_clip), "", 28).freeze()
    generator = GanNetworks.build(tiny_config(data, tmp_path), encoder).generator.eval()
    text = encoder.encode_text(encoder.tokenize(["a red bird", "a blue bird with long wings"]))
    noise = torch.randn(2, 5), torch.zeros(2, 6)
    on_cpu = generator(*noise, text.sentence, text.words, text.word_mask).images[-1]
    device = torch.device("cuda")
    on_device = place(copy.deepcopy(generator), device)
    parts = [part.to(device) for part in (*noise, text.sentence, text.words, text.word_mask)]
    on_gpu = on_device(*parts).images[-1]
    assert (on_gpu.cpu() - on_cpu).abs().max() < 2e-3
