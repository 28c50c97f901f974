"""Named ways to measure: what a score depends on besides the generated images. docs/protocols.md tells them apart."""

from __future__ import annotations

from dataclasses import asdict, dataclass, field
from typing import Any

from clipgan.errors import UserError
from clipgan.evaluation.metrics.card import TEST, TRAIN, Rules
from clipgan.evaluation.real_images import AS_TRAINED, CENTRE, WHOLE
from clipgan.files.gate import short

PUBLISHED = "published"  # weights, as the flag --weights names them


@dataclass(frozen=True)
class Protocol:
    """How scores are measured.

    Attributes:
        name: on the command line and in JSON.
        about: what it is, in a short sentence.
        splits: whose real images the metrics compare with.
        crop: how these are cut out of their photographs: ``as trained``, ``centre`` or ``whole``
            (:class:`clipgan.evaluation.real_images.Split`).
        images: how many generated images are demanded, fewer where there are fewer captions; None: the config's number.
        inception_weights: those of the FID's network that are demanded; None: the user's choice.
        score_weights: likewise those of the Inception Score's network.
        thumbnail: side in pixels that images are shrunk to before the Inception Score's network; None: they are not.
        rules: of the metrics. Their seed is not the protocol's: the config's takes its place.
    """

    name: str
    about: str
    splits: tuple[str, ...] = (TEST,)
    crop: str = AS_TRAINED
    images: int | None = None
    inception_weights: str | None = None
    score_weights: str | None = None
    thumbnail: int | None = None
    rules: Rules = field(default_factory=Rules)

    def describe(self) -> dict[str, Any]:
        """Everything that scores depend on, for their JSON."""
        described = asdict(self) | {"splits": list(self.splits)}
        del described["about"], described["rules"]["seed"]
        return described


PROTOCOLS: dict[str, Protocol] = {
    protocol.name: protocol
    for protocol in (
        Protocol("here", "this project's own"),
        Protocol(
            "dmgan",
            "as AttnGAN, DM-GAN and DF-GAN report",
            images=30_000,
            inception_weights=PUBLISHED,
        ),
        Protocol(
            "original",
            "as the code of CLIP with DAMSM measured, mistakes included",
            splits=(TRAIN, TEST),
            crop=WHOLE,
            inception_weights=PUBLISHED,
            score_weights=PUBLISHED,
            thumbnail=32,
            rules=Rules(ties_hit=True, drops_one=True),
        ),
        Protocol(
            "coco30k",
            "30,000 captions of COCO's validation images",
            crop=CENTRE,
            images=30_000,
            inception_weights=PUBLISHED,
        ),
    )
}


def protocol_of(name: str) -> Protocol:
    """The protocol of a name; raises ``UserError``, with the names that there are, for another."""
    if name not in PROTOCOLS:
        raise UserError(f"--protocol: there is no protocol {short(name)}: it can be one of {', '.join(PROTOCOLS)}")
    return PROTOCOLS[name]
