"""The whole method on drawn data, on a CPU: draw, pretrain, train, generate, score. ``make demo`` calls it.

Every step is a command that you can type yourself; each is printed before it runs.
"""

from __future__ import annotations

import argparse
import json
import os
import shutil
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from clipgan.data.toy import OF_CLASS
from clipgan.errors import Stopped, UserError
from clipgan.evaluation.comparing import read_scores
from clipgan.evaluation.metrics.registry import cards
from clipgan.evaluation.score_table import aligned, between, plain
from clipgan.flags import REPOSITORY as ROOT
from clipgan.flags import run_command, run_script
from clipgan.machine.failures import explained

NET_G = Path("output/toy_GAN/Model/netG_best.pth")
UNTRAINED = Path("output/toy_untrained/Model/netG_epoch_0.pth")
FID_DIMS = "192"  # 400 images give no full covariance of 2048 features
# All but the search for duplicates among 3000 training images, which takes a minute, and the Inception Score, whose
# network takes three minutes for all images on two cores: it scores every fourth image of each kind.
METRICS = [key for key in cards() if key not in ("duplicates", "inception_score")]
INCEPTION, INCEPTION_KINDS = Path("output/toy_inception"), ("untrained", "ours", "real")


def run(name: str, *arguments: str) -> None:
    """One of the project's commands; the demo ends where it fails or is stopped."""
    try:
        run_command(name, *arguments)
    except Stopped as stopped:
        print(f"\n{stopped}; make demo begins anew")
        raise SystemExit(130) from None


@explained
def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    os.chdir(ROOT)
    started = time.monotonic()

    def headline(text: str) -> None:
        print(f"\n=== {text} ({time.monotonic() - started:.0f} s since the start)", flush=True)

    headline("1. Draw birds whose captions name their colours")
    drawn = ROOT / "data/toy/attributes.json"
    if drawn.is_file():
        if json.loads(drawn.read_text(encoding="utf-8")).get("class") != list(OF_CLASS):
            raise UserError("data/toy was drawn by another version of this program: remove it, and it is drawn anew")
        print("data/toy is there already")
    else:
        run("tools/make_toy_data.py", "--out", "data/toy", "--layout", "birds")
    headline("2. Fine-tune the encoder with DAMSM and contrastive losses, and an independent judge")
    run("pretrain_DAMSM.py", "--cfg", "cfg/toy/DAMSM.yml", "--gpu", "-1")
    run("pretrain_DAMSM.py", "--cfg", "cfg/toy/judge.yml", "--gpu", "-1")
    headline("3. Train the GAN on the encoder's text features")
    run("main.py", "--cfg", "cfg/toy/GAN.yml", "--gpu", "-1")
    headline("4. Generate the test split's captions, colour combinations that training never saw")
    run("main.py", "--cfg", "cfg/toy/eval.yml", "--gpu", "-1")
    run("main.py", "--cfg", "cfg/toy/eval.yml", "--gpu", "-1", "--set", "B_VALIDATION=False")
    headline("5. Score them, and beside them an untrained generator's and real images")
    run("main.py", "--cfg", "cfg/toy/GAN.yml", "--gpu", "-1", "--set", "TRAIN.MAX_EPOCH=0", "CONFIG_NAME=untrained")
    run("main.py", "--cfg", "cfg/toy/eval.yml", "--gpu", "-1", "--NET_G", str(UNTRAINED))
    for net_g in (UNTRAINED, NET_G):
        run("tools/score.py", "--cfg", "cfg/toy/eval.yml", "--gpu", "-1", "--weights", "random", "--dims", FID_DIMS,
            "--metrics", *METRICS, "--NET_G", str(net_g))  # fmt: skip
    test = Path("data/toy/CUB_200_2011/images")
    score_inception("untrained", UNTRAINED.with_suffix("") / "valid/single", "*.png")
    score_inception("ours", NET_G.with_suffix("") / "valid/single", "*.png")
    score_inception("real", test, "Toy_Bird_test_*.jpg")
    headline("6. The result")
    print_table()
    folder = NET_G.with_suffix("")
    print(f"\npictures: output/toy_GAN/Image/, output/toy_DAMSM/Image/, {folder}/example_captions/")
    print("curves:   output/toy_GAN/curves.png, output/toy_DAMSM/curves.png")
    print(f"scores:   {folder}/valid/*.json")
    print(f"time:     {(time.monotonic() - started) / 60:.1f} minutes")


def score_inception(kind: str, images: Path, pattern: str) -> None:
    """The Inception Score of every fourth of the images."""
    few = INCEPTION / kind
    shutil.rmtree(few, ignore_errors=True)
    few.mkdir(parents=True)
    for path in sorted(images.rglob(pattern), key=lambda path: path.name)[::4]:
        shutil.copy(path, few)
    run("inception_score.py", "--gpu", "-1", "--weights", "random", "--splits", "1", "--path", str(few),
        "--output", f"{few}.json")  # fmt: skip


def print_table() -> None:
    """What chance, the untrained generator, the trained one and the real images score on the test split."""
    ours, untrained = scores(NET_G), scores(UNTRAINED)
    lines = [json.loads(line) for line in (ROOT / "output/toy_DAMSM/metrics.jsonl").read_text().splitlines()]
    retrieval = max((line for line in lines if line["kind"] == "eval"), key=lambda line: line["r1"])
    chance = 1 / retrieval["candidates"]
    table = [("score", "chance", "untrained", "ours", "95 % interval", "real images", "better")]
    encoder = (plain(chance), "–", "–", "–", plain(retrieval["r1"]), "higher")
    table.append(("retrieval R@1 of 100, the encoder", *encoder))
    for (metric, judge), score in ours.items():
        name = score["name"] + {0: ", the training encoder", 1: ", independent judge"}.get(judge, "")
        values = [plain(score["chance"]), plain(untrained[metric, judge]["value"]), plain(score["value"])]
        name += " *" if score["notice"] else ""
        table.append((name, *values, between(score["interval"]), plain(score["real"]), score["better"]))
    of = {kind: plain(json.loads((ROOT / INCEPTION / f"{kind}.json").read_text())["mean"]) for kind in INCEPTION_KINDS}
    table.append(("Inception Score of 100 images *", "1", of["untrained"], of["ours"], "–", of["real"], "higher"))
    print(aligned(table))
    print("* by a random network: these compare within this table only. The real images beside distances are training")
    print("  images, whose colour combinations the test split does not have; the others are those of the test split.")
    print("What each score means and fails to see: python tools/score.py --list")


def scores(net_g: Path) -> dict[tuple[str, int | None], dict]:
    """The scores of a generator's images by name and judge."""
    report = read_scores(ROOT / net_g.with_suffix("") / "valid" / "scores.json")
    return {(score["metric"], score["judge"]): score for score in report["scores"]}


if __name__ == "__main__":
    run_script(main)
