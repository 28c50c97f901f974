"""Flags and error lines."""

import argparse

import pytest

from clipgan.config import Config, save_config
from clipgan.errors import UserError
from clipgan.flags import add_common_flags, add_training_flags, config_from_flags, run_script, training_config
from clipgan.machine import distributed
from clipgan.runs.folder import RunFolder


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
    assert config.said["SEED"] == "--manualSeed" and config.said["TRAIN.NET_G"] == "--NET_G"


def parse(tmp_path, *flags):
    (tmp_path / "run.yml").write_text("")
    parser = argparse.ArgumentParser()
    add_training_flags(parser)
    return parser.parse_args(["--cfg", str(tmp_path / "run.yml"), *flags])


@pytest.mark.parametrize(
    ("flag", "value"),
    [
        *(("--gpu", value) for value in ("-2", "1024", "one", "1.5", "", "9" * 5000, "1e3", str(10**12))),
        *(("--manualSeed", value) for value in ("-1", str(2**63), "9" * 5000, "x" * 10**5)),
    ],
    ids=range(12),
)
def test_a_number_that_no_flag_can_be_is_one_line(tmp_path, flag, value):
    with pytest.raises(UserError) as caught:
        parse(tmp_path, f"{flag}={value}")
    assert str(caught.value).startswith(f"{flag} must be at least") and len(str(caught.value)) < 200


@pytest.mark.parametrize("flag", ["--data_dir=", "--data_dir=a\udcffb", "--NET_G=a\nb", f"--NET_G={'x' * 5000}"])
def test_texts_of_flags_are_checked_as_the_config_s(tmp_path, flag):
    with pytest.raises(UserError, match=r"command line: (DATA_DIR|TRAIN\.NET_G) "):
        config_from_flags(parse(tmp_path, flag))


@pytest.mark.parametrize(
    ("flag", "least", "most"), [("--batch_size", 1, 65536), ("--workers", 0, 256), ("--splits", 1, 10**6)]
)
def test_numbers_of_the_scores_are_bounded(script, flag, least, most):
    for value in (str(least - 1), str(most + 1), "9" * 5000, "many"):
        with pytest.raises(UserError, match=f"{flag} must be at least {least} and at most {most}, not "):
            script("inception_score.py").main(["--path", "nowhere", f"{flag}={value}"])


@pytest.mark.parametrize(("processes", "rank"), [("1", "0"), ("2000", "1234")])
def test_the_line_of_an_error_has_at_most_500_characters(capsys, monkeypatch, processes, rank):
    monkeypatch.setenv("WORLD_SIZE", processes)
    monkeypatch.setenv("RANK", rank)
    monkeypatch.setattr(distributed, "initialised", lambda: True)

    def main():
        raise UserError("x" * 10_000 + "\n" + "y" * 10_000)

    with pytest.raises(SystemExit):
        run_script(main)
    line = capsys.readouterr().err
    assert len(line) <= 501 and line.count("\n") == 1
    assert line.startswith("error: " if processes == "1" else "error (process 1234): ") and line.endswith("y\n")


class Run:
    """A run folder with a state that is never read."""

    def __init__(self, root):
        self.root, self.config = root, root / "config.yml"
        (root / "State").mkdir(parents=True)
        (root / "State" / "step_00000001.pt").write_bytes(b"x")
        save_config(Config(), self.config)

    def resume(self, *flags):
        parser = argparse.ArgumentParser()
        add_training_flags(parser)
        return training_config(parser.parse_args(["--resume", str(self.root), *flags]))


def test_a_run_folder_says_what_to_do(tmp_path):
    run = Run(tmp_path / "run")
    config, folder = run.resume()
    assert config == Config() and folder.root == run.root


@pytest.mark.parametrize(
    ("content", "reason"),
    [
        (None, "no such file, so what this run was trained with is unknown"),
        (b"", None),
        (b"TRAIN: [", "is not valid YAML"),
        (b"\0" * 1000, "unacceptable character|must hold a mapping"),
        (b"SEED: -1", "SEED must be"),
        (b"SEED: 1\nSEED: 2", "stands there twice"),
    ],
)
def test_a_config_of_a_run_that_is_missing_or_broken_is_one_line(tmp_path, content, reason):
    run = Run(tmp_path / "run")
    run.config.unlink() if content is None else run.config.write_bytes(content)
    for flags in ([], ["--cfg", "cfg/clip_bird_DMGAN.yml"]):
        if reason is None:
            assert flags or run.resume()[0] == Config()
            continue
        with pytest.raises(UserError, match=f"config.yml.*({reason})"):
            run.resume(*flags)


def test_what_is_no_run_folder_is_named(tmp_path):
    run = Run(tmp_path / "run")
    run.root = run.root / "State" / "step_00000001.pt"
    with pytest.raises(UserError, match=r"step_00000001\.pt: is no folder: name the run's folder"):
        run.resume()
    for root in (tmp_path / "nowhere", tmp_path, tmp_path / ("x" * 300)):
        run.root = root
        with pytest.raises(UserError, match="so nothing to go on from"):
            run.resume()


@pytest.mark.parametrize("name", ["a**b", "[x]", "a?", "*"])
def test_a_run_is_found_whatever_its_name(tmp_path, name):
    settings = [f"OUTPUT_DIR={tmp_path}", f"CONFIG_NAME='{name}'"]
    assert training_config(parse(tmp_path, "--resume", "auto", "--set", *settings))[1] is None
    Run(tmp_path / f"birds_{name}_until_2020")
    folder = RunFolder.newest(config_from_flags(parse(tmp_path, "--set", *settings)))
    assert folder.root == tmp_path / f"birds_{name}_until_2020"
