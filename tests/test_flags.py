"""Flags and error lines."""

import argparse

import pytest

from clipgan.errors import UserError
from clipgan.flags import add_common_flags, config_from_flags, run_script


def test_a_users_mistake_is_one_line_and_exit_status_2(capsys):
    def main():
        raise UserError("no config file at x.yml")

    with pytest.raises(SystemExit) as caught:
        run_script(main)
    assert caught.value.code == 2
    assert capsys.readouterr().err == "error: no config file at x.yml\n"


def test_a_bug_keeps_its_traceback():
    with pytest.raises(ZeroDivisionError):
        run_script(lambda: 1 / 0)


def test_flags_override_the_config(tmp_path):
    (tmp_path / "run.yml").write_text("SEED: 1\n")
    parser = argparse.ArgumentParser()
    parser.add_argument("--cfg")
    add_common_flags(parser)
    flags = ["--cfg", str(tmp_path / "run.yml"), "--gpu", "-1", "--data_dir", "d", "--NET_G", "g.pth"]
    flags += ["--manualSeed", "7", "--set", "TRAIN.BATCH_SIZE=4", "WORKERS=0", "--set", "SEED=9"]
    config = config_from_flags(parser.parse_args(flags))
    assert (config.GPU_ID, config.DATA_DIR, config.TRAIN.NET_G) == (-1, "d", "g.pth")
    assert (config.SEED, config.TRAIN.BATCH_SIZE, config.WORKERS) == (7, 4, 0)
