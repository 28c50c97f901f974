"""CLIP as text and image encoder: the only place that knows open_clip.

It owns everything that belongs to CLIP and to nobody else: the tokenizer, the input size, CLIP's mean and standard
deviation, and which of the transformers' states are the words, the sentence, the regions and the image.
"""

from __future__ import annotations

import difflib
import json
import zipfile
from dataclasses import dataclass
from pathlib import Path
from typing import NamedTuple

import open_clip
import torch
import torch.nn.functional as F
from open_clip.transformer import ResidualAttentionBlock, Transformer, VisionTransformer
from torch import Tensor, nn

from clipgan.errors import UserError


@dataclass(frozen=True)
class EncoderSpec:
    """What makes two encoders the same architecture; saved in every checkpoint of one."""

    name: str  # open_clip model name, or the stem of the JSON file
    model: dict  # open_clip's model config: embed_dim, vision_cfg, text_cfg, quick_gelu
    image_mean: tuple[float, ...]
    image_std: tuple[float, ...]
    words_num: int  # longest caption in BPE tokens, start and end tokens not counted


class ImageFeatures(NamedTuple):
    """What the encoder sees in images."""

    regions: Tensor  # [B, D, R]
    image: Tensor  # [B, E]


class TextFeatures(NamedTuple):
    """What the encoder reads in captions."""

    words: Tensor  # [B, D, W]
    word_mask: Tensor  # [B, W], True = a real word
    sentence: Tensor  # [B, E]


class Tokenizer:
    """CLIP's BPE tokens of captions. Apart from the encoder, so that a loader's workers need no weights."""

    def __init__(self, words_num: int):
        self._tokenizer = open_clip.SimpleTokenizer(context_length=words_num + 2)

    def __call__(self, captions: list[str]) -> Tensor:
        """Start token, at most ``words_num`` BPE tokens, end token, then zeros: int64 [N, L].

        L is that of the longest of these captions. It is known here, before anything is sent to a GPU, which would
        have to be waited for.

        Raises:
            UserError: a caption holds no word.
        """
        tokens = self._tokenizer(captions)
        empty = (tokens[:, 1] == self._tokenizer.eot_token_id).nonzero().flatten().tolist()
        if empty:
            raise UserError(f"the caption {captions[empty[0]]!r} has no words")
        longest = int(_place_of_end(tokens).max()) + 1 if captions else tokens.shape[1]
        return tokens[:, :longest].contiguous()

    def words_of(self, tokens: Tensor) -> list[str]:
        """The BPE tokens of one row as readable text, start and end tokens left out."""
        return [self._tokenizer.decode([int(token)]).strip() for token in tokens[1 : int(_place_of_end(tokens))]]


def _place_of_end(tokens: Tensor) -> Tensor:
    """Where the end token is in rows [..., L]: it has the largest number of all."""
    return tokens.argmax(dim=-1)


class ClipEncoder(nn.Module):
    """A CLIP with a vision transformer, and one trained projection that brings its regions to the words' width.

    ``encode_text``: words are the text transformer's last hidden states after its final layer norm, without those of
    the start and end tokens; the sentence is the projected end-of-text state (Radford et al. 2021, §2.4).
    ``encode_image``: regions are the patch tokens of the last hidden state *before* the final layer norm, through
    ``region_projection``; the image is the projected class token.
    """

    def __init__(self, spec: EncoderSpec):
        super().__init__()
        self.spec = spec
        self.clip = _create_clip(spec.model, spec.name)
        _require_supported(self.clip, self._text, spec.name)
        if not 1 <= spec.words_num <= self._text.context_length - 2:
            raise UserError(
                f"TEXT.WORDS_NUM is {spec.words_num}, but {spec.name} reads captions of 1 to "
                f"{self._text.context_length - 2} tokens"
            )
        self.region_projection = nn.Linear(self.clip.visual.transformer.width, self.word_dim)
        self.tokenize = Tokenizer(spec.words_num)
        mean, std = torch.tensor(spec.image_mean), torch.tensor(spec.image_std)
        self.register_buffer("_mean", mean.view(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", std.view(1, 3, 1, 1), persistent=False)

    @property
    def _text(self) -> nn.Module:
        return getattr(self.clip, "text", self.clip)  # open_clip's CustomTextCLIP keeps its text tower apart

    @property
    def word_dim(self) -> int:
        """D, the width of the words and of the projected regions."""
        return self._text.token_embedding.embedding_dim

    @property
    def sentence_dim(self) -> int:
        """E, the width of sentence and image, the space in which CLIP compares the two."""
        return self.spec.model["embed_dim"]

    @property
    def image_size(self) -> int:
        """Side in pixels to which images are resized before they are encoded."""
        size = self.clip.visual.image_size
        return size if isinstance(size, int) else size[0]

    @property
    def region_grid(self) -> tuple[int, int]:
        """Rows and columns of the regions; R is their product."""
        return tuple(self.clip.visual.grid_size)

    def forward(self, images: Tensor, tokens: Tensor) -> tuple[ImageFeatures, TextFeatures]:
        """Encode images and captions, of any two numbers, in one call."""
        return self.encode_image(images), self.encode_text(tokens)

    def encode_text(self, tokens: Tensor) -> TextFeatures:
        """Encode captions.

        Args:
            tokens: int64 [B, L] of ``tokenize``, a :class:`Tokenizer`.

        Returns:
            In float32. W is L - 2. Attention is causal, so columns of padding that are left off change nothing.
        """
        text = self._text
        length = tokens.shape[1]
        end = _place_of_end(tokens)                                                  # [B]
        x = text.token_embedding(tokens) + text.positional_embedding[:length]        # [B, L, D]
        x = text.transformer(x, attn_mask=text.attn_mask[:length, :length])
        x = text.ln_final(x).float()
        sentence = x[torch.arange(len(x), device=x.device), end]                     # [B, D]
        sentence = _project(sentence, text.text_projection).float()                  # [B, E]
        words = x[:, 1 : length - 1].transpose(1, 2)                                 # [B, D, W]
        word_mask = torch.arange(1, length - 1, device=x.device) < end[:, None]      # [B, W]
        return TextFeatures(words, word_mask, sentence)

    def encode_image(self, images: Tensor) -> ImageFeatures:
        """Encode images, resizing (bicubic, antialiased) and normalising them as CLIP expects.

        Args:
            images: float [B, 3, S, S] in [−1, 1], any S.

        Returns:
            In float32.
        """
        output = self.clip.visual.forward_intermediates(self.preprocess(images), indices=1, output_fmt="NLC")
        patches = output["image_intermediates"][-1]                                  # [B, R, vision width]
        regions = self.region_projection(patches).transpose(1, 2)                    # [B, D, R]
        return ImageFeatures(regions.float(), output["image_features"].float())

    def preprocess(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] in [−1, 1] → [B, 3, size, size] as CLIP's image tower takes it."""
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be [B, 3, S, S], not {list(images.shape)}")
        size = (self.image_size, self.image_size)
        if images.shape[-2:] != size:
            images = F.interpolate(images.float(), size=size, mode="bicubic", antialias=True, align_corners=False)
        return ((images + 1) / 2 - self._mean) / self._std

    def freeze(self) -> ClipEncoder:
        """Evaluation mode, no gradients for the weights; gradients still flow through to the images."""
        self.requires_grad_(False)
        return self.eval()

    def store_matrices_in(self, dtype: torch.dtype) -> ClipEncoder:
        """Store the weights of matrix products in ``dtype``, in place, for use under autocast of that type.

        Autocast casts them at every call, but the cast of *frozen* weights it does not keep. The numbers are the same.
        """
        for module in self.modules():
            if isinstance(module, nn.Linear | nn.Conv2d | nn.MultiheadAttention):
                for weight in module.parameters(recurse=False):
                    weight.data = weight.data.to(dtype)
        for owner, name in ((self.clip.visual, "proj"), (self._text, "text_projection")):
            weight = getattr(owner, name)
            if isinstance(weight, nn.Parameter):
                weight.data = weight.data.to(dtype)
        return self


def build_encoder(base: str, pretrained: str, words_num: int) -> ClipEncoder:
    """A new encoder, its ``region_projection`` untrained.

    Args:
        base: open_clip model name, or path of a JSON file in open_clip's model-config format.
        pretrained: open_clip tag (downloaded when it is not in open_clip's cache), a weights file, or empty for none.
        words_num: longest caption in BPE tokens.

    Raises:
        UserError: an unknown model or tag, a missing file, weights of another architecture, no network.
    """
    name, model = model_config(base)
    mean, std = open_clip.OPENAI_DATASET_MEAN, open_clip.OPENAI_DATASET_STD
    weights: Path | None = None
    if pretrained and Path(pretrained).is_file():
        weights = Path(pretrained)
        model["quick_gelu"] = model.get("quick_gelu", False) or _is_torchscript(weights)
    elif pretrained:
        tags = open_clip.list_pretrained_tags_by_model(name)
        if pretrained not in tags:
            have = f"{name} has {', '.join(tags)}" if tags else f"{name} has no published weights"
            raise UserError(f"TRAIN.CLIP_PRETRAINED: {pretrained!r} is neither a file nor published weights; {have}")
        published = open_clip.get_pretrained_cfg(name, pretrained)
        model["quick_gelu"] = model.get("quick_gelu", False) or bool(published.get("quick_gelu", False))
        mean, std = published.get("mean", mean), published.get("std", std)
        weights = _download(name, pretrained, published)
    encoder = ClipEncoder(EncoderSpec(name, model, tuple(mean), tuple(std), words_num))
    if weights is not None:
        try:
            open_clip.load_checkpoint(encoder.clip, str(weights))
        except Exception as error:  # open_clip raises many kinds for a file that does not fit
            reason = " ".join(str(error).split())[:300]
            raise UserError(f"{weights} does not hold weights of {name}: {reason}") from None
    return encoder


def model_config(base: str) -> tuple[str, dict]:
    """The name and open_clip's model config of an open_clip model or of a JSON file in that format.

    Raises:
        UserError: no such model or file, or no model config in it.
    """
    if base.endswith(".json"):
        path = Path(base)
        if not path.is_file():
            raise UserError(f"TRAIN.CLIP_MODEL_BASE: no file at {path}")
        try:
            model = json.loads(path.read_text(encoding="utf-8"))
            missing = {"embed_dim", "vision_cfg", "text_cfg"} - set(model)
        except (ValueError, TypeError) as error:
            raise UserError(f"{path} is not valid JSON: {error}") from None
        if missing:
            raise UserError(f"{path} is no open_clip model config: it lacks {', '.join(sorted(missing))}")
        return path.stem, model
    model = open_clip.get_model_config(base)
    if model is None:
        near = difflib.get_close_matches(base, open_clip.list_models(), n=3, cutoff=0.4)
        hint = f"; did you mean {' or '.join(near)}?" if near else ""
        raise UserError(f"TRAIN.CLIP_MODEL_BASE: open_clip has no model {base!r}{hint}")
    return base, model


def _create_clip(model: dict, name: str) -> nn.Module:
    model = dict(model)
    kind = open_clip.CustomTextCLIP if model.pop("custom_text", False) else open_clip.CLIP
    try:
        clip = kind(**model)
    except (TypeError, KeyError, AssertionError) as error:
        raise UserError(f"{name}: open_clip cannot build this model: {error}") from None
    for module in clip.modules():
        if isinstance(module, Transformer) and all(type(b) is ResidualAttentionBlock for b in module.resblocks):
            _put_sequence_first(module)
    return clip


def _put_sequence_first(transformer: Transformer) -> None:
    """Let a transformer work on [L, B, D] instead of [B, L, D]: the same bits, from contiguous tensors.

    nn.MultiheadAttention transposes batches that come first. For the strides that this leaves, PyTorch may copy
    *frozen* weights once for every token.
    """
    transformer.batch_first = False
    for block in transformer.resblocks:
        block.attn.batch_first = False


def _require_supported(clip: nn.Module, text: nn.Module, name: str) -> None:
    if not isinstance(clip.visual, VisionTransformer):
        raise UserError(f"{name} has no vision transformer, which the regions need: use a ViT such as ViT-B-32")
    causal = getattr(text, "attn_mask", None) is not None and getattr(text, "cls_emb", None) is None
    pooling = getattr(text, "text_pool_type", getattr(text, "pool_type", ""))
    if not causal or pooling not in ("argmax", "eos") or text.vocab_size != 49408:
        raise UserError(f"{name} does not read text as CLIP does (BPE, causal, end-of-text state): use a CLIP ViT")


def _project(x: Tensor, projection: nn.Module | Tensor | None) -> Tensor:
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Module) else x @ projection


def _is_torchscript(path: Path) -> bool:
    """OpenAI published its weights, all of them trained with QuickGELU, as TorchScript archives."""
    if not zipfile.is_zipfile(path):
        return False
    with zipfile.ZipFile(path) as archive:
        return any("/code/" in name for name in archive.namelist())


def _download(name: str, tag: str, published: dict) -> Path:
    try:
        return Path(open_clip.download_pretrained(published))
    except Exception as error:  # the hub's client raises many kinds
        reason = " ".join(str(error).split())[:160]
        raise UserError(
            f"could not fetch the weights {tag!r} of {name} ({type(error).__name__}: {reason}); set "
            "TRAIN.CLIP_PRETRAINED to a weights file, or to '' for a random start"
        ) from None
