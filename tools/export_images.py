"""Write a split as evaluation sees it: python tools/export_images.py --cfg cfg/eval_clip_bird.yml --out DIR

Box crop, resize and centre crop, one PNG an image: for other tools, or for ``--path1`` and ``--path`` of the scores.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from tqdm import tqdm

from clipgan.data.from_config import read_split
from clipgan.evaluation.encoding import evaluation_image
from clipgan.evaluation.from_snapshot import settle_image_size, take_if_there
from clipgan.evaluation.sampling import PngWriter, evenly_spaced
from clipgan.flags import add_common_flags, config_from_flags, run_script
from clipgan.machine.failures import explained


@explained
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", required=True, metavar="FILE", help="config that names the data and the image size")
    parser.add_argument("--split", choices=("train", "test"), default="test", help="default: %(default)s")
    parser.add_argument("--count", type=int, metavar="N", help="at most so many, spread over the split (default: all)")
    parser.add_argument("--out", required=True, metavar="DIR", help="folder to write to")
    add_common_flags(parser)
    args = parser.parse_args(argv)
    config = config_from_flags(args)
    if not config.TRAIN.FLAG:  # an evaluation's sizes are its snapshot's
        take_if_there(config)
        settle_image_size(config)
    examples = read_split(config, args.split)
    examples = evenly_spaced(examples, args.count or len(examples))
    with PngWriter(config.WORKERS) as writer:
        for example in tqdm(examples, desc=args.split, unit="img"):
            writer.write(Path(args.out) / f"{example.key}.png", evaluation_image(example, config))
    print(f"{len(examples)} images of {config.image_size} px in {args.out}")


if __name__ == "__main__":
    run_script(main)
