"""DM-GAN's spectrally normalised discriminator, for images of any size that is a power of two.

Sources: Zhu et al., "DM-GAN", 2019; Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018.
"""

import torch
from torch import Tensor, nn
from torch.nn.utils.parametrizations import spectral_norm

from clipgan.networks.blocks import initialise


class SpectralConv(nn.Conv2d):
    """A convolution whose weight is normalised in float32, whatever precision autocast asks of the convolution.

    In training mode each forward pass makes one power iteration; in evaluation mode the vectors stay.
    """

    def forward(self, x: Tensor) -> Tensor:
        with torch.autocast(x.device.type, enabled=False):
            weight = self.weight
        return self._conv_forward(x, weight, self.bias)


def _activation() -> nn.Module:
    return nn.LeakyReLU(0.2, inplace=True)


class Discriminator(nn.Module):
    """Judges images of one size, alone and together with a sentence.

    4x4 convolutions of stride 2 halve the image and double the channels until 4x4 pixels are left; 3x3 convolutions
    then lead back to 8 DF channels (up to them, for images below 64 pixels).

    Args:
        image_size: pixels of a side, a power of two, at least 8.
        df_dim: DF, channels after the first convolution.
        sentence_dim: E, width of the sentence's features.

    Raises:
        ValueError: for another `image_size`.
    """

    def __init__(self, image_size: int, df_dim: int, sentence_dim: int) -> None:
        super().__init__()
        if image_size < 8 or image_size & (image_size - 1):
            raise ValueError(f"image_size must be a power of two, 8 or more, not {image_size}")
        self.image_size = image_size
        halvings = (image_size // 4).bit_length() - 1
        layers: list[nn.Module] = []
        channels = 3
        for i in range(halvings):
            layers += [SpectralConv(channels, df_dim << i, kernel_size=4, stride=2, padding=1), _activation()]
            channels = df_dim << i
        while channels != 8 * df_dim:
            next_channels = channels // 2 if channels > 8 * df_dim else channels * 2
            layers += [SpectralConv(channels, next_channels, kernel_size=3, padding=1), _activation()]
            channels = next_channels

        self.trunk = nn.Sequential(*layers)
        self.unconditional_head = nn.Conv2d(channels, 1, kernel_size=4)
        self.joint = nn.Sequential(
            SpectralConv(channels + sentence_dim, channels, kernel_size=3, padding=1), _activation()
        )
        self.conditional_head = nn.Conv2d(channels, 1, kernel_size=4)

        self.apply(initialise)
        for module in list(self.modules()):
            if isinstance(module, SpectralConv):
                spectral_norm(module)

    def features(self, images: Tensor) -> Tensor:
        """Images [B, 3, s, s] in [-1, 1] → features [B, 8DF, 4, 4].

        Raises:
            ValueError: for images of another shape.
        """
        if images.shape[1:] != (3, self.image_size, self.image_size):
            raise ValueError(f"images must be [B, 3, {self.image_size}, {self.image_size}], not {list(images.shape)}")
        return self.trunk(images)

    def unconditional(self, features: Tensor) -> Tensor:
        """Features [B, 8DF, 4, 4] → logits [B]: is the image real?"""
        return self.unconditional_head(features).flatten()

    def conditional(self, features: Tensor, sentence: Tensor) -> Tensor:
        """Features [B, 8DF, 4, 4], sentences [B, E] → logits [B]: is the image real, and does the sentence fit it?"""
        tiled = sentence[:, :, None, None].expand(-1, -1, 4, 4).to(features.dtype)  # [B, E, 4, 4]
        joint = self.joint(torch.cat([features, tiled], dim=1))  # [B, 8DF, 4, 4]
        return self.conditional_head(joint).flatten()
