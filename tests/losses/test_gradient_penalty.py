"""The gradient penalties: their values where they are known, and that they can be differentiated again."""

import pytest
import torch
from torch import nn

from clipgan.losses.gradient_penalty import PENALTIES, matching_aware_penalty, r1_penalty
from clipgan.networks.discriminator import Discriminator


class Linear(nn.Module):
    """u = 3 · sum of the pixels; c = 2 · the first pixel + 5 · the first number of the sentence."""

    def __init__(self):
        super().__init__()
        self.scale = nn.Parameter(torch.ones(()))

    def features(self, images):
        return images.flatten(1) * self.scale

    def unconditional(self, features):
        return 3 * features.sum(dim=1)

    def conditional(self, features, sentence):
        return 2 * features[:, 0] + 5 * sentence[:, 0] * self.scale


def test_a_linear_discriminator_has_the_penalties_of_its_slopes():
    real, sentence, linear = torch.randn(4, 3, 8, 8), torch.randn(4, 6), Linear()
    # 191 pixels have the slope 3, one has 3 + 2.
    assert r1_penalty(linear, real, sentence).item() == pytest.approx((191 * 9 + 25) / 2)
    assert matching_aware_penalty(linear, real, sentence).item() == pytest.approx((2 + 5) ** 6)


@pytest.mark.parametrize("kind", PENALTIES)
def test_a_penalty_reaches_every_weight_that_judges(kind):
    torch.manual_seed(0)
    discriminator = Discriminator(16, 4, 6)
    PENALTIES[kind](discriminator, torch.randn(4, 3, 16, 16), torch.randn(4, 6)).backward()
    for name, weight in discriminator.named_parameters():
        # A bias moves a logit and not its slope (but by the activations), and one penalty leaves one head out.
        if "weight" in name and not (kind == "matching_aware" and name.startswith("unconditional")):
            assert weight.grad.abs().sum() > 0, name


@pytest.mark.parametrize("kind", PENALTIES)
def test_a_penalty_has_the_gradient_that_small_differences_give(kind):
    torch.manual_seed(0)
    discriminator = Discriminator(8, 2, 3).double().eval()  # no power iterations from call to call
    real, sentence = torch.randn(2, 3, 8, 8).double(), torch.randn(2, 3).double()
    weight = discriminator.conditional_head.weight

    def penalty(step):
        return 1e6 * torch.func.functional_call(Penalty(), {"d.conditional_head.weight": weight + step}, ())

    class Penalty(nn.Module):
        def __init__(self):
            super().__init__()
            self.d = discriminator

        def forward(self):
            return PENALTIES[kind](self.d, real, sentence)

    (gradient,) = torch.autograd.grad(penalty(torch.zeros_like(weight)), [weight])
    direction = torch.randn_like(weight)
    slope = (penalty(1e-5 * direction) - penalty(-1e-5 * direction)) / 2e-5
    assert slope.item() == pytest.approx((gradient * direction).sum().item(), rel=1e-4)


def test_a_discriminator_that_sees_nothing_has_a_finite_gradient():
    discriminator = Discriminator(8, 2, 3)
    nn.init.zeros_(discriminator.conditional_head.weight)
    matching_aware_penalty(discriminator, torch.randn(2, 3, 8, 8), torch.randn(2, 3)).backward()
    assert all(weight.grad is None or weight.grad.isfinite().all() for weight in discriminator.parameters())
