"""The matching losses of the Deep Attentional Multimodal Similarity Model: words with regions, sentence with image.

Source: Xu et al., "AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial Networks",
2018, §3.2, eq. 7-13. Padding words are left out of every softmax and sum, so a caption's padding changes nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.utils.checkpoint import checkpoint

from clipgan.losses.float32 import in_float32
from clipgan.machine.door import faster_on_cpu

# Elements of the largest tensor, [Bt, Bi, W, D or R], above which captions are taken in parts. It has 128 MiB in
# float32, and a few of its size are kept for the backward pass.
_ELEMENTS_AT_ONCE = 2**25


def region_attention(scores: Tensor, word_mask: Tensor, gamma1: float) -> Tensor:
    """How much each word attends to each region (eq. 8, 9).

    Args:
        scores: s, cosines of words and regions [..., W, R].
        word_mask: [..., W], True = a real word.
        gamma1: sharpness of the attention.

    Returns:
        α [..., W, R], which sum to 1 over the regions.
    """
    # The lowest number rather than -inf: a caption without a single word gives even weights instead of NaN.
    lowest = torch.finfo(scores.dtype).min
    over_words = scores.masked_fill(~word_mask.unsqueeze(-1), lowest).softmax(dim=-2)  # s̄, eq. 8
    return (gamma1 * over_words).softmax(dim=-1)  # α, eq. 9


@in_float32
def word_attention(words: Tensor, word_mask: Tensor, regions: Tensor, gamma1: float) -> Tensor:
    """Where in its own image each word of a caption looks.

    Args:
        words: word features [B, D, W].
        word_mask: [B, W], True = a real word.
        regions: region features [B, D, R] of the images that belong to the captions.
        gamma1: sharpness of the attention.

    Returns:
        Weights [B, W, R] that sum to 1 over the regions; rows of padding are 0.
    """
    scores = F.normalize(words, dim=1).transpose(1, 2) @ F.normalize(regions, dim=1)  # [B, W, R]
    return region_attention(scores, word_mask, gamma1) * word_mask.unsqueeze(2)


@faster_on_cpu
def caption_image_similarity(
    words: Tensor, word_mask: Tensor, regions: Tensor, gamma1: float, gamma2: float, gamma3: float
) -> Tensor:
    """`word_similarity` of all captions at once: the equations of the paper, line by line."""
    word = F.normalize(words, dim=1).transpose(1, 2)  # e, [Bt, W, D]
    region = F.normalize(regions, dim=1)  # v, [Bi, D, R]
    scores = torch.einsum("twd,idr->tiwr", word, region)  # s = ⟨e, v⟩, eq. 7
    attention = region_attention(scores, word_mask.unsqueeze(1), gamma1)  # α, [Bt, Bi, W, R], eq. 8, 9
    context = torch.einsum("tiwr,idr->tiwd", attention, region)  # c = Σ α v, eq. 9
    relevance = F.cosine_similarity(context, word.unsqueeze(1), dim=3)  # R(c, e), [Bt, Bi, W]
    relevance = (gamma2 * relevance).masked_fill(~word_mask.unsqueeze(1), torch.finfo(relevance.dtype).min)
    similarity = gamma3 / gamma2 * relevance.logsumexp(dim=2)  # eq. 10, times γ3
    return similarity.masked_fill(~word_mask.any(dim=1, keepdim=True), 0.0)


@in_float32
def word_similarity(
    words: Tensor, word_mask: Tensor, regions: Tensor, gamma1: float, gamma2: float, gamma3: float
) -> Tensor:
    """How well each caption fits each image, by its words (eq. 7-10, times gamma3).

    Args:
        words: word features [Bt, D, W] of the captions.
        word_mask: [Bt, W], True = a real word. A caption without a single word fits every image equally, 0.
        regions: region features [Bi, D, R] of the images.
        gamma1: sharpness of a word's attention over the regions.
        gamma2: importance of a caption's best-matching words.
        gamma3: factor of the similarity before the softmax over the batch.

    Returns:
        Similarities [Bt, Bi]. In large batches the captions are taken in parts, each part's intermediate tensors made
        again in the backward pass, which bounds the memory and changes no number.
    """
    elements_of_a_caption = words.shape[2] * regions.shape[0] * max(regions.shape[1:])
    captions_at_once = max(1, _ELEMENTS_AT_ONCE // elements_of_a_caption)
    rest = (regions, gamma1, gamma2, gamma3)
    if captions_at_once >= words.shape[0]:
        return caption_image_similarity(words, word_mask, *rest)
    parts = zip(words.split(captions_at_once), word_mask.split(captions_at_once), strict=True)
    again = {"use_reentrant": False, "preserve_rng_state": False}
    return torch.cat([checkpoint(caption_image_similarity, *part, *rest, **again) for part in parts])


def same_class_mask(class_ids: Tensor) -> Tensor:
    """[B] → [B, B] bool, True = left out of a matching loss: another image of the same class is no mismatch."""
    same = class_ids.unsqueeze(0) == class_ids.unsqueeze(1)
    return same.fill_diagonal_(False)


def mismatches_left_out(class_ids: Tensor, captions: Tensor, captions_of_images: Tensor) -> Tensor:
    """Which pairs are no mismatches: those of one class, and those whose caption is also one of the image's own.

    Args:
        class_ids: [B].
        captions: int64 [B], ids of the captions of a view, equal for equal captions.
        captions_of_images: int64 [B, C], ids of all captions that were drawn for each image.

    Returns:
        [B, B] bool, [caption, image], True = left out of a matching loss; never the pairs themselves. It need not be
        symmetric: an image may have been drawn with a caption of another one whose second caption is its own.
    """
    left_out = same_class_mask(class_ids)
    for of_images in captions_of_images.unbind(dim=1):
        left_out = left_out | (captions.unsqueeze(1) == of_images.unsqueeze(0))
    return left_out.fill_diagonal_(False)


@in_float32
def pair_losses(
    similarity: Tensor, class_ids: Tensor | None, left_out: Tensor | None = None
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """Each caption finds its image in the batch, and each image its caption (eq. 11, 12).

    Args:
        similarity: how well each caption fits each image, [B, B].
        class_ids: [B]; pairs of one class, other than the pair itself, are left out. None leaves no class out.
        left_out: [B, B] bool, [caption, image]: further pairs to leave out, see `mismatches_left_out`.

    Returns:
        The cross-entropies against the diagonal (text to image, image to text), two scalars.
    """
    if class_ids is not None:
        similarity = similarity.masked_fill(same_class_mask(class_ids), -torch.inf)
    if left_out is not None:
        similarity = similarity.masked_fill(left_out, -torch.inf)
    own = torch.arange(similarity.shape[0], device=similarity.device)
    return F.cross_entropy(similarity, own), F.cross_entropy(similarity.T, own)


@in_float32
def words_loss(
    words: Tensor, word_mask: Tensor, regions: Tensor, class_ids: Tensor | None,
    gamma1: float, gamma2: float, gamma3: float, left_out: Tensor | None = None,
) -> tuple[Tensor, Tensor]:  # fmt: skip
    """`pair_losses` of captions and images by words and regions: see `word_similarity` for the arguments."""
    return pair_losses(word_similarity(words, word_mask, regions, gamma1, gamma2, gamma3), class_ids, left_out)


@in_float32
def sentence_loss(
    image: Tensor, sentence: Tensor, class_ids: Tensor | None, gamma3: float, left_out: Tensor | None = None
) -> tuple[Tensor, Tensor]:
    """`pair_losses` of captions and images by one vector each, gamma3 times their cosine (eq. 11-13).

    Args:
        image: image features [B, E].
        sentence: sentence features [B, E].
        class_ids: as in `pair_losses`.
        gamma3: factor of the cosine before the softmax over the batch.
        left_out: as in `pair_losses`.
    """
    similarity = gamma3 * F.normalize(sentence, dim=1) @ F.normalize(image, dim=1).T  # [text, image]
    return pair_losses(similarity, class_ids, left_out)
