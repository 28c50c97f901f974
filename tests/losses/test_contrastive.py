"""NT-Xent: equal to golden numbers and closed forms."""

import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close

from clipgan.losses.contrastive import equal_captions, nt_xent


def views(batch=5, dim=7):
    torch.manual_seed(0)
    return torch.randn(batch, dim), torch.randn(batch, dim)


def test_the_loss_and_its_gradients_equal_the_golden_ones(golden):
    numbers = golden("nt_xent")
    view1, view2 = numbers["view1"].requires_grad_(), numbers["view2"].requires_grad_()
    loss = nt_xent(view1, view2, numbers["temperature"].item())
    loss.backward()
    assert_close(loss, numbers["loss"], atol=1e-4, rtol=0)
    assert_close(view1.grad, numbers["grad_view1"], atol=1e-4, rtol=0)
    assert_close(view2.grad, numbers["grad_view2"], atol=1e-4, rtol=0)


@pytest.mark.parametrize("temperature", [0.1, 0.5, 2.0])
def test_orthogonal_examples_with_equal_views_cost_what_the_closed_form_says(temperature):
    # The other view has cosine 1, the 2·4 - 2 views of other examples have 0.
    loss = nt_xent(torch.eye(4), torch.eye(4), temperature)
    assert loss.item() == pytest.approx(math.log(1 + 6 * math.exp(-1 / temperature)), abs=1e-6)


def test_the_loss_equals_its_definition_vector_by_vector():
    view1, view2 = (view.double() for view in views())
    vectors = F.normalize(torch.cat([view1, view2]), dim=1)
    terms = []
    for i, vector in enumerate(vectors):
        cosines = {j: torch.dot(vector, other).item() for j, other in enumerate(vectors) if j != i}
        total = sum(math.exp(cosine / 0.5) for cosine in cosines.values())
        terms.append(-math.log(math.exp(cosines[(i + 5) % 10] / 0.5) / total))
    assert nt_xent(view1, view2).item() == pytest.approx(sum(terms) / 10, rel=1e-10)


def test_vectors_that_are_all_alike_cost_the_logarithm_of_their_number_less_one():
    alike = torch.ones(4, 3)
    assert nt_xent(alike, alike).item() == pytest.approx(math.log(7))


def test_equal_captions_of_other_examples_are_no_negatives():
    captions = torch.tensor([[1, 2], [3, 1], [1, 4], [5, 5], [6, 7]])
    names = [*captions[:, 0].tolist(), *captions[:, 1].tolist()]
    view1, view2 = (view.double().requires_grad_() for view in views())
    vectors = F.normalize(torch.cat([view1, view2]), dim=1)
    terms = []
    for i in range(10):
        other = (i + 5) % 10
        kept = [j for j in range(10) if j == other or names[j] != names[i]]
        cosines = torch.stack([torch.dot(vectors[i], vectors[j]) for j in kept]) / 0.5
        terms.append(cosines.logsumexp(dim=0) - torch.dot(vectors[i], vectors[other]) / 0.5)
    expected = torch.stack(terms).mean()
    loss = nt_xent(view1, view2, left_out=equal_captions(captions))
    assert_close(loss, expected)
    for ours, by_hand in zip(*(torch.autograd.grad(one, [view1, view2]) for one in (loss, expected)), strict=True):
        assert_close(ours, by_hand)
    assert nt_xent(view1, view2) - loss > 0.01


def test_one_caption_for_all_costs_nothing():
    assert nt_xent(*views(), left_out=equal_captions(torch.zeros(5, 2, dtype=torch.long))) == 0


def test_different_captions_leave_no_negative_out():
    view1, view2 = views()
    left_out = equal_captions(torch.arange(10).view(5, 2))
    assert torch.equal(nt_xent(view1, view2, left_out=left_out), nt_xent(view1, view2))


def test_one_example_has_nothing_to_be_told_from():
    assert nt_xent(*views(batch=1)) == 0


def test_exchanging_the_views_or_permuting_the_examples_changes_nothing():
    view1, view2 = views()
    order = torch.tensor([3, 1, 4, 0, 2])
    expected = nt_xent(view1, view2)
    assert_close(nt_xent(view2, view1), expected)
    assert_close(nt_xent(view1[order], view2[order]), expected)
    assert (nt_xent(view1[order], view2) - expected).abs() > 1e-3


def test_the_length_of_a_vector_does_not_matter():
    view1, view2 = views()
    assert_close(nt_xent(5 * view1, view2 / 8), nt_xent(view1, view2))


def test_views_that_agree_cost_less():
    view1, view2 = views()
    assert nt_xent(view1, view1 + 0.1 * view2) < nt_xent(view1, view2)


def test_low_precision_vectors_are_compared_in_float32():
    view1, view2 = (view.bfloat16() for view in views())
    expected = nt_xent(view1.float(), view2.float())
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(nt_xent(view1, view2), expected, rtol=0, atol=0)
