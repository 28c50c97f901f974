"""Building blocks of the generator, in the cheapest of their exactly equal forms.

Two identities save most of what DM-GAN's own formulation spends, with the same parameters and the same results up to
rounding: a convolution after a nearest-neighbour upsampling repeats its inputs, so that weights which meet the same
pixel can be added first (`upsampled_conv`); a convolution over a tensor stacked on itself can add the two halves of
its weight (`ResidualBlock.forward_doubled`).
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.autograd.function import once_differentiable

# Below 8x8 pixels the sums over the weights cost more than they save (measured on a CPU at batch 8).
_PIXELS_WORTH_SUMMING = 64

# Along one axis, a 3-tap kernel (a, b, c) after x2 upsampling is the transposed kernel (c, b + c, a + b, a), stride 2.
_TAPS = torch.tensor([[0.0, 0.0, 1.0], [0.0, 1.0, 1.0], [1.0, 1.0, 0.0], [1.0, 0.0, 0.0]])
_TAPS_2D = torch.einsum("ya,xb->abyx", _TAPS, _TAPS).reshape(9, 16)


def initialise(module: nn.Module) -> None:
    """Initialise one layer, for `nn.Module.apply`: orthogonal weights, biases 0, batch-norm weights N(1, 0.02)."""
    if isinstance(module, nn.Conv1d | nn.Conv2d | nn.Linear):
        nn.init.orthogonal_(module.weight)
        if module.bias is not None:
            nn.init.zeros_(module.bias)
    elif isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d):
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


class _GatedLinearUnit(torch.autograd.Function):
    """`F.glu(x, dim=1)`, whose own backward pass loses the channels-last layout: several times slower on a CPU.

    Written as a function of its own so that, like `F.glu`, it keeps nothing but its input for the backward pass.
    """

    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        ctx.save_for_backward(x)
        value, gate = x.chunk(2, dim=1)
        return value * _open_gate(gate)

    @staticmethod
    @once_differentiable
    def backward(ctx, gradient: Tensor) -> Tensor:
        (x,) = ctx.saved_tensors
        value, gate = x.chunk(2, dim=1)
        gate = _open_gate(gate)
        of_x = torch.empty_like(x)
        of_value, of_gate = of_x.chunk(2, dim=1)
        torch.mul(gradient, gate, out=of_value)
        passed = of_value * value
        torch.addcmul(passed, passed, gate, value=-1, out=of_gate)  # gradient * value * gate * (1 - gate)
        return of_x


def glu(x: Tensor) -> Tensor:
    """Gated linear unit over channels: [B, 2C, ...] → [B, C, ...], the first half times the sigmoid of the second."""
    return _GatedLinearUnit.apply(x)


class UpBlock(nn.Module):
    """Nearest x2, 3x3 convolution, batch norm, GLU: [B, I, h, w] → [B, O, 2h, 2w]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(in_channels, 2 * out_channels)
        self.norm = nn.BatchNorm2d(2 * out_channels)
        self.register_buffer("taps", _TAPS_2D.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = upsampled_conv(x, self.conv.weight, self.taps)  # [B, 2O, 2h, 2w]
        return glu(self.norm(x))  # [B, O, 2h, 2w]


class ResidualBlock(nn.Module):
    """Convolution, batch norm, GLU, convolution, batch norm, plus the input: [B, C, h, w] → the same."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv1 = conv3x3(channels, 2 * channels)
        self.norm1 = nn.BatchNorm2d(2 * channels)
        self.conv2 = conv3x3(channels, channels)
        self.norm2 = nn.BatchNorm2d(channels)

    def forward(self, x: Tensor) -> Tensor:
        return self._after_conv1(self.conv1(x)) + x

    def forward_doubled(self, x: Tensor) -> Tensor:
        """What `forward` gives for [x; x], from x alone: [B, C/2, h, w] → [B, C, h, w]."""
        first_half, second_half = self.conv1.weight.chunk(2, dim=1)
        features = self._after_conv1(F.conv2d(x, first_half + second_half, padding=1))
        return features + torch.cat([x, x], dim=1)

    def _after_conv1(self, x: Tensor) -> Tensor:
        x = glu(self.norm1(x))
        return self.norm2(self.conv2(x))


class ImageHead(nn.Module):
    """Features [B, C, h, w] → image [B, 3, h, w] in [-1, 1], float32 whatever the features are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(x).float())
