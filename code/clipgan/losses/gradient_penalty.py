"""Penalties on how steep a discriminator is at real images. They differentiate it twice.

Sources: R1 of Mescheder et al., "Which Training Methods for GANs do actually Converge?", 2018, eq. 9; the
matching-aware penalty of Tao et al., "DF-GAN", 2022, eq. 2.
"""

import torch
from torch import Tensor, nn

from clipgan.losses.float32 import in_float32

POWER = 6  # p of the matching-aware penalty, as published


@in_float32
def r1_penalty(discriminator: nn.Module, real: Tensor, sentence: Tensor) -> Tensor:
    """Half the mean squared norm of the gradient by the real images, of both heads' sum, which the generator climbs.

    Args:
        discriminator: a `Discriminator`; its parts are called, so a compiled `forward` is not met.
        real: real images [B, 3, s, s].
        sentence: their sentences [B, E].

    Returns:
        ½ · mean ‖∇x (u + c)‖², a scalar, float32. Times γ it is the paper's R1.
    """
    real = real.detach().requires_grad_(True)
    features = discriminator.features(real)
    logits = discriminator.unconditional(features) + discriminator.conditional(features, sentence.detach())
    (by_image,) = torch.autograd.grad(logits.sum(), [real], create_graph=True)
    return by_image.flatten(1).square().sum(dim=1).mean() / 2


@in_float32
def matching_aware_penalty(discriminator: nn.Module, real: Tensor, sentence: Tensor) -> Tensor:
    """It flattens the surface at real images with their own sentences: mean (‖∇x c‖ + ‖∇e c‖)⁶, c the paired logit.

    Arguments and result as for `r1_penalty`. Times k (published: 2) it is the paper's.
    """
    real, sentence = real.detach().requires_grad_(True), sentence.detach().requires_grad_(True)
    logits = discriminator.conditional(discriminator.features(real), sentence)
    gradients = torch.autograd.grad(logits.sum(), [real, sentence], create_graph=True)
    # A gradient of exactly 0 has no direction: without the small number its norm's gradient would be NaN.
    norms = [(gradient.flatten(1).square().sum(dim=1) + 1e-12).sqrt() for gradient in gradients]
    return (norms[0] + norms[1]).pow(POWER).mean()


PENALTIES = {"r1": r1_penalty, "matching_aware": matching_aware_penalty}
