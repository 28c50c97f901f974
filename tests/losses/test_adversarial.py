"""The adversarial losses by hand on a discriminator that is a table, and on a real one against separate passes."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch import nn
from torch.testing import assert_close

from clipgan.losses.adversarial import discriminator_loss, generator_loss, kl_loss
from clipgan.networks.discriminator import Discriminator


class Table(nn.Module):
    """Images and sentences are their numbers; logits come from tables, and the pairs that were judged are kept."""

    def __init__(self):
        super().__init__()
        torch.manual_seed(0)
        self.logits_u, self.logits_c = torch.randn(20), torch.randn(20, 20)
        self.passes, self.pairs = 0, []

    def forward(self, images, sentence, pairs=None):
        self.passes += 1
        judged, described = (images, sentence) if pairs is None else (images[pairs[0]], sentence[pairs[1]])
        self.pairs += list(zip(judged.tolist(), described.tolist(), strict=True))
        return self.logits_u[images], self.logits_c[judged, described]


def real_cost(*logits):
    """Mean of -log sigmoid."""
    return sum(math.log(1 + math.exp(-logit)) for logit in logits) / len(logits)


def fake_cost(*logits):
    """Mean of -log(1 - sigmoid)."""
    return sum(math.log(1 + math.exp(logit)) for logit in logits) / len(logits)


# For Table: three real images, and for each of two views three generated images and three sentences.
REAL = torch.tensor([0, 1, 2])
FAKES = torch.tensor([[10, 11, 12], [13, 14, 15]])
SENTENCES = torch.tensor([[0, 1, 2], [3, 4, 5]])


def by_hand(table, view):
    """(real_u + real_c) / 2 + (fake_u + fake_c + wrong_c) / 3 of one view."""
    real, fake, sentence = REAL.tolist(), FAKES[view].tolist(), SENTENCES[view].tolist()
    u, c = table.logits_u.tolist(), table.logits_c.tolist()
    real_u, fake_u = real_cost(*(u[i] for i in real)), fake_cost(*(u[i] for i in fake))
    real_c = real_cost(*(c[i][s] for i, s in zip(real, sentence, strict=True)))
    fake_c = fake_cost(*(c[i][s] for i, s in zip(fake, sentence, strict=True)))
    wrong_c = fake_cost(c[real[0]][sentence[1]], c[real[1]][sentence[2]])
    return (real_u + real_c) / 2 + (fake_u + fake_c + wrong_c) / 3


@pytest.mark.parametrize("views", [1, 2])
def test_the_discriminator_s_loss_equals_the_sum_by_hand_over_the_views(views):
    table = Table()
    loss = discriminator_loss(table, REAL, list(FAKES[:views]), list(SENTENCES[:views]))
    assert loss.item() == pytest.approx(sum(by_hand(table, view) for view in range(views)), rel=1e-5)


def test_wrong_pairs_are_real_images_with_the_next_image_s_sentence():
    table = Table()
    discriminator_loss(table, REAL, list(FAKES), list(SENTENCES))
    first_view = [(0, 0), (1, 1), (2, 2), (10, 0), (11, 1), (12, 2), (0, 1), (1, 2)]
    second_view = [(0, 3), (1, 4), (2, 5), (13, 3), (14, 4), (15, 5), (0, 4), (1, 5)]
    assert sorted(table.pairs) == sorted(first_view + second_view)


def test_a_wrong_pair_whose_captions_are_equal_costs_nothing():
    table = Table()
    right = [torch.tensor([True, False]), torch.tensor([False, False])]
    loss = discriminator_loss(table, REAL, list(FAKES), list(SENTENCES), not_wrong=right)
    whole = discriminator_loss(table, REAL, list(FAKES), list(SENTENCES))
    left_out = F.softplus(table.logits_c[0][1]) / 2 / 3  # image 0 with sentence 1, one of two pairs
    assert (whole - loss).item() == pytest.approx(left_out.item(), rel=1e-4)
    none = [torch.tensor([False, False])] * 2
    assert torch.equal(discriminator_loss(table, REAL, list(FAKES), list(SENTENCES), not_wrong=none), whole)


def test_all_images_of_all_views_go_through_the_discriminator_in_one_pass():
    table = Table()
    discriminator_loss(table, REAL, list(FAKES), list(SENTENCES))
    assert table.passes == 1


def test_an_undecided_discriminator_costs_twice_the_logarithm_of_2_a_view():
    table = Table()
    table.logits_u.zero_()
    table.logits_c.zero_()
    assert discriminator_loss(table, REAL, [FAKES[0]], [SENTENCES[0]]).item() == pytest.approx(2 * math.log(2))
    assert generator_loss(table, FAKES[0], SENTENCES[0]).item() == pytest.approx(2 * math.log(2))


def test_the_generator_s_loss_asks_both_heads_to_call_its_images_real():
    table = Table()
    unconditional = real_cost(*table.logits_u[FAKES[0]].tolist())
    conditional = real_cost(*table.logits_c[FAKES[0], SENTENCES[0]].tolist())
    loss = generator_loss(table, FAKES[0], SENTENCES[0])
    assert loss.item() == pytest.approx(unconditional + conditional, rel=1e-5)


def real_discriminator_and_inputs():
    torch.manual_seed(0)
    discriminator = Discriminator(16, df_dim=2, sentence_dim=5).eval()
    images = torch.rand(3, 4, 3, 16, 16) * 2 - 1
    return discriminator, images, torch.randn(2, 4, 5)


def test_a_real_discriminator_gets_the_gradients_of_separate_passes():
    discriminator, (real, *fakes), sentences = real_discriminator_and_inputs()

    def separately():
        loss = 0
        for fake, sentence in zip(fakes, sentences, strict=True):
            f, g = discriminator.features(real), discriminator.features(fake)
            real_u, fake_u = discriminator.unconditional(f), discriminator.unconditional(g)
            real_c, fake_c = discriminator.conditional(f, sentence), discriminator.conditional(g, sentence)
            wrong_c = discriminator.conditional(f[:-1], sentence[1:])
            loss = loss - (F.logsigmoid(real_u).mean() + F.logsigmoid(real_c).mean()) / 2
            loss = loss - sum(F.logsigmoid(-logits).mean() for logits in (fake_u, fake_c, wrong_c)) / 3
        return loss

    weights = list(discriminator.parameters())
    loss, expected = discriminator_loss(discriminator, real, fakes, list(sentences)), separately()
    assert_close(loss, expected)
    gradients, plain = torch.autograd.grad(loss, weights), torch.autograd.grad(expected, weights)
    for gradient, plain_gradient in zip(gradients, plain, strict=True):
        assert (gradient - plain_gradient).norm() <= 1e-5 * plain_gradient.norm()


def test_permuting_images_with_their_sentences_leaves_the_generator_s_loss_alone():
    discriminator, (_, fake, _), (sentence, _) = real_discriminator_and_inputs()
    order = torch.tensor([2, 3, 1, 0])
    expected = generator_loss(discriminator, fake, sentence)
    assert_close(generator_loss(discriminator, fake[order], sentence[order]), expected)


def test_a_discriminator_learns_to_tell_two_kinds_of_images_apart():
    discriminator, _, (sentence, _) = real_discriminator_and_inputs()
    discriminator.train()
    optimizer = torch.optim.Adam(discriminator.parameters(), 2e-3, (0.5, 0.999))
    real, fake = torch.full((4, 3, 16, 16), 0.5), torch.full((4, 3, 16, 16), -0.5)
    for _ in range(60):
        optimizer.zero_grad()
        loss = discriminator_loss(discriminator, real, [fake], [sentence])
        loss.backward()
        optimizer.step()
    with torch.no_grad():
        assert discriminator.unconditional(discriminator.features(real)).min() > 0
        assert discriminator.unconditional(discriminator.features(fake)).max() < 0


def test_one_image_is_too_few_for_a_wrong_pair():
    with pytest.raises(ValueError, match="at least 2 images"):
        discriminator_loss(Table(), REAL[:1], [FAKES[0, :1]], [SENTENCES[0, :1]])


def test_each_view_needs_its_sentences():
    with pytest.raises(ValueError, match="2 views needs its sentences"):
        discriminator_loss(Table(), REAL, list(FAKES), [SENTENCES[0]])


def test_losses_are_float32_under_autocast():
    discriminator, (real, fake, _), (sentence, _) = real_discriminator_and_inputs()
    expected = discriminator_loss(discriminator, real, [fake], [sentence])
    with torch.autocast("cpu", dtype=torch.bfloat16):
        loss = discriminator_loss(discriminator, real, [fake], [sentence])
        loss_g = generator_loss(discriminator, fake, sentence)
        divergence = kl_loss(real.bfloat16(), fake.bfloat16())
    assert loss.dtype == loss_g.dtype == divergence.dtype == torch.float32
    assert loss.item() == pytest.approx(expected.item(), rel=0.01)
    assert_close(divergence, kl_loss(real.bfloat16().float(), fake.bfloat16().float()), rtol=0, atol=0)


def test_low_precision_logits_are_judged_in_float32():
    low, exact = Table(), Table()
    low.logits_u, low.logits_c = low.logits_u.bfloat16(), low.logits_c.bfloat16()
    exact.logits_u, exact.logits_c = low.logits_u.float(), low.logits_c.float()
    inputs = REAL, list(FAKES), list(SENTENCES)
    assert_close(discriminator_loss(low, *inputs), discriminator_loss(exact, *inputs), rtol=0, atol=0)
    inputs = FAKES[0], SENTENCES[0]
    assert_close(generator_loss(low, *inputs), generator_loss(exact, *inputs), rtol=0, atol=0)


def test_the_divergence_equals_the_golden_one(golden):
    numbers = golden("kl_loss")
    assert_close(kl_loss(numbers["mu"], numbers["logvar"]), numbers["loss"], atol=1e-4, rtol=0)


def test_the_divergence_and_its_gradients_equal_pytorch_s_and_the_closed_form(golden):
    numbers = golden("kl_loss")
    mu, logvar = numbers["mu"].requires_grad_(), numbers["logvar"].requires_grad_()
    normal = torch.distributions.Normal
    loss = kl_loss(mu, logvar)
    loss.backward()
    standard = normal(torch.zeros_like(mu), 1.0)
    assert_close(loss, torch.distributions.kl_divergence(normal(mu, (logvar / 2).exp()), standard).mean())
    assert_close(mu.grad, mu.detach() / mu.numel())
    assert_close(logvar.grad, (logvar.detach().exp() - 1) / 2 / mu.numel())


def test_the_standard_normal_has_no_divergence():
    assert kl_loss(torch.zeros(3, 4), torch.zeros(3, 4)) == 0
