"""``main.py`` samples whole or not at all: what is cut is not scored, and two samplings do not share a folder."""

import json
import os
import shutil
import signal
import subprocess
import sys
from pathlib import Path

import pytest
import torch
from tiny_project import Project, make_project

from clipgan.config import load_config
from clipgan.data.from_config import read_split
from clipgan.errors import UserError
from clipgan.evaluation import sampling
from clipgan.evaluation.image_files import list_images
from clipgan.evaluation.metrics.attributes import read_truths
from clipgan.evaluation.monitor import Monitor
from clipgan.evaluation.retrieval import Validation
from clipgan.evaluation.unfinished import MARKER
from clipgan.networks.generator import Generator
from clipgan.runs.folder import RunFolder
from clipgan.runs.lock import locked
from clipgan.runs.snapshots import load_encoder

ROOT = Path(__file__).resolve().parents[2]
KILLED = """
import os, signal, sys
sys.path[:0] = [{root!r}, {root!r} + "/code"]
from clipgan.evaluation import sampling
write, count = sampling._write_png, iter(range(100))
def dying(path, pixels):
    write(path, pixels)
    if next(count) == 4:
        os.kill(os.getpid(), signal.SIGKILL)
sampling._write_png = dying
import main
main.main(sys.argv[1:])
"""


@pytest.fixture(scope="module")
def made(tmp_path_factory, tiny_clip) -> Path:
    return make_project(tmp_path_factory.mktemp("sampling"), tiny_clip, train=8, test=12, images=20)


@pytest.fixture
def project(made, script) -> Project:
    shutil.rmtree(made / "netG_epoch_1", ignore_errors=True)
    return Project(made, script)


def test_the_same_commands_give_the_same_numbers_to_the_last_digit(project, fid_weights, score_weights):
    reports = []
    for _ in range(2):
        report = {"images": project.sample(), "files": project.files()}
        report["fid"] = project.fid(fid_weights, "--recompute", "--workers", "2", "--batch_size", "4")
        report["kept"] = project.fid(fid_weights, "--workers", "2", "--batch_size", "4")
        report["inception score"] = project.inception_score(score_weights, "--workers", "2", "--batch_size", "4")
        reports.append(report)
    assert len(reports[0]["files"]) == 20
    assert reports[0] == reports[1]
    assert reports[0]["fid"] == reports[0]["kept"]


@pytest.fixture
def cut(project, fid_weights) -> Project:
    """A project whose second sampling was killed."""
    project.sample()
    project.fid(fid_weights)
    program = KILLED.format(root=str(ROOT))
    environment = os.environ | {"OMP_NUM_THREADS": "1"}
    killed = subprocess.run([sys.executable, "-c", program, *project.flags()], env=environment, check=False)
    assert killed.returncode == -signal.SIGKILL
    return project


def test_a_killed_sampling_is_not_scored_until_it_is_made_anew(cut, fid_weights, score_weights):
    assert 5 <= len(cut.files()) < 20
    assert not (cut.valid / "fid.json").exists() and not (cut.valid / "r_precision.json").exists()
    species = str(next(path for path in cut.images.iterdir() if path.is_dir()))
    command = rf"`python main\.py --cfg {cut.config} --gpu -1`"
    own = rf"`python main\.py --cfg FILE --NET_G {cut.net_g} --set .*`"
    for score, weights in ((cut.fid, fid_weights), (cut.inception_score, score_weights)):
        with pytest.raises(UserError, match=rf"{cut.images} was cut, or still goes on.*{command}"):
            score(weights)
    with pytest.raises(UserError, match=own):
        cut.fid(fid_weights, "--path1", species)
    alone = ["--weights", str(fid_weights), "--gpu", "-1"]
    for folder in (str(cut.images), str(cut.valid), species, f"{cut.images}/"):
        with pytest.raises(UserError, match=own):
            cut._script("inception_score.py").main(["--path", folder, *alone])
        with pytest.raises(UserError, match=own):
            cut._script("fid_score.py").main(["--path1", folder, "--path2", folder, *alone])
    cut.sample()
    assert len(cut.files()) == 20
    assert not (cut.images / MARKER).exists()
    assert cut.fid(fid_weights)["generated"]["count"] == 20


def test_a_full_disk_while_sampling_is_a_line_and_leaves_nothing_to_score(project, monkeypatch, fid_weights):
    before = project.sample()
    save = sampling.Image.Image.save

    def full(image, file, **options):
        if len(project.files()) == 7:
            raise OSError(28, "No space left on device")
        save(image, file, **options)

    with monkeypatch.context() as patch:
        patch.setattr(sampling.Image.Image, "save", full)
        with pytest.raises(UserError, match=r"\.png: cannot be written \(No space left on device\)"):
            project.sample()
    assert len(project.files()) == 7 and not list(project.images.rglob(".*.tmp"))
    assert not (project.valid / "r_precision.json").exists()
    with pytest.raises(UserError, match="was cut"):
        project.fid(fid_weights)
    assert project.sample() == before


def test_a_kill_while_old_images_are_removed_leaves_nothing_to_score(project, monkeypatch, fid_weights):
    project.sample()

    def interrupted(folder):
        raise KeyboardInterrupt

    with monkeypatch.context() as patch, pytest.raises(KeyboardInterrupt):
        patch.setattr(shutil, "rmtree", interrupted)
        project.sample()
    assert len(project.files()) == 20
    with pytest.raises(UserError, match="was cut"):
        project.fid(fid_weights)


def test_a_second_sampling_into_one_folder_is_refused_and_changes_nothing(project):
    project.sample()
    before = project.files()
    with locked(project.valid / ".single.lock", "it"), pytest.raises(UserError, match=r"valid/single is in use by"):
        project.sample()
    assert project.files() == before
    assert project.report("r_precision")


def test_a_sampling_that_begins_while_images_are_scored_is_noticed(project, monkeypatch, fid_weights, score_weights):
    project.sample()
    load = sampling.Image.open

    def open_and_begin(*arguments, **options):
        (project.images / MARKER).touch()
        return load(*arguments, **options)

    for score, weights in ((project.fid, fid_weights), (project.inception_score, score_weights)):
        with monkeypatch.context() as patch, pytest.raises(UserError, match="still goes on"):
            patch.setattr("PIL.Image.open", open_and_begin)
            score(weights, "--workers", "0")
        (project.images / MARKER).unlink()


def test_a_folder_made_by_other_programs_and_links_into_it_are_scored_once(project, fid_weights):
    project.sample()
    (project.images / "again").symlink_to(project.images)
    (project.images / "and again").symlink_to(project.images)
    assert len(list_images(project.images)) == 20


def test_a_generator_whose_images_are_not_finite_makes_none(project, made, tmp_path, tiny_clip):
    content = torch.load(made / "netG_epoch_1.pth", weights_only=True)
    name = next(name for name, value in content["weights"].items() if value.ndim == 2)
    content["weights"][name].mul_(1e38)
    broken = tmp_path / "broken.pth"
    torch.save(content, broken)
    with pytest.raises(UserError, match=rf"the generator {broken} makes images that are not finite.*diverged"):
        project.sample("--NET_G", str(broken))
    assert not list(tmp_path.rglob("*.png"))
    (made / "data" / "mine.txt").write_text("a red bird\n")
    (made / "data" / "example_filenames.txt").write_text("mine\n")
    with pytest.raises(UserError, match="not finite"):
        project.sample("--NET_G", str(broken), "--set", "B_VALIDATION=False")
    assert not list(tmp_path.rglob("*.png"))


def test_numbers_measured_while_training_are_finite_or_an_error(made, monkeypatch):
    config = load_config(made / "config.yml", ["EVAL.MEASURE_IMAGES=6"])
    examples = {split: read_split(config, split) for split in ("train", "test")}
    encoder, cpu = load_encoder(made / "encoder.pth").freeze(), torch.device("cpu")
    generator = Generator(**config.generator_arguments(16, 24)).eval()
    monitor = Monitor(examples, encoder, config, cpu)
    assert 0 <= monitor(generator, 1)["test_r_precision"] <= 1
    validation = Validation(examples["test"], config, cpu, RunFolder(made / "run"))
    monkeypatch.setattr(Validation, "_draw", lambda *arguments: None)
    assert validation(encoder, 1)["words"] > 0

    losses = {"words": torch.tensor(float("nan")), "sentence": torch.tensor(1.0)}
    monkeypatch.setattr("clipgan.evaluation.retrieval.matching_losses", lambda *arguments, **options: losses)
    with pytest.raises(UserError, match="validation of the encoder: words is nan"):
        validation(encoder, 2)
    with torch.no_grad():
        next(weight for weight in generator.parameters() if weight.ndim == 2).mul_(1e38)
    with pytest.raises(UserError, match="the generator makes images that are not finite"):
        config.TRAIN.FLAG = True
        monitor(generator, 2)


@pytest.mark.parametrize("name", [".", "/"])
def test_a_generator_without_a_name_is_refused(name):
    with pytest.raises(UserError, match="is no name of a generator"):
        sampling.sample_folder(name)


def test_a_truth_that_lacks_an_image_is_refused(made, tmp_path):
    truth = json.loads((made / "data" / "attributes.json").read_text())
    key, attributes = truth["attributes"].popitem()
    (tmp_path / "attributes.json").write_text(json.dumps(truth))

    class Example:
        pass

    Example.key = key
    with pytest.raises(UserError, match=rf"attributes\.json does not know the image {key}"):
        read_truths(tmp_path, [Example])
    truth["attributes"][key] = attributes
    (tmp_path / "attributes.json").write_text(json.dumps(truth))
    assert read_truths(tmp_path, [Example]) is not None
    for wrong in ("[]", "{", '{"attributes": 3}', json.dumps({"attributes": {key: {**attributes, "body": "plaid"}}})):
        (tmp_path / "attributes.json").write_text(wrong)
        with pytest.raises(UserError, match=r"attributes\.json.*make_toy_data"):
            read_truths(tmp_path, [Example])
