"""Names of models and weights: every spelling finds its model, and what cannot be used is one line with a remedy."""

import open_clip
import pytest
import torch
from tiny_clips import TINY, changed, json_file, open_clips

from clipgan.errors import UserError
from clipgan.networks.clip_encoder import build_encoder
from clipgan.networks.clip_models import models_of_shape, read_model, usable_models
from clipgan.networks.clip_published import Origin, Said, settle

USABLE = usable_models()


@pytest.mark.parametrize(
    ("spelling", "name"), [("ViT-B/32", "ViT-B-32"), ("ViT-L/14", "ViT-L-14"), ("ViT-L/14@336px", "ViT-L-14-336")]
)
def test_the_names_of_openai_are_understood(spelling, name):
    model = read_model(spelling)
    assert (model.name, model.kind, model.config) == (name, "name", open_clip.get_model_config(name))


@pytest.mark.parametrize(
    ("base", "expected"),
    [
        ("vit-b-32", "did you mean ViT-B-32"),
        ("ViT-B-33", "did you mean ViT-B-32"),
        ("ViT-L/41", "did you mean ViT-L-16 or ViT-L-14"),
        ("SigLIP", "names a SigLIP.*such as ViT-B-32"),
        ("google/siglip-base-patch16-224", "names a SigLIP.*such as ViT-B-16"),
        ("siglip-so400m-patch14-384", "names a SigLIP.*such as ViT-L-14"),
        ("EVA02-CLIP-L-14", "names an EVA-CLIP.*such as ViT-L-14"),
        ("BAAI/EVA-CLIP-8B", "EVA-CLIP"),
        ("eva-giant", "EVA-CLIP.*such as ViT-g-14"),
        ("CoCa-ViT-L-14", "CoCa.*such as ViT-L-14"),
        ("Salesforce/blip-itm-base-coco", "BLIP"),
        ("resnet50", "ResNet"),
        ("RN50-x", "ResNet"),
        ("openai/clip-vit-base-patch32", "write hf-hub:openai/clip-vit-base-patch32"),
        ("laion/CLIP-ViT-H-14-laion2B-s32B-b79K", "write hf-hub:laion/"),
        ("whatever", "ViT-B-32, ViT-B-16, ViT-L-14, ViT-H-14 and [0-9]+ others"),
        ("", "docs/encoders.md"),
        ("evaluation", "docs/encoders.md"),
    ],
)
def test_an_unknown_name_is_answered_with_one_that_can_be_used(base, expected):
    with pytest.raises(UserError, match=expected) as refused:
        read_model(base, "EVAL.JUDGE.CLIP_MODEL_BASE")
    line = str(refused.value)
    assert line.startswith("EVAL.JUDGE.CLIP_MODEL_BASE: ") and line.isprintable() and len(line) < 400
    # Nothing is named that would be refused in its turn
    refused_names = set(open_clip.list_models()) - set(USABLE) - {base}
    assert not refused_names & set(line.replace("?", " ").replace(",", " ").split())


def test_a_folder_or_a_file_of_weights_in_the_place_of_a_model_is_told_apart(tmp_path):
    (tmp_path / "w.pt").write_bytes(b"x")
    with pytest.raises(UserError, match=r"is a folder: write local-dir:"):
        read_model(str(tmp_path))
    with pytest.raises(UserError, match=r"w\.pt is a file, but no model config .*CLIP_PRETRAINED"):
        read_model(str(tmp_path / "w.pt"))


@pytest.mark.parametrize(
    ("name", "instead"),
    [
        ("EVA02-L-14-336", "ViT-L-14"), ("EVA02-E-14-plus", "ViT-bigG-14"), ("EVA01-g-14", "ViT-g-14"),
        ("ViT-B-16-SigLIP2-512", "ViT-B-16"), ("ViT-SO400M-14-SigLIP", "ViT-L-14"), ("coca_ViT-L-14", "ViT-L-14"),
        ("ViT-H-14-CLIPA-336", "ViT-H-14"), ("xlm-roberta-large-ViT-H-14", "ViT-H-14"), ("RN50x64", "ViT-B-32"),
        ("convnext_large_d_320", "ViT-L-14"), ("MobileCLIP-S1", "ViT-B-32"),
    ],
)  # fmt: skip
def test_a_refused_model_is_answered_with_a_published_one_about_as_large(name, instead):
    with pytest.raises(UserError, match=f"^TRAIN.CLIP_MODEL_BASE: {name} .* such as {instead}$"):
        read_model(name)
    assert instead in USABLE and open_clip.list_pretrained_tags_by_model(instead)


def test_all_published_weights_of_usable_models_are_settled_by_what_open_clip_knows():
    seen = set()
    for name in USABLE:
        for tag in open_clip.list_pretrained_tags_by_model(name):
            known = open_clip.get_pretrained_cfg(name, tag)
            found = settle(read_model(name), Origin(published=known, label=tag), Said())
            assert found.quick_gelu is bool(known.get("quick_gelu"))
            assert found.mean == tuple(known["mean"]) and found.std == tuple(known["std"])
            seen.add((found.quick_gelu, tag.partition("_")[0]))
    # QuickGELU belongs to the weights, not to the name: ViT-B-32's LAION-400M weights have it, its LAION-2B's do not
    assert {(True, "openai"), (True, "laion400m"), (False, "laion2b"), (True, "dfn2b"), (False, "datacomp")} <= seen


def test_keys_against_published_weights_are_refused_before_anything_is_fetched(monkeypatch):
    def fetch(*_arguments, **_keywords):
        raise AssertionError("was fetched")

    monkeypatch.setattr("clipgan.networks.clip_published.fetch_published", fetch)
    with pytest.raises(UserError, match="CLIP_ACTIVATION says gelu, but published as openai has quick_gelu"):
        build_encoder("ViT-B-32", "openai", 28, activation="gelu")
    with pytest.raises(UserError, match="CLIP_STD says"):
        build_encoder("ViT-L-14", "laion2b_s32b_b82k", 28, std=[0.26] * 3)
    with pytest.raises(UserError, match=r"TEXT\.WORDS_NUM is 76, but ViT-B-32 reads captions of 1 to 75 tokens"):
        build_encoder("ViT-B-32", "openai", 76)
    with pytest.raises(UserError, match="ViT-H-14 has laion2b_s32b_b79k"):
        build_encoder("ViT-H-14", "openai", 28)
    with pytest.raises(AssertionError, match="was fetched"):
        build_encoder("ViT-B-32", "openai", 75, activation="quick_gelu")


def test_weights_of_another_model_are_told_its_name(monkeypatch, tmp_path, clip):
    """Two tiny models stand in open_clip's list, and the weights of one are named for the other."""
    for name, config in (("tiny-a", TINY), ("tiny-a-quickgelu", TINY), ("tiny-b", changed(vision={"patch_size": 4}))):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, config)
    torch.save(clip.state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"they have the sizes of tiny-a: set TRAIN\.CLIP_MODEL_BASE$"):
        build_encoder("tiny-b", str(tmp_path / "w.pt"), 12)
    torch.save({**clip.state_dict(), "more": torch.ones(1)}, tmp_path / "w.pt")
    with pytest.raises(UserError, match=r"has more, which is unknown here$"):
        build_encoder("tiny-a", str(tmp_path / "w.pt"), 12)
    with pytest.raises(UserError, match=r"not \[32, 25\]; they have the sizes of tiny-a: "):
        build_encoder(json_file(tmp_path, changed(embed_dim=25)), str(tmp_path / "w.pt"), 12)


def test_a_model_is_found_by_the_sizes_of_its_weights():
    for name, kind in (("ViT-B-32", open_clip.CLIP), ("ViT-L-14-336", open_clip.CustomTextCLIP)):
        with torch.device("meta"):
            clip = kind(**open_clip.get_model_config(name))
        state = clip.state_dict()
        assert models_of_shape(state) == [name, f"{name}-quickgelu"]
        for tower in ("visual.transformer", "transformer"):
            assert models_of_shape({n: v for n, v in state.items() if f"{tower}.resblocks.3." not in n}) == []
    assert models_of_shape(open_clips().state_dict()) == models_of_shape({}) == []
