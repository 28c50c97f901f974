"""The GAN's training loop, as a whole: what each of its updates may touch."""

import copy

import pytest
import torch

from clipgan.config import Config
from clipgan.data.from_config import data_fingerprint, read_split, training_set
from clipgan.data.toy import draw_toy_dataset
from clipgan.errors import UserError
from clipgan.machine import distributed
from clipgan.networks.clip_encoder import build_encoder
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.folder import RunFolder
from clipgan.training import gan_loop
from clipgan.training.ema import EMA
from clipgan.training.gan_networks import GanNetworks
from clipgan.training.trained_network import TrainedNetwork

CPU = torch.device("cpu")


@pytest.fixture
def setting(tmp_path, tiny_clip):
    """Config, networks, encoder, training set and folder of a run of two steps."""
    draw_toy_dataset(tmp_path / "data", "birds", train=16, test=8, size=32, seed=3)
    config = Config(DATA_DIR=str(tmp_path / "data"), OUTPUT_DIR=str(tmp_path / "output"), WORKERS=0)
    config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 8, 2
    config.TRAIN.BATCH_SIZE, config.TRAIN.MAX_STEPS = 4, 2
    config.GAN.GF_DIM, config.GAN.DF_DIM, config.GAN.CONDITION_DIM, config.GAN.Z_DIM = 4, 2, 6, 5
    torch.manual_seed(0)
    encoder = build_encoder(str(tiny_clip), "", 28).freeze()
    dataset = training_set(config, read_split(config, "train"), config.image_sizes, encoder.tokenize)
    return config, GanNetworks.build(config, encoder), encoder, dataset, CPU, RunFolder.create(config)


def test_each_update_changes_its_own_network_and_leaves_no_gradient_behind(setting, monkeypatch):
    networks, encoder = setting[1:3]
    updated, update, average = [], TrainedNetwork.update, EMA.update
    before = copy.deepcopy(encoder.state_dict())

    def watched(self, loss):
        others = [network for network in (networks.generator, *networks.discriminators) if network is not self.network]
        weights = [parameter.detach().clone() for network in others for parameter in network.parameters()]
        own = [parameter.detach().clone() for parameter in self.network.parameters()]
        update(self, loss)
        assert all(map(torch.equal, weights, [p for network in others for p in network.parameters()]))
        assert not all(map(torch.equal, own, self.network.parameters()))
        updated.append(self.network)

    def after_all_updates(self, network, *made):
        every = [*networks.generator.parameters(), *networks.discriminators.parameters(), *encoder.parameters()]
        assert all(parameter.grad is None for parameter in every)
        average(self, network, *made)

    monkeypatch.setattr(TrainedNetwork, "update", watched)
    monkeypatch.setattr(EMA, "update", after_all_updates)
    gan_loop.train_gan(*setting)
    assert updated == 2 * [*networks.discriminators, networks.generator]
    assert all(torch.equal(value, before[name]) for name, value in encoder.state_dict().items())


def test_a_snapshot_tells_data_and_encoder_of_its_training(setting):
    content = torch.load(gan_loop.train_gan(*setting), weights_only=True)
    assert content["data"] == data_fingerprint(setting[3].examples) and content["encoder"] == fingerprint(setting[2])
    assert content["config"]["TRAIN"]["MAX_STEPS"] == setting[0].TRAIN.MAX_STEPS


def test_power_iterations_are_made_in_the_discriminators_updates_only(setting, monkeypatch):
    networks, update, moved = setting[1], TrainedNetwork.update, []

    def vectors():
        return [buffer.clone() for name, buffer in networks.discriminators.named_buffers() if name.endswith("_u")]

    last = [vectors()]

    def watched(self, loss):
        now = vectors()
        moved.append(any(not torch.equal(a, b) for a, b in zip(now, last[0], strict=True)))
        last[0] = now
        update(self, loss)

    monkeypatch.setattr(TrainedNetwork, "update", watched)
    gan_loop.train_gan(*setting)
    assert moved == 2 * [True, True, False]


def test_both_views_of_an_image_have_the_same_noise_and_no_two_images_or_steps_do():
    config = Config()
    config.TRAIN.BATCH_SIZE, config.GAN.Z_DIM, config.GAN.CONDITION_DIM = 3, 4, 5
    noise, condition_noise = gan_loop.noise_of_step(config, 7, CPU)
    assert noise.shape == (6, 4) and condition_noise.shape == (6, 5)
    assert torch.equal(noise[:3], noise[3:]) and torch.equal(condition_noise[:3], condition_noise[3:])
    every = torch.cat([noise[:3], gan_loop.noise_of_step(config, 8, CPU)[0][:3]])
    assert len(every.unique(dim=0)) == 6
    assert torch.equal(gan_loop.noise_of_step(config, 7, CPU)[0], noise)


def test_the_processes_shares_of_a_batch_s_noise_are_the_noise_of_the_batch(monkeypatch):
    config = Config()
    config.TRAIN.BATCH_SIZE = 6
    whole = gan_loop.noise_of_step(config, 3, CPU)[0][:6]
    monkeypatch.setenv("WORLD_SIZE", "3")
    shares = []
    for rank in range(3):
        monkeypatch.setenv("RANK", str(rank))
        assert distributed.rank() == rank
        shares.append(gan_loop.noise_of_step(config, 3, CPU)[0][:2])
    assert torch.equal(torch.cat(shares), whole)


def test_networks_that_do_not_fit_into_the_memory_are_refused_before_they_are_made(tiny_clip):
    config = Config()
    config.GAN.GF_DIM, config.GAN.CONDITION_DIM = 1024, 16384
    encoder = build_encoder(str(tiny_clip), "", 28)
    state = torch.get_rng_state()
    with pytest.raises(UserError, match=r"would need \d+ GB, and this machine has \d+: lower GAN\.GF_DIM"):
        GanNetworks.build(config, encoder)
    assert torch.equal(state, torch.get_rng_state())  # measuring draws no random number


def test_a_wrong_sentence_equal_to_one_of_the_image_s_captions_is_not_wrong():
    ids = torch.tensor([[1, 2], [2, 3], [4, 5], [6, 4]])
    sentences, pairs, not_wrong = gan_loop.wrong_pairs_of(torch.randn(8, 3), ids)
    assert [len(view) for view in sentences] == [3, 3] and pairs == 3
    assert [view.tolist() for view in not_wrong] == [[True, False, False], [False, False, True]]
    assert gan_loop.wrong_pairs_of(torch.randn(8, 3))[2] is None


def test_the_discriminators_meet_real_and_generated_images_changed(setting, monkeypatch):
    config = setting[0]
    config.TRAIN.DIFFAUG, config.TRAIN.MAX_STEPS = ["cutout"], 1
    seen = {"discriminator_loss": [], "generator_loss": []}
    for name, images in seen.items():
        loss = getattr(gan_loop, name)

        def watched(discriminator, first, second, *others, loss=loss, images=images):
            images.extend([first, *second] if isinstance(second, list | tuple) else [first])
            return loss(discriminator, first, second, *others)

        monkeypatch.setattr(gan_loop, name, watched)
    gan_loop.train_gan(*setting)
    assert list(map(len, seen.values())) == [2 * 3, 2]
    for images in seen["discriminator_loss"] + seen["generator_loss"]:
        hidden = (images == 0).all(dim=1).sum(dim=(1, 2))  # pixels of each image
        assert (hidden >= images.shape[-1] ** 2 // 16).all()


def test_a_gradient_penalty_is_due_at_every_kth_step_and_weighs_k_times_there(setting, monkeypatch):
    config = setting[0]
    penalty = config.TRAIN.GRADIENT_PENALTY
    penalty.KIND, penalty.WEIGHT, penalty.EVERY, config.TRAIN.MAX_STEPS = "r1", 3.0, 2, 3
    losses, update = [], TrainedNetwork.update
    monkeypatch.setitem(gan_loop.PENALTIES, "r1", lambda *_: torch.tensor(1000.0))
    monkeypatch.setattr(TrainedNetwork, "update", lambda self, loss: (losses.append(loss.item()), update(self, loss)))
    gan_loop.train_gan(*setting)
    assert [round(loss, -3) for loss in losses] == [6000, 6000, 0, 0, 0, 0, 6000, 6000, 0]


def test_options_that_are_off_leave_the_discriminators_loss_as_it_is():
    assert gan_loop.gradient_penalty(Config(), 0, None, None, None) == 0.0
