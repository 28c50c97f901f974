"""Trains the Inception Score's network on a data set's classes: python tools/finetune_inception.py --cfg FILE

The schedule: torchvision's Inception v3 from ImageNet's weights, 30 epochs of SGD (Nesterov's momentum 0.9, weight
decay 1e-4), batch 32, learning rate 0.01 falling by a cosine to 0, labels smoothed by 0.1, the auxiliary classifier's
loss times 0.4, random crops and flips at 299 px. A tenth of each class is held out; the epoch that knows most of it is
kept. The file is for `inception_score.py --weights FILE` and `tools/score.py --is_weights FILE`, whose JSON says what
it was trained on. A training that was cut leaves its best epoch; it cannot go on, but another can start from that by
--init.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from clipgan.errors import UserError
from clipgan.evaluation.inception_training import SMALLEST_SIDE, Schedule, fine_tune
from clipgan.flags import add_common_flags, config_from_flags, run_script, whole_number
from clipgan.machine.cpu_memory import keep_freed_memory
from clipgan.machine.device import choose_device
from clipgan.machine.failures import explained


@explained
def main(argv: Sequence[str] | None = None) -> None:
    usual = Schedule()
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="config that names the data and how it is cropped")
    add_common_flags(parser)
    init = "published (default: ImageNet's, downloaded once), random, or a file"
    parser.add_argument("--init", default=usual.init, metavar="W", help=f"weights to start from: {init}")
    splits = {"nargs": "+", "choices": ("train", "test"), "default": ["train"]}
    parser.add_argument("--splits", **splits, help="whose classes are learned (default: train, as the papers do)")
    for flag, low, high, default, text in (
        ("--epochs", 1, 10**6, usual.epochs, "passes over the images"),
        ("--batch_size", 2, 65536, usual.batch_size, "images at once"),
        ("--side", SMALLEST_SIDE, 2048, usual.side, "of the images in pixels; smaller is faster, for a trial"),
    ):
        kind = whole_number(flag, low, high)
        parser.add_argument(flag, type=kind, default=default, metavar="N", help=f"{text} (default {default})")
    parser.add_argument("--lr", type=float, default=usual.lr, help=f"first learning rate (default {usual.lr})")
    parser.add_argument("--output", metavar="FILE", help="to write (default: OUTPUT_DIR/inception_<DATASET_NAME>.pth)")
    args = parser.parse_args(argv)
    if not 0 < args.lr < 10:
        raise UserError(f"--lr must be above 0 and below 10, not {args.lr}")
    config = config_from_flags(args)
    device = choose_device(config.GPU_ID, config.CUDA)
    keep_freed_memory(device)
    splits = tuple(sorted(set(args.splits), reverse=True))
    schedule = Schedule(args.init, splits, args.epochs, args.batch_size, args.lr, args.side, config.SEED)
    output = Path(args.output or Path(config.OUTPUT_DIR) / f"inception_{config.DATASET_NAME}.pth")
    said = fine_tune(config, schedule, output, device)
    print(f"epoch {said['epoch']}, which knows {said['accuracy']:.3f} of the held-out images, is in {output}")


if __name__ == "__main__":
    run_script(main)
