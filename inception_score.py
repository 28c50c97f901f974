"""Inception Score: python inception_score.py --data bird

Scores the images that a generator made for the test split (python main.py --cfg cfg/eval_clip_bird.yml makes them), or
with --path those of any folder.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "code"))


from clipgan.config import Config
from clipgan.evaluation.image_files import require_images
from clipgan.evaluation.score_flags import (
    add_score_flags,
    generate_command,
    read_config,
    refuse_config_flags,
    save_report,
    settings_of,
)
from clipgan.evaluation.scores import generated_images, inception_score_of_files
from clipgan.flags import run_script, whole_number
from clipgan.machine.failures import explained


@explained
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_score_flags(parser)
    parser.add_argument("--path", metavar="FOLDER", help="folder of images, instead of the generated ones")
    splits = whole_number("--splits", 1, 10**6)
    parser.add_argument("--splits", type=splits, default=10, metavar="N", help="parts, each scored (default 10)")
    args = parser.parse_args(argv)

    beside = None
    if args.path:
        refuse_config_flags(args, "--path")
        seed = Config().SEED if args.manualSeed is None else args.manualSeed
        folder, files, settings = Path(args.path), require_images(args.path), settings_of(args)
        report = inception_score_of_files(folder, files, settings, args.splits, seed)
    else:
        config = read_config(args)
        folder, files = generated_images(config, generate_command(args, config))
        settings = settings_of(args, config)
        report = inception_score_of_files(folder, files, settings, args.splits, config.SEED, config.image_size)
        report["generator"] = config.TRAIN.NET_G
        beside = folder.parent / "inception_score.json"

    note = f" ({report['notice']})" if report["notice"] else ""
    print(f"Inception Score {report['mean']:.4f} ± {report['std']:.4f} over {report['splits']} splits{note}")
    print(f"  {report['images']['count']} images, {report['images']['path']}")
    save_report(report, beside, args.output)


if __name__ == "__main__":
    run_script(main)
