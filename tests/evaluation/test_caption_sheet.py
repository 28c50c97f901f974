"""Pictures of the user's own captions: their numbers, and none of an earlier call among them."""

import errno
from types import SimpleNamespace

import pytest
import torch

from clipgan.config import Config
from clipgan.errors import UserError
from clipgan.evaluation import caption_sheet
from clipgan.evaluation.caption_sheet import draw_captions, has_words
from clipgan.networks.clip_encoder import Tokenizer

ENCODER = SimpleNamespace(tokenize=Tokenizer(6))


@pytest.fixture
def draw(monkeypatch, tmp_path):
    """Draw with a generator that paints each image in the grey of its number."""

    def generate(_generator, encoder, captions, places, _config, _device):
        images = [torch.tensor(places).div(255).mul(2).sub(1)[:, None, None, None].expand(-1, 3, s, s) for s in (4, 8)]
        words = encoder.tokenize(captions).shape[1] - 2
        return SimpleNamespace(images=images, attention=[torch.ones(len(captions), words, 4, 4)])

    monkeypatch.setattr(caption_sheet, "generate", generate)
    config = Config()
    config.EVAL.BATCH_SIZE = 2

    def draw(captions):
        draw_captions(None, ENCODER, captions, config, torch.device("cpu"), tmp_path / "drawn")
        return {path.name for path in (tmp_path / "drawn").iterdir()}

    return draw


def test_pictures_are_numbered_by_the_place_of_their_caption(draw):
    drawn = draw(["", "a red bird", "", "a blue bird", "a bird"])
    numbers = {f"{number}_{size}.png" for number in (1, 3, 4) for size in (4, 8)}
    assert drawn == numbers | {"grid.png", "grid_2.png", "attention_8.png", "attention_8_2.png"}


def test_pictures_of_an_earlier_call_are_removed_and_nothing_else(draw, tmp_path):
    draw(["one", "two", "three"])
    kept = {"notes.txt", "0_4.jpg", "grid.txt", "my_grid.png", "grid_of_mine.png", "bird_4.png"}
    for name in kept:
        (tmp_path / "drawn" / name).write_text("mine")
    (tmp_path / "drawn/5_8.png").mkdir()
    assert draw(["one"]) == kept | {"0_4.png", "0_8.png", "grid.png", "attention_8.png", "5_8.png"}
    assert all((tmp_path / "drawn" / name).read_text() == "mine" for name in kept)


def test_a_folder_that_cannot_be_written_is_named(draw, tmp_path, monkeypatch):
    (tmp_path / "drawn").write_text("a file")
    with pytest.raises(UserError, match="drawn: cannot be written"):
        draw(["a bird"])
    (tmp_path / "drawn").unlink()

    def full(*_arguments, **_options):
        raise OSError(errno.ENOSPC, "No space left on device")

    monkeypatch.setattr(caption_sheet, "save_grid", full)
    with pytest.raises(UserError, match=r"drawn: cannot be written .No space left"):
        draw(["a bird"])


@pytest.mark.parametrize("caption", ["a bird", "鳥", "🐦", "!", "x" * 20_000])
def test_a_caption_with_words_is_known(caption):
    assert has_words(ENCODER, caption)


@pytest.mark.parametrize("caption", ["&nbsp;", "\x01\x02", "&#32;", "<end_of_text>"])
def test_a_caption_without_is_too(caption):
    assert not has_words(ENCODER, caption)


def test_what_cannot_be_drawn_is_said_by_main(script, draw, tmp_path, monkeypatch, capsys):
    (tmp_path / "example_filenames.txt").write_text("mine\n")
    (tmp_path / "mine.txt").write_text("&nbsp;\na red bird\n", encoding="utf-8")
    config = Config(DATA_DIR=str(tmp_path))
    config.TEXT.RAW_CAPTIONS = True
    config.TRAIN.NET_G = str(tmp_path / "net.pth")
    script("main.py")._draw_own_captions(config, None, ENCODER, torch.device("cpu"))
    out = capsys.readouterr().out
    assert "mine.txt:1: '&nbsp;' is not drawn" in out and "1 captions of mine drawn in" in out
    assert {path.name for path in (tmp_path / "net/mine").glob("?_*.png")} == {"1_4.png", "1_8.png"}
