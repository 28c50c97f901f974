"""What is computed from each image: by the Inception networks, by a judge, by the oracle of the drawn data."""

from __future__ import annotations

import functools
from collections.abc import Collection, Sequence
from dataclasses import dataclass

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from clipgan.data import toy_oracle
from clipgan.evaluation.image_pass import Extractor, View
from clipgan.evaluation.inception import (
    SIDE,
    FidNetwork,
    ScoreNetwork,
    load_fid_network,
    load_score_network,
    resize,
)
from clipgan.evaluation.metrics.card import ATTRIBUTES, CAPTIONS, EMBEDDINGS, INCEPTION, PROBABILITIES
from clipgan.machine import distributed
from clipgan.networks import clip_encoder
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.runs.checkpoint import fingerprint


@dataclass(frozen=True)
class Networks:
    """The networks that the scores need.

    Attributes:
        device: that they compute on.
        inception: of the FID and other distances.
        classifier: of the Inception Score.
        judges: that compare images with captions.
        thumbnail: of :func:`class_probabilities`.
    """

    device: torch.device
    inception: FidNetwork | None = None
    classifier: ScoreNetwork | None = None
    judges: Sequence[ClipEncoder] = ()
    thumbnail: int | None = None

    @staticmethod
    def load(
        needs: Collection[str],
        device: torch.device,
        fid_weights: str,
        dims: int,
        is_weights: str,
        judges: Sequence[ClipEncoder],
        thumbnail: int | None = None,
    ) -> Networks:
        """The judges, and those of the two Inception networks that the needs ask for.

        Args:
            needs: of the metrics.
            fid_weights, dims: as for :func:`load_fid_network`.
            is_weights: as for :func:`load_score_network`.

        Raises:
            UserError: as these two.
        """
        inception = classifier = None
        with distributed.main_first():  # one process downloads
            if INCEPTION in needs:
                inception = load_fid_network(fid_weights, dims, device)
            if PROBABILITIES in needs:
                classifier = load_score_network(is_weights, device)
        return Networks(device, inception, classifier, judges, thumbnail)

    def inception_for(self, need: str) -> FidNetwork | ScoreNetwork | None:
        """The Inception network that meets a need; None if none does, or it is not loaded."""
        return {INCEPTION: self.inception, PROBABILITIES: self.classifier}.get(need)

    def extractors(self, needs: Collection[str], truths: Sequence[dict[str, str]] | None = None) -> list[Extractor]:
        """What meets these needs, as far as there is a network for it; ``truths`` as in `attribute_readings`."""
        found = []
        if INCEPTION in needs and self.inception is not None:
            found.append(inception_features(self.inception))
        if PROBABILITIES in needs and self.classifier is not None:
            found.append(class_probabilities(self.classifier, self.thumbnail))
        if EMBEDDINGS in needs or CAPTIONS in needs:
            found += [embeddings(judge, number) for number, judge in enumerate(self.judges)]
        if ATTRIBUTES in needs and truths is not None:
            found.append(attribute_readings(truths, self.device))
        return found


_INCEPTION_VIEW = View("inception", SIDE, resize)


def inception_features(network: FidNetwork) -> Extractor:
    """Features [B, dims] float32 of the FID's network."""
    identity = f"{network.provenance.sha256} {network.dims}"
    return Extractor(INCEPTION, _INCEPTION_VIEW, lambda images, _: network(images), _device_of(network), identity)


def class_probabilities(network: ScoreNetwork, thumbnail: int | None = None) -> Extractor:
    """Class probabilities [B, classes] float64 of the Inception Score's network.

    Args:
        thumbnail: the side in pixels that images are brought to first; None leaves that out.
    """
    view = _INCEPTION_VIEW
    if thumbnail is not None:
        view = View(f"inception of {thumbnail} px", SIDE, functools.partial(_by_thumbnail, side=thumbnail))
    identity = f"{network.provenance.sha256} {thumbnail}"
    return Extractor(PROBABILITIES, view, lambda images, _: network(images), _device_of(network), identity)


def embeddings(encoder: ClipEncoder, number: int = 0) -> Extractor:
    """Image features [B, E] float32 of judge ``number``."""
    side = encoder.image_size
    view = View(f"CLIP {side} px", side, functools.partial(clip_encoder.resize, side=side))
    compute = lambda images, _: encoder.encode_image(images)[1]  # noqa: E731
    return Extractor(embeddings_of(number), view, compute, _device_of(encoder), fingerprint(encoder))


def embeddings_of(judge: int) -> str:
    """The name of a judge's output."""
    return f"{EMBEDDINGS} {judge}"


def attribute_readings(truths: Sequence[dict[str, str]], device: torch.device) -> Extractor:
    """Whether the attributes [B, 1 + attributes] float64 that the oracle reads are right; image i should show truth i.

    The oracle computes on the CPU, wherever the images are.
    """

    def compute(images: Tensor, places: Sequence[int]) -> Tensor:
        return toy_oracle.right_attributes(images, [truths[place] for place in places])

    return Extractor(ATTRIBUTES, View("oracle", toy_oracle.SIDE, toy_oracle.resize), compute, device)


def _by_thumbnail(images: Tensor, side: int) -> Tensor:
    return resize(F.interpolate(images, size=(side, side), mode="bilinear", align_corners=False))


def _device_of(network: nn.Module) -> torch.device:
    return next(network.parameters()).device
