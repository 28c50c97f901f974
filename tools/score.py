"""All scores of a generator's images at once: python tools/score.py --cfg cfg/eval_clip_bird.yml --metrics all

Scores the images that main.py made for the test split, from one pass over them, beside chance, 95 % intervals and what
real images score. With --path1 it scores the images of that folder instead. With --path1 and --path2 it compares two
folders without a config; --set EVAL.JUDGE.CLIP_MODEL_BASE=NAME then names the encoder of the scores that need one.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from clipgan.errors import UserError
from clipgan.evaluation.inception import FEATURE_DIMS
from clipgan.evaluation.metrics.registry import cards
from clipgan.evaluation.protocols import PROTOCOLS
from clipgan.evaluation.score_command import score_from_flags
from clipgan.evaluation.score_flags import add_score_flags
from clipgan.flags import run_script
from clipgan.machine.failures import explained


@explained
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_score_flags(parser)
    known = ", ".join(cards())
    parser.add_argument("--metrics", nargs="+", default=["all"], metavar="NAME", help=f"all (default), or of: {known}")
    protocols = "; ".join(f"{name}: {protocol.about}" for name, protocol in PROTOCOLS.items())
    parser.add_argument("--protocol", default="here", metavar="NAME", help=f"{protocols} (docs/protocols.md)")
    parser.add_argument("--fid_weights", metavar="...", help="of the FID's network, if not as --weights says")
    parser.add_argument("--is_weights", metavar="...", help="of the Inception Score's network, likewise")
    parser.add_argument("--dims", type=int, default=2048, choices=FEATURE_DIMS, help="of the features (default 2048)")
    parser.add_argument("--path1", metavar="FOLDER", help="images, instead of the generated ones")
    parser.add_argument("--path2", metavar="FOLDER", help="real images, instead of the data set's; goes with --path1")
    parser.add_argument("--list", action="store_true", help="say what each score means and fails to see, and end")
    args = parser.parse_args(argv)
    if args.list:
        for card in cards().values():
            print(f"{card.key}: {card.meaning}; better: {card.better}\n    source: {card.source}")
            print(f"    bias: {card.bias}\n    fails to see: {card.blind}")
        return
    if args.path2 and not args.path1:
        raise UserError("--path2 goes with --path1: give both")
    score_from_flags(args)


if __name__ == "__main__":
    run_script(main)
