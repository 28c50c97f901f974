"""docs/encoders.md: each row of its tables has a test, and its lists of models are what the code does."""

import ast
import re
from pathlib import Path
from types import SimpleNamespace

import open_clip
import pytest
import torch

from clipgan.config import Config
from clipgan.errors import UserError
from clipgan.networks import clip_models
from clipgan.networks.clip_encoder import ClipEncoder, EncoderSpec
from clipgan.training.gan_networks import GanNetworks

ROOT = Path(__file__).resolve().parents[2]
PAGE = (ROOT / "docs" / "encoders.md").read_text(encoding="utf-8")
WRITTEN_FOR = re.search(r"that open_clip ([0-9.]+) lists", PAGE)[1]


def tables():
    """The tables of the page: a list of rows each, a row as a dictionary from the heads of its columns."""
    found = []
    for block in re.findall(r"(?:^\|.*\|\n)+", PAGE, re.MULTILINE):
        head, _, *rows = [[cell.strip() for cell in line.strip("|\n ").split("|")] for line in block.splitlines()]
        assert all(len(row) == len(head) for row in rows), head
        found.append([dict(zip(head, row, strict=True)) for row in rows])
    return found


def names_in(cell):
    return re.findall(r"`([^`]+)`", cell)


SOURCES, REFUSALS, USABLE, REFUSED = tables()
TESTS = sorted(set(re.findall(r"`(test_\w+\.py)::(\w+)`", PAGE)))


ON_PAGE = [name for row in USABLE for name in names_in(row["`CLIP_MODEL_BASE`"])]
REFUSED_ON_PAGE = [name for row in REFUSED for name in names_in(row["names"])]
INSTALLED = set(open_clip.list_models())


def assert_same(on_page, found):
    """Names on the page are those found; of another open_clip than the page's, only names that both have count."""
    assert len(on_page) == len(set(on_page))
    common = INSTALLED & {*ON_PAGE, *REFUSED_ON_PAGE}
    if open_clip.__version__ == WRITTEN_FOR:
        common |= INSTALLED | {*ON_PAGE, *REFUSED_ON_PAGE}
    assert set(on_page) & common == set(found) & common


@pytest.mark.parametrize("row", [*SOURCES, *REFUSALS], ids=lambda row: next(iter(row.values()))[:50])
def test_each_row_names_its_test(row):
    assert re.fullmatch(r"`test_\w+\.py::test_\w+`", row["test"])


@pytest.mark.parametrize(("file", "name"), TESTS)
def test_each_test_that_the_page_names_is_there(file, name):
    tree = ast.parse((ROOT / "tests" / "networks" / file).read_text(encoding="utf-8"))
    assert name in {node.name for node in tree.body if isinstance(node, ast.FunctionDef)}


@pytest.mark.parametrize("key", sorted({key for key in re.findall(r"`((?:CLIP|TRAIN|TEXT|EVAL)[A-Z_.]+)`", PAGE)}))
def test_each_key_that_the_page_names_is_one(key):
    node = Config()
    for part in key.split(".") if "." in key else ("TRAIN", key):
        node = getattr(node, part)


def test_the_page_lists_exactly_what_can_be_used():
    assert_same(ON_PAGE, clip_models.usable_models())


@pytest.mark.parametrize("row", USABLE, ids=lambda row: row["`CLIP_MODEL_BASE`"].split("`")[1])
def test_the_page_says_the_sizes_and_the_weights_of_each_model(row):
    published = set()
    for name in INSTALLED & set(names_in(row["`CLIP_MODEL_BASE`"])):
        published |= set(open_clip.list_pretrained_tags_by_model(name))
        model = clip_models.read_model(name)
        with torch.device("meta"):
            encoder = ClipEncoder(EncoderSpec(name, model.config, (0.5,) * 3, (0.5,) * 3, 28))
        size, grid = encoder.image_size, encoder.region_grid
        assert [encoder.word_dim, encoder.sentence_dim] == [int(row["`TEXT.EMBEDDING_DIM`"])] * 2
        assert (row["images"], row["regions"]) == (f"{size} px", f"{grid[0]} × {grid[1]}")
    if open_clip.__version__ == WRITTEN_FOR:
        cell = next(cell for key, cell in row.items() if key.startswith("`CLIP_PRETRAINED`"))
        small = re.compile(r"commonpool_|datacomp_[sml]_")
        assert set(names_in(cell)) - {'""'} == {tag for tag in published if not small.match(tag)}


def test_the_page_lists_exactly_what_is_refused(monkeypatch):
    def build(*_arguments, **_keywords):
        raise AssertionError("was built or fetched")

    for place in ("clipgan.networks.clip_models.create_clip", "clipgan.networks.clip_models.fetch_from_hub"):
        monkeypatch.setattr(place, build)
    usable = clip_models.usable_models()
    assert_same(REFUSED_ON_PAGE, INSTALLED - set(usable))
    for row in REFUSED:
        for name in INSTALLED & set(names_in(row["names"])):
            with pytest.raises(UserError) as refused:
                clip_models.read_model(name)
            line = str(refused.value)
            assert line.startswith(f"TRAIN.CLIP_MODEL_BASE: {name} ") and row["the line says"] in line
            assert line.rpartition(" such as ")[2] in usable and len(line) < 300 and line.isprintable()


@pytest.mark.parametrize("width", sorted({int(row["`TEXT.EMBEDDING_DIM`"]) for row in USABLE}))
def test_every_width_goes_through_the_networks_of_the_gan(width):
    config = Config()
    config.GAN.GF_DIM = config.GAN.DF_DIM = 2
    config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM, config.GAN.CONDITION_DIM = 16, 2, 7
    encoder = SimpleNamespace(word_dim=width, sentence_dim=width, state_dict=dict)
    networks = GanNetworks.build(config, encoder)
    words, sentence, mask = torch.randn(2, width, 5), torch.randn(2, width), torch.ones(2, 5, dtype=torch.bool)
    made = networks.generator(torch.randn(2, config.GAN.Z_DIM), torch.randn(2, 7), sentence, words, mask)
    assert [image.shape[-1] for image in made.images] == [16, 32]
    for discriminator, image in zip(networks.discriminators, made.images, strict=True):
        assert all(logits.shape == (2,) for logits in discriminator(image, sentence))
