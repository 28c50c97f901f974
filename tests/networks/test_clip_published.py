"""What CLIP's weights were trained with is known or said, never guessed."""

import hashlib
import math
import time

import open_clip
import pytest
import torch
from open_clip import OPENAI_DATASET_MEAN as OPENAI_MEAN
from open_clip import OPENAI_DATASET_STD as OPENAI_STD
from tiny_clips import HALF, TINY, assert_same_numbers, changed, json_file

from clipgan.errors import UserError
from clipgan.networks.clip_encoder import build_encoder, model_config
from clipgan.runs.snapshots import load_encoder, save_encoder


@pytest.fixture
def published(monkeypatch):
    """Publishes tiny models under names: ``published(name, {tag: what open_clip knows})``."""

    def publish(name, tags, **config):
        monkeypatch.setitem(open_clip.factory._MODEL_CONFIGS, name, changed(quick_gelu=..., **config))
        known = {"mean": OPENAI_MEAN, "std": OPENAI_STD, "url": ""}
        monkeypatch.setitem(open_clip.pretrained._PRETRAINED, name, {tag: {**known, **v} for tag, v in tags.items()})

    return publish


def digest_of(path):
    return hashlib.sha256(path.read_bytes()).hexdigest()


@pytest.mark.parametrize(
    "address", ["https://openaipublic.x/clip/{hash}/a.pt", "https://x/mlfoundations/v/a-{eight}.pt"]
)
def test_a_published_file_is_recognised_by_its_hash(tmp_path, clip, published, address):
    torch.save(clip.state_dict(), tmp_path / "w.bin")
    url = address.format(hash=digest_of(tmp_path / "w.bin"), eight=digest_of(tmp_path / "w.bin")[:8])
    published(
        "tiny-a", {"one": {"url": url, "quick_gelu": True, "mean": tuple(HALF), "std": tuple(HALF)}, "openai": {}}
    )
    encoder = build_encoder("tiny-a", str(tmp_path / "w.bin"), 12)
    assert encoder.spec.model["quick_gelu"] is True and list(encoder.spec.image_std) == HALF
    assert all(word in encoder.describe for word in ("tiny-a one", "hash", "w.bin", "quick_gelu", "0.5/0.5/0.5"))
    assert_same_numbers(encoder, clip)
    # also for a model from a file; what contradicts it is an error
    assert build_encoder(json_file(tmp_path, changed(quick_gelu=...)), str(tmp_path / "w.bin"), 12).spec.model[
        "quick_gelu"
    ]
    for key, value in {"activation": "gelu", "mean": list(OPENAI_MEAN), "std": [0.3] * 3}.items():
        with pytest.raises(UserError, match=rf"TRAIN\.CLIP_{key.upper()} says"):
            build_encoder("tiny-a", str(tmp_path / "w.bin"), 12, **{key: value})
    with pytest.raises(UserError, match="quick_gelu of tiny says gelu, but published as tiny-a one"):
        build_encoder(json_file(tmp_path, changed(quick_gelu=False)), str(tmp_path / "w.bin"), 12)


@pytest.mark.parametrize(
    ("tags", "asked"),
    [
        ({"a": {"quick_gelu": True}, "b": {}}, {"CLIP_ACTIVATION"}),
        ({"openai": {"quick_gelu": True}}, {"CLIP_ACTIVATION"}),
        ({"a": {"mean": HALF, "std": HALF}, "b": {}}, {"CLIP_MEAN", "CLIP_STD"}),
        ({"openai": {"quick_gelu": True}, "b": {"std": HALF}}, {"CLIP_ACTIVATION", "CLIP_STD"}),
    ],
)
def test_what_differs_between_published_weights_is_not_guessed(tmp_path, clip, published, tags, asked):
    torch.save(clip.state_dict(), tmp_path / "w.pt")
    published("tiny-b", tags)
    keys = {"activation": "quick_gelu", "mean": HALF, "std": HALF}
    needed = {key: value for key, value in keys.items() if f"CLIP_{key.upper()}" in asked}
    with pytest.raises(UserError) as refused:
        build_encoder("tiny-b", str(tmp_path / "w.pt"), 12, section="EVAL.JUDGE")
    message = str(refused.value)
    assert {key for key in ("CLIP_ACTIVATION", "CLIP_MEAN", "CLIP_STD") if f"EVAL.JUDGE.{key}" in message} == asked
    assert ("LAION" in message) == ("CLIP_ACTIVATION" in asked) and ("0.48145466" in message) == (len(asked) > 1)
    for key in needed:
        with pytest.raises(UserError, match=f"CLIP_{key.upper()}"):
            build_encoder("tiny-b", str(tmp_path / "w.pt"), 12, **{k: v for k, v in needed.items() if k != key})
    encoder = build_encoder("tiny-b", str(tmp_path / "w.pt"), 12, **needed)
    assert list(encoder.spec.image_mean) == (HALF if "CLIP_MEAN" in asked else list(OPENAI_MEAN))
    assert encoder.spec.model["quick_gelu"] is ("CLIP_ACTIVATION" in asked)


def test_where_published_weights_agree_their_values_are_used(tmp_path, clip, published):
    torch.save(clip.state_dict(), tmp_path / "w.pt")
    published("tiny-c", {tag: {"quick_gelu": True, "mean": tuple(HALF), "std": tuple(HALF)} for tag in "ab"})
    spec = build_encoder("tiny-c", str(tmp_path / "w.pt"), 12).spec
    assert spec.model["quick_gelu"] is True and list(spec.image_mean) == list(spec.image_std) == HALF
    published("tiny-d", {})
    spec = build_encoder("tiny-d", str(tmp_path / "w.pt"), 12).spec
    assert spec.model["quick_gelu"] is False and spec.image_mean == OPENAI_MEAN


def test_a_tags_own_values_hold(tmp_path, clip, published):
    torch.save(clip.state_dict(), tmp_path / "w.pt")
    published("tiny-e", {"some_tag": {"file": str(tmp_path / "w.pt"), "quick_gelu": True, "mean": tuple(HALF)}})
    encoder = build_encoder("tiny-e", "some_tag", 12)
    assert encoder.spec.model["quick_gelu"] is True and list(encoder.spec.image_mean) == HALF
    assert "some_tag" in encoder.describe
    assert_same_numbers(encoder, clip)
    with pytest.raises(UserError, match=r"TRAIN\.CLIP_ACTIVATION says gelu, but published as some_tag has quick_gelu"):
        build_encoder("tiny-e", "some_tag", 12, activation="gelu")


def test_a_model_from_a_json_file_says_its_activation_itself(tmp_path, clip):
    torch.save(clip.state_dict(), tmp_path / "w.pt")
    weights = str(tmp_path / "w.pt")
    silent = json_file(tmp_path, changed(quick_gelu=..., preprocess_cfg={"mean": HALF, "size": 32}))
    with pytest.raises(UserError, match=r"TRAIN\.CLIP_ACTIVATION"):
        build_encoder(silent, weights, 12)
    encoder = build_encoder(silent, weights, 12, activation="quick_gelu", std=[0.25] * 3)
    assert encoder.spec.model["quick_gelu"] is True
    assert list(encoder.spec.image_mean) == HALF and list(encoder.spec.image_std) == [0.25] * 3
    with pytest.raises(UserError, match="CLIP_MEAN says"):
        build_encoder(silent, weights, 12, activation="quick_gelu", mean=[0.1] * 3)
    with pytest.raises(UserError, match="CLIP_ACTIVATION says gelu, but tiny has quick_gelu"):
        build_encoder(json_file(tmp_path), weights, 12, activation="gelu")
    silent = json_file(tmp_path, changed(quick_gelu=...))
    assert build_encoder(silent, "", 12).spec.model["quick_gelu"] is False  # a random start may be either
    assert build_encoder(silent, "", 12, activation="quick_gelu").spec.model["quick_gelu"] is True


@pytest.mark.parametrize(
    ("key", "value"),
    [
        ("activation", "relu"), ("mean", [0.5, 0.5]), ("std", [0.5, 0.0, 0.5]), ("std", [0.5, math.nan, 0.5]),
        ("std", [1e-300] * 3), ("mean", [math.inf] * 3), ("mean", [True] * 3), ("mean", ["0.5"] * 3), ("mean", "0.5"),
        ("mean", [123.7, 116.3, 103.5]), ("std", [-0.5] * 3), ("mean", None),
    ],
)  # fmt: skip
def test_keys_that_no_clip_can_have_are_refused(tmp_path, key, value):
    with pytest.raises(UserError, match=rf"TRAIN\.CLIP_{key.upper()}"):
        build_encoder(json_file(tmp_path), "", 12, **{key: value})


def test_a_checkpoint_says_itself_what_it_is(tmp_path):
    save_encoder(tmp_path / "encoder.pth", build_encoder(json_file(tmp_path), "", 12, mean=HALF, std=HALF))
    encoder = load_encoder(tmp_path / "encoder.pth", activation="quick_gelu", mean=HALF)
    assert "encoder.pth" in encoder.describe and "0.5/0.5/0.5" in encoder.describe
    with pytest.raises(UserError, match=r"EVAL\.JUDGE\.CLIP_STD says"):
        load_encoder(tmp_path / "encoder.pth", std=[0.2] * 3, section="EVAL.JUDGE")


def folder_of(path, clip, config=None, name="open_clip_pytorch_model.bin"):
    path.mkdir(exist_ok=True)
    content = {"model_cfg": config or changed(quick_gelu=...), "preprocess_cfg": {"mean": HALF, "std": [0.25] * 3}}
    json_file(path, content, "open_clip_config.json")
    if clip is not None:
        torch.save(clip.state_dict(), path / name)
    return f"local-dir:{path}"


def test_a_folder_brings_its_weights_and_statistics(tmp_path, clip):
    base = folder_of(tmp_path / "my clip", clip, TINY)
    encoder = build_encoder(base, "", 12)
    assert list(encoder.spec.image_mean) == HALF and list(encoder.spec.image_std) == [0.25] * 3
    assert encoder.spec.name == "my clip" and "open_clip_pytorch_model.bin" in encoder.describe
    assert_same_numbers(encoder, clip)
    assert model_config(base) == ("my clip", TINY)
    torch.save({name: value + 0.01 for name, value in clip.state_dict().items()}, tmp_path / "other.pt")
    other = build_encoder(base, str(tmp_path / "other.pt"), 12)
    assert torch.allclose(other.clip.ln_final.weight, clip.ln_final.weight + 0.01)
    assert list(other.spec.image_mean) == HALF
    with pytest.raises(UserError, match=r"CLIP_PRETRAINED: 'openai' is no file.*leave TRAIN.CLIP_PRETRAINED empty"):
        build_encoder(base, "openai", 12)


def test_an_incomplete_folder_is_refused(tmp_path, clip):
    with pytest.raises(UserError, match=r"no open_clip_config\.json"):
        build_encoder(f"local-dir:{tmp_path}", "", 12)
    with pytest.raises(UserError, match="holds no weights"):
        build_encoder(folder_of(tmp_path / "a", None), "", 12)
    with pytest.raises(UserError, match="names nothing"):
        build_encoder("local-dir:", "", 12)
    # open_clip's default is gelu; with another file it is not known
    assert build_encoder(folder_of(tmp_path / "b", clip), "", 12).spec.model["quick_gelu"] is False
    torch.save(clip.state_dict(), tmp_path / "w.pt")
    with pytest.raises(UserError, match="CLIP_ACTIVATION"):
        build_encoder(folder_of(tmp_path / "b", clip), str(tmp_path / "w.pt"), 12)


@pytest.mark.parametrize(("base", "pretrained"), [("hf-hub:some/clip", ""), ("ViT-B-32", "openai")])
def test_without_a_network_it_is_one_line_at_once(no_network, base, pretrained):
    begin = time.monotonic()
    with pytest.raises(UserError, match=r"could not fetch .*(no network|cannot be reached)"):
        build_encoder(base, pretrained, 12)
    assert time.monotonic() - begin < 30


def test_a_repository_of_the_hub_brings_its_weights(monkeypatch, tmp_path, clip):
    folder_of(tmp_path / "hub", clip, TINY)

    def download(repository, name, **_keywords):
        assert repository == "some/clip"
        if not (tmp_path / "hub" / name).is_file():
            raise FileNotFoundError(name)
        return str(tmp_path / "hub" / name)

    monkeypatch.setattr("huggingface_hub.hf_hub_download", download)
    encoder = build_encoder("hf-hub:some/clip", "", 12)
    assert encoder.spec.name == "some/clip" and list(encoder.spec.image_mean) == HALF
    assert_same_numbers(encoder, clip)
    with pytest.raises(UserError, match=r"leave TRAIN\.CLIP_PRETRAINED empty"):
        build_encoder("hf-hub:some/clip", "openai", 12)
