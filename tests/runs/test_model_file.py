"""A model's file: what goes in comes out, and what does not fit is refused before memory is taken for it."""

from __future__ import annotations

import json
import struct

import pytest
import torch
from tiny_model import WORDS, architecture, tiny_model, write_tiny_model

from clipgan.drawing.vocabulary import vocabulary_of
from clipgan.errors import UserError
from clipgan.networks.clip_encoder import Tokenizer
from clipgan.runs.model_file import LONGEST_CARD, read_model, write_model

SCORE = {"name": "R-precision", "value": 0.5, "spread": 0.01, "of_real_images": 0.9, "protocol": "among 100"}


def rewritten(path, change) -> None:
    """Let ``change`` alter the header of a safetensors file: its dictionary, with the description as one, too."""
    content = path.read_bytes()
    (length,) = struct.unpack("<Q", content[:8])
    header = json.loads(content[8 : 8 + length])
    description = json.loads(header["__metadata__"]["description"])
    change(header, description)
    if "__metadata__" in header:
        header["__metadata__"]["description"] = json.dumps(description)
    text = json.dumps(header).encode()
    path.write_bytes(struct.pack("<Q", len(text)) + text + content[8 + length :])


def test_who_may_read_the_users_files_may_read_it(tmp_path, tiny_clip_config):
    (tmp_path / "other").touch()
    write_tiny_model(tmp_path / "model.safetensors", tiny_clip_config)
    assert (tmp_path / "model.safetensors").stat().st_mode == (tmp_path / "other").stat().st_mode


@pytest.mark.parametrize("image_side", [True, False])
def test_what_is_written_comes_back(tmp_path, tiny_clip_config, image_side):
    path = tmp_path / "model.safetensors"
    data = {"name": "drawn", "images": 3}
    written = write_tiny_model(path, tiny_clip_config, image_side, scores=[SCORE], data_set=data)
    read = read_model(path)
    for ours, theirs in ((written.generator, read.generator), (written.encoder, read.encoder)):
        assert ours.state_dict().keys() == theirs.state_dict().keys()
        assert all(torch.equal(ours.state_dict()[name], value) for name, value in theirs.state_dict().items())
        assert not theirs.training and not any(weight.requires_grad for weight in theirs.parameters())
    assert read.encoder.sees_images == image_side
    assert read.encoder.spec.words_num == 8 and read.config == written.config
    assert read.vocabulary == WORDS and read.scores == [SCORE] and read.data_set == data
    assert (read.name, read.date, read.card) == (written.name, written.date, written.card)
    assert read.fingerprints == written.fingerprints
    assert list(tmp_path.iterdir()) == [path]


def test_without_the_image_side_captions_are_encoded_the_same_and_images_not_at_all(tmp_path, tiny_clip_config):
    whole = tiny_model(tiny_clip_config).encoder
    write_tiny_model(tmp_path / "m.safetensors", tiny_clip_config, image_side=False)
    part = read_model(tmp_path / "m.safetensors").encoder
    tokens = whole.tokenize(["a small red bird"])
    assert all(map(torch.equal, whole.encode_text(tokens), part.encode_text(tokens)))
    with pytest.raises(ValueError, match="reads captions only"):
        part.encode_image(torch.zeros(1, 3, 8, 8))


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda header, text: header.pop("__metadata__"), "no description of a model"),
        (lambda header, text: text.update(format="clipgan model 9"), "has format 'clipgan model 9'"),
        (lambda header, text: text.pop("vocabulary"), "lacks vocabulary"),
        (lambda header, text: text.update(surprise=1), "has 'surprise'"),
        (lambda header, text: text["generator"].update(gf_dim=10**6), "generator.gf_dim"),
        (lambda header, text: text["generator"].update(gf_dim=1024), "does not fit this architecture"),
        (lambda header, text: text["generator"].update(base_size=12), "power of two"),
        (lambda header, text: text["generator"].update(word_dim=17), "does not fit this architecture"),
        (lambda header, text: text["encoder"].update(words_num="8"), "words_num"),
        (lambda header, text: text["encoder"]["model"].update(embed_dim=25), "does not fit its own architecture"),
        (lambda header, text: text.update(image_side=False), "is unknown here"),
        (lambda header, text: text.update(vocabulary=["a"] * 400_001), "vocabulary"),
        (lambda header, text: text.update(scores=[{"name": "FID"}]), "lacks value"),
        (lambda header, text: text["config"].update(SEED="x"), "SEED"),
        (lambda header, text: text["config"].update(NO_KEY=1), "NO_KEY"),
        (lambda header, text: header.update(other=header.pop(next(k for k in header if k.startswith("gen")))), "other"),
    ],
)
def test_a_file_that_says_what_it_does_not_hold_is_refused_in_one_line(tmp_path, tiny_clip_config, change, said):
    path = tmp_path / "model.safetensors"
    write_tiny_model(path, tiny_clip_config)
    rewritten(path, change)
    with pytest.raises(UserError, match=said) as refused:
        read_model(path)
    assert str(path) in str(refused.value)


def test_a_generator_and_an_encoder_that_do_not_fit_each_other_are_refused(tmp_path, tiny_clip_config):
    path = tmp_path / "model.safetensors"
    model = tiny_model(tiny_clip_config)
    other = tiny_model({**tiny_clip_config, "embed_dim": 20})
    model.encoder = other.encoder
    with pytest.raises(UserError, match=r"reads words and sentences of 16 and 24 dimensions.*writes 16 and 20"):
        write_model(path, model, architecture(model.config, tiny_model(tiny_clip_config).encoder))
        read_model(path)


@pytest.mark.parametrize("content", [b"", b"PK\x03\x04", b"<!doctype html>", b"\xff" * 64, b"\x10" + b"\0" * 7 + b"{}"])
def test_what_is_no_model_is_refused(tmp_path, content):
    path = tmp_path / "model.safetensors"
    path.write_bytes(content)
    with pytest.raises(UserError, match=r"model\.safetensors"):
        read_model(path)
    with pytest.raises(UserError, match=r"no model at .*tools/export_model\.py"):
        read_model(tmp_path / "none.safetensors")


def test_every_cut_of_a_file_is_refused(tmp_path, tiny_clip_config):
    path = tmp_path / "model.safetensors"
    write_tiny_model(path, tiny_clip_config)
    content = path.read_bytes()
    for length in (7, 8, 100, len(content) // 2, len(content) - 1):
        path.write_bytes(content[:length])
        with pytest.raises(UserError, match=r"model\.safetensors"):
            read_model(path)


def test_weights_that_are_not_finite_are_neither_written_nor_read(tmp_path, tiny_clip_config):
    path = tmp_path / "model.safetensors"
    model = write_tiny_model(path, tiny_clip_config)
    before = path.read_bytes()
    weight = next(model.generator.parameters())
    with torch.no_grad():
        weight.view(-1)[0] = float("nan")
    with pytest.raises(UserError, match="NaN or infinities"):
        write_model(path, model, architecture(model.config, model.encoder))
    assert path.read_bytes() == before
    place = before.index(weight.detach().view(-1)[1:9].numpy().tobytes())
    path.write_bytes(before[: place - 4] + struct.pack("<f", float("inf")) + before[place:])
    with pytest.raises(UserError, match="NaN or infinities"):
        read_model(path)


def test_the_largest_vocabulary_can_be_read_again(tmp_path, tiny_clip_config):
    words = vocabulary_of([" ".join(map(_letters, range(200_000)))], Tokenizer(8))
    assert 150_000 < len(words) < 200_000
    write_tiny_model(tmp_path / "m.safetensors", tiny_clip_config, vocabulary=words, card="ä" * LONGEST_CARD)
    assert read_model(tmp_path / "m.safetensors").vocabulary == words


def _letters(number: int) -> str:
    return "".join(chr(ord("a") + int(digit)) for digit in f"{number:06}")


def test_a_description_that_could_not_be_read_again_is_not_written(tmp_path, tiny_clip_config):
    with pytest.raises(UserError, match=r"m\.safetensors: its description has 4,.* bytes, and may have 3,145,728"):
        write_tiny_model(tmp_path / "m.safetensors", tiny_clip_config, vocabulary=("abcdefgh",) * 300_000)
    assert not list(tmp_path.iterdir())


def test_another_ending_and_a_folder_that_cannot_be_are_refused(tmp_path, tiny_clip_config):
    with pytest.raises(UserError, match=r"must end in \.safetensors"):
        write_tiny_model(tmp_path / "model.pth", tiny_clip_config)
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_tiny_model(tmp_path / "file" / "model.safetensors", tiny_clip_config)
