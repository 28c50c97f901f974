"""A model of random weights that draws 8 and 16 px in milliseconds, and its file."""

from __future__ import annotations

import torch

from clipgan.config import Config
from clipgan.networks.clip_encoder import ClipEncoder, EncoderSpec
from clipgan.networks.generator import Generator
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.model_file import ModelFile, write_model

WORDS = ("a", "bird", "black", "blue", "is", "red", "small", "the", "wings", "with")


def tiny_config() -> Config:
    config = Config(DATASET_NAME="drawn", CONFIG_NAME="tiny")
    config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 8, 3
    config.GAN.GF_DIM, config.GAN.Z_DIM, config.GAN.CONDITION_DIM, config.GAN.R_NUM = 4, 5, 6, 1
    config.TEXT.WORDS_NUM, config.TEXT.EMBEDDING_DIM = 8, 16
    return config


def tiny_model(clip: dict, image_side: bool = True, **facts) -> ModelFile:
    """A model whose generator answers to its words: batch norms as after some training, not as at the start."""
    config = tiny_config()
    torch.manual_seed(5)
    encoder = ClipEncoder(EncoderSpec("tiny", clip, (0.5,) * 3, (0.5,) * 3, config.TEXT.WORDS_NUM)).freeze()
    generator = Generator(**architecture(config, encoder))
    for stage in generator.stages:
        torch.nn.init.normal_(stage.memory.key.weight, std=2)
    with torch.no_grad():
        generator.train()
        text = encoder.encode_text(encoder.tokenize(["a small red bird", "the blue bird with black wings"] * 8))
        generator(torch.randn(16, 5), torch.randn(16, 6), text.sentence, text.words, text.word_mask)
    fingerprints = {"generator": fingerprint(generator), "encoder": fingerprint(encoder)}
    if not image_side:
        encoder.drop_image_side()
    said = {"name": "tiny", "vocabulary": WORDS, "date": "2026-01-02T03:04:05+00:00", "card": "# tiny\n"}
    return ModelFile(generator.eval(), encoder, config, fingerprints=fingerprints, **(said | facts))


def architecture(config: Config, encoder: ClipEncoder) -> dict[str, int]:
    return config.generator_arguments(encoder.word_dim, encoder.sentence_dim)


def write_tiny_model(path, clip: dict, image_side: bool = True, **facts) -> ModelFile:
    model = tiny_model(clip, image_side, **facts)
    write_model(path, model, architecture(model.config, model.encoder))
    return model
