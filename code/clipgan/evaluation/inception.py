"""The two Inception networks of the scores, where their weights come from, and what range they expect.

Both take images of any size in [−1, 1] and resize them to 299 × 299 pixels. The whole package uses this range, and both
networks were trained with it.

* FID: the network of Heusel et al. 2017 as pytorch-fid ported it from TensorFlow. It is torchvision's Inception v3
  except for its pooling branches and its 1008 classes. Its published weights load unchanged.
* Inception Score: torchvision's Inception v3, trained on ImageNet or fine-tuned.
"""

from __future__ import annotations

import copy
import hashlib
from collections.abc import Callable
from dataclasses import asdict, dataclass
from http.client import HTTPException
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.nn.utils.fusion import fuse_conv_bn_eval
from torchvision.models.inception import (
    BasicConv2d,
    Inception3,
    InceptionA,
    InceptionAux,
    InceptionB,
    InceptionC,
    InceptionD,
    InceptionE,
)

from clipgan.errors import UserError
from clipgan.files import shapes
from clipgan.files.gate import reading, sha256_of
from clipgan.files.pickles import Foreign
from clipgan.files.torch_file import read_torch_file
from clipgan.machine.precision import full_precision
from clipgan.runs.checkpoint import require_finite

SIDE = 299  # pixels, of both networks' input
FID_URL = "https://github.com/mseitzer/pytorch-fid/releases/download/fid_weights/pt_inception-2015-12-05-6726825d.pth"
SCORE_URL = "https://download.pytorch.org/models/inception_v3_google-0cc3c7bd.pth"
FEATURE_DIMS = (64, 192, 768, 2048)
RESIZE = f"bilinear to {SIDE} px, align_corners=False, no antialiasing"
_EXPECTED = "the weights of an Inception v3, as torch.save writes a state dict"
_NESTED = ("state_dict", "model_state_dict", "model")  # under which training programs keep weights
# What tools/finetune_inception.py says of a training.
_FINE_TUNED = shapes.mapping_of(shapes.either(shapes.text(1000), shapes.number()), at_most=100)
_PREFIXES = ("module.", "model.", "_orig_mod.")  # which they put before the names
FID_CLASSES = 1008
_MOST_CLASSES = 100_000
RANDOM_SEED = 0  # of random weights: fixed, so that two runs can be compared

# The layers up to each width of FEATURE_DIMS; a global average pool follows the last layer used.
_STAGES = (
    ("Conv2d_1a_3x3", "Conv2d_2a_3x3", "Conv2d_2b_3x3", "maxpool1"),
    ("Conv2d_3b_1x1", "Conv2d_4a_3x3", "maxpool2"),
    ("Mixed_5b", "Mixed_5c", "Mixed_5d", "Mixed_6a", "Mixed_6b", "Mixed_6c", "Mixed_6d", "Mixed_6e"),
    ("Mixed_7a", "Mixed_7b", "Mixed_7c"),
)


@dataclass(frozen=True)
class Provenance:
    """Where a network's weights come from: a URL, a file, or a random draw.

    Attributes:
        source: the URL, the path, or the draw.
        sha256: of the weights file; of the drawn tensors where they are random.
        random: whether they were never trained.
        fine_tuned: what the file says of its training, if ``tools/finetune_inception.py`` wrote it.
    """

    source: str
    sha256: str
    random: bool = False
    fine_tuned: dict[str, Any] | None = None

    @property
    def notice(self) -> str:
        """The warning that every report of a score must show; empty for trained weights."""
        if not self.random:
            return ""
        return "random Inception weights: this score compares only with itself, not with published ones"

    def as_dict(self) -> dict:
        return asdict(self)


class FidNetwork(nn.Module):
    """Inception features of the FID: [B, 3, H, W] in [−1, 1] → [B, dims] float32."""

    def __init__(self, inception: Inception3, dims: int, provenance: Provenance):
        super().__init__()
        self.dims, self.provenance = dims, provenance
        stages = _STAGES[: FEATURE_DIMS.index(dims) + 1]
        self.layers = nn.Sequential(*(getattr(inception, name) for stage in stages for name in stage))
        _prepare_for_inference(self)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        with full_precision():
            return self.layers(resize(images)).mean(dim=(2, 3))


class ScoreNetwork(nn.Module):
    """Class probabilities of the Inception Score: [B, 3, H, W] in [−1, 1] → [B, classes] float64."""

    def __init__(self, inception: Inception3, provenance: Provenance):
        super().__init__()
        self.provenance = provenance
        self.classes = inception.fc.out_features
        self.inception = inception
        _prepare_for_inference(self)

    @torch.no_grad()
    def forward(self, images: Tensor) -> Tensor:
        # torchvision's `transform_input` turns ImageNet-normalised images into [−1, 1], the range they have here.
        with full_precision():
            return self.inception(resize(images)).double().softmax(dim=1)


def load_fid_network(weights: str = "published", dims: int = 2048, device: torch.device | str = "cpu") -> FidNetwork:
    """The FID network with ``weights``: ``published`` (downloaded once), ``random``, or the path of a file.

    Raises:
        UserError: no such file, a file that is not this network's, weights that are not finite, no connection, or a
            width it does not have.
    """
    if dims not in FEATURE_DIMS:
        raise UserError(f"--dims must be one of {', '.join(map(str, FEATURE_DIMS))}, not {dims}")
    state, provenance = _read_weights(weights, FID_URL, fid_inception)
    inception = _load(fid_inception, state, provenance, "the FID Inception network")
    return FidNetwork(inception, dims, provenance).to(device)


def load_score_network(weights: str = "published", device: torch.device | str = "cpu") -> ScoreNetwork:
    """The Inception Score's network, as :func:`load_fid_network`; a file may have any number of classes.

    The FID's weights are refused: names and shapes would fit, but the network is another one.
    """
    state, provenance = read_score_weights(weights)
    # The auxiliary classifier is for training only.
    trained_with = any(name.startswith("AuxLogits.") for name in state)
    state = {name: tensor for name, tensor in state.items() if not name.startswith("AuxLogits.")}
    bias = state.get("fc.bias")
    classes = len(bias) if bias is not None and bias.ndim == 1 else 1000
    if not 2 <= classes <= _MOST_CLASSES:
        raise UserError(f"{provenance.source} has {classes} classes: the score needs 2 to {_MOST_CLASSES}")
    if classes == FID_CLASSES and not trained_with:
        raise UserError(
            f"{provenance.source} has {FID_CLASSES} classes, as the FID's weights (pytorch-fid): they are of another "
            "network, with which the score would be wrong; give torchvision's inception_v3, or --weights published"
        )
    inception = _load(lambda: score_inception(classes), state, provenance, "torchvision's inception_v3")
    return ScoreNetwork(inception, provenance).to(device)


def read_score_weights(weights: str) -> tuple[dict[str, Tensor], Provenance]:
    """The weights of the Inception Score's network by their names; ``weights`` as for :func:`load_score_network`."""
    return _read_weights(weights, SCORE_URL, score_inception)


def resize(images: Tensor) -> Tensor:
    """[B, 3, H, W] → [B, 3, 299, 299], channels last (which the CPU convolves twice as fast)."""
    if images.shape[-2:] != (SIDE, SIDE):
        images = F.interpolate(images, size=(SIDE, SIDE), mode="bilinear", align_corners=False)
    return images.contiguous(memory_format=torch.channels_last)


def _average(x: Tensor) -> Tensor:
    return F.avg_pool2d(x, kernel_size=3, stride=1, padding=1, count_include_pad=False)


def _chain(x: Tensor, *layers: nn.Module) -> Tensor:
    for layer in layers:
        x = layer(x)
    return x


class _FidA(InceptionA):
    """InceptionA with TensorFlow's average pool, which does not count the padding; torchvision's does."""

    def forward(self, x: Tensor) -> Tensor:
        branches = [
            self.branch1x1(x),
            _chain(x, self.branch5x5_1, self.branch5x5_2),
            _chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2, self.branch3x3dbl_3),
            self.branch_pool(_average(x)),
        ]
        return torch.cat(branches, dim=1)


class _FidC(InceptionC):
    """As :class:`_FidA`."""

    def forward(self, x: Tensor) -> Tensor:
        double = (self.branch7x7dbl_1, self.branch7x7dbl_2, self.branch7x7dbl_3)
        branches = [
            self.branch1x1(x),
            _chain(x, self.branch7x7_1, self.branch7x7_2, self.branch7x7_3),
            _chain(x, *double, self.branch7x7dbl_4, self.branch7x7dbl_5),
            self.branch_pool(_average(x)),
        ]
        return torch.cat(branches, dim=1)


class _FidE(InceptionE):
    """As :class:`_FidA`; the network's last block takes the maximum instead (an oddity of the original's weights)."""

    take_maximum = False

    def forward(self, x: Tensor) -> Tensor:
        pooled = F.max_pool2d(x, kernel_size=3, stride=1, padding=1) if self.take_maximum else _average(x)
        single = self.branch3x3_1(x)
        double = _chain(x, self.branch3x3dbl_1, self.branch3x3dbl_2)
        branches = [
            self.branch1x1(x),
            self.branch3x3_2a(single),
            self.branch3x3_2b(single),
            self.branch3x3dbl_3a(double),
            self.branch3x3dbl_3b(double),
            self.branch_pool(pooled),
        ]
        return torch.cat(branches, dim=1)


def fid_inception() -> Inception3:
    """The whole FID network; its state dict has the names and shapes of the published file."""
    blocks = [BasicConv2d, _FidA, InceptionB, _FidC, InceptionD, _FidE, InceptionAux]
    inception = Inception3(num_classes=FID_CLASSES, aux_logits=False, init_weights=False, inception_blocks=blocks)
    inception.Mixed_7c.take_maximum = True
    return inception


def score_inception(classes: int = 1000) -> Inception3:
    """torchvision's network without the auxiliary classifier."""
    return Inception3(num_classes=classes, aux_logits=False, init_weights=False)


def random_state_dict(inception: Inception3, seed: int = RANDOM_SEED) -> tuple[dict[str, Tensor], str]:
    """Seeded random weights whose features tell images apart, and the sha256 of the tensors drawn.

    He-normal convolutions alone map all images close together, and the features of their last layer differ by little.
    So batch normalisation takes the statistics of a few random pictures, and the last layer is shifted and scaled
    until its logits for them have mean 0 and standard deviation 1.
    """
    generator = torch.Generator().manual_seed(seed)
    inception = copy.deepcopy(inception).to(memory_format=torch.channels_last).train()
    digest = hashlib.sha256(b"He normal, calibrated on _random_pictures, 1")  # the recipe: change it with the code
    for layer in inception.modules():
        if isinstance(layer, nn.Conv2d | nn.Linear):
            fan_in = layer.weight[0].numel()
            weight = torch.empty(layer.weight.shape).normal_(0, (2 / fan_in) ** 0.5, generator=generator)
            layer.weight.data.copy_(weight)
            digest.update(weight.numpy().tobytes())
        if isinstance(layer, nn.BatchNorm2d):
            layer.momentum = 1.0
    inception.fc.bias.data.zero_()
    inception.dropout.p = 0.0
    with torch.no_grad():
        logits = inception(resize(_random_pictures(16, generator)))
        scale = 1 / logits.std(dim=0).clamp(min=1e-6)
        inception.fc.weight.mul_(scale[:, None])
        inception.fc.bias.copy_(-logits.mean(dim=0) * scale)
    return {name: tensor.contiguous() for name, tensor in inception.state_dict().items()}, digest.hexdigest()


def _random_pictures(count: int, generator: torch.Generator) -> Tensor:
    """[count, 3, 299, 299] in (−1, 1): noise at several scales, mixed differently in each picture.

    Every other picture is made of blocks. With less variety, other kinds of pictures (drawings, noise) would saturate
    the networks.
    """
    pictures = torch.zeros(count, 3, SIDE, SIDE)
    for side in (1, 3, 6, 12, 24, 48, 96, 192):
        share = torch.rand(count, 1, 1, 1, generator=generator) ** 2
        noise = share * torch.randn(count, 3, side, side, generator=generator)
        pictures[::2] += F.interpolate(noise[::2], size=SIDE, mode="bilinear", align_corners=False)
        pictures[1::2] += F.interpolate(noise[1::2], size=SIDE, mode="nearest")
    return pictures.tanh()


def _read_weights(weights: str, url: str, build: Callable[[], Inception3]) -> tuple[dict[str, Tensor], Provenance]:
    if weights == "random":
        state, digest = random_state_dict(build())
        return state, Provenance(f"random (seed {RANDOM_SEED})", digest, random=True)
    if weights == "published":
        path, source = _download(url), url
    else:
        path, source = Path(weights), str(weights)
        if not path.exists():
            raise UserError(f"no weights file at {path}: --weights takes published, random, or the path of a file")
    content = read_torch_file(path, foreign=True, expected=_EXPECTED)
    with reading(path, _EXPECTED):
        state = _state_of(content)
        fine_tuned = content.get("fine_tuned") if isinstance(content, dict) else None
        if fine_tuned is not None:
            _FINE_TUNED(fine_tuned, "fine_tuned")
        return state, Provenance(source, sha256_of(path), fine_tuned=fine_tuned)


def _state_of(content: object) -> dict[str, Tensor]:
    """The weights in what a file holds, by the names that the network has."""
    if isinstance(content, dict):
        content = next((content[key] for key in _NESTED if isinstance(content.get(key), dict)), content)
    if not isinstance(content, dict) or not content:
        what = "model or another object" if isinstance(content, Foreign) else type(content).__name__
        raise UserError(f"holds a {what}, not a state dict of weights")
    shapes.WEIGHTS(content, "it")
    while prefix := next((p for p in _PREFIXES if all(name.startswith(p) for name in content)), ""):
        content = {name.removeprefix(prefix): tensor for name, tensor in content.items()}
    return dict(content)


def _download(url: str) -> Path:
    """The published file in torch's cache, downloaded on first use; its hash is checked each time."""
    name = url.rpartition("/")[2]
    path = Path(torch.hub.get_dir()) / "checkpoints" / name
    if not path.is_file():
        try:
            torch.hub.load_state_dict_from_url(url, map_location="cpu", check_hash=True, weights_only=True)
        except (OSError, RuntimeError, HTTPException) as error:
            reason = " ".join(str(error).split())[:120] or type(error).__name__
            raise UserError(
                f"cannot download {url} ({reason}): put the file at {path}, give it by --weights FILE, "
                "or try things out with --weights random"
            ) from None
    expected = path.stem.rpartition("-")[2]
    if not sha256_of(path).startswith(expected):
        raise UserError(f"{path} is damaged (its sha256 should begin with {expected}): delete it to download it again")
    return path


def _load(build: Callable[[], Inception3], state: dict[str, Tensor], provenance: Provenance, name: str) -> Inception3:
    with torch.device("meta"):  # makes no initial values, as `state` replaces them
        inception = build()
    wanted = inception.state_dict()
    # Only training needs these counts, and files of old versions lack them.
    counts = {key: torch.tensor(0) for key in wanted if key.endswith(".num_batches_tracked")}
    state = {key: tensor for key, tensor in state.items() if key not in counts}
    difference = shapes.weight_differences({key: wanted[key] for key in wanted if key not in counts}, state)
    if difference:
        raise UserError(f"{provenance.source} does not fit {name}: {difference}")
    state = {key: tensor.float() for key, tensor in state.items()}
    with reading(provenance.source, _EXPECTED):
        require_finite(state, name)
    inception.load_state_dict(state | counts, assign=True)
    return inception


def _prepare_for_inference(network: nn.Module) -> None:
    """Fold batch normalisation into the convolutions before it: the same function, twice as fast with channels last."""
    network.eval().requires_grad_(False)
    for layer in network.modules():
        if isinstance(layer, BasicConv2d):
            layer.conv, layer.bn = fuse_conv_bn_eval(layer.conv, layer.bn), nn.Identity()
    network.to(memory_format=torch.channels_last)
