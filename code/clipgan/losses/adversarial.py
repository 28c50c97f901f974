"""The adversarial losses of DM-GAN and the KL divergence of its condition."""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.losses.float32 import in_float32


def discriminator_loss(
    discriminator: nn.Module,
    real: Tensor,
    fakes: list[Tensor],
    sentences: list[Tensor],
    wrong_sentences: list[Tensor] | None = None,
    wrong_pairs: float | None = None,
    not_wrong: list[Tensor] | None = None,
) -> Tensor:
    """The discriminator's loss, summed over the views (one caption each) of the same real images.

    A view's loss is (real_u + real_c) / 2 + (fake_u + fake_c + wrong_c) / 3: unconditional and conditional
    cross-entropies of real images, of generated ones, and of real images with another image's sentence. As in AttnGAN,
    the wrong pairs are image i with sentence i + 1, for all i but the last (which would need the first again).

    One forward pass judges all of them. The real images are the same for every view, and most images and sentences
    are in several pairs; the discriminator meets each once.

    Args:
        discriminator: a `Discriminator` for images of this size.
        real: real images [B, 3, s, s] in [-1, 1], B at least 2.
        fakes: for each view, images [B, 3, s, s] generated for its captions, detached.
        sentences: for each view, sentence features [B, E].
        wrong_sentences: for each view, the sentences [B or B - 1, E] that the first images are wrongly paired with;
            given where the images are a share of a larger batch, whose next sentence this share does not hold. None
            takes each image's next sentence.
        wrong_pairs: divides the sum over the wrong pairs. None: their number. The shares of a batch have different
            numbers of them, and divide by the mean one, so that the mean of their losses is the whole batch's.
        not_wrong: for each view, which of the wrong pairs are right ones, bool [B or B - 1]: their captions are equal.
            They cost nothing. None: none of them.

    Returns:
        A scalar, float32.

    Raises:
        ValueError: for a batch of one image (no wrong pair can be made of it), or unequal numbers of views.
    """
    batch = real.shape[0]
    if wrong_sentences is None:
        if batch < 2:
            raise ValueError("the discriminator's loss needs at least 2 images, to pair one with the other's sentence")
        wrong_sentences = [sentence[1:] for sentence in sentences]
    wrong = len(wrong_sentences[0])
    counts = [[len(part) for part in parts] for parts in (fakes, sentences, wrong_sentences)]
    if counts != [[batch] * len(fakes), [batch] * len(fakes), [wrong] * len(fakes)] or wrong > batch:
        raise ValueError(f"each of the {len(fakes)} views needs its sentences and its wrong sentences")
    wrong_pairs = wrong if wrong_pairs is None else wrong_pairs
    pairs = _pairs(len(fakes), batch, wrong, real.device)
    image_logits, pair_logits = discriminator(
        torch.cat([real, *fakes]), torch.cat([*sentences, *wrong_sentences]), pairs
    )  # [(1 + V) B], [V (2B + wrong)]

    real_u, *fakes_u = image_logits.split(batch)  # [B] each
    loss = real_u.new_zeros((), dtype=torch.float32)
    for view, (fake_u, logits) in enumerate(zip(fakes_u, pair_logits.split(2 * batch + wrong), strict=True)):
        real_c, fake_c, wrong_c = logits.split([batch, batch, wrong])
        if not_wrong is not None:
            wrong_c = wrong_c.masked_fill(not_wrong[view], torch.finfo(wrong_c.dtype).min)
        loss = loss + (_called_real(real_u) + _called_real(real_c)) / 2
        loss = loss + (_called_fake(fake_u) + _called_fake(fake_c) + _called_fake(wrong_c, wrong_pairs)) / 3
    return loss


def _pairs(views: int, batch: int, wrong: int, device: torch.device) -> tuple[Tensor, Tensor]:
    """For each view in turn its real, its generated and its wrong pairs, [V (2B + wrong)] in all.

    Returns:
        Places in [real images, images of each view], and in [sentences of each view, wrong sentences of each view].
    """
    all_of, few = torch.arange(batch, device=device), torch.arange(wrong, device=device)
    images, sentences = [], []
    for view in range(views):
        images += [all_of, (1 + view) * batch + all_of, few]
        sentences += [view * batch + all_of, view * batch + all_of, views * batch + view * wrong + few]
    return torch.cat(images), torch.cat(sentences)


def generator_loss(discriminator: nn.Module, fake: Tensor, sentence: Tensor) -> Tensor:
    """The generator's adversarial loss at one scale: both heads should call its images real.

    Args:
        discriminator: a `Discriminator` for images of this size.
        fake: generated images [B, 3, s, s].
        sentence: the sentence features they were generated from, [B, E].

    Returns:
        The unconditional plus the conditional cross-entropy, a scalar, float32.
    """
    unconditional, conditional = discriminator(fake, sentence)  # [B] each
    return _called_real(unconditional) + _called_real(conditional)


@in_float32
def kl_loss(mu: Tensor, logvar: Tensor) -> Tensor:
    """KL divergence of N(mu, exp(logvar)) from N(0, 1), mean over batch and dimensions: [B, C], [B, C] → scalar."""
    return -0.5 * torch.mean(1 + logvar - mu.square() - logvar.exp())


@in_float32
def _called_real(logits: Tensor) -> Tensor:
    return F.binary_cross_entropy_with_logits(logits, torch.ones_like(logits))


@in_float32
def _called_fake(logits: Tensor, divisor: float | None = None) -> Tensor:
    if divisor is None:
        return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits))
    return F.binary_cross_entropy_with_logits(logits, torch.zeros_like(logits), reduction="sum") / divisor
