"""Building blocks of DM-GAN's generator.

Two exact identities save much of the arithmetic, with the same parameters and the same results up to rounding: see
`upsampled_conv` and `ResidualBlock.forward_doubled`.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.machine.door import faster_on_cpu

# Below 8x8 pixels the sums over the weights cost more than they save.
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


@faster_on_cpu
def norm_glu(x: Tensor, norm: nn.Module) -> Tensor:
    """Batch norm, then a gated linear unit: [B, 2C, ...] → [B, C, ...], the first half times the second's sigmoid."""
    return F.glu(norm(x), dim=1)


def upsampled_conv(x: Tensor, weight: Tensor, taps: Tensor = _TAPS_2D) -> Tensor:
    """A 3x3 convolution with zero padding of x, upsampled to twice its size.

    As an equation: ``conv2d(interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)``. Each of its outputs
    meets the same pixel with several weights. Adding those weights first leaves a transposed convolution of stride 2,
    with 16 products a pixel instead of 36.

    Args:
        x: features [B, I, h, w].
        weight: [O, I, 3, 3].
        taps: the constant [9, 16] that adds up the weights, on their device.

    Returns:
        Features [B, O, 2h, 2w].
    """
    if x.shape[2] * x.shape[3] < _PIXELS_WORTH_SUMMING:
        return F.conv2d(F.interpolate(x, scale_factor=2, mode="nearest"), weight, padding=1)
    out_channels, in_channels = weight.shape[:2]
    with torch.autocast(weight.device.type, enabled=False):  # low precision starts after the sums
        summed = weight.reshape(out_channels * in_channels, 9) @ taps.to(weight)
    summed = summed.view(out_channels, in_channels, 4, 4).transpose(0, 1)  # [I, O, 4, 4]
    return F.conv_transpose2d(x, summed, stride=2, padding=1)


class UpBlock(nn.Module):
    """Nearest x2, 3x3 convolution, batch norm, GLU: [B, I, h, w] → [B, O, 2h, 2w]."""

    def __init__(self, in_channels: int, out_channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(in_channels, 2 * out_channels)
        self.norm = nn.BatchNorm2d(2 * out_channels)
        self.register_buffer("taps", _TAPS_2D.clone(), persistent=False)

    def forward(self, x: Tensor) -> Tensor:
        x = upsampled_conv(x, self.conv.weight, self.taps)  # [B, 2O, 2h, 2w]
        return norm_glu(x, self.norm)  # [B, O, 2h, 2w]


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
        """``forward(cat([x, x], dim=1))`` for x [B, C/2, h, w] → [B, C, h, w].

        The convolution of x stacked on itself is x convolved with the sum of the weight's two halves.
        """
        first_half, second_half = self.conv1.weight.chunk(2, dim=1)
        features = self._after_conv1(F.conv2d(x, first_half + second_half, padding=1))
        return features + torch.cat([x, x], dim=1)

    def _after_conv1(self, x: Tensor) -> Tensor:
        return self.norm2(self.conv2(norm_glu(x, self.norm1)))


class ImageHead(nn.Module):
    """Features [B, C, h, w] → image [B, 3, h, w] in [-1, 1], float32 whatever the features are."""

    def __init__(self, channels: int) -> None:
        super().__init__()
        self.conv = conv3x3(channels, 3)

    def forward(self, x: Tensor) -> Tensor:
        return torch.tanh(self.conv(x).float())
