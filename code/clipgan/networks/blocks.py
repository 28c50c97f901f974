"""Building blocks of the generator, in the cheapest of their exactly equal forms.

Two identities save most of what DM-GAN's own formulation spends, with the same parameters and the same results up to
rounding: a convolution after a nearest-neighbour upsampling repeats its inputs, so that weights which meet the same
pixel can be added first (`upsampled_conv`); a convolution over a tensor stacked on itself can add the two halves of
its weight (`ResidualBlock.forward_doubled`).
"""

from __future__ import annotations

import math
from collections.abc import Callable
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

Average = Callable[[Tensor], Tensor]

# Below 8x8 pixels the sums over the weights cost more than they save (measured on a CPU at batch 8).
_PIXELS_WORTH_SUMMING = 64

# Of 128 channels 4 MiB: parts of half and of twice as many are as fast (measured on two cores at 256x256 pixels).
_PIXELS_AT_ONCE = 2**13

# Along one axis, a 3-tap kernel (a, b, c) after x2 upsampling is the transposed kernel (c, b + c, a + b, a), stride 2.
_TAPS = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
_TAPS_2D = torch.einsum("ya,xb->abyx", _TAPS, _TAPS).reshape(9, 16)


def initialise(module: nn.Module) -> None:
    """Initialise one layer, for `nn.Module.apply`: orthogonal weights, biases 0, batch-norm weights N(1, 0.02)."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, BatchNorm):
        nn.init.normal_(module.weight, 1.0, 0.02)
        nn.init.zeros_(module.bias)


def conv3x3(in_channels: int, out_channels: int) -> nn.Conv2d:
    """A 3x3 convolution that keeps the size, without bias."""
    return nn.Conv2d(in_channels, out_channels, kernel_size=3, padding=1, bias=False)


def summed_weight(weight: Tensor, taps: Tensor = _TAPS_2D) -> Tensor:
    """Weight [O, I, 3, 3] of a convolution after nearest x2 → [I, O, 4, 4] of the equal transposed convolution."""
    out_channels, in_channels = weight.shape[:2]
    # Low precision starts after the sums, as it starts after the weights in the plain form.
    with torch.autocast(weight.device.type, enabled=False):
        summed = weight.reshape(out_channels * in_channels, 9) @ taps.to(weight)
    return summed.view(out_channels, in_channels, 4, 4).transpose(0, 1)


def upsampled_conv(x: Tensor, weight: Tensor, taps: Tensor = _TAPS_2D) -> Tensor:
    """Nearest-neighbour x2, then a 3x3 convolution with zero padding.

    Args:
        x: features [B, I, h, w].
        weight: [O, I, 3, 3].
        taps: the constant [9, 16] that sums the weights, best on their device: copying it there at each call would
            make a GPU wait.

    Returns:
        Features [B, O, 2h, 2w].
    """
    if x.shape[2] * x.shape[3] < _PIXELS_WORTH_SUMMING:
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    return F.conv_transpose2d(x, summed_weight(weight, taps), stride=2, padding=1)


def _open_gate(gate: Tensor) -> Tensor:
    """Sigmoid of half of a tensor's channels; on a CPU of a copy, as short channels-last rows are not vectorised."""
    return gate.clone().sigmoid_() if gate.device.type == "cpu" else gate.sigmoid()


def _gated(x: Tensor, into: Tensor | None = None) -> Tensor:
    value, gate = x.chunk(2, dim=1)
    return torch.mul(value, _open_gate(gate), out=into)


def _gated_backward(x: Tensor, gradient: Tensor, into: Tensor) -> Tensor:
    """The gradient of `_gated`'s input, written into a tensor like it, which may be the input itself.

    PyTorch's own loses the channels-last layout: several times slower on a CPU.
    """
    value, gate = x.chunk(2, dim=1)
    gate = _open_gate(gate)
    of_value, of_gate = into.chunk(2, dim=1)
    passed = (gradient * value).mul_(gate)
    torch.mul(gradient, gate, out=of_value)
    torch.addcmul(passed, passed, gate, value=-1, out=of_gate)  # gradient * value * gate * (1 - gate)
    return into


class _GatedLinearUnit(torch.autograd.Function):
    """`F.glu(x, dim=1)`; like it, keeps nothing but its input for the backward pass."""

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        return _gated(x)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        return _gated_backward(x, gradient, torch.empty_like(x))


def glu(x: Tensor) -> Tensor:
    """Gated linear unit over channels: [B, 2C, ...] → [B, C, ...], the first half times the sigmoid of the second."""
    return _GatedLinearUnit.apply(x)


class _BatchNorm(torch.autograd.Function):
    """Batch norm with the statistics of the batch, and a GLU after it where `gated`.

    Keeps its input only: the norm's output, which the GLU's gradient needs, is made again in the backward pass, a part
    at a time. It would be the largest tensor of a block, half of the block's memory.
    """

    @staticmethod
    def forward(ctx, x: Tensor, weight: Tensor, bias: Tensor, statistics: Statistics, gated: bool) -> Tensor:
        ctx.save_for_backward(x, weight, bias)
        ctx.statistics, ctx.gated = statistics, gated
        if not gated:
            return statistics.normalise(x, weight, bias)
        out = torch.empty_like(x.chunk(2, dim=1)[0])
        for part, into in _by_parts(x, out):
            _gated(statistics.normalise(part, weight, bias), into)
        return out

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> tuple[Tensor | None, ...]:
        x, weight, bias = ctx.saved_tensors
        statistics, into = ctx.statistics, None
        if ctx.gated and _fits_in_parts(x):
            into = torch.empty_like(x)
            for part, of_part, into_part in _by_parts(x, gradient, into):
                _gated_backward(statistics.normalise(part, weight, bias), of_part, into_part)
            gradient = into
        elif ctx.gated:
            y = statistics.normalise(x, weight, bias)
            gradient = _gated_backward(y, gradient, into=y)
        return *statistics.backward(gradient, x, weight, into), None, None


@dataclass(frozen=True)
class Statistics:
    """Mean and variance of a batch's channels, [C] each in float32, over one process or over all."""

    mean: Tensor
    variance: Tensor
    epsilon: float
    average: Average | None  # over processes

    @staticmethod
    def of(x: Tensor, running_mean: Tensor, running_var: Tensor, epsilon: float, average: Average | None) -> Statistics:
        parts = []
        for (part,) in _by_parts(x.detach()):
            # With momentum 0 the running values stay; they only say that float32 is wanted, whatever x is.
            mean, variance = torch.batch_norm_update_stats(part, running_mean, running_var, 0.0)
            mean, variance = mean.double(), variance.double()
            parts.append(torch.stack([mean, variance + mean.square()]))
        both = torch.stack(parts).mean(dim=0)  # of parts, and of processes, of one size
        mean, square = both if average is None else average(both)
        variance = (square - mean.square()).clamp_min(0)
        return Statistics(mean.to(running_mean), variance.to(running_var), epsilon, average)

    def normalise(self, x: Tensor, weight: Tensor, bias: Tensor) -> Tensor:
        return F.batch_norm(x, self.mean, self.variance, weight, bias, training=False, eps=self.epsilon)

    def backward(
        self, gradient: Tensor, x: Tensor, weight: Tensor, into: Tensor | None = None
    ) -> tuple[Tensor, Tensor, Tensor]:
        """Gradients of x, weight and bias (Ioffe, Szegedy 2015, §3), the first in `into`, which may be `gradient`."""
        invstd = torch.rsqrt(self.variance + self.epsilon)

        def native(gradient: Tensor, x: Tensor, *wanted: bool) -> tuple[Tensor, ...]:
            return torch.ops.aten.native_batch_norm_backward(
                gradient, x, weight, None, None, self.mean, invstd, True, self.epsilon, wanted
            )

        if self.average is None and into is None:
            return native(gradient, x, True, True, True)
        into = torch.empty_like(x) if into is None else into
        sums = [torch.stack(native(*part, False, True, True)[1:]) for part in _by_parts(gradient, x)]
        sums = torch.stack(sums).sum(dim=0)  # [2, C], the gradients of weight and bias
        of_weight, of_bias = (sums if self.average is None else self.average(sums)) * (x.shape[1] / x.numel())

        # scale * (gradient - of_bias - normalised * of_weight), as scale * gradient + slope * x + shift
        scale = weight * invstd
        slope = -scale * invstd * of_weight
        shift = -scale * of_bias - slope * self.mean
        scale, slope, shift = (vector.view(1, -1, *[1] * (x.ndim - 2)) for vector in (scale, slope, shift))
        for of_part, part, into_part in _by_parts(gradient, x, into):
            into_part.copy_(torch.addcmul(shift, part.to(scale), slope).addcmul_(of_part.to(scale), scale))
        return into, *sums


def _fits_in_parts(x: Tensor) -> bool:
    """Whether `_by_parts` takes x [B, ..., h, w] in parts: on a CPU and channels-last."""
    return x.device.type == "cpu" and x.ndim == 4 and not x.is_contiguous()


def _by_parts(*tensors: Tensor) -> list[tuple[Tensor, ...]]:
    """Equally many pixels of each tensor at a time where the first `_fits_in_parts`, otherwise all at once.

    So the passes over a part meet it in the processor's cache, and none makes a tensor of the whole size. Sums gain,
    too: PyTorch adds up the pixels of channels-last tensors one by one, and float32 loses a tenth of its digits over
    half a million of them. (Of other layouts it makes partial sums.)
    """
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


class BatchNorm(nn.modules.batchnorm._BatchNorm):
    """`nn.BatchNorm1d` and `2d`, with a GLU after it where `gated`: [B, C, ...] → [B, C or C/2, ...].

    Where the batch is spread over several processes, in equal shares, two things are set from outside: `processes`,
    and `average_over_processes`, which replaces a tensor by its mean over them.
    """

    def __init__(self, channels: int, gated: bool = False) -> None:
        super().__init__(channels)
        self.gated = gated
        self.processes = 1
        self.average_over_processes: Average | None = None

    def _check_input_dim(self, x: Tensor) -> None:
        pass  # any number of dimensions

    def forward(self, x: Tensor) -> Tensor:
        """Raises ValueError in training mode for a batch with a single value for each channel."""
        if not self.training:
            y = super().forward(x)
            return glu(y) if self.gated else y
        count = self.processes * x.numel() // x.shape[1]
        if count == 1:
            raise ValueError(f"batch norm has nothing to compare with: one value per channel in {list(x.shape)}")
        running = self.running_mean, self.running_var
        statistics = Statistics.of(x, *running, self.eps, self.average_over_processes)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(statistics.mean, self.momentum)
            self.running_var.lerp_(statistics.variance * (count / (count - 1)), self.momentum)
        return _BatchNorm.apply(x, self.weight, self.bias, statistics, self.gated)


class UpBlock(nn.Module):
    """Nearest x2, 3x3 convolution, batch norm, GLU: [B, I, h, w] → [B, O, 2h, 2w]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(in_channels, 2 * out_channels)
        self.norm = BatchNorm(2 * out_channels, gated=True)
        self.register_buffer("taps", _TAPS_2D.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = upsampled_conv(x, self.conv.weight, self.taps)  # [B, 2O, 2h, 2w]
        return self.norm(x)  # [B, O, 2h, 2w]


class ResidualBlock(nn.Module):
    """Convolution, batch norm, GLU, convolution, batch norm, plus the input: [B, C, h, w] → the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, 2 * channels)
        self.norm1 = BatchNorm(2 * channels, gated=True)
        self.conv2 = conv3x3(channels, channels)
        self.norm2 = BatchNorm(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self._after_conv1(self.conv1(x)) + x

    def forward_doubled(self, x: Tensor) -> Tensor:
        """What `forward` gives for [x; x], from x alone: [B, C/2, h, w] → [B, C, h, w]."""
        first_half, second_half = self.conv1.weight.chunk(2, dim=1)
        features = self._after_conv1(F.conv2d(x, first_half + second_half, padding=1))
        return features + torch.cat([x, x], dim=1)

    def _after_conv1(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(self.norm1(x)))


class ImageHead(nn.Module):
    """Features [B, C, h, w] → image [B, 3, h, w] in [-1, 1], float32 whatever the features are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(x).float())
