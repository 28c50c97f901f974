"""Config files from strangers, other editors and other programs: read, or refused soon and in a line."""

import os
import time

import pytest
from config_files import refusal, write

from clipgan.config import load_config
from clipgan.errors import UserError

MILLION = 10**6 - 100


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("SEED: 1\nTRAIN:\n  EMA: 0.5\n  EMA: 0.6\n", "line 4: TRAIN.EMA stands there twice"),
        ("SEED: 1\nSEED: 1\n", "line 2: SEED stands there twice"),
        ("SEED: 1\nCONFIG_NAME: 2024-13-01\n", "line 2: CONFIG_NAME: '2024-13-01' cannot be read as YAML's timestamp"),
        ("CONFIG_NAME: 2024-12-01", "CONFIG_NAME must be a text, not datetime.date(2024, 12, 1); put it in quotes"),
        ("TRAIN:\n  BATCH_SIZE: 0x_", "line 2: TRAIN.BATCH_SIZE: '0x_' cannot be read as YAML's int"),
        ("SEED: !!int x", "line 1: SEED: 'x' cannot be read as YAML's int"),
        ("SEED: !!float x", "line 1: SEED: 'x' cannot be read as YAML's float"),
        ("CUDA: !!bool x", "line 1: CUDA: 'x' cannot be read as YAML's bool"),
        ("CUDA: !!timestamp x", "line 1: CUDA: 'x' cannot be read as YAML's timestamp"),
        ("SEED: !!python/name:os.system ''", "line 1: SEED: '' cannot be read as YAML's python/name:os.system"),
        ("SEED: !!python/object/apply:os.system [ls]", "python/object/apply:os.system is not for a config"),
        ("TRAIN: !!set {EMA}", "line 1: TRAIN: tag:yaml.org,2002:set is not for a config"),
        ("SEED: =", "line 1: SEED: '='"),
        ("SEED: 010", "line 1: SEED: '010' is octal"),
        ("WORKERS: 1:30", "line 1: WORKERS: '1:30' is octal or of base 60"),
        (f"SEED: {'1' * 10_000}", "line 1: SEED: '1111"),
        (f"SEED: {'1' * 4_000}", "SEED must be at least 0 and at most 9223372036854775807, not a number of 13285 bits"),
        (f"TRAIN: {{EMA: {'1' * 4_000}}}", "TRAIN.EMA must be a finite number"),
        (f"SEED: 1{':1' * 400_000}", "line 1: SEED"),
        (f"CONFIG_NAME: {'a' * MILLION}", f"has {MILLION} characters: at most 5000"),
        (f"{'a' * 1000}: 1", "unknown key aaaa"),
        (f"CONFIG_NAME: {'[' * MILLION}", "more than 10 levels"),
        ("- " * 400_000, "more than 10 levels"),
        ("? " * 400_000, "more than 10 levels"),
        ("{a: " * 200_000, "more than 10 levels"),
        ("SEED: [" + "1," * 400_000 + "]", "more than 10000 values"),
        ("STEP_SIZE_UP: &a [*a]", "more than 10 levels"),
        (
            "a: &a [x,x,x,x,x,x,x,x,x]\n"
            + "".join(f"{b}: &{b} [{','.join(9 * ['*' + a])}]\n" for a, b in zip("abcdefgh", "bcdefghi", strict=True)),
            "more than 10000 values",
        ),
        ("TRAIN: {<<: {EMA: 0.5}}", "line 1: TRAIN: a key must be a text, not '<<'"),
        ("on: 1", "line 1: a key must be a text, not 'on'"),
        ("[a]: 1", "line 1: a key must be a text"),
        ("SEED: [1]", "SEED must be a whole number, not [1]"),
        ("DATA_DIR: [a]", "DATA_DIR must be a text, not ['a']"),
        ("DATA_DIR: {a: b}", "DATA_DIR must be a text"),
        (f"%YAML {'9' * 5000}.1\n---\nSEED: 1", "is not valid YAML"),
        ('DATA_DIR: "\\UFFFFFFFF"', "is not valid YAML"),
        ("SEED: 1\n---\nSEED: 2", "is not valid YAML at line 2"),
        ("TRAIN:\n\tEMA: 1", "is not valid YAML at line 2, column 1"),
        ("<!DOCTYPE html>", "is a web page"),
        (bytes(range(256)), "is not valid YAML"),
        (b"#" * (1 << 20) + b"#", "has 1 MB; such a file has at most 1 MB"),
    ],
    ids=range(41),
)  # fmt: skip
def test_hostile_and_mistaken_yaml_is_refused_soon_with_its_line(tmp_path, text, expected):
    began = time.process_time()
    assert expected in refusal(tmp_path, text)
    assert time.process_time() - began < 5


@pytest.mark.parametrize(
    "value",
    ["!!int x", "2024-13-01", "[" * 10_000, "&a [*a]", '"\\UFFFFFFFF"', "caf\udce9", "{a: 1, a: 2}", "1" * 10_000],
)
def test_a_hostile_override_is_a_short_line(tmp_path, value):
    assert refusal(tmp_path, "", f"TRAIN.BATCH_SIZE={value}").startswith("--set")


def test_yaml_that_is_merely_unusual_loads(tmp_path):
    text = "TRAIN:\n  SMOOTH: {GAMMA1: &g 4, GAMMA3: *g}\n  GENERATOR_LR: 1e-4\n  FLAG: yes\nSEED: 0x10\nWORKERS: 1_0\n"
    config = load_config(write(tmp_path, text + "DEVICE: [0, 1]\nGPU_ID: ''\n"))
    assert (config.TRAIN.SMOOTH.GAMMA1, config.TRAIN.SMOOTH.GAMMA3) == (4.0, 4.0)
    assert (config.TRAIN.GENERATOR_LR, config.TRAIN.FLAG, config.SEED, config.WORKERS) == (1e-4, True, 16, 10)
    assert config.GPU_ID is None


@pytest.mark.parametrize("encoding", ["utf-8-sig", "utf-16", "latin-1"])
def test_a_file_of_another_encoding_is_read(tmp_path, encoding):
    assert load_config(write(tmp_path, "DATA_DIR: data/café\r\nSEED: 5\r\n".encode(encoding))).DATA_DIR == "data/café"


def test_a_folder_and_a_pipe_are_no_configs(tmp_path):
    os.mkfifo(tmp_path / "pipe.yml")
    for path, reason in ((tmp_path, "is a folder"), (tmp_path / "pipe.yml", "is a pipe")):
        with pytest.raises(UserError, match=reason):
            load_config(path)
