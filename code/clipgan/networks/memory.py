"""The dynamic memory of DM-GAN: image features read, pixel by pixel, from a memory written with the caption's words.

Source: Zhu et al., "DM-GAN: Dynamic Memory Generative Adversarial Networks for Text-to-Image Synthesis", 2019, §3.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


def pointwise(conv: nn.Conv1d, x: Tensor) -> Tensor:
    """A convolution of kernel size 1 as the matrix product that it is: [B, I, N] → [B, O, N].

    Unlike PyTorch's convolution it gives the same bits for any number of threads.
    """
    return conv.weight.squeeze(2) @ x + conv.bias.unsqueeze(1)


class DynamicMemory(nn.Module):
    """Memory writing, addressing, reading and the response gate.

    Args:
        image_channels: C, channels of the image features.
        word_dim: D, width of a word's features.
    """

    def __init__(self, image_channels: int, word_dim: int) -> None:
        super().__init__()
        self.word_gate = nn.Linear(word_dim, 1, bias=False)
        self.image_gate = nn.Linear(image_channels, 1, bias=False)
        self.word_writer = nn.Conv1d(word_dim, 2 * image_channels, kernel_size=1)
        self.image_writer = nn.Conv1d(image_channels, 2 * image_channels, kernel_size=1)
        self.key = nn.Conv1d(2 * image_channels, image_channels, kernel_size=1)
        self.value = nn.Conv1d(2 * image_channels, image_channels, kernel_size=1)
        self.response_gate = nn.Conv2d(2 * image_channels, 1, kernel_size=1)

    def forward(self, features: Tensor, words: Tensor, word_mask: Tensor) -> tuple[Tensor, Tensor]:
        """Refine image features by what the words say.

        Args:
            features: image features [B, C, h, w].
            words: word features [B, D, W].
            word_mask: [B, W], True = a real word. A caption without a single word reads zeros (its attention is even).
                Instead of bool also float in [0, 1]: a word counts in the softmax as if it stood there that often.

        Returns:
            Refined features [B, C, h, w], and the attention [B, W, h, w]: a pixel's weights over the real words, which
            sum to 1; 0 at padding. No gradient comes back through the returned attention.
        """
        height, width = features.shape[2:]
        memory = self.write(features, words)  # [B, 2C, W]
        key = F.relu(pointwise(self.key, memory))  # [B, C, W]
        value = F.relu(pointwise(self.value, memory)) * (word_mask > 0).unsqueeze(1)  # [B, C, W]

        # Pixels come first, so that the softmax runs over neighbours in memory.
        pixels = features.flatten(2).transpose(1, 2)  # [B, hw, C]
        scores = (pixels @ key).float()  # [B, hw, W]
        share = word_mask.float().log().clamp_min(torch.finfo(torch.float32).min)  # [B, W], 0 for a word
        scores = scores + share.unsqueeze(1)
        attention = scores.softmax(dim=2)  # [B, hw, W]
        response = attention.to(value.dtype) @ value.transpose(1, 2)  # [B, hw, C]
        gate = torch.sigmoid(self.response_logit(pixels, response))  # [B, hw, 1]

        response = response.transpose(1, 2).unflatten(2, (height, width))  # [B, C, h, w]
        gate = gate.transpose(1, 2).unflatten(2, (height, width))  # [B, 1, h, w]
        refined = torch.lerp(features, response.to(features.dtype), gate.to(features.dtype))  # [B, C, h, w]
        return refined, attention.detach().transpose(1, 2).unflatten(2, (height, width))

    def write(self, features: Tensor, words: Tensor) -> Tensor:
        """The memory [B, 2C, W]: each word mixed with the mean image feature, as much as its gate says (eq. 3, 4)."""
        image = features.mean(dim=(2, 3)).detach()  # [B, C]
        gate = self.word_gate(words.transpose(1, 2)) + self.image_gate(image).unsqueeze(1)  # [B, W, 1]
        gate = torch.sigmoid(gate).transpose(1, 2)  # [B, 1, W]
        from_words = F.relu(pointwise(self.word_writer, words))  # [B, 2C, W]
        from_image = F.relu(pointwise(self.image_writer, image.unsqueeze(2)))  # [B, 2C, 1]
        return gate * from_words + (1 - gate) * from_image

    def response_logit(self, pixels: Tensor, response: Tensor) -> Tensor:
        """The 1x1 convolution over [pixels; response], [B, hw, C] each, each half on its own: → [B, hw, 1].

        As a matrix product, for the reason of `pointwise`.
        """
        of_pixels, of_response = self.response_gate.weight.flatten(1).chunk(2, dim=1)  # [1, C] each
        return F.linear(pixels, of_pixels, self.response_gate.bias) + F.linear(response, of_response)
