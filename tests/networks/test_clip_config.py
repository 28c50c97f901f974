"""Model configs of a declared shape: what is accepted builds, all else is one line, at once."""

import json
import math
import time

import open_clip
import pytest
import torch
from open_clip import OPENAI_DATASET_MEAN as OPENAI_MEAN
from open_clip import OPENAI_DATASET_STD as OPENAI_STD
from tiny_clips import CAPTIONS, TINY, changed, json_file, open_clips

from clipgan.errors import UserError
from clipgan.networks import clip_models
from clipgan.networks.clip_encoder import ClipEncoder, EncoderSpec, build_encoder
from clipgan.runs.snapshots import load_encoder, save_encoder

WRONG_MODELS = [
    (changed(vision={"layers": 10**7}), "vision_cfg.layers"),
    (changed(text={"layers": 10**7}), "text_cfg.layers"),
    (changed(vision={"width": 2**40}), "vision_cfg.width"),
    (changed(embed_dim=2**40), "embed_dim"),
    (changed(vision={"layers": 0}), "vision_cfg.layers"),
    (changed(vision={"layers": -2}), "vision_cfg.layers"),
    (changed(vision={"layers": True}), "vision_cfg.layers"),
    (changed(vision={"layers": 2.0}), "vision_cfg.layers"),
    (changed(vision={"layers": [1, 1, 1, 1]}), "no vision transformer"),
    (changed(vision={"layers": None}), "layers"),
    (changed(vision={"head_width": 24}, text={"heads": 3}), "text_cfg.heads 3"),
    (changed(text={"heads": 0}), "heads"),
    (changed(vision={"head_width": 64}), "head_width 64"),
    (changed(vision={"patch_size": 33}), "patch_size 33"),
    (changed(vision={"image_size": [32, 64]}), "square"),
    (changed(vision={"image_size": 10**9}), "image_size"),
    (changed(vision={"mlp_ratio": math.inf}), "mlp_ratio"),
    (changed(vision={"mlp_ratio": "4"}), "mlp_ratio"),
    (changed(vision={"pool_type": "none"}), "pool_type"),
    (changed(vision={"patch_dropout": 0.5}), "patch_dropout"),
    (changed(vision={"scaled_cosine_attn": True}), "scaled_cosine"),
    (changed(vision={"depth": 3}), "'depth'"),
    (changed(vision={"timm_model_name": "vit_base_patch16_224"}), "timm"),
    (changed(vision={"timm_model_pretrained": True}), "timm"),
    (changed(text={"hf_model_name": "roberta-base"}), "roberta"),
    (changed(text={"hf_tokenizer_name": "bert-base-uncased"}), "bert"),
    (changed(multimodal_cfg={"width": 8}), "CoCa"),
    (changed(text={"tokenizer_kwargs": {"clean": "canonicalize"}}), "tokens"),
    (changed(text={"vocab_size": 9}), "vocab"),
    (changed(text={"context_length": 2}), "context_length"),
    (changed(text={"context_length": 10**12}), "context_length"),
    (changed(text={"no_causal_mask": True}), "does not read text as CLIP"),
    (changed(text={"embed_cls": True}), "CLIP"),
    (changed(text={"pool_type": "last"}), "does not read text as CLIP"),
    (changed(text={"pool_type": "eos"}), "49407"),
    (changed(text={"pool_type": "eos", "eos_id": 49406}), "49407"),
    (changed(text={"proj_type": "none"}), "embed_dim"),
    (changed(text={"act_kwargs": {"approximate": "tanh"}}), "act_kwargs"),
    (changed() | {"text_cfg": []}, "text_cfg"),
    (changed() | {"vision_cfg": None}, "vision_cfg"),
    (changed(quick_gelu=1), "quick_gelu"),
    (changed(text_cfg_=1), "text_cfg_"),
    (changed(embed_dim=...), "lacks embed_dim"),
    ([TINY], "dictionary"),
    (None, "dictionary"),
    (changed(embed_dim=0), "embed_dim"),
    (changed(preprocess_cfg={"std": [0, 0, 0]}), "std"),
    (changed(preprocess_cfg=[0.5]), "preprocess_cfg"),
]


@pytest.mark.parametrize(("config", "expected"), WRONG_MODELS, ids=[expected for _, expected in WRONG_MODELS])
def test_a_model_config_of_another_shape_is_refused_at_once(tmp_path, config, expected):
    path = json_file(tmp_path, config)
    begin = time.process_time()
    with pytest.raises(UserError, match=expected) as refused:
        build_encoder(path, "", 12)
    assert path in str(refused.value) and time.process_time() - begin < 5
    if isinstance(config, dict) and "preprocess_cfg" not in config:  # the same in a checkpoint
        save_encoder(tmp_path / "good.pth", build_encoder(json_file(tmp_path), "", 12))
        content = torch.load(tmp_path / "good.pth")
        content["architecture"]["model"] = config
        torch.save(content, tmp_path / "bad.pth")
        with pytest.raises(UserError, match=expected) as refused:
            load_encoder(tmp_path / "bad.pth")
        assert "bad.pth" in str(refused.value)


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("image_std", [0.0] * 3), ("image_std", [math.nan] * 3), ("image_mean", [0.5] * 2), ("image_mean", None),
        ("words_num", 0), ("words_num", 19), ("words_num", 2**70), ("words_num", True), ("name", 5), ("name", ...),
        ("model", []), ("more", 1),
    ],
)  # fmt: skip
def test_a_checkpoint_of_another_shape_is_refused(tmp_path, key, value):
    save_encoder(tmp_path / "e.pth", build_encoder(json_file(tmp_path), "", 12))
    content = torch.load(tmp_path / "e.pth")
    architecture = {**content["architecture"], key: value}
    content["architecture"] = {k: v for k, v in architecture.items() if v is not ...}
    torch.save(content, tmp_path / "e.pth")
    with pytest.raises(UserError, match="TEXT.WORDS_NUM is 19" if value == 19 else key):
        load_encoder(tmp_path / "e.pth")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        (lambda c: c["weights"].pop("region_projection.bias"), "lacks region_projection.bias"),
        (lambda c: c["weights"].update({"clip.ln_final.bias": torch.full((16,), math.inf)}), "clip.ln_final.bias"),
        (lambda c: c["architecture"]["model"]["vision_cfg"].update(layers=200, width=16384), "lacks clip.visual"),
    ],
)
def test_weights_of_a_checkpoint_that_do_not_fit_take_no_memory(tmp_path, change, expected, monkeypatch):
    save_encoder(tmp_path / "e.pth", build_encoder(json_file(tmp_path), "", 12))
    content = torch.load(tmp_path / "e.pth")
    content["architecture"] = json.loads(json.dumps(content["architecture"]))
    change(content)
    torch.save(content, tmp_path / "e.pth")
    with pytest.raises(UserError, match=expected) as refused:
        load_encoder(tmp_path / "e.pth")
    assert "e.pth" in str(refused.value)


def test_a_random_start_that_does_not_fit_into_memory_is_refused(tmp_path, monkeypatch):
    large = changed(vision={"layers": 200, "width": 16384}, text={"layers": 200, "width": 16384})
    with pytest.raises(UserError, match=r"needs 5,1.. GB of memory"):
        build_encoder(json_file(tmp_path, large), "", 12)
    assert 1 << 28 < clip_models.machine_memory() < 1 << 50


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("xlm-roberta-base-ViT-B-32", "xlm-roberta-base"), ("coca_ViT-B-32", "CoCa"), ("RN50", "no vision transformer"),
        ("ViT-B-16-SigLIP", "timm"), ("ViT-H-14-CLIPA", "bert-base-uncased"), ("EVA02-B-16", "timm"),
    ],
)  # fmt: skip
def test_a_model_that_cannot_be_used_is_refused_with_the_reason(base, expected, no_network):
    for pretrained in ("", "openai"):
        with pytest.raises(UserError, match=expected) as refused:
            build_encoder(base, pretrained, 12)
        assert base in str(refused.value) and "CLIP_MODEL_BASE" in str(refused.value)


def test_all_models_of_open_clip_build_or_say_why_not():
    built = set()
    for name in open_clip.list_models():
        try:
            model = clip_models.read_model(name)
        except UserError:
            continue
        with torch.device("meta"):
            encoder = ClipEncoder(EncoderSpec(name, model.config, OPENAI_MEAN, OPENAI_STD, 28))
        weights = set(encoder.state_dict())
        assert {key for key, _ in encoder.named_buffers() if key not in weights} == {"_mean", "_std", "clip.attn_mask"}
        built.add(name)
    assert {"ViT-B-32", "ViT-L-14-336-quickgelu", "ViT-H-14", "ViT-bigG-14", "ViT-B-16-plus-240"} <= built


def test_text_towers_that_pool_elsewhere_would_read_another_sentence():
    """Why ``pool_type: eos`` is refused unless its id is CLIP's: open_clip's own sentence is another."""
    tokens = open_clip.SimpleTokenizer(context_length=20)(CAPTIONS)
    one, two = (open_clips(changed(text={"pool_type": "eos", "eos_id": end})) for end in (49407, 2))
    two.load_state_dict(one.state_dict())
    with torch.no_grad():
        assert (one.encode_text(tokens) - two.encode_text(tokens)).abs().max() > 0.1
