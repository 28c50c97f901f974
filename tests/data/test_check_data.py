"""tools/check_data.py finds every fault of a data set in one call."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
from PIL import Image

from clipgan.data import checking
from clipgan.data.cache import Preparation
from clipgan.data.checking import check_images
from clipgan.data.examples import read_examples
from clipgan.data.toy import draw_toy_dataset
from clipgan.errors import UserError

TOOL = Path(__file__).resolve().parents[2] / "tools" / "check_data.py"
PREPARATION = Preparation(32, 76 / 64, box_crop=True)


@pytest.fixture(scope="module")
def check_data(script):
    return script("tools/check_data.py")


@pytest.fixture
def toy(tmp_path) -> Path:
    """30 training and 8 test images with boxes, as a manifest."""
    draw_toy_dataset(tmp_path / "toy", "manifest", train=30, test=8, size=32, seed=2)
    return tmp_path / "toy"


@pytest.fixture
def flags(tmp_path, toy) -> list[str]:
    (tmp_path / "config.yml").write_text(
        f"CONFIG_NAME: check\nDATASET_NAME: toy\nDATA_DIR: {toy}\nWORKERS: 2\nTREE: {{BRANCH_NUM: 1, BASE_SIZE: 32}}\n"
    )
    return ["--cfg", str(tmp_path / "config.yml"), "--output", str(tmp_path / "report.json")]


def entries(toy, split) -> list[dict]:
    return [json.loads(line) for line in (toy / f"{split}.jsonl").read_text().splitlines()]


def rewrite(toy, split, lines) -> None:
    (toy / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))


def test_a_sound_data_set_ends_with_status_0(check_data, flags, tmp_path, capsys):
    check_data.main(flags)
    said = capsys.readouterr().out.splitlines()
    assert said == ["train: 30 of 30 images can be used", "test: 8 of 8 images can be used"]
    report = json.loads((tmp_path / "report.json").read_text())
    assert report["faults"] == report["keys_in_both"] == report["files_in_both"] == []
    assert report["splits"]["train"] == {"listed": 30, "usable": 30, "fewer_captions": 0}


def test_all_faults_are_found_in_one_call(check_data, toy, flags, tmp_path, capsys):
    lines = entries(toy, "train")
    truncated, empty, missing, sideways = (toy / lines[i]["image"] for i in range(4))
    truncated.write_bytes(truncated.read_bytes()[:-300])
    empty.write_bytes(b"")
    missing.unlink()
    Image.new("RGB", (1, 900)).save(sideways, "PNG")
    del lines[3]["box"]
    lines[4]["box"] = [500, 500, 10, 10]
    lines[5]["captions"] = []
    lines[6]["captions"] = lines[6]["captions"][:3]
    rewrite(toy, "train", lines)
    test = entries(toy, "test")
    (toy / test[0]["image"]).write_bytes((toy / lines[10]["image"]).read_bytes())
    test[1]["image"] = lines[11]["image"]
    rewrite(toy, "test", test)

    with pytest.raises(SystemExit) as caught:
        check_data.main(flags)
    assert caught.value.code == 1
    said = capsys.readouterr().out
    report = json.loads((tmp_path / "report.json").read_text())
    faults = [fault["fault"] for fault in report["faults"]]
    for name, reason in [
        (truncated.name, "truncated"), (empty.name, "the file is empty"), (missing.name, "no such image"),
        (sideways.name, "1 x 900"), (Path(lines[4]["image"]).name, "the box [500"), ("train.jsonl:6", "caption"),
    ]:  # fmt: skip
        assert any(name in fault and reason in fault for fault in faults), (name, reason)
    assert len(faults) == 6 and all(f"  train: {fault}\n" in said for fault in faults)
    assert "images that cannot be used: 6" in said
    assert "train: 24 of 30 images can be used\ntrain: 1 of them have fewer captions" in said
    assert said.endswith("test: 8 of 8 images can be used\n")
    assert report["splits"]["train"] == {"listed": 30, "usable": 24, "fewer_captions": 1}
    assert report["keys_in_both"] == ["images/train_00011"]
    assert report["files_in_both"] == [
        {"train": "images/train_00010", "test": "images/test_00000"},
        {"train": "images/train_00011", "test": "images/train_00011"},
    ]
    assert "warning: keys in both train and test: 1\n  images/train_00011\n" in said
    assert "images/test_00000 is images/train_00010 of train" in said


def test_only_20_lines_are_shown_but_all_are_written(check_data, toy, flags, tmp_path, capsys):
    for line in entries(toy, "train")[:25]:
        (toy / line["image"]).write_bytes(b"no image")
    with pytest.raises(SystemExit):
        check_data.main([*flags, "--split", "train", "--workers", "1"])
    said = capsys.readouterr().out
    assert said.count("not a readable image") == 20 and "and 5 more" in said and "train: 5 of 30" in said
    assert "test:" not in said and len(json.loads((tmp_path / "report.json").read_text())["faults"]) == 25


def test_a_fault_of_training_only_is_none_where_training_does_not_see_it(check_data, toy, flags):
    lines = entries(toy, "train")
    lines[4]["box"] = [500, 500, 10, 10]
    rewrite(toy, "train", lines)
    check_data.main([*flags, "--set", "DATA.BOX_CROP=False"])


@pytest.mark.parametrize("layout", ["birds", "coco"])
def test_the_packed_layouts_are_checked_too(check_data, flags, tmp_path, capsys, layout):
    draw_toy_dataset(tmp_path / layout, layout, train=6, test=4, size=32, seed=2)
    examples = read_examples(tmp_path / layout, "test", layout, captions_per_image=5)
    examples[2].image.unlink()
    (tmp_path / layout / "text" / f"{examples[1].key}.txt").write_text("!!\n")
    with pytest.raises(SystemExit) as caught:
        check_data.main([*flags, "--data_dir", str(tmp_path / layout), "--set", f"DATASET_NAME={layout}"])
    said = capsys.readouterr().out
    assert caught.value.code == 1 and "train: 6 of 6" in said and "test: 2 of 4" in said


def test_the_command_ends_with_1_for_faults_and_2_for_no_data_set(toy, flags, tmp_path):
    def run(*more):
        return subprocess.run([sys.executable, TOOL, *flags, *more], capture_output=True, text=True, timeout=120)

    (toy / entries(toy, "test")[0]["image"]).unlink()
    faulty = run("--workers", "2")
    assert faulty.returncode == 1 and "test: 7 of 8 images can be used" in faulty.stdout
    assert "Traceback" not in faulty.stderr and "error" not in faulty.stderr
    shutil.rmtree(toy)
    gone = run()
    assert gone.returncode == 2 and "no such data folder" in gone.stderr and gone.stderr.count("\n") == 1


@pytest.mark.parametrize(
    "flag, named", [(["--workers", "0"], "--workers"), (["--output", "/proc/none/a.json"], r"a\.json: cannot be")]
)
def test_wrong_flags_are_user_errors(check_data, flags, flag, named):
    with pytest.raises(UserError, match=named):
        check_data.main([*flags, *flag])


@pytest.mark.parametrize("workers", [1, 2])
def test_an_image_that_kills_its_process_is_a_fault_and_the_others_are_checked(toy, monkeypatch, workers):
    examples = read_examples(toy, "train", "toy", captions_per_image=10)
    deadly = {examples[7].image, examples[23].image}
    load = Preparation.load

    def load_or_die(preparation, example):
        if example.image in deadly:
            os.kill(os.getpid(), signal.SIGKILL)
        return load(preparation, example)

    monkeypatch.setattr(Preparation, "load", load_or_die)
    checked = check_images(examples, PREPARATION, workers, "")
    assert [i for i, found in enumerate(checked) if found.fault] == [7, 23]
    assert "train_00007.jpg: the process that reads it is killed" in checked[7].fault
    assert len({found.content for found in checked} - {""}) == 28


def test_the_order_of_the_examples_is_kept_with_any_number_of_processes(toy, monkeypatch):
    examples = read_examples(toy, "train", "toy", captions_per_image=10)
    monkeypatch.setattr(checking, "_CHUNK", 4)
    one, three = (check_images(examples, PREPARATION, workers, "") for workers in (1, 3))
    assert one == three and len({found.content for found in one}) == 30
    assert check_images([], PREPARATION, 2, "") == []
