"""Published DM-GAN weights: every name finds its place, and what is not such a file is refused by name."""

import pytest
import torch

from clipgan.errors import UserError
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator
from clipgan.runs.published import import_dmgan_discriminator, import_dmgan_generator

KINDS = [
    ("generator", import_dmgan_generator),
    ("discriminator64", import_dmgan_discriminator),
    ("discriminator256", import_dmgan_discriminator),
]
every_kind = pytest.mark.parametrize(("name", "import_weights"), KINDS)


def build(name):
    if name == "generator":
        return Generator(gf_dim=4, z_dim=10, condition_dim=8, word_dim=16, sentence_dim=16, residual_num=2)
    return Discriminator(int(name.removeprefix("discriminator")), df_dim=4, sentence_dim=16)


@every_kind
def test_every_published_weight_is_taken_over_unchanged(golden, name, import_weights):
    state = golden(name)["state"]
    imported = import_weights(state)
    assert sorted(map(id, imported.values())) == sorted(map(id, state.values()))
    build(name).load_state_dict(imported)  # strict: our names, all of them


@every_kind
def test_the_prefix_of_data_parallel_training_is_accepted(golden, name, import_weights):
    state = golden(name)["state"]
    prefixed = import_weights({f"module.{key}": tensor for key, tensor in state.items()})
    plain = import_weights(state)
    assert prefixed.keys() == plain.keys()
    assert all(tensor is plain[key] for key, tensor in prefixed.items())


@every_kind
def test_unknown_and_missing_names_are_listed(golden, name, import_weights):
    state = golden(name)["state"]
    missing = next(key for key in state if key.endswith("weight"))
    kind = name.rstrip("0123456789")
    with pytest.raises(UserError, match=rf"published DM-GAN {kind} \(unknown: encoder.extra\)"):
        import_weights({**state, "encoder.extra": state[missing]})
    tensor = state.pop(missing)
    with pytest.raises(UserError, match=rf"published DM-GAN {kind} \(missing: {missing}\)"):
        import_weights(state)
    with pytest.raises(UserError, match=rf"\(unknown: encoder.extra, encoder.more; missing: {missing}\)"):
        import_weights({**state, "encoder.more": tensor, "encoder.extra": tensor})


@every_kind
def test_a_file_of_something_else_gets_a_short_complaint(name, import_weights):
    other = {f"layer{i:03}.weight": torch.zeros(1) for i in range(100)}
    with pytest.raises(UserError) as caught:
        import_weights(other)
    message = str(caught.value)
    assert "unknown: layer000.weight, layer001.weight" in message and "92 more" in message
    assert "\n" not in message and len(message) < 1000


@pytest.mark.parametrize("scales", [1, 2])
def test_a_generator_of_fewer_scales_is_recognised(golden, scales):
    state = golden("generator")["state"]
    dropped = tuple(f"{kind}{scale}." for kind in ("h_net", "img_net") for scale in range(scales + 1, 4))
    smaller = {key: tensor for key, tensor in state.items() if not key.startswith(dropped)}
    generator = Generator(4, 10, 8, 16, 16, residual_num=2, branch_num=scales)
    generator.load_state_dict(import_dmgan_generator(smaller))


def test_a_generator_with_fewer_residual_blocks_is_recognised(golden):
    state = golden("generator")["state"]
    smaller = {key: tensor for key, tensor in state.items() if ".residual.1." not in key}
    Generator(4, 10, 8, 16, 16, residual_num=1).load_state_dict(import_dmgan_generator(smaller))


def test_files_from_before_batch_norm_counted_its_batches_are_accepted(golden):
    state = golden("generator")["state"]
    old = {key: tensor for key, tensor in state.items() if not key.endswith("num_batches_tracked")}
    generator = build("generator")
    generator.load_state_dict(import_dmgan_generator(old))
    assert len(old) < len(state)


def test_the_published_discriminators_load_into_their_own_size_only(golden):
    imported = import_dmgan_discriminator(golden("discriminator128")["state"])
    build("discriminator128").load_state_dict(imported)
    with pytest.raises(RuntimeError, match=r"Missing key|size mismatch"):
        build("discriminator256").load_state_dict(imported)
