"""Check a whole data set before a run: python tools/check_data.py --cfg cfg/clip_bird_DMGAN.yml

Reads the splits and every image as training would, and says what is wrong, where, and how many images can be used.
Exit status: 0 if all can be used, 1 if some cannot, 2 if the data set cannot be read at all.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from clipgan.data.checking import check_split, in_both
from clipgan.errors import UserError
from clipgan.evaluation.from_snapshot import take_if_there
from clipgan.flags import add_common_flags, config_from_flags, run_script
from clipgan.machine.failures import explained
from clipgan.runs.report import write_json

SHOWN = 20  # lines of a kind on the screen; the JSON holds all


def show(heading: str, lines: Sequence[str]) -> None:
    """Print at most ``SHOWN`` lines under a heading with their number; nothing if there are none."""
    if lines:
        print(f"{heading}: {len(lines)}")
        print(*(f"  {line}" for line in lines[:SHOWN]), sep="\n")
    if len(lines) > SHOWN:
        print(f"  and {len(lines) - SHOWN} more (--output FILE.json writes all)")


@explained
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="config that names the data and the image size")
    parser.add_argument("--split", choices=("train", "test", "both"), default="both", help="default: %(default)s")
    parser.add_argument("--workers", type=int, metavar="N", help="processes that read images (default: WORKERS)")
    parser.add_argument("--output", metavar="FILE.json", help="write all that was found to this file")
    add_common_flags(parser)
    args = parser.parse_args(argv)
    config = config_from_flags(args)
    if not config.TRAIN.FLAG:  # an evaluation's sizes are its snapshot's
        take_if_there(config)
    workers = config.WORKERS if args.workers is None else args.workers
    if args.workers is not None and workers < 1:
        raise UserError(f"--workers {workers}: expected a number from 1")

    splits = ("train", "test") if args.split == "both" else (args.split,)
    found = {split: check_split(config, split, workers) for split in splits}
    reports = {split: report for split, (report, _) in found.items()}
    faults = [fault for _, of_split in found.values() for fault in of_split]
    keys, same = in_both(reports)

    show("images that cannot be used", [f"{fault.split}: {fault.fault}" for fault in faults])
    show("warning: keys in both train and test", keys)
    show("warning: files of test that are also in train, byte for byte", [f"{b} is {a} of train" for a, b in same])
    for split, report in reports.items():
        print(f"{split}: {report.usable} of {report.listed} images can be used")
        if report.fewer_captions:
            wanted = f"TEXT.CAPTIONS_PER_IMAGE = {config.TEXT.CAPTIONS_PER_IMAGE}"
            print(f"{split}: {report.fewer_captions} of them have fewer captions than {wanted}, and use what they have")
    if args.output is not None:
        numbers = {
            split: {"listed": report.listed, "usable": report.usable, "fewer_captions": report.fewer_captions}
            for split, report in reports.items()
        }
        content = {
            "data_dir": config.DATA_DIR,
            "image_size": config.image_size,
            "splits": numbers,
            "faults": [asdict(fault) for fault in faults],
            "keys_in_both": keys,
            "files_in_both": [{"train": a, "test": b} for a, b in same],
        }
        write_json(args.output, content)
    if faults:
        raise SystemExit(1)


if __name__ == "__main__":
    run_script(main)
