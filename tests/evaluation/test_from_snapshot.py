"""Evaluation configs that leave out what the snapshots know, and those that contradict them."""

import json
import shutil
from dataclasses import asdict
from pathlib import Path

import pytest
import torch
from PIL import Image

from clipgan.config import Config, get_key, load_config
from clipgan.data.toy import draw_toy_dataset
from clipgan.errors import UserError
from clipgan.evaluation.from_snapshot import encoder_of, networks_of, settle_image_size, take_from_generator
from clipgan.networks.clip_encoder import build_encoder
from clipgan.networks.generator import Generator
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.snapshots import save_encoder, save_generator

ROOT = Path(__file__).resolve().parents[2]
SIZES = {
    "TREE.BRANCH_NUM": 2, "TREE.BASE_SIZE": 8, "GAN.GF_DIM": 4, "GAN.Z_DIM": 5, "GAN.CONDITION_DIM": 6, "GAN.R_NUM": 1,
}  # fmt: skip
PREPARED = {
    "DATA.BOX_CROP": False, "DATA.CROP_SCALE": 1.0, "TEXT.RAW_CAPTIONS": True, "TEXT.CAPTIONS_PER_IMAGE": 3,
}  # fmt: skip
OF_ENCODER = {"TEXT.WORDS_NUM": 20, "TEXT.EMBEDDING_DIM": 16}


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_clip) -> Path:
    """Data, an encoder, a generator of other sizes and another preparation than the defaults, and a short config."""
    root = tmp_path_factory.mktemp("short")
    draw_toy_dataset(root / "data", "birds", train=4, test=6, size=32, seed=3)
    trained = Config()
    for key, value in {**SIZES, **PREPARED}.items():
        section, name = key.split(".")
        setattr(getattr(trained, section), name, value)
    torch.manual_seed(0)
    encoder = build_encoder(str(tiny_clip), "", 20)
    save_encoder(root / "encoder.pth", encoder)
    arguments = trained.generator_arguments(16, 24)
    extra = {"config": asdict(trained), "encoder": fingerprint(encoder)}
    save_generator(root / "netG.pth", Generator(**arguments), arguments, **extra)
    (root / "eval.yml").write_text(
        f"DATA_DIR: {root / 'data'}\nOUTPUT_DIR: {root / 'output'}\nWORKERS: 0\nB_VALIDATION: True\n"
        f"TRAIN: {{FLAG: False, NET_G: {root / 'netG.pth'}, CLIP_MODEL_CHECKPOINT: {root / 'encoder.pth'}}}\n"
    )
    return root


def config_of(made: Path, *overrides: str, text: str = "") -> Config:
    path = made / "eval.yml"
    if text:
        path = made / "changed.yml"
        path.write_text((made / "eval.yml").read_text() + text)
    return load_config(path, overrides)


def changed(made: Path, tmp_path: Path, **content) -> Path:
    """A generator's snapshot with other content."""
    saved = torch.load(made / "netG.pth", weights_only=True)
    torch.save({**saved, **content}, tmp_path / "changed.pth")
    return tmp_path / "changed.pth"


def test_a_short_config_gets_sizes_widths_and_preparation_from_the_snapshots(made):
    config = config_of(made)
    generator, encoder = networks_of(config)
    for key, value in {**SIZES, **PREPARED, **OF_ENCODER}.items():
        assert get_key(config, key) == value and type(get_key(config, key)) is type(value), key
    assert generator.input_widths == {"noise": 5, "condition_noise": 6, "sentence": 24}
    assert encoder.spec.words_num == 20 and not encoder.training
    assert config.GAN.DF_DIM == Config().GAN.DF_DIM and config.DATA.FLIP  # no evaluation needs these


def test_a_long_config_that_repeats_the_snapshots_goes_on_to_work(made, tiny_clip):
    values = {**SIZES, **PREPARED, **OF_ENCODER, "TRAIN.CLIP_MODEL_BASE": tiny_clip}
    networks_of(config_of(made, *(f"{key}={value}" for key, value in values.items())))


@pytest.mark.parametrize("key", [*SIZES, *OF_ENCODER])
def test_a_size_that_contradicts_the_snapshot_is_refused_with_key_and_source(made, key):
    path = made / ("netG.pth" if key in SIZES else "encoder.pth")
    has = {**SIZES, **OF_ENCODER}[key]
    section, name = key.split(".")
    with pytest.raises(UserError) as caught:
        networks_of(config_of(made, text=f"{section}: {{{name}: {2 * has}}}\n"))
    line = f"{key} is {2 * has}, but {path} has {has}: leave the key out, or name another snapshot"
    assert str(caught.value) == f"{made / 'changed.yml'}: {line}"
    with pytest.raises(UserError) as caught:
        networks_of(config_of(made, f"{key}={2 * has}"))
    assert str(caught.value) == f"--set: {line}"


def test_another_clip_is_refused_with_key_and_source(made):
    with pytest.raises(UserError, match=r"^--set: TRAIN\.CLIP_MODEL_BASE is ViT-B-32, but .*pth has the model tiny:"):
        networks_of(config_of(made, "TRAIN.CLIP_MODEL_BASE=ViT-B-32"))


@pytest.mark.parametrize("key", list(PREPARED)[:3])
def test_another_preparation_is_refused_unless_set_says_it_on_purpose(made, key):
    default = get_key(Config(), key)
    section, name = key.split(".")
    with pytest.raises(UserError, match=rf"changed\.yml: {key} is .*, but .*netG\.pth has ") as caught:
        networks_of(config_of(made, text=f"{section}: {{{name}: {default}}}\n"))
    assert f"say it by --set {key}={default} to evaluate otherwise on purpose" in str(caught.value)
    config = config_of(made, f"{key}={default}")
    networks_of(config)
    assert get_key(config, key) == default


def test_how_many_captions_are_used_may_differ(made):
    config = config_of(made, text="TEXT: {CAPTIONS_PER_IMAGE: 7}\n")
    networks_of(config)
    assert config.TEXT.CAPTIONS_PER_IMAGE == 7


def test_a_state_dict_published_for_dmgan_uses_the_config_s_values(made, tmp_path):
    published = tmp_path / "published.pth"
    torch.save({"ca_net.fc.weight": torch.zeros(2)}, published)
    config = config_of(made, f"TRAIN.NET_G={published}", "GAN.GF_DIM=48")
    assert take_from_generator(config) is None
    assert (config.GAN.GF_DIM, config.GAN.Z_DIM, config.TREE.BASE_SIZE) == (48, 100, 64)


def test_a_snapshot_without_the_config_of_its_run_leaves_the_preparation_to_the_config(made, tmp_path):
    for content in ({"config": {}}, {"config": {"DATA": {}, "OTHER": 5}}):
        config = config_of(made, f"TRAIN.NET_G={changed(made, tmp_path, **content)}")
        take_from_generator(config)
        assert config.GAN.GF_DIM == 4 and config.DATA.BOX_CROP and config.TEXT.CAPTIONS_PER_IMAGE == 10


@pytest.mark.parametrize(
    ("content", "expected"),
    [
        ({"architecture": {}}, "architecture lacks"),
        ({"gf_dim": 10**9}, r"architecture\.gf_dim must be a whole number from 1 to 1024"),
        ({"gf_dim": True}, r"architecture\.gf_dim must be"),
        ({"word_dim": "x"}, r"architecture\.word_dim must be"),
        ({"base_size": 24}, r"TREE\.BASE_SIZE must be a power of two"),
        ({"base_size": 2048}, "the largest may have 2048"),
        ({"config": 5}, "config must be a dictionary"),
        ({"config": {"DATA": {"BOX_CROP": 1}}}, r"config\.DATA\.BOX_CROP must be true or false"),
        ({"config": {"DATA": {"CROP_SCALE": float("nan")}}}, r"config\.DATA\.CROP_SCALE must be"),
        ({"config": {"TEXT": {"CAPTIONS_PER_IMAGE": -1}}}, r"config\.TEXT\.CAPTIONS_PER_IMAGE must be"),
    ],
)
def test_a_snapshot_that_says_nonsense_of_itself_is_one_line_that_names_it(made, tmp_path, content, expected):
    architecture = torch.load(made / "netG.pth", weights_only=True)["architecture"]
    if not content.keys() & {"architecture", "config"}:
        content = {"architecture": {**architecture, **content}}
    path = changed(made, tmp_path, **content)
    with pytest.raises(UserError, match=expected) as caught:
        networks_of(config_of(made, f"TRAIN.NET_G={path}"))
    assert str(path) in str(caught.value) and "\n" not in str(caught.value)


def test_sizes_that_its_weights_do_not_have_are_refused(made, tmp_path):
    architecture = torch.load(made / "netG.pth", weights_only=True)["architecture"]
    path = changed(made, tmp_path, architecture={**architecture, "gf_dim": 1024})
    with pytest.raises(UserError, match=r"changed\.pth does not fit this architecture"):
        networks_of(config_of(made, f"TRAIN.NET_G={path}"))


def test_an_encoder_of_other_widths_is_named(made, tmp_path, tiny_clip_config):
    text = {**tiny_clip_config["text_cfg"], "width": 32}
    (tmp_path / "wide.json").write_text(json.dumps({**tiny_clip_config, "text_cfg": text}))
    save_encoder(tmp_path / "wide.pth", build_encoder(str(tmp_path / "wide.json"), "", 20))
    expected = r"netG\.pth was trained on words and sentences of 16 and 24 dimensions, but those of .*wide\.pth have 32"
    with pytest.raises(UserError, match=expected):
        networks_of(config_of(made, f"TRAIN.CLIP_MODEL_CHECKPOINT={tmp_path / 'wide.pth'}"))


def test_missing_snapshots_say_what_writes_them(made):
    for key, writer in (("NET_G", r"main\.py"), ("CLIP_MODEL_CHECKPOINT", r"pretrain_DAMSM\.py")):
        with pytest.raises(UserError, match=rf"no (generator|encoder) checkpoint at none\.pth: .*{writer}"):
            networks_of(config_of(made, f"TRAIN.{key}=none.pth"))


def test_an_encoder_that_was_not_fine_tuned_reads_captions_as_long_as_in_the_generator_s_run(made, tmp_path, tiny_clip):
    path = changed(made, tmp_path, config={"TEXT": {"WORDS_NUM": 9}})
    settings = ["TRAIN.CLIP_MODEL_CHECKPOINT=", f"TRAIN.CLIP_MODEL_BASE={tiny_clip}", "TRAIN.CLIP_PRETRAINED="]
    config = config_of(made, f"TRAIN.NET_G={path}", *settings)
    take_from_generator(config)
    assert encoder_of(config).spec.words_num == 9
    assert (config.TEXT.WORDS_NUM, config.TEXT.EMBEDDING_DIM) == (9, 16)
    config = config_of(made, f"TRAIN.NET_G={path}", *settings, "TEXT.WORDS_NUM=12")
    take_from_generator(config)
    assert encoder_of(config).spec.words_num == 12


def test_training_asks_its_config_for_the_encoder_s_sizes(made, tiny_clip):
    said = [f"TRAIN.CLIP_MODEL_BASE={tiny_clip}", "TRAIN.FLAG=True"]
    with pytest.raises(UserError, match=r"was trained with TEXT\.WORDS_NUM 20, but the config says 28"):
        encoder_of(config_of(made, *said))
    assert encoder_of(config_of(made, *said, "TEXT.WORDS_NUM=20")).spec.words_num == 20


@pytest.fixture
def generated(made, tmp_path) -> Path:
    """A copy whose images of 16 px were generated."""
    for name in ("eval.yml", "netG.pth"):
        shutil.copy(made / name, tmp_path / name)
    text = (tmp_path / "eval.yml").read_text().replace(str(made / "netG.pth"), str(tmp_path / "netG.pth"))
    (tmp_path / "eval.yml").write_text(text.replace(str(made / "output"), str(tmp_path / "output")))
    folder = tmp_path / "netG" / "valid" / "single"
    folder.mkdir(parents=True)
    for number in range(6):
        Image.new("RGB", (16, 16), (40 * number, 0, 0)).save(folder / f"{number}.png")
    return tmp_path


def fid(script, folder: Path, weights: Path, *more: str) -> dict:
    script("fid_score.py").main(
        ["--cfg", str(folder / "eval.yml"), "--gpu", "-1", "--weights", str(weights), "--dims", "64", *more]
    )
    return json.loads((folder / "netG" / "valid" / "fid.json").read_text())


def test_scores_take_the_size_of_the_snapshot(generated, script, fid_weights, score_weights, capsys):
    real = fid(script, generated, fid_weights)["real"]
    assert (real["image_size"], real["box_crop"], real["crop_scale"]) == (16, False, 1.0)
    flags = ["--cfg", str(generated / "eval.yml"), "--gpu", "-1", "--weights", str(score_weights), "--splits", "2"]
    script("inception_score.py").main(flags)
    assert "image size" not in capsys.readouterr().out
    with pytest.raises(UserError, match=r"--set: TREE\.BASE_SIZE is 32, but .*netG\.pth has 8"):
        script("inception_score.py").main([*flags, "--set", "TREE.BASE_SIZE=32"])


def test_without_the_snapshot_scores_take_the_size_of_the_images_and_say_so(generated, script, fid_weights, capsys):
    (generated / "netG.pth").unlink()
    real = fid(script, generated, fid_weights)["real"]
    assert (real["image_size"], real["box_crop"]) == (16, True)
    line = f"no snapshot of this project at {generated / 'netG.pth'}: image size 16 px, that of the generated images; "
    assert line in capsys.readouterr().out
    real = fid(script, generated, fid_weights, "--set", "TREE.BASE_SIZE=32", "TREE.BRANCH_NUM=1")["real"]
    assert real["image_size"] == 32


def test_without_the_snapshot_another_folder_is_compared_at_the_default_size(generated, capsys):
    config = load_config(generated / "eval.yml")
    settle_image_size(config)
    assert config.image_size == 256 and "256 px, the default of TREE" in capsys.readouterr().out
    settle_image_size(load_config(generated / "eval.yml", ["TREE.BRANCH_NUM=1"]))
    assert not capsys.readouterr().out


def test_images_that_no_generator_makes_do_not_tell_the_size(generated):
    path = generated / "wide.png"
    Image.new("RGB", (40, 30)).save(path)
    with pytest.raises(UserError, match=r"wide\.png is no generator's image \(40×30 px\)"):
        settle_image_size(load_config(generated / "eval.yml"), [path])
    path.write_bytes(b"x")
    with pytest.raises(UserError, match=r"wide\.png: .*expected a generated image"):
        settle_image_size(load_config(generated / "eval.yml"), [path])
    Image.new("RGB", (4, 4)).save(path)
    with pytest.raises(UserError, match=r"wide\.png: TREE\.BASE_SIZE must be"):
        settle_image_size(load_config(generated / "eval.yml"), [path])


@pytest.mark.parametrize("name", ["eval_clip_bird.yml", "eval_clip_coco.yml", "toy/eval.yml"])
def test_the_shipped_evaluation_configs_repeat_nothing_that_the_snapshots_know(name):
    said = load_config(ROOT / "cfg" / name).said
    assert not said.keys() & {*SIZES, *PREPARED, *OF_ENCODER, "TRAIN.CLIP_MODEL_BASE", "GAN.DF_DIM"}
    assert {"TRAIN.FLAG", "TRAIN.NET_G", "TRAIN.CLIP_MODEL_CHECKPOINT", "DATA_DIR"} <= said.keys()
