"""The matching losses of a batch: equal captions of different images are no mismatches, in either loop."""

import pytest
import torch
from torch.testing import assert_close

from clipgan.config import Config
from clipgan.losses.contrastive import nt_xent
from clipgan.losses.damsm import mismatches_left_out, sentence_loss, words_loss
from clipgan.networks.clip_encoder import TextFeatures
from clipgan.training.damsm_loop import Features, compare
from clipgan.training.gan_loop import guidance_losses
from clipgan.training.matching import View, matching_losses

COUNT, WIDTH, LENGTH, REGIONS = 6, 8, 5, 9
SMOOTH = Config().TRAIN.SMOOTH
GAMMAS = SMOOTH.GAMMA1, SMOOTH.GAMMA2, SMOOTH.GAMMA3
CLASSES = torch.arange(COUNT)
# Images 0 and 1 share a caption in different places, 2 and 3 in the same place, 4 and 5 both captions.
CAPTIONS = torch.tensor([[1, 2], [3, 1], [4, 5], [4, 6], [7, 8], [8, 7]])


@pytest.fixture
def features():
    torch.manual_seed(0)
    mask = torch.arange(LENGTH) < torch.randint(2, LENGTH + 1, (COUNT, 2, 1))
    shapes = [(WIDTH, REGIONS), (WIDTH,), (2, WIDTH, LENGTH), (2, WIDTH)]
    regions, image, words, sentence = (torch.randn(COUNT, *shape) for shape in shapes)
    return Features(regions, image, words, mask, sentence)


def views_of(features):
    return [
        View(features.regions, features.image, features.words[:, v], features.word_mask[:, v], features.sentence[:, v])
        for v in (0, 1)
    ]


def expected_of(views, captions):
    """``words`` and ``sentence``, from the losses of single views."""
    words = sentence = 0
    for number, view in enumerate(views):
        left_out = mismatches_left_out(CLASSES, captions[:, number], captions)
        words += sum(words_loss(view.words, view.word_mask, view.regions, None, *GAMMAS, left_out=left_out))
        sentence += sum(sentence_loss(view.image, view.sentence, None, SMOOTH.GAMMA3, left_out))
    return {"words": words, "sentence": sentence}


def test_both_loops_leave_equal_captions_out(features):
    views = views_of(features)
    expected = expected_of(views, CAPTIONS)
    plain = matching_losses(views, CLASSES, SMOOTH)
    assert all(plain[name] - expected[name] > 0.1 for name in expected)
    assert_close(matching_losses(views, CLASSES, SMOOTH, caption_ids=CAPTIONS), expected)

    pretraining = compare(features, CLASSES, Config(), CAPTIONS)
    assert_close({name: pretraining[name] for name in expected}, expected)
    plain_contrastive = nt_xent(*features.sentence.unbind(1))
    assert plain_contrastive - pretraining["contrastive"] > 0.01

    class Encoder:
        def encode_image(self, images):
            return features.regions.repeat(2, 1, 1), features.image.repeat(2, 1)

    text = TextFeatures(*(tensor.transpose(0, 1).flatten(0, 1) for tensor in features[2:]))
    gan = guidance_losses(Encoder(), None, text, CLASSES, Config(), CAPTIONS)
    assert_close({name: gan[name] for name in expected}, expected)
    assert torch.equal(gan["contrastive"], nt_xent(features.image, features.image))  # images differ by their noise


@pytest.mark.parametrize("captions", [None, torch.arange(2 * COUNT).view(COUNT, 2)])
def test_without_equal_captions_nothing_changes(features, captions):
    expected = compare(features, CLASSES, Config())
    found = compare(features, CLASSES, Config(), captions)
    assert all(torch.equal(found[name], expected[name]) for name in expected)


def test_where_every_image_has_one_caption_there_is_nothing_to_tell_apart(features):
    one = torch.zeros(COUNT, 2, dtype=torch.long)
    losses = compare(features, CLASSES, Config(), one)
    assert {name: float(loss) for name, loss in losses.items()} == dict.fromkeys(losses, 0.0)


def test_the_losses_stay_one_graph(features):
    config = Config()

    def loss(features, captions):
        return compare(features, CLASSES, config, captions)["loss"]

    compiled = torch.compile(loss, backend="eager", fullgraph=True)
    assert_close(compiled(features, CAPTIONS), loss(features, CAPTIONS))
