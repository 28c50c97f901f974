"""Configuration: strict, typed, and the same after writing and reading."""

from pathlib import Path

import pytest

from clipgan.config import Config, get_key, key_paths, load_config, require_generator_size, save_config
from clipgan.errors import UserError

REPOSITORY = Path(__file__).resolve().parents[1]
SHIPPED = sorted(REPOSITORY.glob("cfg/**/*.yml"))


def write(folder: Path, text: str) -> Path:
    path = folder / "run.yml"
    path.write_text(text)
    return path


@pytest.mark.parametrize("path", SHIPPED, ids=lambda path: str(path.relative_to(REPOSITORY)))
def test_a_shipped_config_loads_and_survives_writing_and_reading(path, tmp_path):
    config = load_config(path)
    save_config(config, tmp_path / "again.yml")
    assert load_config(tmp_path / "again.yml") == config


def test_the_six_configs_of_the_original_are_there():
    names = {str(path.relative_to(REPOSITORY / "cfg")) for path in SHIPPED}
    assert {
        *("DAMSM/bird.yml", "DAMSM/coco.yml", "clip_bird_DMGAN.yml", "clip_coco_DMGAN.yml"),
        *("eval_clip_bird.yml", "eval_clip_coco.yml"),
    } <= names


@pytest.mark.parametrize(
    ("name", "key", "value"),
    [
        ("DAMSM/bird.yml", "TRAIN.BATCH_SIZE", 48),
        ("DAMSM/bird.yml", "TREE.BASE_SIZE", 224),
        ("DAMSM/bird.yml", "TRAIN.LINEAR_LR", 2e-3),
        ("clip_bird_DMGAN.yml", "TRAIN.BATCH_SIZE", 10),
        ("clip_bird_DMGAN.yml", "TRAIN.SMOOTH.LAMBDA", 10.0),
        ("clip_bird_DMGAN.yml", "TRAIN.MAX_EPOCH", 800),
        ("clip_coco_DMGAN.yml", "TRAIN.BATCH_SIZE", 16),
        ("clip_coco_DMGAN.yml", "TRAIN.SMOOTH.LAMBDA", 50.0),
        ("clip_coco_DMGAN.yml", "GAN.R_NUM", 3),
        ("clip_coco_DMGAN.yml", "TRAIN.SNAPSHOT_INTERVAL", 10),
        ("clip_coco_DMGAN.yml", "TEXT.CAPTIONS_PER_IMAGE", 5),
        ("eval_clip_coco.yml", "EVAL.NUM_IMAGES", 30000),
    ],
)
def test_shipped_values_are_those_of_the_publications(name, key, value):
    assert get_key(load_config(REPOSITORY / "cfg" / name), key) == value


def test_an_override_wins_over_the_file_and_keeps_its_type(tmp_path):
    path = write(tmp_path, "TRAIN: {BATCH_SIZE: 7}\n")
    config = load_config(path, ["TRAIN.BATCH_SIZE=4", "TRAIN.GENERATOR_LR=1e-4", "TRAIN.NET_G=", "CUDA=false"])
    assert config.TRAIN.BATCH_SIZE == 4
    assert config.TRAIN.GENERATOR_LR == 1e-4
    assert config.TRAIN.NET_G == ""
    assert config.CUDA is False


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("TRAIN: {BACTH_SIZE: 4}", "unknown key TRAIN.BACTH_SIZE (did you mean TRAIN.BATCH_SIZE?)"),
        ("BATCH_SIZE: 4", "did you mean TRAIN.BATCH_SIZE or EVAL.BATCH_SIZE?"),
        ("TRAIN: {BATCH_SIZE: four}", "TRAIN.BATCH_SIZE must be a whole number, not 'four'"),
        ("TRAIN: {BATCH_SIZE: 4.5}", "TRAIN.BATCH_SIZE must be a whole number"),
        ("TRAIN: {FLAG: 1}", "TRAIN.FLAG must be True or False"),
        ("TRAIN: 3", "TRAIN is a section"),
        ("TRAIN: {BATCH_SIZE: 1}", "TRAIN.BATCH_SIZE must be at least 2"),
        ("TRAIN: {SMOOTH: {GAMMA2: 0}}", "TRAIN.SMOOTH.GAMMA2 must be above 0"),
        ("EVAL: {BEST_BY: fid}", "set EVAL.BEST_SPLIT to test"),
        ("EVAL: {JUDGE: {CLIP_PRETRAINED: openai}}", "needs EVAL.JUDGE.CLIP_MODEL_BASE"),
        ("TRAIN: {PRECISION: half}", "TRAIN.PRECISION must be one of fp32, tf32, bf16, fp16"),
        ("TRAIN: {GENERATOR_LR: -0.1}", "TRAIN.GENERATOR_LR must be a finite number"),
        ("TEXT: {WORDS_NUM: 0}", "TEXT.WORDS_NUM must be at least 1"),
        ("CONFIG_NAME: a/b", "CONFIG_NAME"),
        ("- a list", "must hold a mapping"),
        ("TRAIN: [", "is not valid YAML"),
    ],
)
def test_a_wrong_file_is_refused_with_a_line_that_names_file_and_key(tmp_path, text, expected):
    path = write(tmp_path, text)
    with pytest.raises(UserError) as caught:
        load_config(path)
    assert expected in str(caught.value)
    assert str(path) in str(caught.value)
    assert "\n" not in str(caught.value)


def test_a_missing_file_is_refused(tmp_path):
    with pytest.raises(UserError, match="no config file at"):
        load_config(tmp_path / "nothing.yml")


@pytest.mark.parametrize("override", ["TRAIN.BATCH_SIZE", "=3", "TRAIN.NOPE=3"])
def test_a_wrong_override_is_refused(tmp_path, override):
    with pytest.raises(UserError, match="--set"):
        load_config(write(tmp_path, ""), [override])


def test_keys_of_the_original_without_effect_warn_once_and_load(tmp_path, capsys):
    load_config(write(tmp_path, "TRAIN: {STEP_SIZE_UP: 10, NET_E: x, BASE_LR: 1}\nDEVICE: cuda\n"))
    warning = capsys.readouterr().err
    assert warning.count("warning") == 1
    for name in ("TRAIN.STEP_SIZE_UP", "TRAIN.NET_E", "TRAIN.BASE_LR", "DEVICE"):
        assert name in warning


def test_only_the_generator_needs_a_power_of_two():
    config = Config()
    config.TREE.BASE_SIZE = 224
    with pytest.raises(UserError, match=r"TREE\.BASE_SIZE must be a power of two"):
        require_generator_size(config)


def test_image_sizes_double_from_the_base():
    config = Config()
    assert config.image_sizes == [64, 128, 256]
    assert config.image_size == 256


def test_every_key_has_a_path():
    paths = list(key_paths())
    assert "TRAIN.SMOOTH.GAMMA1" in paths and "CONFIG_NAME" in paths
    assert len(paths) == len(set(paths))
