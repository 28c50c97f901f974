"""The whole method on drawn data, on a CPU: draw, pretrain, train, generate, score. ``make demo`` calls it.

Every step is a command that you can type yourself; each is printed before it runs.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
import time
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
NET_G = Path("output/toy_GAN/Model/netG_best.pth")
UNTRAINED = Path("output/toy_untrained/Model/netG_epoch_0.pth")


def run(name: str, *arguments: str) -> None:
    """Print and run one of the project's commands; stop the demo where it fails."""
    print(f"\n$ python {name} {' '.join(arguments)}", flush=True)
    finished = subprocess.run([sys.executable, str(ROOT / name), *arguments], cwd=ROOT, check=False)
    if finished.returncode:
        raise SystemExit(finished.returncode)


def score(net_g: Path, name: str) -> dict:
    return json.loads((ROOT / net_g.with_suffix("") / "valid" / f"{name}.json").read_text())


def main() -> None:
    argparse.ArgumentParser(description=__doc__).parse_args()
    started = time.monotonic()

    def headline(text: str) -> None:
        print(f"\n=== {text} ({time.monotonic() - started:.0f} s since the start)", flush=True)

    headline("1. Draw birds whose captions name their colours")
    run("tools/make_toy_data.py", "--out", "data/toy", "--layout", "birds")
    headline("2. Fine-tune the encoder with DAMSM and contrastive losses, and an independent judge")
    run("pretrain_DAMSM.py", "--cfg", "cfg/toy/DAMSM.yml", "--gpu", "-1")
    run("pretrain_DAMSM.py", "--cfg", "cfg/toy/judge.yml", "--gpu", "-1")
    headline("3. Train the GAN on the encoder's text features")
    run("main.py", "--cfg", "cfg/toy/GAN.yml", "--gpu", "-1")
    headline("4. Generate the test split's captions, colour combinations that training never saw")
    run("main.py", "--cfg", "cfg/toy/eval.yml", "--gpu", "-1")
    run("main.py", "--cfg", "cfg/toy/eval.yml", "--gpu", "-1", "--set", "B_VALIDATION=False")
    headline("5. Score them, and an untrained generator beside them")
    run("main.py", "--cfg", "cfg/toy/GAN.yml", "--gpu", "-1", "--set", "TRAIN.MAX_EPOCH=0", "CONFIG_NAME=untrained")
    run("main.py", "--cfg", "cfg/toy/eval.yml", "--gpu", "-1", "--NET_G", str(UNTRAINED))
    for net_g in (UNTRAINED, NET_G):
        flags = ("--data", "toy", "--gpu", "-1", "--weights", "random", "--NET_G", str(net_g))
        run("fid_score.py", *flags)
        run("inception_score.py", *flags)
    headline("6. The result")
    print_table()
    folder = NET_G.with_suffix("")
    print(f"\npictures: output/toy_GAN/Image/grid_epoch_*.png, {folder}/text/example_captions/grid.png")
    print(f"scores:   {folder}/valid/*.json")
    print(f"time:     {(time.monotonic() - started) / 60:.1f} minutes")


def print_table() -> None:
    """What chance or the untrained generator, the trained one, and the real images score."""
    ours, untrained = score(NET_G, "r_precision"), score(UNTRAINED, "r_precision")
    rows = []
    for index, name in enumerate(("the training encoder", "an independent judge")):
        judge, before = ours["judges"][index], untrained["judges"][index]
        rows.append(
            (f"R-precision, {name}", judge["chance"], before["generated"]["mean"], judge["generated"]["mean"],
             judge["real"]["mean"])
        )
    attributes = ours["attributes"]
    rows.append(
        ("attributes in their places (oracle)", attributes["chance"], untrained["attributes"]["generated"]["mean"],
         attributes["generated"]["mean"], attributes["real"]["mean"])
    )
    fid = [score(net_g, "fid") for net_g in (UNTRAINED, NET_G)]
    rows.append(("FID, random features *", None, fid[0]["value"], fid[1]["value"], None))
    inception = [score(net_g, "inception_score") for net_g in (UNTRAINED, NET_G)]
    rows.append(("Inception Score, random features *", None, inception[0]["mean"], inception[1]["mean"], None))
    columns = ("chance", "untrained", "ours", "real images")
    print(f"{'':36}" + "".join(f"{name:>13}" for name in columns))
    for name, *values in rows:
        print(f"{name:36}" + "".join(f"{'–' if value is None else f'{value:.3f}':>13}" for value in values))
    print("* no pretrained Inception network is used here: these compare with each other only")


if __name__ == "__main__":
    main()
