"""CLIP as text and image encoder: this and the modules clip_* beside it are the only place that knows open_clip.

It owns everything that belongs to CLIP and to nobody else: the tokenizer, the input size, CLIP's mean and standard
deviation, and which of the transformers' states are the words, the sentence, the regions and the image.
"""

from __future__ import annotations

from collections.abc import Sequence
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, NamedTuple

import open_clip
import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.errors import UserError
from clipgan.files.gate import reading
from clipgan.files.shapes import anything, mapping_of, record, text, whole
from clipgan.networks.clip_config import MEAN, STD, check_config
from clipgan.networks.clip_models import Model, create_clip, models_of_shape, read_model, require_memory
from clipgan.networks.clip_published import Origin, Said, check_said, find_weights, refuse_contradictions, settle
from clipgan.networks.clip_weights import EXPECTED, fill, named_as_in, read_weights

_CONTEXT = open_clip.CLIPTextCfg().context_length  # tokens that a model reads where its config does not say it


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
        return [self._tokenizer.decode([token]).strip() for token in self._between(tokens)]

    def whole_words(self, tokens: Tensor) -> list[tuple[str, int]]:
        """The words of one row, each with the number of BPE tokens that it is made of."""
        words, pieces = [], []
        row = self._between(tokens)
        for place, token in enumerate(row, start=1):
            pieces.append(token)
            if place == len(row) or self._tokenizer.decode([token]).endswith(" "):  # which ends a word
                words.append((self._tokenizer.decode(pieces).strip(), len(pieces)))  # a letter may be of two tokens
                pieces = []
        return words

    def split(self, text: str) -> list[str]:
        """The words that :meth:`whole_words` finds in a text, of any length; no token is looked up for it."""
        return self._tokenizer.pat.findall(self._tokenizer.clean_fn(text))

    def cut_off(self, caption: str) -> str:
        """What of a caption is beyond ``words_num`` tokens, and so is not read; empty where all of it is."""
        beyond = self._tokenizer.encode(caption)[self._tokenizer.context_length - 2 :]
        return self._tokenizer.decode(beyond).strip() if beyond else ""

    def _between(self, tokens: Tensor) -> list[int]:
        """One row without its start and end tokens."""
        return tokens[1 : int(_place_of_end(tokens))].tolist()


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
        self.source = "random weights"
        self.clip = create_clip(spec.model, spec.name)
        _require_words(spec.words_num, spec.name, self._text.context_length)
        self.region_projection = nn.Linear(self.clip.visual.transformer.width, self.word_dim)
        self.tokenize = Tokenizer(spec.words_num)
        self.register_buffer("_mean", torch.empty(1, 3, 1, 1), persistent=False)
        self.register_buffer("_std", torch.empty(1, 3, 1, 1), persistent=False)
        self._set_constants()

    def _set_constants(self) -> None:
        """The buffers that are no weights, which a network built on the meta device lacks at first."""
        with torch.no_grad():
            for buffer, values in ((self._mean, self.spec.image_mean), (self._std, self.spec.image_std)):
                buffer.copy_(torch.tensor(values, device="cpu").view(1, 3, 1, 1))
            self._text.attn_mask.fill_(float("-inf")).triu_(1)  # 0 where a token may look: at itself and before

    @property
    def describe(self) -> str:
        """One line: the model, where its weights are from, its activation, and the image statistics."""
        spec = self.spec
        activation = "quick_gelu" if spec.model.get("quick_gelu") else "gelu"
        mean, std = ("/".join(f"{value:.4g}" for value in values) for values in (spec.image_mean, spec.image_std))
        return f"CLIP {spec.name}: {self.source}; activation {activation}; image mean {mean}, std {std}"

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
    def sees_images(self) -> bool:
        """Whether the image side is there; see :meth:`drop_image_side`."""
        return self.clip.visual is not None

    def drop_image_side(self) -> ClipEncoder:
        """Leave out, in place, all that only ``encode_image`` needs: more than half of the weights."""
        self.clip.visual = self.region_projection = None
        return self

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

        Raises:
            ValueError: the image side was left out, or the images have another shape.
        """
        if not self.sees_images:
            raise ValueError("this encoder reads captions only: its image side was left out")
        output = self.clip.visual.forward_intermediates(self.preprocess(images), indices=1, output_fmt="NLC")
        patches = output["image_intermediates"][-1]                                  # [B, R, vision width]
        regions = self.region_projection(patches).transpose(1, 2)                    # [B, D, R]
        return ImageFeatures(regions.float(), output["image_features"].float())

    def preprocess(self, images: Tensor) -> Tensor:
        """[B, 3, S, S] in [−1, 1] → [B, 3, size, size] as CLIP's image tower takes it."""
        if images.dim() != 4 or images.shape[1] != 3:
            raise ValueError(f"images must be [B, 3, S, S], not {list(images.shape)}")
        return ((resize(images, self.image_size) + 1) / 2 - self._mean) / self._std

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


def resize(images: Tensor, side: int) -> Tensor:
    """[B, C, H, W] → [B, C, side, side], bicubic and antialiased as for CLIP; images of that size as they are."""
    if images.shape[-2:] == (side, side):
        return images
    return F.interpolate(images.float(), size=(side, side), mode="bicubic", antialias=True, align_corners=False)


def build_encoder(
    base: str,
    pretrained: str,
    words_num: int,
    *,
    activation: str = "",
    mean: Sequence[float] = (),
    std: Sequence[float] = (),
    section: str = "TRAIN",
) -> ClipEncoder:
    """A new encoder, its ``region_projection`` untrained.

    Args:
        base: open_clip model name, path of a JSON file in open_clip's model-config format, ``local-dir:PATH`` or
            ``hf-hub:ORG/NAME``, which bring their weights along.
        pretrained: open_clip tag (downloaded when it is not in open_clip's cache), a weights file, or empty for none.
        words_num: longest caption in BPE tokens.
        activation: ``gelu`` or ``quick_gelu``, where the weights' origin does not tell; empty = not said.
        mean: of images in [0, 1], with which the weights were trained; empty = not said.
        std: the same.
        section: of the config in which these keys stand, for messages: TRAIN or EVAL.JUDGE.

    Raises:
        UserError: an unknown model or tag, a missing file, weights of another architecture, no network; or activation
            and image statistics are contradictory, or unknown where they matter.
    """
    said = Said(activation, mean, std, section)
    check_said(said)
    model = read_model(base, f"{section}.CLIP_MODEL_BASE")
    _require_words(words_num, model.name, model.config["text_cfg"].get("context_length", _CONTEXT))
    refuse_contradictions(model, pretrained, said)
    origin = find_weights(model, pretrained, f"{section}.CLIP_PRETRAINED")
    weights = None
    if origin.path is not None:
        try:
            weights = read_weights(origin.path)
        except UserError as error:
            reason = str(error).removeprefix(f"{origin.path}: ").removesuffix(f"; expected {EXPECTED}")
            raise UserError(f"{origin.path} does not hold weights of {model.name}: {reason}") from None
        origin = replace(origin, quick_gelu=weights.quick_gelu)
    settings = settle(model, origin, said)
    config = {**model.config, "quick_gelu": settings.quick_gelu}
    spec = EncoderSpec(model.name, config, settings.mean, settings.std, words_num)
    with torch.device("meta"):
        encoder = ClipEncoder(spec)
    if weights is None:
        require_memory(encoder, spec.name)
        return ClipEncoder(spec)
    try:
        fill(encoder.clip, named_as_in(weights.tensors, encoder.clip, config))
    except UserError as error:
        hint = _where_they_fit(model.name, weights.tensors, section)
        raise UserError(f"{origin.path} does not hold weights of {model.name}: {error}{hint}") from None
    encoder.region_projection.to_empty(device="cpu").reset_parameters()
    encoder._mean, encoder._std = torch.empty(1, 3, 1, 1), torch.empty(1, 3, 1, 1)
    encoder._set_constants()
    encoder.source = f"weights {origin.label} from {origin.path}" if origin.label else f"weights from {origin.path}"
    return encoder


def restore_encoder(
    spec: EncoderSpec, weights: dict[str, Tensor], path: str | Path, image_side: bool = True
) -> ClipEncoder:
    """The encoder of a checkpoint; memory is taken for what the checkpoint holds only.

    Args:
        spec: its architecture.
        weights: its state dict.
        path: of the file, for messages.
        image_side: False for weights of :meth:`ClipEncoder.drop_image_side`.

    Raises:
        UserError: the weights are not those of this architecture, or are not finite.
    """
    with torch.device("meta"):
        encoder = ClipEncoder(spec)
    if not image_side:
        encoder.drop_image_side()
    try:
        fill(encoder, weights)
    except UserError as error:
        raise UserError(f"{path} does not fit its own architecture: {error}") from None
    encoder._set_constants()
    encoder.source = f"weights from {path}"
    return encoder


def read_spec(architecture: Any, path: str | Path) -> EncoderSpec:
    """The architecture of a checkpoint.

    Raises:
        UserError: it is none, or one that cannot be used.
    """
    with reading(path, "an encoder checkpoint, which pretrain_DAMSM.py writes"):
        _ARCHITECTURE(architecture, "architecture")
        check_config(architecture["model"], "architecture.model")
    statistics = {key: tuple(map(float, architecture[key])) for key in ("image_mean", "image_std")}
    return EncoderSpec(**{**architecture, **statistics})


def require_agreement(spec: EncoderSpec, said: Said, path: str | Path) -> None:
    """Refuse keys of the config that contradict what a checkpoint says of itself.

    Raises:
        UserError: names the key.
    """
    own = {"quick_gelu": bool(spec.model.get("quick_gelu")), "mean": spec.image_mean, "std": spec.image_std}
    settle(Model(spec.name, {}), Origin(Path(path), own, str(path)), said)


_ARCHITECTURE = record(
    {
        "name": text(300),
        "model": mapping_of(anything, at_most=50),
        "image_mean": MEAN,
        "image_std": STD,
        "words_num": whole(1, 1022),
    }
)


def model_config(base: str) -> tuple[str, dict]:
    """The name and open_clip's model config of what a ``CLIP_MODEL_BASE`` names; raises as :func:`read_model`."""
    model = read_model(base)
    return model.name, dict(model.config)


def _where_they_fit(name: str, tensors: dict[str, Tensor], section: str) -> str:
    """Of weights that do not fit ``name``: of which model they have the sizes; empty if of none."""
    fitting = models_of_shape(tensors)
    if not fitting or name in fitting:
        return ""
    fitting = [other for other in fitting if not other.endswith("-quickgelu")]  # the weights decide on that
    return f"; they have the sizes of {' or '.join(fitting)}: set {section}.CLIP_MODEL_BASE"


def _require_words(words_num: int, name: str, context: int) -> None:
    if type(words_num) is not int or not 1 <= words_num <= context - 2:
        raise UserError(f"TEXT.WORDS_NUM is {words_num}, but {name} reads captions of 1 to {context - 2} tokens")


def _project(x: Tensor, projection: nn.Module | Tensor | None) -> Tensor:
    if projection is None:
        return x
    return projection(x) if isinstance(projection, nn.Module) else x @ projection
