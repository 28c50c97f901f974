"""main.py draws sentences: the files that it writes, and what it refuses."""

from __future__ import annotations

import io
import sys

import numpy as np
import pytest
from PIL import Image
from tiny_model import write_tiny_model

from clipgan.drawing import files
from clipgan.drawing.files import name_of
from clipgan.drawing.model import Model
from clipgan.errors import UserError

RED, BLUE = "a small red bird", "the blue bird with black wings"


@pytest.fixture(scope="module")
def model_path(tmp_path_factory, tiny_clip_config):
    path = tmp_path_factory.mktemp("model") / "tiny.safetensors"
    write_tiny_model(path, tiny_clip_config)
    return path


@pytest.fixture
def draw(script, model_path, tmp_path):
    """Call main.py with the tiny model; returns the bytes of the files in a new folder."""

    def call(*flags, out="drawn"):
        script("main.py").main(["--model", str(model_path), "--gpu", "-1", *flags, "--out", str(tmp_path / out)])
        return {path.name: path.read_bytes() for path in (tmp_path / out).iterdir()}

    return call


def test_one_seed_writes_the_same_files_and_another_others(draw, capsys):
    one = draw("--text", RED, "--count", "3", "--seed", "1", out="one")
    again = draw("--text", RED, "--count", "3", "--seed", "1", out="again")
    other = draw("--text", RED, "--count", "3", "--seed", "2", out="other")
    names = {f"a_small_red_bird_s1_{part}.png" for part in ("0", "1", "2", "attention", "grid")}
    assert one.keys() == names and one == again
    assert not set(one.values()) & set(other.values())
    assert "3 pictures of 1 sentence, seed 1, 32 px" in capsys.readouterr().out
    assert Image.open(io.BytesIO(one["a_small_red_bird_s1_0.png"])).size == (32, 32)


def test_more_pictures_do_not_change_the_first_ones(draw):
    few = draw("--text", RED, "--count", "1", out="few")
    many = draw("--text", BLUE, "--text", RED, "--count", "3", out="many")
    assert few["a_small_red_bird_s0_0.png"] == many["a_small_red_bird_s0_0.png"]


def test_texts_come_from_flags_files_and_standard_input(draw, tmp_path, monkeypatch):
    (tmp_path / "texts.txt").write_text(f"{BLUE}\n\n{RED}\n", encoding="utf-16")
    from_file = draw("--text-file", str(tmp_path / "texts.txt"), "--count", "1", out="file")
    monkeypatch.setattr(sys, "stdin", io.TextIOWrapper(io.BytesIO(f"{BLUE}\r\n{RED}".encode())))
    from_input = draw("--text-file", "-", "--count", "1", out="input")
    assert from_file == from_input == draw("--text", BLUE, "--text", RED, "--count", "1", out="flags")


def test_all_scales_and_the_page(draw, tmp_path):
    files = draw("--text", RED, "--count", "1", "--all-scales", "--page")
    for name, width in (("_8px", 8), ("_16px", 16), ("", 32)):
        assert Image.open(io.BytesIO(files[f"a_small_red_bird_s0_0{name}.png"])).width == width
    page = files["index.html"].decode()
    assert RED in page and "data-shares=" in page and "<td dir=\"auto\">8 px, 16 px, 32 px</td>" in page


def test_many_sentences_are_written_as_they_come_and_share_grids(draw, tmp_path, monkeypatch):
    texts = [f"a {color} {part} bird" for color in ("red", "blue", "black") for part in ("small", "wings", "is")]
    (tmp_path / "texts.txt").write_text("\n".join(texts))
    monkeypatch.setattr(files, "GRID_ROWS", 4)
    monkeypatch.setattr(files, "SHOWN", 2)
    before = []
    draw_one = Model._draw

    def watched(model, *rest):
        before.append(len(list((tmp_path / "drawn").glob("*.png"))) if (tmp_path / "drawn").is_dir() else 0)
        return draw_one(model, *rest)

    monkeypatch.setattr(Model, "_draw", watched)
    written = draw("--text-file", str(tmp_path / "texts.txt"), "--count", "3")
    assert before[:5] == [0, 1, 2, 3, 5]  # the first sentence has its pictures, then its attention
    grids = sorted(Image.open(io.BytesIO(written[name])).size for name in written if name.endswith("_grid.png"))
    assert len(grids) == 3 and grids[0][1] < grids[1][1] == grids[2][1] and len({width for width, _ in grids}) == 1
    assert len(written) == 9 * 4 + 3
    one = draw("--text", texts[0], "--count", "2", out="one")
    name = "a_red_small_bird_s0_attention.png"
    assert written[name] == one[name]  # two of the three pictures


def test_best_keeps_the_nearest_and_says_so(draw, capsys):
    files = draw("--text", RED, "--count", "4", "--best", "2")
    said = capsys.readouterr().out
    assert "the 2 of 4 that the encoder finds nearest" in said
    kept = [line.split()[2] for line in said.splitlines() if " number " in line]
    assert len(kept) == 2 and all(f"a_small_red_bird_s0_{number}.png" in files for number in kept)
    assert sum(name[-5].isdigit() for name in files) == 2


def test_interpolation_writes_a_strip_and_a_gif_that_comes_back(draw):
    files = draw("--text", RED, "--text", BLUE, "--interpolate", "--steps", "5")
    (strip,) = [Image.open(io.BytesIO(content)) for name, content in files.items() if name.endswith("_strip.png")]
    (gif,) = [Image.open(io.BytesIO(content)) for name, content in files.items() if name.endswith(".gif")]
    assert strip.size == (5 * 132 - 4, 128) and gif.n_frames == 8 and gif.info["loop"] == 0
    alone = draw("--text", RED, "--count", "1", out="alone")
    picture = Image.open(io.BytesIO(alone["a_small_red_bird_s0_0.png"]))
    assert np.array_equal(np.asarray(strip)[::4, :128:4], np.asarray(picture))


def test_unknown_words_and_cuts_are_said(draw, capsys):
    draw("--text", "a purple bird is a red bird with wings", "--count", "1")
    said = capsys.readouterr().out
    assert "Training never saw the word 'purple'." in said and "Only its first 8 tokens are read: 'wings'" in said


def test_names_of_captions_differ_where_captions_do():
    long = ["a " + "very " * count + "red bird" for count in (30, 31)]
    texts = ["a red bird", "a red \ud800bird", "a red, bird", "A red bird", *long, "鳥", "鳥鳥", "../../x", "con"]
    names = [name_of(text) for text in texts]
    assert len(set(names)) == len(names) and names[0] == "a_red_bird"
    assert all(name and set(name) <= set("abcdefghijklmnopqrstuvwxyz0123456789_") and len(name) < 70 for name in names)


@pytest.mark.parametrize(
    ("flags", "said"),
    [
        ((), "nothing to draw: --model goes with --text"),
        (("--text", RED, "--interpolate", "--text", BLUE, "--count", "2"), "--count does nothing with --interpolate"),
        (("--text", RED, "--steps", "3"), "--steps is of --interpolate"),
        (("--text", RED, "--manualSeed", "3"), "pictures have --seed"),
        (("--text", RED, "--page", "--count", "501"), "--page holds 500 pictures"),
        (("--text-file", ""), "--text-file is empty"),
        (("--text", "!?"), "holds no word"),
        (("--text", RED, "--best", "5"), "--best 5 keeps more pictures than --count 4"),
        (("--text", RED, "--interpolate"), "give two"),
        (("--text", RED, "--cfg", "x.yml"), "one of the two"),
        (("--text", RED, "--set", "SEED=1"), "--set changes a config"),
        (("--text", RED, "--resume", "auto"), "--resume goes on with a training run"),
        (("--text-file", "none.txt"), "none.txt"),
        (("--text", RED, "--count", "0"), "--count must be at least 1"),
        (("--text", RED, "--seed", "x"), "--seed must be"),
    ],
)
def test_mistakes_are_one_line_and_leave_nothing(draw, tmp_path, flags, said):
    with pytest.raises(UserError, match=said):
        draw(*flags)
    assert not (tmp_path / "drawn").exists()


def test_a_sentence_of_a_file_that_cannot_be_read_is_named(draw, tmp_path):
    (tmp_path / "texts.txt").write_text(f"{RED}\n\n!?\n")
    with pytest.raises(UserError, match=r"--text-file .*texts\.txt, sentence 2: .*holds no word"):
        draw("--text-file", str(tmp_path / "texts.txt"))
    assert not (tmp_path / "drawn").exists()


@pytest.mark.parametrize("flags", [("--seed", "0"), ("--count", "2"), ("--out", "x"), ("--steps", "3")])
def test_a_flag_of_drawing_without_a_sentence_never_trains(script, flags):
    with pytest.raises(UserError, match=f"nothing to draw: {flags[0]} goes with --text"):
        script("main.py").main(["--cfg", "cfg/toy/gan.yml", *flags])


def test_a_file_in_the_place_of_the_folder_is_named(draw, tmp_path):
    (tmp_path / "drawn").write_text("mine")
    with pytest.raises(UserError, match=r"drawn: is a file.*--out"):
        draw("--text", RED)
    assert (tmp_path / "drawn").read_text() == "mine"
