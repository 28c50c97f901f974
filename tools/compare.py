"""Puts scores of several generators beside each other: python tools/compare.py a/scores.json b/scores.json

The files are those of tools/score.py. Files of different protocols, real images or networks are refused, as their
numbers do not compare. A star, or bold print in Markdown, marks a score that is better than all others of its row and
whose 95 % interval does not overlap with theirs.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from clipgan.evaluation.comparing import compare
from clipgan.flags import run_script
from clipgan.machine.failures import explained


@explained
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("files", nargs="+", metavar="FILE", help="scores.json of tools/score.py")
    parser.add_argument("--metrics", nargs="+", default=[], metavar="NAME", help="compare these only, such as fid")
    parser.add_argument("--markdown", action="store_true", help="print a Markdown table")
    args = parser.parse_args(argv)
    print(compare(args.files, args.markdown, args.metrics))


if __name__ == "__main__":
    run_script(main)
