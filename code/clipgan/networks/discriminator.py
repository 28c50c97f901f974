"""DM-GAN's spectrally normalised discriminator, for images of any size that is a power of two.

Sources: Zhu et al., "DM-GAN", 2019; Miyato et al., "Spectral Normalization for Generative Adversarial Networks", 2018.
"""

import torch
import torch.nn.functional as F
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


# Along one axis of 4 pixels, which taps of a 3-tap kernel stay inside; [9, 16] for 3x3 taps and 4x4 pixels.
_INSIDE = torch.tensor([[0.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 1.0], [1.0, 1.0, 1.0, 0.0]])
_INSIDE_2D = torch.einsum("ya,xb->yxab", _INSIDE, _INSIDE).reshape(9, 16)


class JointConv(SpectralConv):
    """A 3x3 convolution of 4x4 features stacked on a vector that is repeated at each pixel, for pairs of the two.

    It is the sum of a convolution of the features and one of the repeated vector. So each is convolved once, however
    many pairs it is in; and where every pixel is the same, the weight's taps can be added first.
    """

    def __init__(self, feature_channels: int, vector_channels: int, out_channels: int) -> None:
        super().__init__(feature_channels + vector_channels, out_channels, kernel_size=3, padding=1)
        self.widths = [feature_channels, vector_channels]
        self.register_buffer("inside", _INSIDE_2D.clone(), persistent=False)

    def forward(self, features: Tensor, vectors: Tensor, pairs: tuple[Tensor, Tensor] | None = None) -> Tensor:
        """Features [N, C, 4, 4], vectors [M, E] → [P, O, 4, 4]; see `Discriminator.forward` for `pairs`.

        For a pair (f, v) it is ``conv2d(cat([f, v repeated at each of the 4x4 pixels]), weight, bias, padding=1)``.
        """
        with torch.autocast(features.device.type, enabled=False):
            of_features, of_vectors = self.weight.split(self.widths, dim=1)
            summed = torch.einsum("oet,tp->ope", of_vectors.flatten(2), self.inside).flatten(0, 1)  # [16 O, E]
        from_features = F.conv2d(features, of_features, self.bias, padding=1)  # [N, O, 4, 4]
        from_vectors = F.linear(vectors, summed).view(len(vectors), -1, 4, 4)  # [M, O, 4, 4]
        if pairs is not None:
            from_features = from_features.index_select(0, pairs[0])
            from_vectors = from_vectors.index_select(0, pairs[1])
        return from_features + from_vectors


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
        self.joint = nn.Sequential(JointConv(channels, sentence_dim, channels), _activation())
        self.conditional_head = nn.Conv2d(channels, 1, kernel_size=4)

        self.apply(initialise)
        for module in list(self.modules()):
            if isinstance(module, SpectralConv):
                spectral_norm(module)

    def forward(
        self, images: Tensor, sentence: Tensor, pairs: tuple[Tensor, Tensor] | None = None
    ) -> tuple[Tensor, Tensor]:
        """Is each image real? And is it real and fits the sentence?

        Args:
            images: [N, 3, s, s] in [-1, 1].
            sentence: [M, E].
            pairs: which image is judged with which sentence, int64 [P] each. None: each with its own, N = M = P.

        Returns:
            Logits of the images alone [N] and of the pairs [P].

        Raises:
            ValueError: for images of another shape.
        """
        features = self.features(images)
        return self.unconditional(features), self.conditional(features, sentence, pairs)

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

    def conditional(
        self, features: Tensor, sentence: Tensor, pairs: tuple[Tensor, Tensor] | None = None
    ) -> Tensor:
        """Features [N, 8DF, 4, 4], sentence [M, E] → logits [P]: does the sentence fit the image? See `forward`."""
        conv, activation = self.joint
        return self.conditional_head(activation(conv(features, sentence, pairs))).flatten()
