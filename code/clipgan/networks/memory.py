"""The dynamic memory of DM-GAN: image features read, pixel by pixel, from a memory written with the caption's words.

Source: Zhu et al., "DM-GAN: Dynamic Memory Generative Adversarial Networks for Text-to-Image Synthesis", 2019, §3.2.
"""

import torch
import torch.nn.functional as F
from torch import Tensor, nn


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

        Returns:
            Refined features [B, C, h, w], and the attention [B, W, h, w]: a pixel's weights over the real words, which
            sum to 1; 0 at padding. No gradient comes back through the returned attention.
        """
        height, width = features.shape[2:]
        memory = self.write(features, words)  # [B, 2C, W]
        key = F.relu(self.key(memory))  # [B, C, W]
        value = F.relu(self.value(memory)) * word_mask.unsqueeze(1)  # [B, C, W]

        # Pixels come first so that the softmax runs over neighbours in memory and nothing is copied in channels-last.
        pixels = features.flatten(2).transpose(1, 2)  # [B, hw, C]
        scores = (pixels @ key).float()  # [B, hw, W]
        scores = scores.masked_fill(~word_mask.unsqueeze(1), torch.finfo(torch.float32).min)
        attention = scores.softmax(dim=2)  # [B, hw, W]
        response = attention.to(value.dtype) @ value.transpose(1, 2)  # [B, hw, C]
        response = response.transpose(1, 2).unflatten(2, (height, width))  # [B, C, h, w]

        gate = torch.sigmoid(self.response_logit(features, response))  # [B, 1, h, w]
        refined = torch.lerp(features, response.to(features.dtype), gate.to(features.dtype))  # [B, C, h, w]
        return refined, attention.detach().transpose(1, 2).unflatten(2, (height, width))

    def write(self, features: Tensor, words: Tensor) -> Tensor:
        """The memory [B, 2C, W]: each word mixed with the mean image feature, as much as its gate says (eq. 3, 4)."""
        image = features.mean(dim=(2, 3)).detach()  # [B, C]
        gate = self.word_gate(words.transpose(1, 2)) + self.image_gate(image).unsqueeze(1)  # [B, W, 1]
        gate = torch.sigmoid(gate).transpose(1, 2)  # [B, 1, W]
        from_words = F.relu(self.word_writer(words))  # [B, 2C, W]
        from_image = F.relu(self.image_writer(image.unsqueeze(2)))  # [B, 2C, 1]
        return gate * from_words + (1 - gate) * from_image

    def response_logit(self, features: Tensor, response: Tensor) -> Tensor:
        """The 1x1 convolution over [features; response], each half on its own: → [B, 1, h, w]."""
        weight_of_features, weight_of_response = self.response_gate.weight.chunk(2, dim=1)
        return F.conv2d(features, weight_of_features, self.response_gate.bias) + F.conv2d(response, weight_of_response)
