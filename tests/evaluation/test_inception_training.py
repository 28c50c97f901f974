"""The Inception Score's network learns a data set's classes, and its file says so wherever it is used."""

import dataclasses
import json
from pathlib import Path

import numpy as np
import pytest
import torch
from PIL import Image

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.errors import UserError
from clipgan.evaluation import inception_training
from clipgan.evaluation.inception import load_score_network
from clipgan.evaluation.inception_training import (
    Photographs,
    Schedule,
    build_classifier,
    classification_loss,
    fine_tune,
    hold_out,
    labelled,
)

CPU = torch.device("cpu")
SCHEDULE = Schedule("random", epochs=1, batch_size=4, side=75, lr=0.01)


def examples_of(classes: list[int]) -> list[Example]:
    return [Example(Path(f"{n}.png"), f"c{label}/{n}", ("a bird",), label, None) for n, label in enumerate(classes)]


@pytest.fixture(scope="module")
def data(tmp_path_factory):
    """Ten pictures of two colours, and a config of a manifest that lists them."""
    root, rng, lines = tmp_path_factory.mktemp("colours"), np.random.default_rng(0), []
    for number in range(10):
        colour = ((200, 40, 40), (40, 60, 200))[number % 2]
        pixels = (np.array(colour) + rng.integers(-20, 20, (40, 50, 3))).astype(np.uint8)
        Image.fromarray(pixels).save(root / f"{number}.png")
        name = ("red", "blue")[number % 2]
        lines.append({"image": f"{number}.png", "captions": [f"a {name} thing"], "class": number % 2})
    for split in ("train", "test"):
        (root / f"{split}.jsonl").write_text("".join(json.dumps(line) + "\n" for line in lines))
    return Config(DATASET_NAME="colours", DATA_DIR=str(root), OUTPUT_DIR=str(root / "output"), WORKERS=0)


def test_the_file_is_read_unchanged_by_the_score_and_says_what_it_knows(data, tmp_path, capsys):
    said = fine_tune(data, SCHEDULE, tmp_path / "colours.pth", CPU)
    printed = capsys.readouterr().out
    assert "2 classes, 8 images to train on, 2 held out" in printed and "(chance 0.500)" in printed
    network = load_score_network(str(tmp_path / "colours.pth"))
    assert network.classes == 2 and network.provenance.fine_tuned == said
    told = network.provenance.as_dict()["fine_tuned"]
    assert (told["dataset"], told["splits"], told["images"], told["side"]) == ("colours", "train", 8, 75)
    assert 0 <= told["accuracy"] <= 1 and told["init"].startswith("random")
    assert not network.provenance.random and network.provenance.notice == ""
    kept = torch.load(tmp_path / "colours.pth", weights_only=True)["state_dict"]
    assert torch.equal(kept["fc.weight"], network.inception.fc.weight)
    again, source = build_classifier(3, dataclasses.replace(SCHEDULE, init=str(tmp_path / "colours.pth")))
    assert torch.equal(again.Mixed_7c.branch1x1.conv.weight, kept["Mixed_7c.branch1x1.conv.weight"])
    assert again.fc.out_features == 3 and source == str(tmp_path / "colours.pth")


def test_training_lowers_the_loss(data, tmp_path, monkeypatch):
    """A small network stands for the Inception: what is tested is the loop."""
    torch.manual_seed(0)
    small = torch.nn.Sequential(torch.nn.AdaptiveAvgPool2d(1), torch.nn.Flatten(), torch.nn.Linear(3, 2))
    monkeypatch.setattr(inception_training, "build_classifier", lambda *arguments: (small, "small"))
    said = fine_tune(data, dataclasses.replace(SCHEDULE, epochs=12, lr=0.5), tmp_path / "small.pth", CPU)
    assert said["accuracy"] == 1.0
    whole = (tmp_path / "small.pth").read_bytes()
    with pytest.raises(UserError, match=r"the loss is (nan|inf).*lower --lr \(it was 1e\+30\)"):
        fine_tune(data, dataclasses.replace(SCHEDULE, epochs=9, lr=1e30), tmp_path / "none.pth", CPU)
    assert (tmp_path / "small.pth").read_bytes() == whole


def test_a_tenth_of_each_class_is_apart_and_never_trained_on():
    items = [(example, example.class_id) for example in examples_of([0] * 30 + [1] * 8 + [2] * 2)]
    shown, apart = hold_out(items, seed=1)
    assert [label for _, label in apart] == [0, 0, 0, 1, 2]
    assert len({e.key for e, _ in shown} & {e.key for e, _ in apart}) == 0 and len(shown) + len(apart) == 40
    assert hold_out(items, seed=1)[1] == apart != hold_out(items, seed=2)[1]


def test_crops_differ_by_epoch_in_training_only(data):
    items, _ = labelled(data, ["train"])
    for train in (True, False):
        photographs = Photographs(items, data, 20, seed=0, train=train)
        first = [photographs[i][0] for i in range(10)]
        assert first[0].shape == (3, 20, 20) and -1 <= first[0].min() < first[0].max() <= 1
        photographs.epoch = 1
        assert all(torch.equal(a, photographs[i][0]) for i, a in enumerate(first)) != train


def test_the_auxiliary_classifier_counts_by_its_weight():
    logits, labels = torch.randn(2, 4, 5), torch.tensor([0, 4, 1, 2])
    parts = [torch.nn.functional.cross_entropy(one, labels, label_smoothing=0.1) for one in logits]
    assert classification_loss(tuple(logits), labels) == pytest.approx(float(parts[0] + 0.4 * parts[1]))
    assert build_classifier(2, dataclasses.replace(SCHEDULE, side=299))[0].AuxLogits is not None


@pytest.mark.parametrize(("classes", "said"), [([3] * 3, "at least 2 classes, not 1"), ([0, 0, 1], "c1/2 is the only")])
def test_classes_that_cannot_be_learned_are_named(monkeypatch, classes, said):
    monkeypatch.setattr(inception_training, "read_split", lambda *arguments: examples_of(classes))
    with pytest.raises(UserError, match=said):
        labelled(Config(), ["train"])


def test_weights_of_another_network_are_refused(fid_weights, tmp_path):
    state = torch.load(fid_weights, weights_only=True)
    torch.save({name: tensor for name, tensor in state.items() if "Mixed_6" not in name}, tmp_path / "half.pth")
    with pytest.raises(UserError, match=r"half\.pth is not torchvision's inception_v3: see Mixed_6"):
        build_classifier(2, dataclasses.replace(SCHEDULE, init=str(tmp_path / "half.pth")))
    with pytest.raises(UserError, match="no weights file at"):
        build_classifier(2, dataclasses.replace(SCHEDULE, init=str(tmp_path / "nowhere.pth")))
