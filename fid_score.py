"""Fréchet Inception Distance: python fid_score.py --data bird --dims 2048 --batch_size 32

Compares the images that a generator made for the test split (python main.py --cfg cfg/eval_clip_bird.yml makes them)
with the split's photographs, prepared as in training. With --path1 and --path2, compares any two folders of images or
.npz files of statistics; --path1 alone, with --data or --cfg, is compared with that config's test split.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "code"))


from clipgan.errors import UserError
from clipgan.evaluation.inception import FEATURE_DIMS
from clipgan.evaluation.sampling import sample_folder
from clipgan.evaluation.score_flags import (
    add_score_flags,
    generate_command,
    read_config,
    refuse_config_flags,
    save_report,
    settings_of,
)
from clipgan.evaluation.scores import fid_of_paths, fid_of_run
from clipgan.flags import run_script
from clipgan.machine.failures import explained


@explained
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_score_flags(parser)
    parser.add_argument("--path1", metavar="PATH", help="folder of images or .npz, instead of the generated images")
    parser.add_argument("--path2", metavar="PATH", help="folder of images or .npz, instead of the test split")
    parser.add_argument("--dims", type=int, default=2048, choices=FEATURE_DIMS, help="of the features (default 2048)")
    parser.add_argument("--recompute", action="store_true", help="compute the test split's cached statistics anew")
    args = parser.parse_args(argv)

    beside = None
    if args.path2:
        if not args.path1:
            raise UserError("--path2 goes with --path1: give both")
        refuse_config_flags(args, "--path2")
        report = fid_of_paths(args.path1, args.path2, settings_of(args), args.dims)
    else:
        if args.path1 and args.NET_G:
            raise UserError("--path1 stands for the images that --NET_G generated: give one of the two")
        config = read_config(args)
        settings, command = settings_of(args, config), generate_command(args, config)
        report = fid_of_run(config, args.path1, settings, args.dims, command, recompute=args.recompute)
        if not args.path1:
            beside = sample_folder(config.TRAIN.NET_G).parent / "fid.json"

    note = f" ({report['notice']})" if report["notice"] else ""
    print(f"FID {report['value']:.4f}{note}")
    for side in ("generated", "real"):
        print(f"  {side}: {report[side]['count'] or 'an unknown number of'} images, {report[side]['path']}")
    save_report(report, beside, args.output)


if __name__ == "__main__":
    run_script(main)
