"""The matching losses of the Deep Attentional Multimodal Similarity Model: words with regions, sentence with image.

Source: Xu et al., "AttnGAN: Fine-Grained Text to Image Generation with Attentional Generative Adversarial Networks",
2018, §3.2, eq. 7-13. Padding words are left out of every softmax and sum, so a caption's padding changes nothing.
"""

import torch
import torch.nn.functional as F
from torch import Tensor
from torch.autograd.function import once_differentiable
from torch.utils.checkpoint import checkpoint

from clipgan.losses.precision import in_float32

# Elements of a [Bi, R, Bt, W] tensor above which captions are taken in parts (128 MiB a tensor in float32).
_ELEMENTS_AT_ONCE = 2**25

# On a CPU the number of words computed with is a multiple of this: libraries keep code for every size that they meet.
_WORDS_MULTIPLE = 32

# Stands for -inf where a whole row may be masked: its softmax is then even instead of NaN.
_MASKED = torch.finfo(torch.float32).min


@in_float32
def word_attention(words: Tensor, word_mask: Tensor, regions: Tensor, gamma1: float) -> Tensor:
    """Where in its own image each word of a caption looks (eq. 8, 9).

    Args:
        words: word features [B, D, W].
        word_mask: [B, W], True = a real word.
        regions: region features [B, D, R] of the images that belong to the captions.
        gamma1: sharpness of the attention.

    Returns:
        Weights [B, W, R] that sum to 1 over the regions; rows of padding are 0.
    """
    scores = F.normalize(words, dim=1).transpose(1, 2) @ F.normalize(regions, dim=1)  # [B, W, R]
    over_words = scores.masked_fill(~word_mask.unsqueeze(2), _MASKED).softmax(dim=1)
    return (gamma1 * over_words).softmax(dim=2) * word_mask.unsqueeze(2)


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
    regions = F.normalize(regions.transpose(1, 2).contiguous(), dim=2)  # [Bi, R, D]
    elements_of_a_caption = words.shape[2] * regions.shape[0] * regions.shape[1]
    captions_at_once = max(1, _ELEMENTS_AT_ONCE // elements_of_a_caption)
    gammas = (gamma1, gamma2, gamma3)
    if captions_at_once >= words.shape[0]:
        return _similarity(words, word_mask, regions, *gammas)
    parts = zip(words.split(captions_at_once), word_mask.split(captions_at_once), strict=True)
    return torch.cat([
        checkpoint(_similarity, *part, regions, *gammas, use_reentrant=False, preserve_rng_state=False)
        for part in parts
    ])


def _similarity(
    words: Tensor, word_mask: Tensor, regions: Tensor, gamma1: float, gamma2: float, gamma3: float
) -> Tensor:
    """`word_similarity` with normalised regions, [Bi, R, D].

    The attended region c = Σ α·region is never made: ⟨c, word⟩ = Σ α·s and |c|² = αᵀGα, with s the scores of the
    regions and G the products of the image's regions, need R numbers a word instead of D.
    """
    captions, dim, length = words.shape
    images = regions.shape[0]
    used = _used_words(word_mask)  # [N]
    words = words.transpose(1, 2).reshape(captions * length, dim).index_select(0, used)
    words = F.normalize(words, dim=1)  # [N, D]
    # Which caption each word is of, [N, Bt]: sums over a caption's words, and copies for each of them, are products.
    member = F.one_hot(used // length, captions) * word_mask.flatten()[used].unsqueeze(1)
    member = member.to(words.dtype)
    scores = regions @ words.T  # [Bi, R, N], cosines: their exponentials need no maximum taken off
    exponentials = scores.exp()
    of_caption = (exponentials @ member).clamp_min(0.1)  # [Bi, R, Bt], at least 1/e but where a caption is empty
    sharpened = exponentials * ((gamma1 / of_caption) @ member.T)  # [Bi, R, N], gamma1 times the softmax over words
    attention = sharpened.softmax(dim=1)  # [Bi, R, N]

    dot = (attention * scores).sum(dim=1)  # [Bi, N]
    gram = regions @ regions.transpose(1, 2)  # [Bi, R, R]
    squared_norm = _QuadraticForm.apply(gram, attention)  # [Bi, N]
    cosine = dot / squared_norm.clamp_min(1e-12).sqrt()  # [Bi, N]

    padded = cosine.new_zeros(images, captions * length).index_copy(1, used, cosine).view(images, captions, length)
    best_words = (gamma2 * padded).masked_fill(~word_mask, _MASKED).logsumexp(dim=2)  # [Bi, Bt]
    similarity = gamma3 / gamma2 * best_words
    return similarity.masked_fill(~word_mask.any(dim=1), 0.0).T  # [Bt, Bi]


class _QuadraticForm(torch.autograd.Function):
    """vᵀGv for the columns v of each matrix: symmetric G [B, R, R], [B, R, N] → [B, N]; Gv serves its gradient, too."""

    @staticmethod
    def forward(ctx, matrix: Tensor, columns: Tensor) -> Tensor:
        product = matrix @ columns
        ctx.save_for_backward(columns, product)
        return (columns * product).sum(dim=1)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor, Tensor]:
        columns, product = ctx.saved_tensors
        gradient = gradient.unsqueeze(1)  # [B, 1, N]
        return (gradient * columns) @ columns.transpose(1, 2), 2 * gradient * product


def _used_words(word_mask: Tensor) -> Tensor:
    """Places in the flattened mask to compute with: on a CPU the real words, and padding up to `_WORDS_MULTIPLE`.

    A GPU would have to wait to know them: there, all.
    """
    if word_mask.device.type != "cpu":
        return torch.arange(word_mask.numel(), device=word_mask.device)
    real, padding = (places.flatten().nonzero().squeeze(1) for places in (word_mask, ~word_mask))
    return torch.cat([real, padding[: -len(real) % _WORDS_MULTIPLE]])


def same_class_mask(class_ids: Tensor) -> Tensor:
    """[B] → [B, B] bool, True = left out of a matching loss: another image of the same class is no mismatch."""
    same = class_ids.unsqueeze(0) == class_ids.unsqueeze(1)
    return same.fill_diagonal_(False)


@in_float32
def words_loss(
    words: Tensor,
    word_mask: Tensor,
    regions: Tensor,
    class_ids: Tensor | None,
    gamma1: float,
    gamma2: float,
    gamma3: float,
) -> tuple[Tensor, Tensor]:
    """Each caption finds its image in the batch, and each image its caption, by words and regions (eq. 11, 12).

    Args:
        words: word features [B, D, W].
        word_mask: [B, W], True = a real word.
        regions: region features [B, D, R] of the captions' images.
        class_ids: [B]; pairs of one class, other than the pair itself, are left out. None leaves nothing out.
        gamma1: see `word_similarity`, as `gamma2` and `gamma3`.

    Returns:
        (text to image, image to text), two scalars.
    """
    return pair_losses(word_similarity(words, word_mask, regions, gamma1, gamma2, gamma3), class_ids)


@in_float32
def sentence_loss(image: Tensor, sentence: Tensor, class_ids: Tensor | None, gamma3: float) -> tuple[Tensor, Tensor]:
    """Each caption finds its image in the batch, and each image its caption, by one vector each (eq. 11-13).

    Args:
        image: image features [B, E].
        sentence: sentence features [B, E].
        class_ids: as in `words_loss`.
        gamma3: factor of the cosine before the softmax over the batch.

    Returns:
        (text to image, image to text), two scalars.
    """
    similarity = gamma3 * F.normalize(sentence, dim=1) @ F.normalize(image, dim=1).T  # [text, image]
    return pair_losses(similarity, class_ids)


@in_float32
def pair_losses(similarity: Tensor, class_ids: Tensor | None) -> tuple[Tensor, Tensor]:
    """Cross-entropies of similarities [B, B], captions × images, against the diagonal.

    Args:
        similarity: how well each caption fits each image.
        class_ids: as in `words_loss`.

    Returns:
        (text to image, image to text), two scalars.
    """
    if class_ids is not None:
        similarity = similarity.masked_fill(same_class_mask(class_ids), -torch.inf)
    own = torch.arange(similarity.shape[0], device=similarity.device)
    return F.cross_entropy(similarity, own), F.cross_entropy(similarity.T, own)
