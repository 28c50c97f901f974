"""Configuration: strict, typed, and the same after writing and reading."""

from dataclasses import asdict
from pathlib import Path

import numpy as np
import pytest
from config_files import refusal, write

from clipgan.config import (
    BOUNDS,
    Config,
    config_from_dict,
    get_key,
    key_paths,
    load_config,
    require_generator_size,
    save_config,
    set_key,
)
from clipgan.errors import UserError
from clipgan.machine.device import seed_everything

REPOSITORY = Path(__file__).resolve().parents[1]
SHIPPED = sorted(REPOSITORY.glob("cfg/**/*.yml"))


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
        ("TRAIN: {SMOOTH: {GAMMA2: 0}}", "TRAIN.SMOOTH.GAMMA2 must be a finite number of at least 0.001"),
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


def test_a_config_knows_which_keys_were_said_and_where(tmp_path):
    path = write(tmp_path, "SEED: 1\nTRAIN: {BATCH_SIZE: 10, SMOOTH: {GAMMA1: 4.0}}\n")
    config = load_config(path, ["TRAIN.BATCH_SIZE=4", "TREE={BASE_SIZE: 16}"])
    assert config.said == {
        "SEED": str(path), "TRAIN.BATCH_SIZE": "--set", "TRAIN.SMOOTH.GAMMA1": str(path), "TREE.BASE_SIZE": "--set",
    }  # fmt: skip
    other = config_from_dict(asdict(config), "other")
    assert other == config and set(other.said) == set(key_paths())  # where values come from makes no difference
    assert "said" not in asdict(config) and "said" not in set(key_paths())
    save_config(config, tmp_path / "again.yml")
    assert load_config(tmp_path / "again.yml") == config and not Config().said
    with pytest.raises(UserError, match="unknown key said"):
        load_config(write(tmp_path, "said: {}\n"))


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


def numbers() -> list[str]:
    config = Config()
    return [key for key in key_paths() if type(get_key(config, key)) in (int, float)] + ["GPU_ID"]


def test_every_number_has_bounds_which_its_default_keeps():
    assert set(numbers()) == set(BOUNDS)
    config_from_dict(asdict(Config()), "defaults")


@pytest.mark.parametrize("key", numbers())
def test_a_number_out_of_bounds_is_refused_by_its_key(tmp_path, key):
    low, high = BOUNDS[key]
    values = [10**400, -(10**400), 1e30, "1e999", ".inf", "nan", "-.inf"] + [10**12] * (key != "SEED")
    values += [low - 1, high + 1] if isinstance(low, int) else [low - 1e-7, high * 1.000001]
    for value in values:
        assert f" {key} must be " in refusal(tmp_path, "", f"{key}={value}")


def test_the_bounds_themselves_are_taken(tmp_path):
    for key, (low, high) in BOUNDS.items():
        for value in (low, high):
            config = Config()
            if key in ("TREE.BRANCH_NUM", "TREE.BASE_SIZE"):
                config.TREE.BRANCH_NUM, config.TREE.BASE_SIZE = 1, 8
            if (key, value) != ("TRAIN.EMA", 1.0):
                set_key(config, key, value)
            assert config_from_dict(asdict(config), "bounds") == config
    assert load_config(write(tmp_path, "TRAIN: {LINEAR_LR: 20}")).TRAIN.LINEAR_LR == 20.0  # the original's


def test_images_beyond_the_largest_size_are_refused(tmp_path):
    assert "images of 4096 px: the largest may have 2048" in refusal(tmp_path, "TREE: {BASE_SIZE: 512, BRANCH_NUM: 4}")
    assert "TRAIN.EMA must be below 1" in refusal(tmp_path, "TRAIN: {EMA: 1}")


def test_every_consumer_of_the_seed_takes_the_largest():
    seed = int(BOUNDS["SEED"][1])
    seed_everything(seed)
    assert np.random.default_rng((seed, 3, *b"noise")).random() != np.random.default_rng(seed).random()
    seed_everything(0)


@pytest.mark.parametrize(
    ("key", "text", "expected"),
    [
        ("CONFIG_NAME", "..", "neither empty nor a path"),
        ("CONFIG_NAME", ".", "neither empty nor a path"),
        ("CONFIG_NAME", "''", "neither empty nor a path"),
        ("DATASET_NAME", "a/../../b", "neither empty nor a path"),
        ("DATASET_NAME", "a\\b", "neither empty nor a path"),
        ("CONFIG_NAME", "ü" * 51, "at most 100 bytes, not 102"),
        ("DATA_DIR", "''", "is empty: name a folder"),
        ("OUTPUT_DIR", "'  '", "is empty: name a folder"),
        ("OUTPUT_DIR", "x" * 4097, "at most 4096 characters"),
        ("DATA_DIR", '"a\\0b"', "a character that is none of a text"),
        ("TRAIN.NET_G", '"a\\nb"', "a character that is none of a text"),
        ("TRAIN.CLIP_MODEL_BASE", '"a\\ud800"', "a character that is none of a text"),
        ("TRAIN.CLIP_ACTIVATION", "relu", "must be one of empty, gelu, quick_gelu, not 'relu'"),
        ("EVAL.JUDGE.CLIP_ACTIVATION", "relu", "must be one of empty, gelu, quick_gelu, not 'relu'"),
    ],
)
def test_a_text_that_cannot_be_used_is_refused_by_its_key(tmp_path, key, text, expected):
    line = refusal(tmp_path, "", f"{key}={text}")
    assert f" {key} " in line and expected in line


@pytest.mark.parametrize("section", ["TRAIN", "EVAL.JUDGE"])
def test_mean_and_std_of_a_clip_are_three_numbers_or_none(tmp_path, section):
    path = write(tmp_path, "")
    config = load_config(path, [f"{section}.CLIP_MEAN=[0.5, 1, 1e-1]", f"{section}.CLIP_STD=[0.2,0.2,0.2]"])
    assert get_key(config, f"{section}.CLIP_MEAN") == [0.5, 1.0, 0.1]
    save_config(config, tmp_path / "again.yml")
    assert load_config(tmp_path / "again.yml") == config
    assert get_key(load_config(tmp_path / "again.yml", [f"{section}.CLIP_MEAN="]), f"{section}.CLIP_MEAN") == []
    for value in (
        "0.5",
        "[0.5, 0.5]",
        "[1, 1, 1, 1]",
        "[a, 1, 1]",
        "[yes, 1, 1]",
        "[.nan, 1, 1]",
        "[11, 1, 1]",
        "[[1],1,1]",
    ):
        assert f"{section}.CLIP_MEAN must be" in refusal(tmp_path, "", f"{section}.CLIP_MEAN={value}")
    for value in ("[0, 1, 1]", "[-1, 1, 1]", "[1e-30, 1, 1]"):
        assert f"{section}.CLIP_STD must be" in refusal(tmp_path, "", f"{section}.CLIP_STD={value}")


@pytest.mark.parametrize(
    ("change", "expected"),
    [
        ({"TRAIN": {**asdict(Config())["TRAIN"], "BATCH_SIZE": 0}}, "TRAIN.BATCH_SIZE must be at least 2"),
        ({"TRAIN": 5}, "TRAIN is a section"),
        ({"TRAIN": {"CLIP_MEAN": [1.0, float("nan"), 0.0]}}, "TRAIN.CLIP_MEAN must be"),
        ({3: 5}, "unknown key 3"),
        ({None: 5}, "unknown key None"),
        ({"x" * 10**6: 5}, "unknown key xxx"),
        ({"SEED": 10**400}, "SEED must be at least 0"),
        ({"SEED": np.int64(3)}, "SEED must be a whole number"),
        ({"DATA_DIR": b"x"}, "DATA_DIR must be a text"),
        ({"DATA_DIR": "x" * 10**7}, "DATA_DIR must have at most 4096 characters"),
    ],
)
def test_a_dictionary_of_a_stranger_is_checked_as_a_file_is(change, expected):
    assert config_from_dict(asdict(Config()), "state.pt") == Config()
    with pytest.raises(UserError) as caught:
        config_from_dict({**asdict(Config()), **change}, "state.pt")
    assert f"state.pt: {expected}" in str(caught.value) and len(str(caught.value)) <= 480
    with pytest.raises(UserError, match=r"state\.pt must hold a mapping"):
        config_from_dict([1], "state.pt")


def test_a_config_is_written_whole_or_not_at_all(tmp_path, monkeypatch):
    save_config(Config(SEED=1), tmp_path / "run.yml")

    def full(*_):
        raise OSError(28, "No space left on device")

    monkeypatch.setattr("os.fsync", full)
    with pytest.raises(
        UserError, match=r"run\.yml: cannot be written: the disk is full \([\d,]+ MB are free\): make room"
    ):
        save_config(Config(SEED=2), tmp_path / "run.yml")
    assert load_config(tmp_path / "run.yml").SEED == 1 and len(list(tmp_path.iterdir())) == 1
