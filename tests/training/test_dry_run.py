"""The forward halves of both training steps, and sampling, on a GPU that is not there: nothing is read back."""

import pytest
import torch
from fake_cuda import CUDA, fake_cuda, onto_cuda
from torch._subclasses.fake_tensor import DataDependentOutputException

from clipgan.config import Config
from clipgan.data.dataset import Batch
from clipgan.evaluation.sampling import draw
from clipgan.losses.adversarial import discriminator_loss
from clipgan.machine.precision import Precision
from clipgan.networks.clip_encoder import ClipEncoder, EncoderSpec
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator
from clipgan.runs.folder import RunFolder
from clipgan.runs.progress import Progress
from clipgan.training.damsm_loop import compare, encode
from clipgan.training.ema import EMA
from clipgan.training.gan_loop import FrozenEncoder, generator_losses, wrong_pairs_of
from clipgan.training.guard import Guard

BATCH = 4


def small_config():
    config = Config()
    config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 16, 3
    config.GAN.GF_DIM, config.GAN.DF_DIM, config.GAN.Z_DIM, config.GAN.CONDITION_DIM = 8, 4, 10, 8
    return config


def small_encoder(tiny_clip_config):
    return onto_cuda(ClipEncoder(EncoderSpec("tiny", tiny_clip_config, (0.5,) * 3, (0.5,) * 3, 28)))


def small_batch(sizes):
    pixels = [torch.zeros(BATCH, 3, size, size, dtype=torch.uint8) for size in sizes]
    tokens = tuple(torch.zeros(BATCH, 12, dtype=torch.long) for _ in range(2))
    numbers, caption_ids = torch.arange(BATCH), torch.zeros(BATCH, 2, dtype=torch.long)
    return Batch(pixels, tokens, numbers, numbers, ([""] * BATCH,) * 2, [""] * BATCH, caption_ids).to(CUDA)


@pytest.fixture(params=["fp32", "bf16"])
def precision(request):
    with fake_cuda():
        yield Precision(request.param, CUDA)


def test_a_gan_step_s_forward_half(precision, tiny_clip_config):
    config = small_config()
    encoder = small_encoder(tiny_clip_config).freeze()
    frozen = FrozenEncoder(encoder, config, precision)
    generator = onto_cuda(Generator(**config.generator_arguments(encoder.word_dim, encoder.sentence_dim)).train())
    discriminators = [onto_cuda(Discriminator(**a)) for a in config.discriminator_arguments(encoder.sentence_dim)]
    batch = small_batch(config.image_sizes)
    with torch.no_grad(), precision.autocast():
        text = frozen.encode_text(torch.cat(batch.tokens))
    noise, condition_noise = torch.randn(2 * BATCH, 10), torch.randn(2 * BATCH, 8)
    with precision.autocast():
        out = generator(noise, condition_noise, text.sentence, text.words, text.word_mask)
        wrong_sentences, *wrong_pairs = wrong_pairs_of(text.sentence, batch.caption_ids)
        views = text.sentence.chunk(2), wrong_sentences
        for discriminator, real, fake in zip(discriminators, batch.images, out.images, strict=True):
            loss = discriminator_loss(discriminator, real, fake.detach().chunk(2), *views, *wrong_pairs)
            assert loss.device.type == "cuda" and loss.dtype == torch.float32
        ids = batch.class_ids, config, batch.caption_ids
        losses = generator_losses(out, discriminators, frozen, text, *ids)
    assert {loss.device.type for loss in losses.values()} == {"cuda"}
    assert {loss.dtype for loss in losses.values()} == {torch.float32}


def test_a_pretraining_step_s_forward_half(precision, tiny_clip_config):
    batch = small_batch([40])
    with precision.autocast():
        features = encode(small_encoder(tiny_clip_config), batch.images[-1], torch.stack(batch.tokens, dim=1))
        losses = compare(features, batch.class_ids, Config(), batch.caption_ids)
    assert {loss.device.type for loss in losses.values()} == {"cuda"}


def test_sampling(precision, tiny_clip_config):
    config = small_config()
    encoder = small_encoder(tiny_clip_config).freeze()
    generator = onto_cuda(Generator(**config.generator_arguments(encoder.word_dim, encoder.sentence_dim)).eval())
    tokens = torch.zeros(8, 12, dtype=torch.long)
    with torch.no_grad(), precision.autocast():
        out = draw(generator, encoder, tokens, torch.randn(8, 10), torch.randn(8, 8))
    assert [image.shape[-1] for image in out.images] == [16, 32, 64]
    assert out.images[-1].device.type == "cuda"


def test_the_log_reads_losses_off_the_device_only_when_a_line_is_due(tmp_path):
    progress = Progress(tmp_path / "metrics.jsonl", 100, "test", every=3)
    with fake_cuda():
        loss = torch.ones(())
        for step in (1, 2):
            progress.step(step, 1, {"loss": loss, "rate": 0.1}, shown=("loss",))
        with pytest.raises(DataDependentOutputException):
            progress.step(3, 1, {"loss": loss, "rate": 0.1}, shown=("loss",))
    progress.close()


def test_the_guard_decides_on_the_device_and_looks_only_when_a_line_is_due(tmp_path):
    average = EMA(torch.nn.Linear(1, 1), 0.9)  # made of a real network: PyTorch crashes when fake ones are copied
    with fake_cuda():
        network, average.network = (
            onto_cuda(torch.nn.Sequential(torch.nn.Linear(3, 2), torch.nn.BatchNorm1d(2))) for _ in range(2)
        )
        average.updates, guard = torch.zeros((), dtype=torch.float64), Guard(CUDA, RunFolder(tmp_path), "")
        for step in (8, 9):
            guard.begin(network)
            loss = network(torch.ones(4, 3)).sum()
            gradients = [torch.ones_like(weight) for weight in network.parameters()]
            bad = guard.allow("loss", loss, torch.nn.utils.get_total_norm(gradients))
            average.update(network, guard.end(step))
            assert bad.device.type == average.updates.device.type == "cuda"
        with pytest.raises(DataDependentOutputException):
            guard.end(10)


def test_a_dry_run_does_notice_a_value_that_is_read_back_and_a_second_device():
    with fake_cuda():
        with pytest.raises(DataDependentOutputException):
            int(torch.ones(3).max())
        with pytest.raises(Exception, match="device"):
            torch.ones(3) + torch.ones(3, device="cpu")
