"""Folders and repositories of transformers: what their config.json says is what their own library computes."""

import json

import huggingface_hub
import pytest
import torch
from huggingface_hub.errors import LocalEntryNotFoundError
from open_clip import OPENAI_DATASET_MEAN as OPENAI_MEAN
from open_clip import OPENAI_DATASET_STD as OPENAI_STD
from tiny_clips import CAPTIONS, HALF, TINY, json_file, open_clips

from clipgan.errors import UserError
from clipgan.networks.clip_config import check_config
from clipgan.networks.clip_encoder import build_encoder, model_config
from clipgan.networks.clip_hub import find_on_hub
from clipgan.networks.clip_transformers import as_open_clip, statistics
from clipgan.runs.snapshots import load_encoder, save_encoder

WORDS = {"hidden_size": 16, "intermediate_size": 64, "num_hidden_layers": 2, "num_attention_heads": 2,
         "max_position_embeddings": 20}  # fmt: skip
VISION = {"hidden_size": 32, "intermediate_size": 90, "num_hidden_layers": 2, "num_attention_heads": 2,
          "image_size": 32, "patch_size": 8}  # fmt: skip


def description(words=None, vision=None, **others):
    """A config.json of transformers of the sizes of these tests."""
    return {
        "model_type": "clip", "projection_dim": 24, **others,
        "text_config": {**WORDS, **(words or {})}, "vision_config": {**VISION, **(vision or {})},
    }  # fmt: skip


def saved(folder, content, preprocessing=None):
    """A model of transformers with random weights, saved by its own library; and the folder's name for the config."""
    transformers = pytest.importorskip("transformers")
    torch.manual_seed(5)
    model = transformers.CLIPModel(transformers.CLIPConfig(**content)).eval()
    with torch.no_grad():
        for parameter in model.parameters():
            parameter.add_(0.1 * torch.randn_like(parameter))
    model.save_pretrained(folder)
    if preprocessing is not None:
        json_file(folder, preprocessing, "preprocessor_config.json")
    return model, f"local-dir:{folder}"


@torch.no_grad()
def assert_same_features(encoder, model):
    tokens = encoder.eval().tokenize(CAPTIONS)
    ours = encoder.encode_text(tokens)
    theirs = model.text_model(input_ids=tokens)
    assert torch.allclose(ours.sentence, model.text_projection(theirs.pooler_output), atol=1e-4)
    mask = ours.word_mask[:, None]
    assert torch.allclose(ours.words * mask, theirs.last_hidden_state[:, 1:-1].transpose(1, 2) * mask, atol=1e-4)
    images = torch.rand(2, 3, 32, 32, generator=torch.Generator().manual_seed(0)) * 2 - 1
    pooled = model.vision_model(pixel_values=encoder.preprocess(images)).pooler_output
    assert torch.allclose(encoder.encode_image(images).image, model.visual_projection(pooled), atol=1e-4)


@pytest.mark.parametrize("act", ["quick_gelu", "gelu"])
def test_a_folder_of_transformers_gives_the_numbers_of_its_library(tmp_path, act):
    content = description({"hidden_act": act, "layer_norm_eps": 1e-2}, {"hidden_act": act, "layer_norm_eps": 1e-3})
    model, base = saved(tmp_path / "clip", content, {"image_mean": HALF, "image_std": [0.25] * 3, "do_resize": True})
    encoder = build_encoder(base, "", 12)
    assert encoder.spec.model["quick_gelu"] is (act == "quick_gelu")
    assert list(encoder.spec.image_mean) == HALF and list(encoder.spec.image_std) == [0.25] * 3
    assert encoder.spec.name == "clip" and "model.safetensors" in encoder.describe
    assert_same_features(encoder, model)
    save_encoder(tmp_path / "encoder.pth", encoder)
    assert_same_features(load_encoder(tmp_path / "encoder.pth", base, 12), model)
    other = "gelu" if act == "quick_gelu" else "quick_gelu"
    with pytest.raises(UserError, match=rf"CLIP_ACTIVATION says {other}, but clip has {act}"):
        build_encoder(base, "", 12, activation=other)


def test_a_config_of_transformers_describes_the_weights_of_another_file(tmp_path):
    model, _ = saved(tmp_path / "clip", description())
    torch.save({f"module.{name}": value.half() for name, value in model.state_dict().items()}, tmp_path / "w.bin")
    encoder = build_encoder(str(tmp_path / "clip" / "config.json"), str(tmp_path / "w.bin"), 12, mean=HALF)
    assert encoder.spec.model["quick_gelu"] is True and list(encoder.spec.image_mean) == HALF
    assert_same_features(encoder, model.half().float())


def test_a_repository_of_transformers_on_the_hub(monkeypatch, tmp_path):
    model, _ = saved(tmp_path / "hub", description({"hidden_act": "gelu"}, {"hidden_act": "gelu"}))
    json_file(tmp_path / "hub", {"image_processor": {"image_mean": HALF, "image_std": HALF}}, "processor_config.json")
    asked = []

    def download(repository, name, **_keywords):
        asked.append(name)
        if not (tmp_path / "hub" / name).is_file():
            raise FileNotFoundError(name)
        return str(tmp_path / "hub" / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    encoder = build_encoder("hf-hub:some/clip", "", 12)
    assert asked[0] == "open_clip_config.json"  # which says more, where both are there
    assert encoder.spec.model["quick_gelu"] is False and list(encoder.spec.image_std) == HALF
    assert_same_features(encoder, model)

    def fail(repository, name, **_keywords):
        if name.startswith("pre"):
            raise ConnectionResetError("reset by peer")
        return download(repository, name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", fail)
    with pytest.raises(UserError, match=r"hf-hub:some/clip: could not fetch preprocessor_config\.json .*reset by peer"):
        build_encoder("hf-hub:some/clip", "", 12)


@pytest.mark.parametrize("remembered", [True, False])
def test_without_the_hub_only_what_the_cache_remembers_is_known_to_be_missing(monkeypatch, remembered):
    def offline(_repository, _name):
        raise LocalEntryNotFoundError("cannot be reached")

    found = huggingface_hub._CACHED_NO_EXIST if remembered else None
    monkeypatch.setattr(huggingface_hub, "hf_hub_download", offline)
    monkeypatch.setattr(huggingface_hub, "try_to_load_from_cache", lambda _repository, _name: found)
    if remembered:
        assert find_on_hub("some/clip", ["preprocessor_config.json"]) == []
    else:
        with pytest.raises(UserError, match=r"could not fetch preprocessor_config\.json .*local-dir:PATH"):
            find_on_hub("some/clip", ["preprocessor_config.json"])


def test_a_folder_with_both_descriptions_is_open_clips(tmp_path):
    saved(tmp_path / "clip", description())
    clip = open_clips(TINY)
    torch.save(clip.state_dict(), tmp_path / "clip" / "open_clip_pytorch_model.bin")
    json_file(tmp_path / "clip", {"model_cfg": TINY, "preprocess_cfg": {}}, "open_clip_config.json")
    assert model_config(f"local-dir:{tmp_path / 'clip'}") == ("clip", TINY)
    assert "open_clip_pytorch_model.bin" in build_encoder(f"local-dir:{tmp_path / 'clip'}", "", 12).describe


def test_sizes_left_out_are_those_of_the_librarys_defaults():
    transformers = pytest.importorskip("transformers")
    full = json.loads(transformers.CLIPConfig().to_json_string(use_diff=False))
    small = {"model_type": "clip", "text_config": None, "vision_config": {"hidden_act": None}}
    assert as_open_clip(full, "it") == as_open_clip(small, "it")
    check_config(as_open_clip(small, "it"), "it")
    old = description(text_config_dict={"hidden_size": 8}, vision_config_dict={**VISION, "hidden_act": "quick_gelu"})
    theirs = transformers.CLIPConfig(**json.loads(json.dumps(old)))
    words = as_open_clip(old, "it")["text_cfg"]
    assert (words["width"], words["layers"]) == (theirs.text_config.hidden_size, theirs.text_config.num_hidden_layers)


@pytest.mark.parametrize(("width", "inner"), [(1408, 6144), (1664, 8192), (768, 3072), (54, 61), (23, 61)])
def test_the_size_of_a_tower_survives_the_rounding_of_open_clip(width, inner):
    sizes = {"hidden_size": width, "intermediate_size": inner, "num_attention_heads": 1}
    assert int(width * as_open_clip(description(sizes), "it")["text_cfg"]["mlp_ratio"]) == inner


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"model_type": "siglip", "text_config": {}}, "is a 'siglip' of transformers.*such as ViT-B-16"),
        ({"model_type": "bert"}, "is a 'bert' of transformers"),
        (description({"hidden_act": "gelu"}), "hidden_act 'gelu' and 'quick_gelu'"),
        (description({"hidden_act": "relu"}, {"hidden_act": "relu"}), "hidden_act 'relu'"),
        (description({"hidden_act": ["gelu"]}), "hidden_act must be a text"),
        (description({"eos_token_id": 7}), "49407"),
        (description({"eos_token_id": [49407]}), "49407"),
        (description({"num_attention_heads": 3}), "num_attention_heads 3"),
        (description({"num_attention_heads": 0}), "num_attention_heads must be"),
        (description({"hidden_size": 10**9}), "hidden_size"),
        (description({"hidden_size": 2**19, "num_attention_heads": 1}), "text_cfg.width"),
        (description({"vocab_size": 30000}), "vocab_size"),
        (description({"intermediate_size": "64"}), "intermediate_size"),
        (description(None, {"num_channels": 4}), "num_channels"),
        (description(None, {"image_size": [32, 32]}), "image_size"),
        (description(None, {"patch_size": 64}), "patch_size 64"),
        (description(projection_dim=0), "projection_dim"),
        (description(text_config_dict=[1]), "text_config_dict must be"),
        (description(model_type=["clip"]), "transformers"),
    ],
)  # fmt: skip
def test_a_config_that_cannot_be_used_is_refused_in_one_line(tmp_path, content, expected):
    folder = tmp_path / "some-base-patch16-224"
    folder.mkdir()
    json_file(folder, content, "config.json")
    with pytest.raises(UserError, match=expected) as refused:
        build_encoder(f"local-dir:{folder}", "", 12)
    assert "config.json" in str(refused.value) and "\n" not in str(refused.value) and len(str(refused.value)) < 500


def test_statistics_of_a_preprocessing_file(tmp_path):
    assert statistics({"image_mean": HALF, "image_std": [0.25] * 3}) == (tuple(HALF), (0.25,) * 3)
    assert statistics({"do_normalize": False, "image_mean": HALF}) == ((0.0,) * 3, (1.0,) * 3)
    assert statistics({"do_normalize": True, "crop_size": 32}) == ((), ())
    _, base = saved(tmp_path / "clip", description())
    spec = build_encoder(base, "", 12).spec
    assert (spec.image_mean, spec.image_std) == (OPENAI_MEAN, OPENAI_STD)
    for wrong in ({"image_mean": [0.5]}, {"image_std": [0, 0, 0]}, {"image_mean": "0.5"}, [0.5]):
        json_file(tmp_path / "clip", wrong, "preprocessor_config.json")
        with pytest.raises(UserError, match=r"preprocessor_config\.json"):
            build_encoder(base, "", 12)
