"""DM-GAN's generator: a caption and noise become images of doubling sizes.

Source: Zhu et al., "DM-GAN", 2019. Sizes other than 64/128/256 follow from the same rules.
"""

from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.networks.blocks import ImageHead, ResidualBlock, UpBlock, initialise, norm_glu
from clipgan.networks.memory import DynamicMemory


@dataclass
class GeneratorOutput:
    """What the generator returns.

    Attributes:
        images: a tensor [B, 3, s, s] in [-1, 1], float32, for each scale, smallest first.
        attention: [B, W, s/2, s/2] for each scale but the first, a pixel's weights over the words (0 at padding).
        mu: mean of the condition [B, C].
        logvar: logarithm of its variance [B, C].
    """

    images: list[Tensor]
    attention: list[Tensor]
    mu: Tensor
    logvar: Tensor


class Condition(nn.Module):
    """Conditioning augmentation (StackGAN, eq. 2): a sentence [B, E] → mean and log variance [B, C] of a Gaussian."""

    def __init__(self, sentence_dim: int, condition_dim: int) -> None:
        super().__init__()
        self.linear = nn.Linear(sentence_dim, 4 * condition_dim)

    def forward(self, sentence: Tensor) -> tuple[Tensor, Tensor]:
        # float32: exp(logvar / 2) and the KL loss of both follow.
        mu, logvar = F.glu(self.linear(sentence), dim=1).float().chunk(2, dim=1)
        return mu, logvar


class FirstStage(nn.Module):
    """Condition and noise → features [B, GF, base, base], by log2(base / 4) up-blocks that halve the channels."""

    def __init__(self, gf_dim: int, input_dim: int, base_size: int) -> None:
        super().__init__()
        doublings = (base_size // 4).bit_length() - 1
        self.channels = gf_dim * 2**doublings
        self.linear = nn.Linear(input_dim, self.channels * 4 * 4 * 2, bias=False)
        self.norm = nn.BatchNorm1d(self.channels * 4 * 4 * 2)
        self.up = nn.Sequential(*(UpBlock(self.channels >> i, self.channels >> (i + 1)) for i in range(doublings)))

    def forward(self, condition: Tensor, noise: Tensor) -> Tensor:
        x = torch.cat([condition, noise], dim=1)  # [B, C + Z]
        x = norm_glu(self.linear(x), self.norm)  # [B, channels * 16]
        return self.up(x.unflatten(1, (self.channels, 4, 4)))  # [B, GF, base, base]


class MemoryStage(nn.Module):
    """Features of one scale and the words → features of the next: [B, GF, s, s] → [B, GF, 2s, 2s]."""

    def __init__(self, gf_dim: int, word_dim: int, residual_num: int) -> None:
        super().__init__()
        self.memory = DynamicMemory(gf_dim, word_dim)
        self.residual = nn.ModuleList(ResidualBlock(2 * gf_dim) for _ in range(residual_num))
        self.up = UpBlock(2 * gf_dim, gf_dim)

    def forward(self, features: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        x, attention = self.memory(features, words, word_mask)  # [B, GF, s, s], [B, W, s, s]
        # The residual blocks work on [x; x]; the first of them makes it from x.
        x = self.residual[0].forward_doubled(x)  # [B, 2GF, s, s]
        for block in self.residual[1:]:
            x = block(x)
        return self.up(x), attention  # [B, GF, 2s, 2s]


class Generator(nn.Module):
    """Images of `branch_num` sizes from noise, a sentence and its words.

    Args:
        gf_dim: GF, channels of the features that become images.
        z_dim: Z, width of the noise.
        condition_dim: C, width of the condition drawn from the sentence.
        word_dim: D, width of a word's features.
        sentence_dim: E, width of the sentence's features.
        residual_num: residual blocks in each memory stage, at least 1.
        base_size: pixels of the smallest image, a power of two, at least 8.
        branch_num: number of images; each is twice as large as the one before.

    Raises:
        ValueError: for a `base_size`, `branch_num` or `residual_num` outside these.
    """

    def __init__(
        self,
        gf_dim: int,
        z_dim: int,
        condition_dim: int,
        word_dim: int,
        sentence_dim: int,
        residual_num: int,
        base_size: int = 64,
        branch_num: int = 3,
    ) -> None:
        super().__init__()
        if base_size < 8 or base_size & (base_size - 1):
            raise ValueError(f"base_size must be a power of two, 8 or more, not {base_size}")
        if branch_num < 1 or residual_num < 1:
            raise ValueError(f"branch_num and residual_num must be at least 1, not {branch_num} and {residual_num}")
        self.input_widths = {"noise": z_dim, "condition_noise": condition_dim, "sentence": sentence_dim}
        self.word_dim = word_dim
        self.condition = Condition(sentence_dim, condition_dim)
        self.first = FirstStage(gf_dim, condition_dim + z_dim, base_size)
        self.stages = nn.ModuleList(MemoryStage(gf_dim, word_dim, residual_num) for _ in range(branch_num - 1))
        self.heads = nn.ModuleList(ImageHead(gf_dim) for _ in range(branch_num))
        self.apply(initialise)

    def forward(
        self, noise: Tensor, condition_noise: Tensor, sentence: Tensor, words: Tensor, word_mask: Tensor
    ) -> GeneratorOutput:
        """Draw images. In training mode a batch of one raises ValueError: batch norm has nothing to compare with.

        Args:
            noise: z [B, Z], standard normal.
            condition_noise: epsilon [B, C], standard normal; zeros give the mean condition.
            sentence: sentence features [B, E].
            words: word features [B, D, W].
            word_mask: [B, W] bool, True = a real word; or float, see `DynamicMemory`.

        Raises:
            ValueError: for inputs of other shapes.
        """
        self._check(noise=noise, condition_noise=condition_noise, sentence=sentence, words=words, word_mask=word_mask)
        mu, logvar = self.condition(sentence)  # [B, C] each
        condition = mu + condition_noise * torch.exp(0.5 * logvar)  # [B, C]

        features = self.first(condition, noise)  # [B, GF, base, base]
        images = [self.heads[0](features)]
        attention = []
        for stage, head in zip(self.stages, self.heads[1:], strict=True):
            features, stage_attention = stage(features, words, word_mask)  # [B, GF, s, s], [B, W, s/2, s/2]
            images.append(head(features))
            attention.append(stage_attention)
        return GeneratorOutput(images, attention, mu, logvar)

    def _check(self, words: Tensor, word_mask: Tensor, **inputs: Tensor) -> None:
        batch = words.shape[0]
        for name, width in self.input_widths.items():
            if inputs[name].shape != (batch, width):
                raise ValueError(f"{name} must be {[batch, width]}, not {list(inputs[name].shape)}")
        if words.ndim != 3 or words.shape[1] != self.word_dim:
            raise ValueError(f"words must be [B, {self.word_dim}, W], not {list(words.shape)}")
        if word_mask.dtype not in (torch.bool, torch.float32) or word_mask.shape != (batch, words.shape[2]):
            raise ValueError(
                f"word_mask must be bool {[batch, words.shape[2]]}, not {word_mask.dtype} {list(word_mask.shape)}"
            )
