"""The method in its plain form, which bench/run.py measures the package against.

The same arithmetic on the same weights (the modules have the package's parameter names), written as the papers state it
and as code of this lineage runs it: upsample, then convolve; stack features on themselves; a pass of its own for every
use of an image; gradients wherever they arise; captions at CLIP's whole context; loops over captions and parameters.

It is meant to be a fair opponent. Both views go through the generator as one batch, since batch norm would otherwise
give other numbers, which saves it a pass; captions of a generator's batch are cut to ``TEXT.WORDS_NUM`` columns; the
memory is never copied for each pixel. Losses with one natural form (sentences, NT-Xent, KL) are the package's own.
"""

from __future__ import annotations

import copy
from collections.abc import Sequence

import numpy as np
import scipy.linalg
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from clipgan.config import Config
from clipgan.evaluation.metrics.frechet import Statistics
from clipgan.losses.adversarial import kl_loss
from clipgan.losses.contrastive import nt_xent
from clipgan.losses.damsm import sentence_loss
from clipgan.networks.clip_encoder import ClipEncoder

ADAM_BETAS = (0.5, 0.999)


class UpBlock(nn.Module):
    """[B, I, h, w] → [B, O, 2h, 2w]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.upsample = nn.Upsample(scale_factor=2, mode="nearest")
        self.conv = nn.Conv2d(in_channels, 2 * out_channels, 3, padding=1, bias=False)
        self.norm = nn.BatchNorm2d(2 * out_channels)

    def forward(self, x: Tensor) -> Tensor:
        return F.glu(self.norm(self.conv(self.upsample(x))), dim=1)


class ResidualBlock(nn.Module):
    """[B, C, h, w] → the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = nn.Conv2d(channels, 2 * channels, 3, padding=1, bias=False)
        self.norm1 = nn.BatchNorm2d(2 * channels)
        self.conv2 = nn.Conv2d(channels, channels, 3, padding=1, bias=False)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(F.glu(self.norm1(self.conv1(x)), dim=1))) + x


class Memory(nn.Module):
    """Image features [B, C, h, w], words [B, D, W] → refined features, by concatenation and repeated copies."""

    def __init__(self, image_channels: int, word_dim: int) -> None:
        super().__init__()
        self.word_gate = nn.Linear(word_dim, 1, bias=False)
        self.image_gate = nn.Linear(image_channels, 1, bias=False)
        self.word_writer = nn.Conv1d(word_dim, 2 * image_channels, 1)
        self.image_writer = nn.Conv1d(image_channels, 2 * image_channels, 1)
        self.key = nn.Conv1d(2 * image_channels, image_channels, 1)
        self.value = nn.Conv1d(2 * image_channels, image_channels, 1)
        self.response_gate = nn.Conv2d(2 * image_channels, 1, 1)

    def forward(self, features: Tensor, words: Tensor, word_mask: Tensor) -> Tensor:
        batch, channels, height, width = features.shape
        image = features.mean(dim=(2, 3)).detach().unsqueeze(2).repeat(1, 1, words.shape[2])  # [B, C, W]
        gate = torch.sigmoid(self.word_gate(words.transpose(1, 2)) + self.image_gate(image.transpose(1, 2)))
        gate = gate.transpose(1, 2).repeat(1, 2 * channels, 1)  # [B, 2C, W]
        memory = gate * F.relu(self.word_writer(words)) + (1 - gate) * F.relu(self.image_writer(image))
        key, value = F.relu(self.key(memory)), F.relu(self.value(memory))  # [B, C, W] each

        pixels = features.view(batch, channels, height * width).transpose(1, 2).contiguous()  # [B, hw, C]
        mask = word_mask.unsqueeze(1).repeat(1, height * width, 1)  # [B, hw, W]
        attention = torch.bmm(pixels, key).masked_fill(~mask, -torch.inf).softmax(dim=2)  # [B, hw, W]
        response = torch.bmm(value, attention.transpose(1, 2).contiguous()).view_as(features)
        gate = torch.sigmoid(self.response_gate(torch.cat([features, response], dim=1)))
        gate = gate.repeat(1, channels, 1, 1)  # [B, C, h, w]
        return gate * response + (1 - gate) * features


class Generator(nn.Module):
    """The arguments and parameters of ``clipgan.networks.generator.Generator``."""

    def __init__(
        self,
        gf_dim: int,
        z_dim: int,
        condition_dim: int,
        word_dim: int,
        sentence_dim: int,
        residual_num: int,
        base_size: int,
        branch_num: int,
    ) -> None:
        super().__init__()
        doublings = (base_size // 4).bit_length() - 1
        channels = gf_dim << doublings
        self.condition, self.first = nn.Module(), nn.Module()
        self.condition.linear = nn.Linear(sentence_dim, 4 * condition_dim)
        self.first.linear = nn.Linear(condition_dim + z_dim, channels * 32, bias=False)
        self.first.norm = nn.BatchNorm1d(channels * 32)
        self.first.up = nn.Sequential(*(UpBlock(channels >> i, channels >> (i + 1)) for i in range(doublings)))
        self.stages = nn.ModuleList(nn.Module() for _ in range(branch_num - 1))
        for stage in self.stages:
            stage.memory = Memory(gf_dim, word_dim)
            stage.residual = nn.Sequential(*(ResidualBlock(2 * gf_dim) for _ in range(residual_num)))
            stage.up = UpBlock(2 * gf_dim, gf_dim)
        self.heads = nn.ModuleList(nn.Module() for _ in range(branch_num))
        for head in self.heads:
            head.conv = nn.Conv2d(gf_dim, 3, 3, padding=1, bias=False)

    def forward(
        self, noise: Tensor, condition_noise: Tensor, sentence: Tensor, words: Tensor, word_mask: Tensor
    ) -> tuple[list[Tensor], Tensor, Tensor]:
        """Images [B, 3, s, s] of each size, and μ and log σ² [B, C]."""
        mu, logvar = F.glu(self.condition.linear(sentence), dim=1).chunk(2, dim=1)
        condition = mu + condition_noise * torch.exp(0.5 * logvar)
        x = F.glu(self.first.norm(self.first.linear(torch.cat([condition, noise], dim=1))), dim=1)
        x = self.first.up(x.view(len(x), -1, 4, 4))  # [B, GF, base, base]
        images = [torch.tanh(self.heads[0].conv(x))]
        for stage, head in zip(self.stages, self.heads[1:], strict=True):
            x = stage.memory(x, words, word_mask)
            x = stage.up(stage.residual(torch.cat([x, x], dim=1)))  # [B, GF, 2s, 2s]
            images.append(torch.tanh(head.conv(x)))
        return images, mu, logvar


class Discriminator(nn.Module):
    """The arguments and parameters of ``clipgan.networks.discriminator.Discriminator``."""

    def __init__(self, image_size: int, df_dim: int, sentence_dim: int) -> None:
        super().__init__()
        layers: list[nn.Module] = []
        channels = 3
        for i in range((image_size // 4).bit_length() - 1):
            layers += [spectral_norm(nn.Conv2d(channels, df_dim << i, 4, 2, 1)), nn.LeakyReLU(0.2, inplace=True)]
            channels = df_dim << i
        while channels != 8 * df_dim:
            following = channels // 2 if channels > 8 * df_dim else channels * 2
            layers += [spectral_norm(nn.Conv2d(channels, following, 3, padding=1)), nn.LeakyReLU(0.2, inplace=True)]
            channels = following
        self.trunk = nn.Sequential(*layers)
        self.unconditional_head = nn.Conv2d(channels, 1, 4)
        joint = spectral_norm(nn.Conv2d(channels + sentence_dim, channels, 3, padding=1))
        self.joint = nn.Sequential(joint, nn.LeakyReLU(0.2, inplace=True))
        self.conditional_head = nn.Conv2d(channels, 1, 4)

    def features(self, images: Tensor) -> Tensor:
        return self.trunk(images)

    def unconditional(self, features: Tensor) -> Tensor:
        return self.unconditional_head(features).flatten()

    def conditional(self, features: Tensor, sentence: Tensor) -> Tensor:
        tiled = sentence[:, :, None, None].repeat(1, 1, 4, 4)
        return self.conditional_head(self.joint(torch.cat([features, tiled], dim=1))).flatten()


def encode_text(encoder: ClipEncoder, tokens: Tensor) -> tuple[Tensor, Tensor, Tensor]:
    """Words [B, D, W], word_mask [B, W], sentence [B, E] of tokens [B, T], by CLIP's whole context of 77 tokens."""
    text = getattr(encoder.clip, "text", encoder.clip)
    width = tokens.shape[1]
    tokens = F.pad(tokens, (0, text.context_length - width))
    x = text.transformer(text.token_embedding(tokens) + text.positional_embedding, attn_mask=text.attn_mask)
    x = text.ln_final(x)  # [B, 77, D]
    end = tokens.argmax(dim=1)
    sentence = x[torch.arange(len(x), device=x.device), end] @ text.text_projection
    word_mask = torch.arange(1, width - 1, device=x.device) < end[:, None]
    return x[:, 1 : width - 1].transpose(1, 2), word_mask, sentence


def encode_image(encoder: ClipEncoder, images: Tensor) -> tuple[Tensor, Tensor]:
    """Regions [B, D, R] and image [B, E] of images [B, 3, S, S]."""
    output = encoder.clip.visual.forward_intermediates(encoder.preprocess(images), indices=1, output_fmt="NLC")
    regions = encoder.region_projection(output["image_intermediates"][-1])
    return regions.transpose(1, 2), output["image_features"]


def words_loss(
    words: Tensor, word_mask: Tensor, regions: Tensor, class_ids: Tensor, gamma1: float, gamma2: float, gamma3: float
) -> Tensor:
    """Both directions of ``clipgan.losses.damsm.words_loss``, caption by caption, attended regions and all."""
    batch = len(words)
    regions = F.normalize(regions, dim=1)  # [B, D, R]
    similarities = []
    for caption, mask in zip(words, word_mask, strict=True):
        word = caption[:, : int(mask.sum())].unsqueeze(0).repeat(batch, 1, 1)  # [B, D, n]
        scores = torch.bmm(regions.transpose(1, 2), F.normalize(word, dim=1))  # [B, R, n]
        attention = (gamma1 * scores.softmax(dim=2)).softmax(dim=1)  # [B, R, n]
        attended = torch.bmm(regions, attention)  # [B, D, n]
        cosine = F.cosine_similarity(word, attended, dim=1)  # [B, n]
        similarities.append(gamma3 / gamma2 * torch.log(torch.exp(gamma2 * cosine).sum(dim=1)))
    similarity = torch.stack(similarities)  # [caption, image]
    masks = []
    for i in range(batch):
        mask = class_ids == class_ids[i]
        mask[i] = False
        masks.append(mask)
    similarity = similarity.masked_fill(torch.stack(masks), -torch.inf)
    own = torch.arange(batch, device=words.device)
    return F.cross_entropy(similarity, own) + F.cross_entropy(similarity.T, own)


def called(logits: Tensor, real: bool) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.full_like(logits, float(real)))


def discriminator_loss(discriminator: nn.Module, real: Tensor, fake: Tensor, sentence: Tensor) -> Tensor:
    """One view's loss: a pass each for the real images, the generated ones, and the real ones of the wrong pairs."""
    features = discriminator.features(real)
    of_real = called(discriminator.unconditional(features), True)
    of_real = of_real + called(discriminator.conditional(features, sentence), True)
    features = discriminator.features(fake)
    of_fake = called(discriminator.unconditional(features), False)
    of_fake = of_fake + called(discriminator.conditional(features, sentence), False)
    of_wrong = called(discriminator.conditional(discriminator.features(real[:-1]), sentence[1:]), False)
    return of_real / 2 + (of_fake + of_wrong) / 3


def generator_loss(discriminator: nn.Module, fake: Tensor, sentence: Tensor) -> Tensor:
    features = discriminator.features(fake)
    return called(discriminator.unconditional(features), True) + called(
        discriminator.conditional(features, sentence), True
    )


class Step:
    """What all measured steps share.

    The learning rates are 0: an update costs what it always does, and every step of every formulation starts from the
    same weights.

    Attributes:
        gradients: where a list, gets a list of copies of the gradients that an optimizer sees, at each update.
        power_iterations: False keeps the vectors of spectral normalisation. They move with every pass in training mode,
            of which the formulations make different numbers, so the check of equality goes without.
    """

    gradients: list[list[Tensor]] | None = None
    power_iterations = True

    def update(self, optimizer: torch.optim.Optimizer, loss: Tensor, clip: float = 0.0) -> None:
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        parameters = [p for group in optimizer.param_groups for p in group["params"]]
        if self.gradients is not None:
            self.gradients.append([p.grad.clone() for p in parameters])
        if clip:
            torch.nn.utils.clip_grad_norm_(parameters, clip)
        optimizer.step()


class GanStep(Step):
    """A step of GAN training.

    Args:
        config: sizes and loss weights.
        generator: the package's, of which the weights are copied, as of ``discriminators``.
        discriminators: one for each size.
        encoder: a copy of its own: its weights collect gradients.
    """

    def __init__(self, config: Config, generator: nn.Module, discriminators: nn.ModuleList, encoder: ClipEncoder):
        self.config, self.encoder = config, encoder.requires_grad_(True).eval()
        device = next(encoder.parameters()).device
        self.generator = Generator(**config.generator_arguments(encoder.word_dim, encoder.sentence_dim))
        arguments = config.discriminator_arguments(encoder.sentence_dim)
        self.discriminators = nn.ModuleList(Discriminator(**of_one) for of_one in arguments)
        self.generator.to(device).load_state_dict(generator.state_dict())
        self.discriminators.to(device).load_state_dict(discriminators.state_dict())
        self.optimizer_g = torch.optim.Adam(self.generator.parameters(), 0.0, ADAM_BETAS)
        self.optimizers_d = [torch.optim.Adam(d.parameters(), 0.0, ADAM_BETAS) for d in self.discriminators]
        self.average = copy.deepcopy(self.generator)

    def __call__(self, batch) -> dict[str, Tensor]:
        gan, count, device = self.config.GAN, len(batch.class_ids), batch.class_ids.device
        self.discriminators.train(self.power_iterations)

        # The text's features are used without their history, which is made all the same.
        texts = [tuple(part.detach() for part in encode_text(self.encoder, tokens)) for tokens in batch.tokens]
        words, word_mask, sentence = (torch.cat(parts) for parts in zip(*texts, strict=True))
        noise = torch.randn(count, gan.Z_DIM, device=device).repeat(2, 1)
        condition_noise = torch.randn(count, gan.CONDITION_DIM, device=device).repeat(2, 1)
        images, mu, logvar = self.generator(noise, condition_noise, sentence, words, word_mask)
        views = [[of_size.chunk(2)[view] for of_size in images] for view in range(2)]

        loss_d = torch.zeros((), device=device)
        for i, (discriminator, optimizer) in enumerate(zip(self.discriminators, self.optimizers_d, strict=True)):
            loss = sum(
                discriminator_loss(discriminator, batch.images[i], fakes[i].detach(), text[2])
                for fakes, text in zip(views, texts, strict=True)
            )
            self.update(optimizer, loss)
            loss_d += loss.detach()

        loss = sum(map(kl_loss, mu.chunk(2), logvar.chunk(2)))
        smooth, features = self.config.TRAIN.SMOOTH, []
        for fakes, (words, word_mask, sentence) in zip(views, texts, strict=True):
            pairs = zip(self.discriminators, fakes, strict=True)
            loss = loss + sum(generator_loss(discriminator, fake, sentence) for discriminator, fake in pairs)
            regions, image = encode_image(self.encoder, fakes[-1])
            gammas = (smooth.GAMMA1, smooth.GAMMA2, smooth.GAMMA3)
            matching = words_loss(words, word_mask, regions, batch.class_ids, *gammas)
            matching = matching + sum(sentence_loss(image, sentence, batch.class_ids, smooth.GAMMA3))
            loss = loss + smooth.LAMBDA * matching
            features.append(image)
        contrastive = self.config.TRAIN.CONTRASTIVE
        loss = loss + contrastive.WEIGHT * nt_xent(*features, contrastive.TEMPERATURE)
        self.update(self.optimizer_g, loss)

        with torch.no_grad():
            for averaged, latest in zip(self.average.parameters(), self.generator.parameters(), strict=True):
                averaged.mul_(self.config.TRAIN.EMA).add_(latest, alpha=1 - self.config.TRAIN.EMA)
        return {"loss_d": loss_d, "loss_g": loss.detach()}


def trained(encoder: ClipEncoder) -> list[nn.Parameter]:
    """The weights that pretraining trains: all but CLIP's own temperature."""
    return [p for name, p in encoder.named_parameters() if "logit_" not in name]


class PretrainStep(Step):
    """A step of pretraining; ``encoder`` is trained in place."""

    def __init__(self, config: Config, encoder: ClipEncoder):
        self.config, self.encoder = config, encoder.requires_grad_(True).train()
        self.optimizer = torch.optim.Adam(trained(encoder), 0.0, (0.9, 0.98))

    def __call__(self, batch) -> dict[str, Tensor]:
        smooth, contrastive = self.config.TRAIN.SMOOTH, self.config.TRAIN.CONTRASTIVE
        loss, sentences = 0.0, []
        for tokens in batch.tokens:
            regions, image = encode_image(self.encoder, batch.images[-1])
            words, word_mask, sentence = encode_text(self.encoder, tokens)
            gammas = (smooth.GAMMA1, smooth.GAMMA2, smooth.GAMMA3)
            loss = loss + words_loss(words, word_mask, regions, batch.class_ids, *gammas)
            loss = loss + sum(sentence_loss(image, sentence, batch.class_ids, smooth.GAMMA3))
            sentences.append(sentence)
        loss = loss + contrastive.WEIGHT * nt_xent(*sentences, contrastive.TEMPERATURE)
        self.update(self.optimizer, loss, self.config.TRAIN.RNN_GRAD_CLIP)
        return {"loss": loss.detach()}


@torch.no_grad()
def retrieval_hit(
    encoder: ClipEncoder,
    query: Tensor,
    place: int,
    captions: Sequence[str],
    classes: Sequence[int],
    own: int,
    *,
    candidates: int = 100,
    seed: int = 0,
) -> bool:
    """Whether one image [E], the ``place``-th of all, finds its own caption; all its candidates are encoded for it."""
    others = [i for i in range(len(captions)) if classes[i] != classes[own]]
    drawn = np.random.default_rng((seed, place)).choice(len(others), candidates - 1, replace=False)
    texts = [captions[own]] + [captions[others[i]] for i in drawn]
    sentences = encode_text(encoder, encoder.tokenize(texts).to(query.device))[2]  # [candidates, E]
    scores = F.cosine_similarity(query.double()[None], sentences.double(), dim=1)
    return bool((scores[0] > scores[1:]).all())


def frechet_distance(a: Statistics, b: Statistics) -> float:
    """The distance by the matrix root of the product of both covariances."""
    root = scipy.linalg.sqrtm(a.covariance @ b.covariance).real
    difference = a.mean - b.mean
    return float(difference @ difference + np.trace(a.covariance) + np.trace(b.covariance) - 2 * np.trace(root))
