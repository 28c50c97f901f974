"""Training that starts from weights published for DM-GAN, whose text encoder had other widths than CLIP."""

import copy

import pytest
import torch

from clipgan.config import Config
from clipgan.data.from_config import read_split, training_set
from clipgan.data.toy import draw_toy_dataset
from clipgan.errors import UserError
from clipgan.networks.clip_encoder import build_encoder
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator
from clipgan.runs import checkpoint
from clipgan.runs.folder import RunFolder
from clipgan.runs.published import import_dmgan_discriminator, import_dmgan_generator
from clipgan.runs.snapshots import (
    load_discriminator,
    load_generator,
    save_discriminator,
    save_generator,
    start_discriminators,
    start_generator,
)
from clipgan.training import gan_loop
from clipgan.training.gan_networks import GanNetworks

# The published files of these tests have GF and DF 4, Z 10, condition 8, words and sentences 16, two residual blocks.
THEIRS = {"gf_dim": 4, "z_dim": 10, "condition_dim": 8, "word_dim": 16, "sentence_dim": 16, "residual_num": 2}
OURS = {**THEIRS, "condition_dim": 12, "word_dim": 24, "sentence_dim": 20}
OF_TEXT = ("condition.linear", "first.linear", "memory.word_gate", "memory.word_writer")  # layers of these widths
SIZES = (64, 128, 256)


@pytest.fixture
def published(golden, tmp_path):
    """The path of a published generator, with its discriminators beside it."""
    torch.save({f"module.{name}": value for name, value in golden("generator")["state"].items()}, tmp_path / "netG.pth")
    for i, size in enumerate(SIZES):
        torch.save(golden(f"discriminator{size}")["state"], tmp_path / f"netD{i}.pth")
    return tmp_path / "netG.pth"


def fresh(kind, **arguments):
    torch.manual_seed(8)
    network = kind(**arguments)
    return network, copy.deepcopy(network.state_dict())


def owner(name):
    return name.partition(".parametrizations.")[0] if "parametrizations" in name else name.rpartition(".")[0]


def assert_layers(network, before, file, stay):
    """The layers whose names end in one of ``stay`` are as before, all others as in the file, bit for bit."""
    for name, tensor in network.state_dict().items():
        kept = owner(name).endswith(stay)
        assert torch.equal(tensor, before[name] if kept else file[name]), name
        assert kept or tensor.dtype == before[name].dtype


def test_layers_that_fit_are_loaded_and_those_of_the_text_stay_fresh(published, golden, capsys):
    network, before = fresh(Generator, **OURS)
    assert start_generator(network, published, OURS) is True
    file = import_dmgan_generator(golden("generator")["state"])
    assert_layers(network, before, file, OF_TEXT)
    assert any(not torch.equal(before[name], file[name]) for name in before if name.startswith("stages.1.residual"))
    assert capsys.readouterr().out.splitlines() == [
        f"{published}, published for DM-GAN: 42 layers of the generator start from it, but not these:",
        "  condition.linear.weight: [32, 16] in the file, [48, 20] here",
        "  first.linear.weight: [2048, 18] in the file, [2048, 22] here",
        "  stages.0.memory.word_gate.weight, stages.1.memory.word_gate.weight: [1, 16] in the file, [1, 24] here",
        "  stages.0.memory.word_writer.weight, stages.1.memory.word_writer.weight: [8, 16, 1] in the file, [8, 24, 1] "
        "here",
    ]


def test_a_file_that_fits_as_a_whole_is_loaded_as_a_whole(published, golden, capsys):
    network, before = fresh(Generator, **THEIRS)
    assert start_generator(network, published, THEIRS) is True
    assert_layers(network, before, import_dmgan_generator(golden("generator")["state"]), ("nothing",))
    assert capsys.readouterr().out == f"{published}, published for DM-GAN: all layers of the generator start from it\n"
    assert all(weight.requires_grad and weight.is_leaf for weight in network.parameters())


@pytest.mark.parametrize(
    ("change", "line"),
    [
        ({"residual_num": 3}, "  stages.0.residual.2.conv1.weight, stages.1.residual.2.conv1.weight: not in the file, "
                              "[16, 8, 3, 3] here"),
        ({"residual_num": 1}, "  stages.0.residual.1.conv1.weight, stages.1.residual.1.conv1.weight: [16, 8, 3, 3] in "
                              "the file, not here"),
        ({"branch_num": 2}, "  heads.2.conv.weight: [3, 4, 3, 3] in the file, not here"),
    ],
)  # fmt: skip
def test_more_or_fewer_blocks_and_scales_are_told(published, golden, capsys, change, line):
    arguments = {**OURS, **change}
    network, before = fresh(Generator, **arguments)
    start_generator(network, published, arguments)
    assert_layers(network, before, import_dmgan_generator(golden("generator")["state"]),
                  (*OF_TEXT, *(f"residual.2.{part}" for part in ("conv1", "norm1", "conv2", "norm2"))))  # fmt: skip
    assert line in capsys.readouterr().out.splitlines()


def test_half_of_a_layer_is_no_layer(published, golden):
    """A bias without its weight, and a norm without its statistics, are not taken."""
    state = golden("generator")["state"]
    for name in ("h_net2.key.0.weight", "h_net3.upsample.2.running_var"):
        del state[name]
    torch.save(state, published)
    network, before = fresh(Generator, **OURS)
    start_generator(network, published, OURS)
    file = {**before, **import_dmgan_generator(state, whole=False)}
    for name, tensor in network.state_dict().items():
        if owner(name) in ("stages.0.memory.key", "stages.1.up.norm"):
            assert torch.equal(tensor, before[name]), name
    assert_layers(network, before, file, (*OF_TEXT, "stages.0.memory.key", "stages.1.up.norm"))


def test_weights_of_other_types_become_those_of_the_network(published, golden):
    state = golden("generator")["state"]
    doubled = {name: value.double() if value.is_floating_point() else value for name, value in state.items()}
    torch.save(doubled, published)
    network, before = fresh(Generator, **OURS)
    start_generator(network, published, OURS)
    assert_layers(network, before, import_dmgan_generator(state), OF_TEXT)
    state["img_net1.img.0.weight"] = torch.full((3, 4, 3, 3), 1e300, dtype=torch.float64)
    torch.save(state, published)
    with pytest.raises(UserError, match=r"netG\.pth: heads\.0\.conv\.weight of the network holds NaN or infinities"):
        start_generator(network, published, OURS)


def test_a_file_of_which_nothing_fits_is_an_error_and_changes_nothing(published, golden):
    arguments = {**OURS, "gf_dim": 6}
    network, before = fresh(Generator, **arguments)
    expected = r"netG\.pth has no layer that fits this config: .*GAN\.GF_DIM is 4$"
    with pytest.raises(UserError, match=expected) as refused:
        start_generator(network, published, arguments)
    assert len(str(refused.value)) < 490
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    with pytest.raises(UserError, match=r"netG\.pth: these weights are not those of a published DM-GAN generator"):
        torch.save({**golden("generator")["state"], "encoder.weight": torch.zeros(1)}, published)
        start_generator(network, published, arguments)
    torch.save({}, published)
    with pytest.raises(UserError, match=r"netG\.pth has no layer that fits this config"):
        start_generator(network, published, arguments)


def test_evaluation_takes_a_published_file_only_as_a_whole(published):
    with pytest.raises(UserError, match=r"does not fit this architecture: it has condition\.linear\.weight as \[32,"):
        load_generator(published, OURS)
    with pytest.raises(UserError, match="does not fit this architecture"):
        load_discriminator(published.with_name("netD0.pth"), {"image_size": 64, "df_dim": 4, "sentence_dim": 20})
    load_generator(published, THEIRS)
    state = torch.load(published, weights_only=True)
    del state["module.h_net2.key.0.weight"]
    torch.save(state, published)
    with pytest.raises(UserError, match=r"published DM-GAN generator \(missing: h_net2\.key\.0\.weight\)"):
        load_generator(published, THEIRS)


def test_a_snapshot_of_this_project_must_fit_also_as_a_start(tmp_path):
    save_generator(tmp_path / "netG.pth", fresh(Generator, **THEIRS)[0], THEIRS)
    network, before = fresh(Generator, **OURS)
    with pytest.raises(UserError, match=r"of another architecture .*condition_dim 8, not 12"):
        start_generator(network, tmp_path / "netG.pth", OURS)
    assert all(torch.equal(value, before[name]) for name, value in network.state_dict().items())
    ours, _ = fresh(Generator, **THEIRS)
    with torch.no_grad():
        ours.heads[0].conv.weight.add_(1)
    save_generator(tmp_path / "netG.pth", ours, THEIRS)
    network, _ = fresh(Generator, **THEIRS)
    assert start_generator(network, tmp_path / "netG.pth", THEIRS) is False
    assert all(map(torch.equal, network.state_dict().values(), ours.state_dict().values()))


def of_discriminators(sentence_dim=20, df_dim=4):
    arguments = [{"image_size": size, "df_dim": df_dim, "sentence_dim": sentence_dim} for size in SIZES]
    made = [fresh(Discriminator, **each) for each in arguments]
    return [network for network, _ in made], [before for _, before in made], arguments


def test_discriminators_keep_the_layer_that_joins_image_and_sentence(published, golden, capsys):
    networks, befores, arguments = of_discriminators()
    start_discriminators(networks, published, arguments, published=True)
    for size, network, before in zip(SIZES, networks, befores, strict=True):
        file = import_dmgan_discriminator(golden(f"discriminator{size}")["state"])
        assert_layers(network, before, file, ("joint.0",))
    path = published.with_name("netD2.pth")
    assert capsys.readouterr().out.splitlines()[-2:] == [
        f"{path}, published for DM-GAN: 10 layers of the discriminator start from it, but not these:",
        "  joint.0.weight: [32, 48, 3, 3] in the file, [32, 52, 3, 3] here",
    ]


def test_discriminators_missing_beside_a_published_generator_start_afresh(published, golden, capsys):
    path = published.with_name("netD1.pth")
    path.unlink()
    networks, befores, arguments = of_discriminators(sentence_dim=16)
    start_discriminators(networks, published, arguments, published=True)
    assert all(torch.equal(value, befores[1][name]) for name, value in networks[1].state_dict().items())
    file = import_dmgan_discriminator(golden("discriminator256")["state"])
    assert_layers(networks[2], befores[2], file, ("nothing",))
    out = capsys.readouterr().out
    assert f"no discriminator at {path}: it starts afresh" in out and out.count("all layers of the discriminator") == 2
    with pytest.raises(UserError, match=r"no discriminator checkpoint at .*netD1\.pth.*TRAIN\.B_NET_D to False"):
        start_discriminators(networks, published, arguments, published=False)


def test_discriminators_of_which_nothing_fits_or_of_another_kind_are_an_error(published, golden):
    networks, _, arguments = of_discriminators(df_dim=6)
    with pytest.raises(UserError, match=r"netD0\.pth has no layer that fits this config: .*GAN\.DF_DIM is 4$"):
        start_discriminators(networks, published, arguments, published=True)
    # without spectral normalisation it is another network
    state = golden("discriminator64")["state"].items()
    plain = {name.replace(".module.weight_bar", ".weight").replace(".module", ""): value for name, value in state
             if not name.endswith(("_u", "_v"))}  # fmt: skip
    torch.save(plain, published.with_name("netD0.pth"))
    with pytest.raises(UserError, match=r"netD0\.pth: these weights are not those of a published DM-GAN discriminator"):
        start_discriminators(networks, published, arguments, published=True)
    save_discriminator(published.with_name("netD0.pth"), fresh(Discriminator, **arguments[1])[0], arguments[1])
    with pytest.raises(UserError, match=r"netD0\.pth is of another architecture .*image_size 128, not 64"):
        start_discriminators(networks, published, arguments, published=True)


def test_a_training_run_starts_from_a_published_file(published, golden, tmp_path, tiny_clip, capsys):
    """Two steps from DM-GAN's weights, with a CLIP whose words (16) and sentences (24) are not DM-GAN's."""
    draw_toy_dataset(tmp_path / "data", "birds", train=16, test=8, size=64, seed=3)
    config = Config(DATA_DIR=str(tmp_path / "data"), OUTPUT_DIR=str(tmp_path / "output"), WORKERS=0)
    config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 64, 1
    config.TRAIN.BATCH_SIZE, config.TRAIN.MAX_STEPS, config.TRAIN.NET_G = 4, 2, str(published)
    config.GAN.GF_DIM = config.GAN.DF_DIM = 4
    config.GAN.CONDITION_DIM, config.GAN.Z_DIM = 6, 10
    torch.manual_seed(0)
    encoder = build_encoder(str(tiny_clip), "", 28).freeze()
    networks = GanNetworks.build(config, encoder)
    networks.load(config)
    file = import_dmgan_generator(golden("generator")["state"])
    start = {name: value for name, value in networks.generator.state_dict().items() if name.startswith("first.up")}
    assert start and all(torch.equal(value, file[name]) for name, value in start.items())
    out = capsys.readouterr().out
    assert "condition.linear.weight: [32, 16] in the file, [24, 24] here" in out and "joint.0.weight" in out
    dataset = training_set(config, read_split(config, "train"), config.image_sizes, encoder.tokenize)
    last = gan_loop.train_gan(config, networks, encoder, dataset, torch.device("cpu"), RunFolder.create(config))
    trained = checkpoint.load(last, "generator", made_by="main.py")["weights"]
    assert any(not torch.equal(trained[name], value) for name, value in start.items())
    assert all((trained[name] - value).abs().max() < 0.05 for name, value in start.items() if name.endswith("weight"))
