"""What is not finite never reaches a weight, in either loop; ten such steps in a row end the run."""

import copy
import json
import math

import pytest
import torch

from clipgan.config import Config
from clipgan.data.from_config import read_split, training_set
from clipgan.data.toy import draw_toy_dataset
from clipgan.errors import UserError
from clipgan.machine.precision import Precision
from clipgan.networks.clip_encoder import build_encoder
from clipgan.runs.folder import RunFolder
from clipgan.runs.state import newest_state, read_state
from clipgan.training import damsm_loop, gan_loop
from clipgan.training.ema import EMA
from clipgan.training.gan_networks import GanNetworks
from clipgan.training.guard import PATIENCE, Guard
from clipgan.training.trained_network import TrainedNetwork

CPU = torch.device("cpu")
NAN, INF = float("nan"), float("inf")


class Runs:
    """Small runs of both loops, into whose losses a test puts what is not finite."""

    def __init__(self, folder, clip, monkeypatch):
        self.folder, self.clip, self.patch = folder, clip, monkeypatch
        draw_toy_dataset(folder / "data", "birds", train=16, test=8, size=32, seed=3)

    def config(self, steps: int, name: str) -> Config:
        config = Config(DATA_DIR=str(self.folder / "data"), OUTPUT_DIR=str(self.folder / name), WORKERS=0)
        config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 8, 2
        config.TRAIN.BATCH_SIZE, config.TRAIN.MAX_STEPS, config.TRAIN.STATE_INTERVAL = 4, steps, 1e-9
        config.GAN.GF_DIM, config.GAN.DF_DIM, config.GAN.CONDITION_DIM, config.GAN.Z_DIM = 4, 2, 6, 5
        return config

    def spoil(self, module, name: str, bad: dict[int, float], key: str | None = None, calls_a_step: int = 1) -> None:
        """Let a loss be multiplied by a number at the given steps."""
        original = getattr(module, name)

        def spoiled(*arguments):
            losses = original(*arguments)
            self.calls += 1
            factor = bad.get(math.ceil(self.calls / calls_a_step), 1.0)
            return losses * factor if key is None else {**losses, key: losses[key] * factor}

        self.patch.setattr(module, name, spoiled)

    def gan(self, steps: int, name: str = "gan") -> RunFolder:
        config, self.calls = self.config(steps, name), 0
        torch.manual_seed(0)
        encoder = build_encoder(str(self.clip), "", 28).freeze()
        dataset = training_set(config, read_split(config, "train"), config.image_sizes, encoder.tokenize)
        folder = RunFolder.create(config)
        gan_loop.train_gan(config, GanNetworks.build(config, encoder), encoder, dataset, CPU, folder)
        return folder

    def damsm(self, steps: int, name: str = "damsm", **keys: float) -> RunFolder:
        config, self.calls = self.config(steps, name), 0
        config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 32, 1
        for key, value in keys.items():
            setattr(config.TRAIN, key, value)
        torch.manual_seed(0)
        encoder = build_encoder(str(self.clip), "", 28)
        dataset = training_set(config, read_split(config, "train"), [32], encoder.tokenize)
        folder = RunFolder.create(config)
        damsm_loop.pretrain(config, encoder, dataset, CPU, folder, lambda *_: {"r1": 0.5})
        return folder


@pytest.fixture
def runs(tmp_path, tiny_clip, monkeypatch):
    return Runs(tmp_path, tiny_clip, monkeypatch)


def states_of(folder: RunFolder) -> list[dict]:
    return [read_state(path)["trained"] for path in folder.state_files]


def equal(one, two) -> bool:
    if torch.is_tensor(one):
        return torch.equal(one, two)
    if isinstance(one, dict):
        return one.keys() == two.keys() and all(equal(one[key], two[key]) for key in one)
    if isinstance(one, list):
        return len(one) == len(two) and all(map(equal, one, two))
    return one == two


@pytest.mark.parametrize("value", [NAN, INF])
def test_a_generator_s_loss_that_is_not_finite_changes_nothing_of_it(runs, value):
    runs.spoil(gan_loop, "generator_losses", {2: value}, "loss_g")
    before, after = states_of(runs.gan(2))
    assert equal(before["generator"], after["generator"]) and equal(before["average"], after["average"])
    assert after["guard"] == {"skipped": 1, "in_a_row": 1}
    third = states_of(runs.gan(3, "gan3"))[-1]
    assert third["guard"]["skipped"] == 1
    steps = {int(moments["step"]) for moments in third["generator"]["optimizer"]["state"].values()}
    assert steps == {2} and third["average"]["updates"] == 2
    assert third["generator"]["network"]["first.norm.num_batches_tracked"] == 2
    assert all(torch.isfinite(tensor).all() for tensor in third["generator"]["network"].values())
    discriminator = third["discriminator 0"]["optimizer"]["state"][0]
    assert int(discriminator["step"]) == 3  # its loss was finite


def test_a_discriminator_s_loss_that_is_not_finite_skips_the_rest_of_its_step(runs):
    runs.spoil(gan_loop, "discriminator_loss", {2: NAN}, calls_a_step=2)
    trained = states_of(runs.gan(3))[-1]
    for name in ("discriminator 0", "discriminator 1", "generator"):
        assert {int(moments["step"]) for moments in trained[name]["optimizer"]["state"].values()} == {2}, name
    assert trained["guard"]["skipped"] == 1 and trained["average"]["updates"] == 2


def test_a_skipped_step_of_pretraining_moves_neither_weights_nor_schedule(runs):
    runs.spoil(damsm_loop, "compare", {2: NAN}, "loss")
    folder = runs.damsm(4)
    lines = [json.loads(line) for line in folder.metrics.read_text().splitlines()]
    trained = states_of(folder)[-1]
    assert {int(moments["step"]) for moments in trained["optimizer"]["state"].values()} == {3}
    assert trained["guard"]["skipped"] == 1 and lines[0]["skipped"] == 1 and math.isfinite(lines[0]["loss"])
    # Of 4 steps the third that was made had the rate of step 2, counted from 0.
    rate = damsm_loop.learning_rates(runs.config(4, "x"), 2, 4)
    groups = trained["optimizer"]["param_groups"]
    assert [group["lr"] for group in groups] == list(rate.values())


@pytest.mark.parametrize("loop", ["gan", "damsm"])
def test_ten_steps_in_a_row_end_the_run_and_leave_the_last_good_state(runs, loop):
    bad = dict.fromkeys(range(3, 99), NAN)
    if loop == "gan":
        runs.spoil(gan_loop, "generator_losses", bad, "loss_g")
    else:
        runs.spoil(damsm_loop, "compare", bad, "loss")
    with pytest.raises(UserError, match=r"10 steps in a row, the last of them step 12; .*step_00000002.*lower TRAIN"):
        getattr(runs, loop)(40)
    folder = RunFolder.of(runs.config(40, loop))
    path, content = newest_state(folder)
    assert path.name == "step_00000002.pt" and content["position"]["step"] == 2
    assert not list(folder.models.glob("*.pth")) or loop == "damsm"


def test_steps_that_are_not_in_a_row_do_not_end_it(runs):
    runs.spoil(gan_loop, "generator_losses", {step: NAN for step in range(40) if step % PATIENCE}, "loss_g")
    assert states_of(runs.gan(20))[-1]["guard"]["skipped"] == 18


def test_a_learning_rate_that_destroys_the_weights_ends_the_run_or_leaves_finite_files_only(runs):
    try:
        runs.damsm(30, BACKBONE_LR=100.0, LINEAR_LR=100.0, RNN_GRAD_CLIP=1e6)
    except UserError as error:
        assert "not finite" in str(error)
    folder = RunFolder.of(runs.config(30, "damsm"))
    for path in (*folder.state_files, *folder.models.glob("*.pth")):
        content = torch.load(path, weights_only=True)
        weights = content.get("weights") or content["trained"]["encoder"]
        assert all(torch.isfinite(weight).all() for weight in weights.values())


@pytest.mark.parametrize("overflow", ["in the statistics", "in the gradient"])
def test_an_overflow_of_fp16_leaves_optimizer_statistics_and_average(tmp_path, overflow):
    class Scaled(Precision):
        def scaler(self):
            return torch.amp.GradScaler("cpu", init_scale=4.0)

    network = torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))
    guard = Guard(CPU, RunFolder(tmp_path), "lower it")
    trained, average = TrainedNetwork(network, 0.1, Scaled("fp32", CPU), guard, "loss_g"), EMA(network, 0.9)

    def step(number, images, factor=1.0):
        guard.begin(network)
        trained.update(trained(images).square().sum() * factor)
        average.update(network, guard.end(number))

    step(1, torch.randn(4, 3))
    before = copy.deepcopy((trained.state_dict(), average.state_dict()))
    if overflow == "in the statistics":
        step(2, torch.randn(4, 3) * 1e38)  # the variance is infinite, and the output finite
    else:
        step(2, torch.randn(4, 3), factor=1e38)  # the scaled loss is infinite, the loss itself is not
    after = trained.state_dict(), average.state_dict()
    assert after[0]["scaler"]["scale"] == (4.0 if overflow == "in the statistics" else 2.0)
    for part in ("network", "optimizer"):
        assert equal(before[0][part], after[0][part])
    assert equal(before[1], after[1]) and guard.skipped == 1
    step(3, torch.randn(4, 3))
    assert guard.skipped == 1 and not equal(before[0]["network"], trained.state_dict()["network"])


def test_the_host_reads_nothing_between_the_lines_of_the_log(tmp_path, monkeypatch):
    guard = Guard(torch.device("meta"), RunFolder(tmp_path), "")
    looked = []
    monkeypatch.setattr(Guard, "look", lambda self: looked.append(len(self._unread)))
    for step in range(1, 21):
        guard.begin()
        guard.allow("loss", torch.zeros((), device="meta"), torch.zeros((), device="meta"))
        guard.end(step)
    assert looked == [10, 20]
