"""Faster forms for a CPU of functions in ``networks`` and ``losses``; see ``door.py``.

Each function here is the same mathematical function as the plain one of its name, with the same arguments.
"""

from __future__ import annotations

import math

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Pixels of a part of a batch. With 128 channels they take 4 MiB, which fits the cache; half and twice as many are as
# fast (measured on two cores at 256x256 pixels).
_PIXELS_AT_ONCE = 2**13

# The number of words computed with is a multiple of this: libraries keep code for every size that they meet.
_WORDS_MULTIPLE = 32


def norm_glu(x: Tensor, norm: nn.Module) -> Tensor:
    """Batch norm and GLU in one pass over parts that fit the cache, without keeping the norm's output.

    The norm's output would be the largest tensor of a block. The backward pass makes it again, a part at a time. Sums
    gain, too: PyTorch adds up the pixels of channels-last tensors one by one, and float32 loses a tenth of its digits
    over half a million of them.
    """
    values = x.numel() // x.shape[1]
    if not norm.training or type(norm) not in (nn.BatchNorm1d, nn.BatchNorm2d) or values == 1:
        return _GatedLinearUnit.apply(norm(x))
    mean, variance = _statistics(x, norm)
    with torch.no_grad():
        norm.num_batches_tracked += 1
        norm.running_mean.lerp_(mean, norm.momentum)
        norm.running_var.lerp_(variance * (values / (values - 1)), norm.momentum)
    return _NormGlu.apply(x, norm.weight, norm.bias, mean, variance, norm.eps)


def _statistics(x: Tensor, norm: nn.Module) -> tuple[Tensor, Tensor]:
    """Mean and variance of each channel [C], float32: moments of equal parts, added up in float64."""
    moments = []
    for (part,) in _parts(x.detach()):
        # With momentum 0 the running values stay; they only say that float32 is wanted, whatever x is.
        mean, variance = torch.batch_norm_update_stats(part, norm.running_mean, norm.running_var, 0.0)
        mean, variance = mean.double(), variance.double()
        moments.append(torch.stack([mean, variance + mean.square()]))
    mean, square = torch.stack(moments).mean(dim=0)
    variance = (square - mean.square()).clamp_min(0)
    return mean.to(norm.running_mean), variance.to(norm.running_var)


class _NormGlu(torch.autograd.Function):
    """GLU of a batch norm with these statistics of the batch; keeps its input only."""

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
        ctx.save_for_backward(x, weight, bias, mean, variance)
        ctx.eps = eps
        out = torch.empty_like(x.chunk(2, dim=1)[0])
        for part, into in _parts(x, out):
            _gate(_normalise(part, weight, bias, mean, variance, eps), into)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias, mean, variance = ctx.saved_tensors
        invstd = torch.rsqrt(variance + ctx.eps)

        # Through the GLU, into the gradient of the norm's output.
        if _fits_in_parts(x):
            of_norm = torch.empty_like(x)
            for part, of_part, into in _parts(x, gradient, of_norm):
                _gate_backward(_normalise(part, weight, bias, mean, variance, ctx.eps), of_part, into)
        else:
            y = _normalise(x, weight, bias, mean, variance, ctx.eps)
            of_norm = _gate_backward(y, gradient, into=y)

        # Through the norm (Ioffe, Szegedy 2015, §3), in the same memory. The gradients of weight and bias come first.
        def native(of_part: Tensor, part: Tensor) -> Tensor:
            sums = torch.ops.aten.native_batch_norm_backward(
                of_part, part, weight, None, None, mean, invstd, True, ctx.eps, [False, True, True]
            )
            return torch.stack(sums[1:])

        of_weight, of_bias = torch.stack([native(*pair) for pair in _parts(of_norm, x)]).sum(dim=0)
        count = x.numel() / x.shape[1]
        # scale * (gradient - of_bias / count - normalised * of_weight / count) = scale * gradient + slope * x + shift
        scale = weight * invstd
        slope = -scale * invstd * of_weight / count
        shift = -scale * of_bias / count - slope * mean
        scale, slope, shift = (vector.view(1, -1, *[1] * (x.ndim - 2)) for vector in (scale, slope, shift))
        for of_part, part in _parts(of_norm, x):
            of_part.copy_(torch.addcmul(shift, part.to(scale), slope).addcmul_(of_part.to(scale), scale))
        return of_norm, of_weight, of_bias, None, None, None


class _GatedLinearUnit(torch.autograd.Function):
    """`F.glu(x, dim=1)`, whose own backward pass loses the channels-last layout: several times slower."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _gate(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return _gate_backward(x, gradient, torch.empty_like(x))


def _normalise(x: Tensor, weight: Tensor, bias: Tensor, mean: Tensor, variance: Tensor, eps: float) -> Tensor:
    return F.batch_norm(x, mean, variance, weight, bias, training=False, eps=eps)


def _gate(x: Tensor, into: Tensor | None = None) -> Tensor:
    """The first half of the channels times the sigmoid of the second."""
    value, gate = x.chunk(2, dim=1)
    return torch.mul(value, gate.clone().sigmoid_(), out=into)  # of a copy: short rows would not be vectorised


def _gate_backward(x: Tensor, gradient: Tensor, into: Tensor) -> Tensor:
    """The gradient of `_gate`'s input, written into a tensor like it, which may be the input itself."""
    value, gate = x.chunk(2, dim=1)
    gate = gate.clone().sigmoid_()
    of_value, of_gate = into.chunk(2, dim=1)
    passed = (gradient * value).mul_(gate)
    torch.mul(gradient, gate, out=of_value)
    torch.addcmul(passed, passed, gate, value=-1, out=of_gate)  # gradient * value * gate * (1 - gate)
    return into


def _fits_in_parts(x: Tensor) -> bool:
    """Whether `_parts` takes x in parts: channels-last images."""
    return x.ndim == 4 and not x.is_contiguous()


def _parts(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Equally many pixels of each tensor at a time where the first `_fits_in_parts`, otherwise all at once."""
    if not _fits_in_parts(tensors[0]):
        return [tensors]
    batch, _, height, width = tensors[0].shape
    images = max(1, _PIXELS_AT_ONCE // (height * width))
    images = batch if batch <= images else math.gcd(batch, images)
    rows = math.gcd(height, max(1, _PIXELS_AT_ONCE // width))
    return [
        tuple(tensor[image : image + images, :, row : row + rows] for tensor in tensors)
        for image in range(0, batch, images)
        for row in range(0, height, rows)
    ]


def caption_image_similarity(
    words: Tensor, word_mask: Tensor, regions: Tensor, gamma1: float, gamma2: float, gamma3: float
) -> Tensor:
    """The word similarity by large products of matrices, over the real words only.

    The attended region c = Σ α·region is never made. ⟨c, word⟩ = Σ α·s and |c|² = αᵀGα need R numbers a word instead of
    D, where s are the scores of the regions and G the products of an image's regions.
    """
    captions, dim, length = words.shape
    images = regions.shape[0]
    regions = F.normalize(regions.transpose(1, 2).contiguous(), dim=2)  # [Bi, R, D]
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
    lowest = torch.finfo(padded.dtype).min
    best_words = (gamma2 * padded).masked_fill(~word_mask, lowest).logsumexp(dim=2)  # [Bi, Bt]
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
    """Places in the flattened mask to compute with: the real words, and padding up to `_WORDS_MULTIPLE`."""
    real, padding = (places.flatten().nonzero().squeeze(1) for places in (word_mask, ~word_mask))
    return torch.cat([real, padding[: -len(real) % _WORDS_MULTIPLE]])
