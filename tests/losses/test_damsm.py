"""The matching losses: equal to golden numbers and to their definition, and indifferent to what must not matter."""

import contextlib
import math

import pytest
import torch
import torch.nn.functional as F
from torch.testing import assert_close
from torch.utils._python_dispatch import TorchDispatchMode

from clipgan.losses import damsm
from clipgan.losses.damsm import (
    mismatches_left_out,
    same_class_mask,
    sentence_loss,
    word_attention,
    word_similarity,
    words_loss,
)
from clipgan.machine.door import plain_forms

GAMMAS = (4.0, 5.0, 10.0)


@pytest.fixture(autouse=True, params=["fast form", "plain form"])
def form(request):
    """Every test holds for both."""
    with plain_forms() if request.param == "plain form" else contextlib.nullcontext():
        yield


def example(captions=4, images=4, dim=6, words_num=5, regions_num=9, dtype=torch.float32):
    """Words of captions of different lengths, their mask, regions."""
    torch.manual_seed(0)
    lengths = torch.tensor([3, 5, 1, 4, 2])[:captions]
    mask = torch.arange(words_num) < lengths[:, None]
    words = torch.randn(captions, dim, words_num, dtype=dtype)
    return words, mask, torch.randn(images, dim, regions_num, dtype=dtype)


def mask_of(numbers):
    return torch.arange(9) < numbers["caption_lengths"][:, None]


def gammas_of(numbers):
    return [numbers[f"gamma{i}"].item() for i in (1, 2, 3)]


def similarity_by_definition(words, mask, regions, gamma1, gamma2, gamma3):
    """Caption by caption without its padding, image by image, word by word."""
    rows = []
    for caption, real in zip(words, mask, strict=True):
        row = []
        for image in regions:
            w, v = F.normalize(caption[:, real], dim=0), F.normalize(image, dim=0)  # [D, L], [D, R]
            over_words = (w.T @ v).softmax(dim=0)  # [L, R]
            attention = (gamma1 * over_words).softmax(dim=1)  # [L, R]
            attended = torch.stack([sum(a * region for a, region in zip(row, v.T, strict=True)) for row in attention])
            relevance = F.cosine_similarity(attended, w.T, dim=1)  # [L]
            row.append(gamma3 / gamma2 * torch.log(torch.exp(gamma2 * relevance).sum()))
        rows.append(torch.stack(row))
    return torch.stack(rows)


def with_gradients(function, *inputs):
    """The function's value and the gradients of a fixed random projection of it, by its inputs."""
    inputs = [tensor.detach().clone().requires_grad_() for tensor in inputs]
    value = function(*inputs)
    torch.manual_seed(2)
    return [value, *torch.autograd.grad((value * torch.randn(value.shape)).sum(), inputs)]


def test_word_similarities_equal_the_golden_ones(golden):
    numbers = golden("words_loss")
    similarity = word_similarity(numbers["words"], mask_of(numbers), numbers["regions"], *gammas_of(numbers))
    assert_close(similarity, numbers["similarity"], atol=1e-4, rtol=0)


def test_word_losses_and_their_gradients_equal_the_golden_ones(golden):
    numbers = golden("words_loss")
    words, regions = numbers["words"].requires_grad_(), numbers["regions"].requires_grad_()
    losses = words_loss(words, mask_of(numbers), regions, numbers["class_ids"], *gammas_of(numbers))
    sum(losses).backward()
    assert_close(losses[0], numbers["loss_text_to_image"], atol=1e-4, rtol=0)
    assert_close(losses[1], numbers["loss_image_to_text"], atol=1e-4, rtol=0)
    assert_close(words.grad, numbers["grad_words"], atol=1e-4, rtol=0)
    assert_close(regions.grad, numbers["grad_regions"], atol=1e-4, rtol=0)


def test_an_inverted_mask_is_far_from_the_golden_similarities(golden):
    numbers = golden("words_loss")
    inverted = ~mask_of(numbers)
    has_words = inverted.any(dim=1)
    similarity = word_similarity(numbers["words"], inverted, numbers["regions"], *gammas_of(numbers))
    assert ((similarity - numbers["similarity"])[has_words].abs().mean(dim=1) > 0.1).all()


def test_sentence_losses_and_their_gradients_equal_the_golden_ones(golden):
    numbers = golden("sentence_loss")
    image, sentence = numbers["image"].requires_grad_(), numbers["sentence"].requires_grad_()
    losses = sentence_loss(image, sentence, numbers["class_ids"], numbers["gamma3"].item())
    sum(losses).backward()
    assert_close(losses[0], numbers["loss_text_to_image"], atol=1e-4, rtol=0)
    assert_close(losses[1], numbers["loss_image_to_text"], atol=1e-4, rtol=0)
    assert_close(image.grad, numbers["grad_image"], atol=1e-4, rtol=0)
    assert_close(sentence.grad, numbers["grad_sentence"], atol=1e-4, rtol=0)


@pytest.mark.parametrize(("captions", "images"), [(4, 4), (5, 3), (1, 6)])
def test_word_similarity_and_its_gradients_equal_their_definition(captions, images):
    words, mask, regions = example(captions, images, dtype=torch.float64)
    ours = with_gradients(lambda w, v: word_similarity(w, mask, v, *GAMMAS), words, regions)
    plain = with_gradients(lambda w, v: similarity_by_definition(w, mask, v, *GAMMAS), words, regions)
    assert ours[0].shape == (captions, images)
    assert_close(ours, plain, rtol=1e-8, atol=1e-10)


def test_at_real_sizes_float32_loses_nothing():
    torch.manual_seed(0)
    mask = torch.arange(12) < torch.tensor([12, 3, 7])[:, None]
    inputs = torch.randn(3, 512, 12), torch.randn(3, 512, 49)
    ours = with_gradients(lambda w, v: word_similarity(w, mask, v, *GAMMAS), *inputs)
    exact = with_gradients(lambda w, v: word_similarity(w, mask, v, *GAMMAS), *(tensor.double() for tensor in inputs))
    for value, right in zip(ours, exact, strict=True):
        assert (value - right).norm() <= 1e-5 * right.norm()


def test_attention_sums_to_1_over_the_regions_and_is_0_at_padding():
    words, mask, regions = example()
    attention = word_attention(words, mask, regions, 4.0)
    assert_close(attention.sum(dim=2), mask.float())


def test_attention_equals_its_definition():
    words, mask, regions = example()
    attention = word_attention(words, mask, regions, 4.0)
    for maps, caption, real, image in zip(attention, words, mask, regions, strict=True):
        scores = F.normalize(caption[:, real], dim=0).T @ F.normalize(image, dim=0)  # [L, R]
        assert_close(maps[real], (4.0 * scores.softmax(dim=0)).softmax(dim=1))


def test_permuting_captions_and_images_permutes_similarities():
    words, mask, regions = example()
    expected = word_similarity(words, mask, regions, *GAMMAS)
    texts, images = torch.tensor([2, 3, 1, 0]), torch.tensor([1, 3, 2, 0])
    permuted = word_similarity(words[texts], mask[texts], regions[images], *GAMMAS)
    assert_close(permuted, expected[texts][:, images])


def test_permuting_pairs_leaves_the_losses_alone():
    words, mask, regions = example()
    class_ids = torch.tensor([1, 2, 1, 3])
    order = torch.tensor([2, 3, 1, 0])
    expected = words_loss(words, mask, regions, class_ids, *GAMMAS)
    assert_close(words_loss(words[order], mask[order], regions[order], class_ids[order], *GAMMAS), expected)
    image, sentence = regions[:, :, 0], words[:, :, 0]
    expected = sentence_loss(image, sentence, class_ids, 10.0)
    assert_close(sentence_loss(image[order], sentence[order], class_ids[order], 10.0), expected)


def test_padding_a_caption_changes_nothing():
    words, mask, regions = example()
    padded = torch.cat([words.masked_fill(~mask[:, None], 50.0), torch.randn(4, 6, 3)], dim=2)
    padded_mask = F.pad(mask, (0, 3))
    expected = word_similarity(words, mask, regions, *GAMMAS)
    assert_close(word_similarity(padded, padded_mask, regions, *GAMMAS), expected)
    expected = F.pad(word_attention(words, mask, regions, 4.0), (0, 0, 0, 3))
    assert_close(word_attention(padded, padded_mask, regions, 4.0), expected)


def test_padding_gets_no_gradient():
    words, mask, regions = example()
    words.requires_grad_()
    sum(words_loss(words, mask, regions, None, *GAMMAS)).backward()
    assert not words.grad.transpose(1, 2)[~mask].any()
    assert words.grad.transpose(1, 2)[mask].norm(dim=1).min() > 0


def test_a_caption_without_words_fits_every_image_equally_and_sends_no_gradient():
    words, mask, regions = example()
    mask[2] = False
    words.requires_grad_()
    regions.requires_grad_()
    similarity = word_similarity(words, mask, regions, *GAMMAS)
    assert similarity[2].eq(0).all()
    sum(words_loss(words, mask, regions, None, *GAMMAS)).backward()
    assert words.grad.isfinite().all() and regions.grad.isfinite().all()
    assert not words.grad[2].any()


def test_the_length_of_a_feature_does_not_matter():
    words, mask, regions = example()
    expected = word_similarity(words, mask, regions, *GAMMAS)
    assert_close(word_similarity(7 * words, mask, regions / 9, *GAMMAS), expected)
    expected = sentence_loss(regions[:, :, 0], words[:, :, 0], None, 10.0)
    assert_close(sentence_loss(7 * regions[:, :, 0], words[:, :, 0] / 9, None, 10.0), expected)


def test_taking_captions_in_parts_changes_neither_similarities_nor_gradients(monkeypatch):
    words, mask, regions = example(captions=5)

    def run():
        return with_gradients(lambda w, v: word_similarity(w, mask, v, *GAMMAS), words, regions)

    whole = run()
    elements_of_a_caption = words.shape[2] * regions.shape[0] * regions.shape[2]
    for captions_at_once in (1, 2, 3):
        monkeypatch.setattr(damsm, "_ELEMENTS_AT_ONCE", captions_at_once * elements_of_a_caption)
        assert_close(run(), whole)


class LargestTensor(TorchDispatchMode):
    """Remembers the most elements that any operation returned."""

    elements = 0

    def __torch_dispatch__(self, function, types, args=(), kwargs=None):
        result = function(*args, **kwargs or {})
        for tensor in result if isinstance(result, tuple | list) else [result]:
            if isinstance(tensor, torch.Tensor):
                self.elements = max(self.elements, tensor.untyped_storage().nbytes() // tensor.element_size())
        return result


def test_a_large_batch_is_computed_with_bounded_tensors_and_keeps_none_of_them(monkeypatch):
    torch.manual_seed(0)
    limit = 2**14
    monkeypatch.setattr(damsm, "_ELEMENTS_AT_ONCE", limit)
    batch, words_num, regions_num = 40, 6, 16
    words = torch.randn(batch, 8, words_num, requires_grad=True)
    regions = torch.randn(batch, 8, regions_num, requires_grad=True)
    kept = []

    def keep(tensor):
        kept.append(tensor.numel())
        return tensor

    mask = torch.ones(batch, words_num, dtype=torch.bool)
    with LargestTensor() as largest:
        with torch.autograd.graph.saved_tensors_hooks(keep, lambda tensor: tensor):
            losses = words_loss(words, mask, regions, None, *GAMMAS)
        sum(losses).backward()
    assert largest.elements <= limit < batch * words_num * batch * regions_num
    assert max(kept) <= max(words.numel(), regions.numel(), batch * batch)


def test_pairs_of_one_class_are_left_out_but_not_the_pair_itself():
    expected = torch.zeros(4, 4, dtype=torch.bool)
    expected[0, 2] = expected[2, 0] = True
    assert same_class_mask(torch.tensor([5, 1, 5, 0])).equal(expected)


def test_only_images_of_other_classes_and_a_caption_s_own_are_candidates():
    torch.manual_seed(0)
    image, sentence = F.normalize(torch.randn(4, 5), dim=1), F.normalize(torch.randn(4, 5), dim=1)
    candidates = {0: [0, 1, 3], 1: [0, 1, 2, 3], 2: [1, 2, 3], 3: [0, 1, 2, 3]}  # 0 and 2 are of one class

    def cost(scores):
        terms = [scores[i, others].logsumexp(dim=0) - scores[i, i] for i, others in candidates.items()]
        return torch.stack(terms).mean()

    scores = 10 * sentence @ image.T
    losses = sentence_loss(image, sentence, torch.tensor([5, 1, 5, 0]), 10.0)
    assert_close(losses, (cost(scores), cost(scores.T)))


CAPTIONS = torch.tensor([[1, 2], [3, 1], [4, 5], [5, 4]])  # ids of the captions drawn for four images


def test_captions_equal_to_one_of_an_image_s_own_are_left_out_for_that_image():
    found = mismatches_left_out(torch.arange(4), CAPTIONS[:, 0], CAPTIONS)
    assert found.nonzero().tolist() == [[0, 1], [2, 3], [3, 2]]  # caption 1 is image 1's too, but 3 is not image 0's
    found = mismatches_left_out(torch.tensor([7, 8, 9, 7]), CAPTIONS[:, 1], CAPTIONS)
    assert found.nonzero().tolist() == [[0, 3], [1, 0], [2, 3], [3, 0], [3, 2]]


def losses_without(scores, left_out):
    """Both cross-entropies, pair by pair."""

    def cost(scores, left_out):
        terms = []
        for i in range(len(scores)):
            kept = [j for j in range(len(scores)) if j == i or not left_out[i, j]]
            terms.append(scores[i, kept].logsumexp(dim=0) - scores[i, i])
        return torch.stack(terms).mean()

    return cost(scores, left_out), cost(scores.T, left_out.T)


def test_losses_and_gradients_are_those_without_the_pairs_of_equal_captions():
    words, mask, regions = example()
    words, regions = words.requires_grad_(), regions.requires_grad_()
    left_out = mismatches_left_out(torch.tensor([0, 1, 2, 0]), CAPTIONS[:, 0], CAPTIONS)
    losses = words_loss(words, mask, regions, None, *GAMMAS, left_out=left_out)
    expected = losses_without(word_similarity(words, mask, regions, *GAMMAS), left_out)
    assert_close(losses, expected)
    ours, by_hand = (torch.autograd.grad(sum(one), [words, regions]) for one in (losses, expected))
    assert_close(ours, by_hand)
    image, sentence = regions[:, :, 0], words[:, :, 0]
    scores = 10 * F.normalize(sentence, dim=1) @ F.normalize(image, dim=1).T
    losses = sentence_loss(image, sentence, torch.tensor([0, 1, 2, 0]), 10.0, left_out)
    assert_close(losses, losses_without(scores, left_out))


def test_different_captions_change_no_bit_of_losses_and_gradients():
    words, mask, regions = example()
    words, regions, classes = words.requires_grad_(), regions.requires_grad_(), torch.tensor([1, 2, 1, 3])
    left_out = mismatches_left_out(classes, torch.arange(4), torch.arange(8).view(2, 4).T)
    results = []
    for options in ({"class_ids": classes}, {"class_ids": None, "left_out": left_out}):
        loss = sum(words_loss(words, mask, regions, gamma1=4.0, gamma2=5.0, gamma3=10.0, **options))
        loss = loss + sum(sentence_loss(regions[:, :, 0], words[:, :, 0], gamma3=10.0, **options))
        results.append([loss, *torch.autograd.grad(loss, [words, regions])])
    assert all(map(torch.equal, *results))


def test_in_a_batch_of_one_class_nothing_can_be_mistaken():
    words, mask, regions = example()
    one_class = torch.full((4,), 3)
    assert words_loss(words, mask, regions, one_class, *GAMMAS) == (0, 0)
    assert sentence_loss(regions[:, :, 0], words[:, :, 0], one_class, 10.0) == (0, 0)


def test_different_classes_leave_nothing_out():
    words, mask, regions = example()
    expected = words_loss(words, mask, regions, None, *GAMMAS)
    assert words_loss(words, mask, regions, torch.arange(4), *GAMMAS) == expected


def test_captions_that_are_all_alike_cost_the_logarithm_of_their_number():
    words, mask, regions = example()
    alike = words[:1].expand(4, -1, -1), mask[:1].expand(4, -1), regions[:1].expand(4, -1, -1)
    assert_close(words_loss(*alike, None, *GAMMAS), (torch.tensor(math.log(4)),) * 2)
    vectors = words[:1, :, 0].expand(4, -1)
    assert_close(sentence_loss(vectors, vectors, None, 10.0), (torch.tensor(math.log(4)),) * 2)


def test_orthogonal_sentences_cost_what_the_closed_form_says():
    # A cosine of 1 against three of 0: -log softmax.
    expected = torch.tensor(math.log(1 + 3 * math.exp(-10)))
    assert_close(sentence_loss(torch.eye(4), torch.eye(4), None, 10.0), (expected, expected))


def test_a_text_is_a_row_and_an_image_a_column():
    # Both sentences point at image 0: each image finds a sentence, the second sentence not its image.
    sentence, image = torch.eye(2)[[0, 0]], torch.eye(2)
    text_to_image, image_to_text = sentence_loss(image, sentence, None, 10.0)
    log = math.log
    assert text_to_image.item() == pytest.approx((log(1 + math.exp(-10)) + log(1 + math.exp(10))) / 2)
    assert image_to_text.item() == pytest.approx(log(2))
    words, mask, regions = example()
    both = words_loss(words, mask, regions, None, *GAMMAS)
    similarity = word_similarity(words, mask, regions, *GAMMAS)
    assert_close(both[0], -similarity.log_softmax(dim=1).diagonal().mean())
    assert_close(both[1], -similarity.log_softmax(dim=0).diagonal().mean())


@pytest.mark.parametrize("dtype", [torch.bfloat16, torch.float16])
def test_low_precision_features_are_matched_in_float32(dtype):
    words, mask, regions = example()
    words, regions = words.to(dtype), regions.to(dtype)
    expected = words_loss(words.float(), mask, regions.float(), None, *GAMMAS)
    expected_sentence = sentence_loss(regions[:, :, 0].float(), words[:, :, 0].float(), None, 10.0)
    with torch.autocast("cpu", dtype=torch.bfloat16):
        assert_close(words_loss(words, mask, regions, None, *GAMMAS), expected, rtol=0, atol=0)
        assert_close(sentence_loss(regions[:, :, 0], words[:, :, 0], None, 10.0), expected_sentence, rtol=0, atol=0)
