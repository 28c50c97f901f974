"""Draw the toy data set: python tools/make_toy_data.py --out data/toy

Small scenes with a drawn bird whose body, wing, head and background colours, beak and size its captions name.
With --scene two_birds: two birds, whose captions say which is left of, right of, in front of or behind the other.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from clipgan.data.toy import CAPTIONS, SCENES, draw_toy_dataset
from clipgan.flags import run_script
from clipgan.machine.failures import explained


@explained
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to make")
    parser.add_argument("--layout", choices=tuple(CAPTIONS), default="birds", help="default: %(default)s")
    parser.add_argument("--scene", choices=SCENES, default="one_bird", help="what the images show (%(default)s)")
    parser.add_argument("--train", type=int, default=3000, metavar="N", help="training images (%(default)s)")
    parser.add_argument("--test", type=int, default=400, metavar="N", help="test images (%(default)s)")
    parser.add_argument("--size", type=int, default=64, metavar="PIXELS", help="side of an image (%(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="default: %(default)s")
    args = parser.parse_args(argv)
    draw_toy_dataset(args.out, args.layout, args.train, args.test, args.size, args.seed, args.scene)
    print(f"{args.train} training and {args.test} test images drawn in {args.out} ({args.layout} layout)")


if __name__ == "__main__":
    run_script(main)
