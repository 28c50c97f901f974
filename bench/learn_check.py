"""Does it still learn? make learn-check

Draws the demo's data, fine-tunes its encoder for a short time, trains its GAN for about two minutes on two cores, and
scores the test split. Fails where a score leaves the band that five seeds gave when it was last measured
(``bench/learn_check.json``). The amount of work is fixed, not the time: a slower machine takes longer and finds the
same. ``--measure`` measures the band anew, after a change that is meant to move it.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
import tempfile
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from clipgan.errors import UserError
from clipgan.evaluation.comparing import read_scores
from clipgan.flags import REPOSITORY, run_command, run_script
from clipgan.runs.report import write_json

BAND = REPOSITORY / "bench/learn_check.json"
SEEDS = (1, 2, 3, 4, 5)
ENCODER_EPOCHS = 3
STEPS = 450
IMAGES = 400
SCORES = ("r_precision", "attributes", "fid")
# A band is wider than what five seeds showed: three of their standard deviations from their mean to each side.
DEVIATIONS = 3


def measure(work: Path, seed: int) -> dict[str, float]:
    """Train and score with one seed; returns the value of each of ``SCORES``."""
    data, output = work / "data", work / f"seed_{seed}"
    if not data.is_dir():
        run_command("tools/make_toy_data.py", "--out", data, "--layout", "birds")
    places = ["--gpu", "-1", "--manualSeed", seed, "--set", f"DATA_DIR={data}", f"OUTPUT_DIR={output}"]
    run_command("pretrain_DAMSM.py", "--cfg", "cfg/toy/DAMSM.yml", *places, f"TRAIN.MAX_EPOCH={ENCODER_EPOCHS}")
    places.append(f"TRAIN.CLIP_MODEL_CHECKPOINT={output / 'toy_DAMSM/Model/clip_best.pth'}")
    run_command("main.py", "--cfg", "cfg/toy/GAN.yml", *places, f"TRAIN.MAX_STEPS={STEPS}", "EVAL.INTERVAL=100000")
    (generator,) = (output / "toy_GAN/Model").glob("netG_epoch_*.pth")
    evaluate = ["--cfg", "cfg/toy/eval.yml", "--NET_G", generator, *places, "EVAL.JUDGE.CLIP_MODEL_CHECKPOINT="]
    run_command("main.py", *evaluate)
    run_command("tools/score.py", "--weights", "random", "--dims", 192, "--metrics", *SCORES, *evaluate)
    report = read_scores(generator.with_suffix("") / "valid/scores.json")
    return {score["metric"]: score["value"] for score in report["scores"]}


def band_of(runs: Sequence[dict[str, float]]) -> dict[str, list[float]]:
    """The least and the greatest value of each score that learning as in these runs would give."""
    band = {}
    for name in SCORES:
        values = [run[name] for run in runs]
        mean, reach = statistics.mean(values), DEVIATIONS * statistics.stdev(values)
        band[name] = [mean - reach, mean + reach]
    return band


def outside(scores: dict[str, float], band: dict[str, list[float]]) -> list[str]:
    """A line for each score that is not in its band."""
    return [
        f"{name} {scores[name]:.3f} is outside {low:.3f} to {high:.3f}, what five seeds gave"
        for name, (low, high) in band.items()
        if not low <= scores[name] <= high
    ]


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--measure", action="store_true", help="train with five seeds and write the band")
    args = parser.parse_args(argv)
    with tempfile.TemporaryDirectory() as folder:
        if args.measure:
            runs = [measure(Path(folder), seed) for seed in SEEDS]
            write_json(BAND, {"runs": runs, "band": band_of(runs)})
            return
        scores, band = measure(Path(folder), SEEDS[0] - 1), json.loads(BAND.read_text())["band"]
    print(" ".join(f"{name} {value:.3f}" for name, value in scores.items()))
    if wrong := outside(scores, band):
        raise UserError("it does not learn as it did: " + "; ".join(wrong))
    print("it learns as it did")


if __name__ == "__main__":
    run_script(main)
