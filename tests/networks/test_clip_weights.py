"""CLIP's weights from files: every layout gives open_clip's own numbers, and what does not fit is one line."""

import copy
import math
import pickle
import zipfile

import open_clip
import pytest
import torch
from open_clip import OPENAI_DATASET_MEAN as OPENAI_MEAN
from open_clip import OPENAI_DATASET_STD as OPENAI_STD
from tiny_clips import TINY, assert_same_numbers, changed, json_file, open_clips

from clipgan.errors import UserError
from clipgan.networks.clip_encoder import ClipEncoder, EncoderSpec, build_encoder
from clipgan.runs.snapshots import load_encoder, save_encoder


def as_transformers_names_them(clip):
    """The layout of transformers' CLIPModel."""
    state = {}
    towers = (("text_model", "", clip.transformer), ("vision_model", "visual.", clip.visual.transformer))
    ours = clip.state_dict()
    outside = {
        "text_model.embeddings.token_embedding.weight": "token_embedding.weight",
        "text_model.embeddings.position_embedding.weight": "positional_embedding",
        "text_model.final_layer_norm.weight": "ln_final.weight",
        "text_model.final_layer_norm.bias": "ln_final.bias",
        "vision_model.embeddings.class_embedding": "visual.class_embedding",
        "vision_model.embeddings.patch_embedding.weight": "visual.conv1.weight",
        "vision_model.embeddings.position_embedding.weight": "visual.positional_embedding",
        "vision_model.pre_layrnorm.weight": "visual.ln_pre.weight",
        "vision_model.pre_layrnorm.bias": "visual.ln_pre.bias",
        "vision_model.post_layernorm.weight": "visual.ln_post.weight",
        "vision_model.post_layernorm.bias": "visual.ln_post.bias",
        "logit_scale": "logit_scale",
    }
    state = {theirs: ours[name].clone() for theirs, name in outside.items()}
    state["text_projection.weight"] = ours["text_projection"].T.contiguous()
    state["visual_projection.weight"] = ours["visual.proj"].T.contiguous()
    state["text_model.embeddings.position_ids"] = torch.arange(20)[None]
    for tower, prefix, transformer in towers:
        for number in range(len(transformer.resblocks)):
            old, new = f"{prefix}transformer.resblocks.{number}", f"{tower}.encoder.layers.{number}"
            for part in ("weight", "bias"):
                for letter, value in zip("qkv", ours[f"{old}.attn.in_proj_{part}"].chunk(3), strict=True):
                    state[f"{new}.self_attn.{letter}_proj.{part}"] = value.clone()
                for one, two in (
                    ("attn.out_proj", "self_attn.out_proj"), ("ln_1", "layer_norm1"), ("ln_2", "layer_norm2"),
                    ("mlp.c_fc", "mlp.fc1"), ("mlp.c_proj", "mlp.fc2"),
                ):  # fmt: skip
                    state[f"{new}.{two}.{part}"] = ours[f"{old}.{one}.{part}"].clone()
    return state


def prefixed(state, prefix):
    return {prefix + name: value for name, value in state.items()}


LAYOUTS = {
    "plain": lambda state: state,
    "state_dict": lambda state: {"epoch": 3, "state_dict": prefixed(state, "module."), "optimizer": {"state": {}}},
    "model": lambda state: {"model": state, "args": {"lr": 1e-3}},
    "lightning": lambda state: {
        "state_dict": {**prefixed(state, "model."), "loss.weight": torch.ones(3)},
        "pytorch-lightning_version": "2.1", "hyper_parameters": {"a": 1}, "callbacks": {},
    },
    "compiled": lambda state: prefixed(state, "_orig_mod."),
    "several prefixes": lambda state: {"state_dict": prefixed(state, "model.clip.module.")},
    "with OpenAI's extra numbers": lambda state: {
        **state, "input_resolution": torch.tensor(32), "context_length": torch.tensor(20), "vocab_size": torch.tensor(9)
    },
    "without the scale": lambda state: {name: value for name, value in state.items() if name != "logit_scale"},
    "scale of one dimension": lambda state: {**state, "logit_scale": state["logit_scale"][None]},
    "with a bias": lambda state: {**state, "logit_bias": torch.tensor(-10.0)},
    "text tower apart": lambda state: {
        name if name.startswith(("visual", "logit")) else f"text.{name}": value for name, value in state.items()
    },
    "average beside it": lambda state: {
        "model": state, "model_ema": {name: value + 1 for name, value in state.items()}
    },
}  # fmt: skip


@pytest.mark.parametrize("layout", LAYOUTS)
def test_every_layout_gives_open_clips_numbers(tmp_path, clip, layout):
    torch.save(LAYOUTS[layout](copy.deepcopy(clip.state_dict())), tmp_path / "w.pt")
    encoder = build_encoder(json_file(tmp_path), str(tmp_path / "w.pt"), 12)
    assert_same_numbers(encoder, clip)
    expected = math.log(1 / 0.07) if layout == "without the scale" else clip.logit_scale.item()
    assert encoder.clip.logit_scale.item() == pytest.approx(expected)


@pytest.mark.parametrize("kind", ["safetensors", "safetensors named .bin", "pickle"])
@pytest.mark.parametrize("prefix", ["", "clip."])
def test_the_layout_of_transformers_gives_the_same_numbers(tmp_path, clip, kind, prefix):
    state, path = prefixed(as_transformers_names_them(clip), prefix), str(tmp_path / "model.bin")
    if kind == "pickle":
        torch.save(state, path)
    else:
        path = path if "bin" in kind else str(tmp_path / "model.safetensors")
        pytest.importorskip("safetensors.torch").save_file(state, path)
    assert_same_numbers(build_encoder(json_file(tmp_path), path, 12), clip)


def test_the_layout_of_transformers_is_that_of_its_own_model(clip):
    transformers = pytest.importorskip("transformers")
    text = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
            "max_position_embeddings": 20}  # fmt: skip
    vision = {"hidden_size": 32, "intermediate_size": 128, "num_hidden_layers": 2, "num_attention_heads": 2,
              "image_size": 32, "patch_size": 8}  # fmt: skip
    with torch.device("meta"):
        model = transformers.CLIPModel(
            transformers.CLIPConfig(text_config=text, vision_config=vision, projection_dim=24)
        )
    theirs = {name: value.shape for name, value in model.state_dict().items()}
    ours = {name: value.shape for name, value in as_transformers_names_them(clip).items()}
    assert {name: shape for name, shape in ours.items() if "position_ids" not in name} == theirs


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
def test_a_torchscript_archive_is_read_without_running_it_and_is_quick_gelu(tmp_path, clip):
    images, tokens = torch.zeros(1, 3, 32, 32), torch.zeros(1, 20, dtype=torch.long)
    torch.jit.trace(clip, (images, tokens), check_trace=False).save(str(tmp_path / "w.pt"))
    encoder = build_encoder(json_file(tmp_path, changed(quick_gelu=...)), str(tmp_path / "w.pt"), 12)
    assert encoder.spec.model["quick_gelu"] is True
    assert encoder.spec.image_mean == OPENAI_MEAN
    assert_same_numbers(encoder, clip)


@pytest.mark.parametrize(
    "config",
    [
        changed(custom_text=True), changed(text={"proj_bias": True}), changed(quick_gelu=False),
        changed(vision={"pos_embed_type": "sin_cos_2d"}), changed(vision={"attentional_pool": True}),
        changed(vision={"pool_type": "avg", "final_ln_after_pool": True, "no_ln_pre": True}),
        changed(text={"pool_type": "eos", "eos_id": 49407}), changed(vision={"ls_init_value": 0.1, "mlp_ratio": 2.5}),
        changed(vision={"qk_norm": True, "scale_heads": True}, text={"scale_fc": True, "scale_attn": True}),
        changed(embed_dim=16, text={"proj_type": "none"}), changed(nonscalar_logit_scale=True, init_logit_bias=-10),
        changed(quick_gelu=False, vision={"act_kwargs": {"approximate": "tanh"}, "norm_kwargs": {"eps": 1e-3}}),
    ],
)  # fmt: skip
def test_every_kind_of_model_that_is_accepted_gives_open_clips_numbers(tmp_path, config):
    clip = open_clips(config)
    torch.save(clip.state_dict(), tmp_path / "w.pt")
    encoder = build_encoder(json_file(tmp_path, config), str(tmp_path / "w.pt"), 12)
    assert_same_numbers(encoder, clip)
    save_encoder(tmp_path / "encoder.pth", encoder)
    assert_same_numbers(load_encoder(tmp_path / "encoder.pth", json_file(tmp_path, config), 12), clip)
    frozen = [name for name, weight in encoder.clip.named_parameters() if not weight.requires_grad]
    assert frozen == [name for name, weight in clip.named_parameters() if not weight.requires_grad]


@pytest.mark.parametrize("dtype", [torch.float16, torch.bfloat16, torch.float64])
def test_weights_of_other_precision_become_float32(tmp_path, clip, dtype):
    torch.save({name: value.to(dtype) for name, value in clip.state_dict().items()}, tmp_path / "w.pt")
    rounded = copy.deepcopy(clip).to(dtype).float()
    assert_same_numbers(build_encoder(json_file(tmp_path), str(tmp_path / "w.pt"), 12), rounded)


def test_a_random_start_is_drawn_as_ever(tmp_path):
    torch.manual_seed(3)
    one = build_encoder(json_file(tmp_path), "", 12)
    torch.manual_seed(3)
    two = ClipEncoder(EncoderSpec("tiny", TINY, OPENAI_MEAN, OPENAI_STD, 12))
    assert all(map(torch.equal, one.state_dict().values(), two.state_dict().values()))
    assert all(map(torch.equal, one.buffers(), two.buffers())) and "random" in one.describe


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda s: s.pop("ln_final.weight"), "lacks ln_final.weight"),
        (lambda s: s.update({"visual.extra": torch.ones(2)}), "has visual.extra, which is unknown"),
        (lambda s: s.update({"visual.positional_embedding": torch.ones(9, 32)}), r"visual.positional_emb\w+ as \[9"),
        (lambda s: s.update({"positional_embedding": torch.ones(77, 16)}), r"positional_embedding as \[77, 16\]"),
        (lambda s: s.update({"ln_final.bias": torch.full((16,), math.nan)}), "ln_final.bias holds NaN"),
        (lambda s: s.update({"ln_final.bias": torch.ones(16).double() * 1e300}), "ln_final.bias holds NaN or infin"),
        (lambda s: s.update({"ln_final.bias": torch.ones(16, dtype=torch.long)}), "ln_final.bias in torch.int64"),
        (lambda s: s.update({"ln_final.bias": [1.0] * 16}), "lacks ln_final.bias"),
        (lambda s: s.clear(), "holds no CLIP"),
        (lambda s: s.update(prefixed(s, "teacher.")), "holds 2 CLIPs"),
    ],
)  # fmt: skip
def test_weights_that_do_not_fit_are_one_line_that_names_them(tmp_path, clip, change, expected):
    state = dict(copy.deepcopy(clip.state_dict()))
    change(state)
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UserError, match=expected) as refused:
        build_encoder(json_file(tmp_path), str(tmp_path / "w.pt"), 12)
    assert f"{tmp_path / 'w.pt'} does not hold weights of tiny" in str(refused.value)


def test_transformers_weights_without_keys_or_values_are_refused(tmp_path, clip):
    state = as_transformers_names_them(clip)
    del state["text_model.encoder.layers.1.self_attn.v_proj.weight"]
    torch.save(state, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"lacks the keys or values"):
        build_encoder(json_file(tmp_path), str(tmp_path / "w.pt"), 12)


def test_files_that_are_no_weights_are_refused(tmp_path, clip):
    contents = {
        "page.bin": (b"<!DOCTYPE html><html>", "web page"),
        "pointer.bin": (b"version https://git-lfs.github.com/spec/v1\n", "Git LFS"),
        "empty.bin": (b"", "damaged"),
        "cut.safetensors": (b"\xff\x00\x00\x00\x00\x00\x00\x00{", "does not hold weights"),
        "program.bin": (pickle.dumps(print), "refused|damaged"),
    }
    for name, (content, expected) in contents.items():
        (tmp_path / name).write_bytes(content)
        with pytest.raises(UserError, match=expected):
            build_encoder(json_file(tmp_path), str(tmp_path / name), 12)
    save_encoder(tmp_path / "encoder.pth", build_encoder(json_file(tmp_path), "", 12))
    with pytest.raises(UserError, match="CLIP_MODEL_CHECKPOINT"):
        build_encoder(json_file(tmp_path), str(tmp_path / "encoder.pth"), 12)
    torch.save(clip, tmp_path / "whole.pt")
    with pytest.raises(UserError, match="save its state_dict"):
        build_encoder(json_file(tmp_path), str(tmp_path / "whole.pt"), 12)
    with pytest.raises(UserError, match="is a folder"):
        build_encoder(json_file(tmp_path), str(tmp_path), 12)


def test_the_region_projection_is_drawn_by_the_seed(tmp_path, clip):
    torch.save(clip.state_dict(), tmp_path / "w.pt")
    drawn = []
    for seed in (0, 0, 1):
        torch.manual_seed(seed)
        drawn.append(build_encoder(json_file(tmp_path), str(tmp_path / "w.pt"), 12).region_projection.weight)
    assert torch.equal(drawn[0], drawn[1]) and not torch.equal(drawn[0], drawn[2])
    assert 0.05 < drawn[0].std() < 0.15  # uniform within ±1/√32


def names_of(model):
    """The names of a network of open_clip's list, each with a tensor of one number: enough to tell what it is."""
    config = open_clip.get_model_config(model)
    custom = config.pop("custom_text", False) or "timm_model_name" in config["vision_cfg"]
    kind = open_clip.CoCa if "multimodal_cfg" in config else open_clip.CustomTextCLIP if custom else open_clip.CLIP
    with torch.device("meta"):
        return list(kind(**config).state_dict())


@pytest.mark.parametrize(
    ("names", "expected"),
    [
        (lambda: names_of("RN50"), "a CLIP with a ResNet"),
        (lambda: names_of("coca_ViT-B-32"), "a CoCa"),
        (lambda: names_of("ViT-B-16-SigLIP"), "a CLIP with an image tower of timm"),
        (lambda: names_of("EVA02-B-16"), "a CLIP with an image tower of timm"),
        (lambda: [f"module.{name}" for name in names_of("convnext_tiny")], "a CLIP with an image tower of timm"),
        (lambda: ["visual.conv1.weight", "text.transformer.embeddings.word_embeddings.weight"], "a CLIP with a text"),
        (lambda: ["visual.patch_embed.proj.weight", "visual.blocks.0.norm1.weight"], "an EVA-CLIP"),
        (lambda: ["visual_encoder.cls_token", "text_encoder.embeddings.word_embeddings.weight"], "a BLIP"),
        (lambda: ["vision_model.embeddings.patch_embedding.weight", "vision_model.head.probe"], "a SigLIP"),
    ],
)
def test_weights_of_another_family_are_refused_by_its_name(tmp_path, names, expected):
    torch.save({"state_dict": {name: torch.zeros(1) for name in names()}}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=rf"w\.pt does not hold weights of tiny: holds {expected}") as refused:
        build_encoder(json_file(tmp_path), str(tmp_path / "w.pt"), 12)
    assert "such as those of ViT-B-32" in str(refused.value) and len(str(refused.value)) < 450


def test_the_names_of_a_siglip_are_those_of_its_own_library():
    transformers = pytest.importorskip("transformers")
    with torch.device("meta"):
        names = set(transformers.SiglipModel(transformers.SiglipConfig()).state_dict())
    assert {"vision_model.embeddings.patch_embedding.weight", "vision_model.head.probe"} <= names


def traced(clip, path):
    """A TorchScript archive of a network, traced as OpenAI's are."""
    images, tokens = torch.zeros(1, 3, 32, 32), torch.zeros(1, 20, dtype=torch.long)
    torch.jit.trace(clip, (images, tokens), check_trace=False).save(str(path))
    return str(path)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
@pytest.mark.parametrize("quick_gelu", [True, False])
def test_the_program_of_a_torchscript_archive_says_the_activation(tmp_path, quick_gelu):
    clip = open_clips(changed(quick_gelu=quick_gelu))
    path = traced(clip, tmp_path / "w.pt")
    said = {} if quick_gelu else {"mean": OPENAI_MEAN, "std": OPENAI_STD}
    silent = json_file(tmp_path, changed(quick_gelu=...))
    encoder = build_encoder(silent, path, 12, **said)
    assert encoder.spec.model["quick_gelu"] is quick_gelu
    assert_same_numbers(encoder, clip)
    theirs, other = ("quick_gelu", "gelu") if quick_gelu else ("gelu", "quick_gelu")
    with pytest.raises(UserError, match=rf"CLIP_ACTIVATION says {other}, but the program in .*w\.pt has {theirs}"):
        build_encoder(silent, path, 12, activation=other, **said)
    with pytest.raises(UserError, match=rf"quick_gelu of tiny says {other}, but the program"):
        build_encoder(json_file(tmp_path, changed(quick_gelu=not quick_gelu)), path, 12, **said)


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
def test_a_torchscript_archive_of_half_precision_is_read(tmp_path, clip):
    traced(clip, tmp_path / "w.pt")
    torch.jit.load(str(tmp_path / "w.pt")).half().save(str(tmp_path / "half.pt"))
    encoder = build_encoder(json_file(tmp_path, changed(quick_gelu=...)), str(tmp_path / "half.pt"), 12)
    assert encoder.spec.model["quick_gelu"] is True
    assert_same_numbers(encoder, copy.deepcopy(clip).half().float())


@pytest.mark.filterwarnings("ignore::DeprecationWarning", "ignore::torch.jit.TracerWarning", "ignore::FutureWarning")
def test_a_program_that_does_not_say_its_activation_leaves_it_to_the_config(tmp_path, clip):
    """Both functions in one program, as of a network with more than CLIP's: which one is CLIP's is not guessed."""
    traced(clip, tmp_path / "w.pt")
    with zipfile.ZipFile(tmp_path / "w.pt") as archive, zipfile.ZipFile(tmp_path / "both.pt", "w") as both:
        for member in archive.infolist():
            both.writestr(member, archive.read(member), member.compress_type)
        both.writestr("w/code/__torch__/more.py", "def f(x):\n  return torch.gelu(x)\n", zipfile.ZIP_DEFLATED)
    silent = json_file(tmp_path, changed(quick_gelu=...))
    with pytest.raises(UserError, match=r"set TRAIN\.CLIP_ACTIVATION"):
        build_encoder(silent, str(tmp_path / "both.pt"), 12)
    encoder = build_encoder(silent, str(tmp_path / "both.pt"), 12, activation="quick_gelu")
    assert_same_numbers(encoder, clip)
    with zipfile.ZipFile(tmp_path / "both.pt", "a") as both:
        both.writestr("w/code/large.py", bytes(65 << 20), zipfile.ZIP_DEFLATED)
    with pytest.raises(UserError, match="its program is larger than any of a CLIP"):
        build_encoder(silent, str(tmp_path / "both.pt"), 12, activation="quick_gelu")


@pytest.mark.parametrize("dtype", [torch.float32, torch.float16])
def test_safetensors_of_open_clip_give_its_numbers(tmp_path, clip, dtype):
    state = {f"module.{name}": value.to(dtype) for name, value in clip.state_dict().items()}
    pytest.importorskip("safetensors.torch").save_file(state, tmp_path / "open_clip_model.safetensors")
    encoder = build_encoder(json_file(tmp_path), str(tmp_path / "open_clip_model.safetensors"), 12)
    assert_same_numbers(encoder, copy.deepcopy(clip).to(dtype).float())
