"""Snapshots of generators and discriminators: what a stranger's file may not do."""

import time

import pytest
import torch

from clipgan.errors import UserError
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator
from clipgan.runs import checkpoint
from clipgan.runs.snapshots import load_discriminator, load_generator, save_discriminator, save_generator

ARCHITECTURE = {
    "gf_dim": 2, "z_dim": 3, "condition_dim": 3, "word_dim": 4, "sentence_dim": 5, "residual_num": 1, "base_size": 8,
    "branch_num": 2,
}  # fmt: skip
OF_DISCRIMINATOR = {"image_size": 16, "df_dim": 2, "sentence_dim": 5}


@pytest.fixture
def path(tmp_path):
    torch.manual_seed(0)
    path = tmp_path / "netG.pth"
    save_generator(path, Generator(**ARCHITECTURE), ARCHITECTURE, epoch=3, encoder="abc")
    return path


def test_what_is_saved_is_what_is_loaded_ready_to_be_trained(path, tmp_path):
    network = load_generator(path, ARCHITECTURE, "abc")
    saved = torch.load(path, weights_only=True)["weights"]
    assert all(torch.equal(tensor, saved[name]) for name, tensor in network.state_dict().items())
    assert all(weight.requires_grad and weight.is_leaf for weight in network.parameters())
    assert all(weight.device.type == "cpu" for weight in network.parameters())
    save_discriminator(tmp_path / "netD.pth", Discriminator(**OF_DISCRIMINATOR), OF_DISCRIMINATOR)
    discriminator = load_discriminator(tmp_path / "netD.pth", OF_DISCRIMINATOR)
    features = discriminator(torch.zeros(2, 3, 16, 16), torch.zeros(2, 5))
    assert all(torch.isfinite(logits).all() for logits in features)


def spoil(path, *keys, value=None, remove=False):
    content = torch.load(path, weights_only=True)
    inner = content
    for key in keys[:-1]:
        inner = inner[key]
    if remove:
        del inner[keys[-1]]
    else:
        inner[keys[-1]] = value
    torch.save(content, path)


@pytest.mark.parametrize("key", ["kind", "weights", "architecture"])
@pytest.mark.parametrize("value", ["nothing", None, [1, 2], 7, "text", torch.zeros(3), {}])
def test_an_entry_that_is_missing_or_of_another_kind_is_refused_by_file(path, key, value):
    spoil(path, key, value=value, remove=isinstance(value, str) and value == "nothing")
    with pytest.raises(UserError, match=r"netG\.pth") as caught:
        load_generator(path, ARCHITECTURE)
    assert len(str(caught.value)) < 490


@pytest.mark.parametrize("value", [2**40, 10**7, -1, 0, "2", 2.0, True, None, torch.zeros(2, 2)])
def test_an_architecture_other_than_the_config_s_is_refused_at_once(path, value):
    spoil(path, "architecture", "gf_dim", value=value)
    began = time.process_time()
    with pytest.raises(UserError, match=r"netG\.pth is of another architecture .*gf_dim"):
        load_generator(path, ARCHITECTURE)
    assert time.process_time() - began < 5


@pytest.mark.parametrize("value", [float("nan"), float("inf"), -float("inf")])
def test_weights_that_are_not_finite_are_refused_by_name(path, value):
    spoil(path, "weights", "heads.0.conv.weight", value=torch.full((3, 2, 3, 3), value))
    with pytest.raises(UserError, match=r"netG\.pth: heads\.0\.conv\.weight of the generator holds NaN or infinities"):
        load_generator(path, ARCHITECTURE)


def test_a_variance_below_0_is_refused(path):
    spoil(path, "weights", "first.norm.running_var", value=torch.full((256,), -1.0))
    with pytest.raises(UserError, match=r"first\.norm\.running_var of the generator holds variances below 0"):
        load_generator(path, ARCHITECTURE)


@pytest.mark.parametrize("value", [torch.zeros(2), torch.zeros(3, 2, 3, 3, dtype=torch.int64), "text",
                                   torch.zeros(3, 2, 3, 3, dtype=torch.complex64)])  # fmt: skip
def test_a_weight_of_another_shape_or_kind_is_refused_by_name(path, value):
    spoil(path, "weights", "heads.0.conv.weight", value=value)
    with pytest.raises(UserError, match=r"netG\.pth.*heads\.0\.conv\.weight|netG\.pth.*Complex"):
        load_generator(path, ARCHITECTURE)


def test_weights_missing_and_unknown_are_named_briefly(path):
    spoil(path, "weights", "x" * 5000, value=torch.zeros(1))
    with pytest.raises(UserError, match=r"netG\.pth") as caught:
        load_generator(path, ARCHITECTURE)
    assert len(str(caught.value)) < 490
    content = torch.load(path, weights_only=True)
    content["weights"] = {"a": torch.zeros(1)}
    torch.save(content, path)
    with pytest.raises(UserError, match=r"does not fit this architecture: it lacks condition.*more differences"):
        load_generator(path, ARCHITECTURE)


@pytest.mark.parametrize("names", [
    ["a", "b"], ["h_net1.upsample1000000000.1.weight"], ["h_net99999999999.residual.9999999.block.0.weight"],
    [f"layer{i}.weight" for i in range(3000)], ["img_net" + "9" * 900 + ".img.0.weight"], ["h_net2.residual.999.x"],
])  # fmt: skip
@pytest.mark.parametrize("load, arguments", [(load_generator, ARCHITECTURE), (load_discriminator, OF_DISCRIMINATOR)])
def test_a_state_dict_of_something_else_is_refused_by_file_in_one_short_line(tmp_path, names, load, arguments):
    torch.save({name: torch.zeros(1) for name in names}, tmp_path / "other.pth")
    began = time.process_time()
    with pytest.raises(UserError, match=r"other\.pth: these weights are not those of a published DM-GAN") as caught:
        load(tmp_path / "other.pth", arguments)
    assert len(str(caught.value)) < 490 and time.process_time() - began < 5


def test_half_precision_weights_become_float32(path):
    content = torch.load(path, weights_only=True)
    halves = {n: t.half() if t.is_floating_point() else t for n, t in content["weights"].items()}
    torch.save({**content, "weights": halves}, path)
    assert {weight.dtype for weight in load_generator(path, ARCHITECTURE).parameters()} == {torch.float32}


def test_the_format_is_checked(path):
    spoil(path, "format", value="clipgan 99")
    with pytest.raises(UserError, match=r"netG\.pth is no generator checkpoint of this project"):
        checkpoint.load(path, "generator", made_by="main.py")


def test_float64_weights_beyond_float32_are_refused(path):
    spoil(path, "weights", "heads.0.conv.weight", value=torch.full((3, 2, 3, 3), 1e300, dtype=torch.float64))
    with pytest.raises(UserError, match=r"netG\.pth: heads\.0\.conv\.weight of the network holds NaN or infinities"):
        load_generator(path, ARCHITECTURE)
