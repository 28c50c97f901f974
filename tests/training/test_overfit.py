"""Learning itself: what the losses cannot bring down on a handful of examples, they bring down nowhere."""

import pytest
import torch

from clipgan.config import Config
from clipgan.data.dataset import EpochBatchSampler, TextImageDataset, make_loader
from clipgan.data.examples import read_examples
from clipgan.data.toy import draw_toy_dataset
from clipgan.networks.clip_encoder import build_encoder
from clipgan.training.damsm_loop import compare, encode
from clipgan.training.gan_loop import guidance_losses
from clipgan.training.gan_networks import GanNetworks

PAIRS = 16


@pytest.fixture(scope="module")
def pairs(tmp_path_factory, tiny_clip):
    """16 drawn birds of 16 classes as one batch of 32 px, and a fresh encoder."""
    folder = tmp_path_factory.mktemp("toy")
    draw_toy_dataset(folder, "birds", train=64, test=8, size=32, seed=5)
    examples = read_examples(folder, "train", "birds", captions_per_image=10)
    chosen = list({example.class_id: example for example in examples}.values())[:PAIRS]
    torch.manual_seed(0)
    encoder = build_encoder(str(tiny_clip), "", words_num=28)
    dataset = TextImageDataset(chosen, [32], encoder.tokenize, seed=0, box_crop=False, train=False)
    sampler = EpochBatchSampler(PAIRS, PAIRS, 0, shuffle=False)
    return encoder, next(iter(make_loader(dataset, sampler, 0, torch.device("cpu"))))


@pytest.fixture(scope="module")
def fitted(pairs):
    """The encoder after 300 steps on the 16 pairs."""
    encoder, batch = pairs
    config = Config()
    optimizer = torch.optim.Adam(encoder.parameters(), 2e-3, betas=(0.9, 0.98))
    for _ in range(300):
        optimizer.zero_grad()
        features = encode(encoder, batch.images[-1], torch.stack(batch.tokens, dim=1))
        compare(features, batch.class_ids, config)["loss"].backward()
        optimizer.step()
    return encoder.freeze(), batch


def test_pretraining_finds_every_one_of_16_pairs(fitted):
    encoder, batch = fitted
    _, image = encoder.encode_image(batch.images[-1])
    for tokens in batch.tokens:
        sentence = encoder.encode_text(tokens)[2]
        scores = torch.nn.functional.cosine_similarity(sentence[:, None], image[None], dim=-1)
        assert (scores.argmax(1) == torch.arange(PAIRS)).all()
        assert (scores.argmax(0) == torch.arange(PAIRS)).all()


def test_the_generator_brings_its_matching_loss_down_on_8_captions(fitted):
    """Both views, both directions, words and sentences: 8 times ln 8 = 16.6 at chance, below 2 when it has learned."""
    encoder, batch = fitted
    config = Config()
    config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 8, 2
    config.GAN.GF_DIM, config.GAN.Z_DIM, config.GAN.CONDITION_DIM, config.GAN.R_NUM = 16, 8, 16, 1
    torch.manual_seed(1)
    generator = GanNetworks.build(config, encoder).generator.train()
    optimizer = torch.optim.Adam(generator.parameters(), 2e-3, betas=(0.5, 0.999))
    with torch.no_grad():
        text = encoder.encode_text(torch.cat([tokens[:8] for tokens in batch.tokens]))
    words, word_mask, sentence = text
    noise = torch.randn(8, 8).repeat(2, 1)
    condition_noise = torch.randn(8, 16).repeat(2, 1)
    history = []
    for _ in range(120):
        out = generator(noise, condition_noise, sentence, words, word_mask)
        losses = guidance_losses(encoder, out.images[-1], text, batch.class_ids[:8], config)
        loss = losses["words"] + losses["sentence"]
        optimizer.zero_grad()
        loss.backward()
        optimizer.step()
        history.append(loss.item())
    assert history[0] > 8
    assert history[-1] < 2
