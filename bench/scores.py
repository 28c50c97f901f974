"""Times the distance parts of the scores on made-up features: python bench/scores.py --images 30000

What networks compute of the images is not in it; that depends on the network and takes one pass over the images.
"""

from __future__ import annotations

import argparse
import resource
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

import torch
from torch import Tensor

from clipgan.evaluation.metrics import cmmd, duplicates, fid, fid_infinity, kid, precision_recall
from clipgan.evaluation.metrics.card import Rules
from clipgan.evaluation.metrics.interval import interval

DIMS, JUDGE_DIMS = 2048, 512


def features(images: int, dims: int, generator: torch.Generator, shift: float = 0.0) -> Tensor:
    """Positive features [images, dims], of one direction in common, as Inception's are."""
    common = torch.rand(images, 1, generator=generator)
    return 0.8 * torch.rand(images, dims, generator=generator) + 0.2 * common + shift


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--images", type=int, default=30_000, help="on each side (default %(default)s)")
    args = parser.parse_args()
    generator = torch.Generator().manual_seed(0)
    ours, real = (features(args.images, DIMS, generator, shift) for shift in (0.02, 0.0))
    train = features(max(1, args.images // 3), DIMS, generator)
    judged = [features(args.images, JUDGE_DIMS, generator, shift) for shift in (0.02, 0.0)]
    sets = {fid: (ours, real), fid_infinity: (ours, real), kid: (ours, real), precision_recall: (ours, real)}
    sets |= {duplicates: (ours, train, real), cmmd: judged}
    print(f"{args.images} images on each side, {DIMS} dimensions ({JUDGE_DIMS} for CMMD)")
    print(f"{torch.get_num_threads()} threads, {torch.backends.cpu.get_cpu_capability()}")
    print(f"features in memory: {peak():.1f} GB at most so far")
    for metric, inputs in sets.items():
        started = time.monotonic()
        measured = metric.METRIC.measure(*inputs, rules=Rules())
        bounds = [interval(one, card, 0) for one, card in zip(measured, metric.METRIC.cards, strict=True)]
        names = ", ".join(card.key for card in metric.METRIC.cards)
        assert all(bounds)
        print(f"{names}: {time.monotonic() - started:.0f} s; {peak():.1f} GB at most so far", flush=True)


def peak() -> float:
    return resource.getrusage(resource.RUSAGE_SELF).ru_maxrss * 1024 / 1e9


if __name__ == "__main__":
    main()
