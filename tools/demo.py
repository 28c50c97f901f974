"""The whole method on drawn data, on a CPU: draw, pretrain, train, generate, score. ``make demo`` calls it.

Every step is a command that you can type yourself; each is printed before it runs.
"""

from __future__ import annotations

import argparse
import importlib.util
import json
import os
import sys
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from clipgan.data.toy import OF_CLASS
from clipgan.errors import Stopped, UserError
from clipgan.flags import REPOSITORY as ROOT
from clipgan.flags import run_script
from clipgan.machine.failures import explained

NET_G = Path("output/toy_GAN/Model/netG_best.pth")
UNTRAINED = Path("output/toy_untrained/Model/netG_epoch_0.pth")
REAL = Path("output/toy_real")
FID_DIMS = "192"  # 400 images give no full covariance of 2048 features


def run(name: str, *arguments: str) -> None:
    """Print and run one of the project's commands; the demo ends where it fails or is stopped.

    In this process, as starting Python and PyTorch anew for each of them takes a minute in all.
    """
    print(f"\n$ python {name} {' '.join(arguments)}", flush=True)
    spec = importlib.util.spec_from_file_location(Path(name).stem, ROOT / name)
    script = importlib.util.module_from_spec(spec)
    spec.loader.exec_module(script)
    try:
        script.main(list(arguments))
    except Stopped as stopped:
        print(f"\n{stopped}; make demo begins anew")
        raise SystemExit(130) from None


def score(net_g: Path, name: str) -> dict:
    return json.loads((ROOT / net_g.with_suffix("") / "valid" / f"{name}.json").read_text())


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
    headline("5. Score them, and beside them an untrained generator and real images")
    run("main.py", "--cfg", "cfg/toy/GAN.yml", "--gpu", "-1", "--set", "TRAIN.MAX_EPOCH=0", "CONFIG_NAME=untrained")
    run("main.py", "--cfg", "cfg/toy/eval.yml", "--gpu", "-1", "--NET_G", str(UNTRAINED))
    for split in ("train", "test"):
        run("tools/export_images.py", "--cfg", "cfg/toy/eval.yml", "--split", split, "--count", "400", "--out",
            str(REAL / split))  # fmt: skip
    random, toy = ("--gpu", "-1", "--weights", "random"), ("--data", "toy")
    for net_g in (UNTRAINED, NET_G):
        run("fid_score.py", *toy, *random, "--dims", FID_DIMS, "--NET_G", str(net_g))
        run("inception_score.py", *toy, *random, "--NET_G", str(net_g))
    fid, inception = str(REAL / "fid.json"), str(REAL / "inception_score.json")
    run("fid_score.py", *toy, *random, "--dims", FID_DIMS, "--path1", str(REAL / "train"), "--output", fid)
    run("inception_score.py", *random, "--path", str(REAL / "test"), "--output", inception)
    headline("6. The result")
    print_table()
    folder = NET_G.with_suffix("")
    print(f"\npictures: output/toy_GAN/Image/, output/toy_DAMSM/Image/, {folder}/example_captions/")
    print("curves:   output/toy_GAN/curves.png, output/toy_DAMSM/curves.png")
    print(f"scores:   {folder}/valid/*.json")
    print(f"time:     {(time.monotonic() - started) / 60:.1f} minutes")


def print_table() -> None:
    """What chance, the untrained generator, the trained one and the real images score on the test split."""
    ours, untrained = score(NET_G, "r_precision"), score(UNTRAINED, "r_precision")
    rows: list[tuple[str, float | None, float | None, float | None, float | None]] = []
    lines = [json.loads(line) for line in (ROOT / "output/toy_DAMSM/metrics.jsonl").read_text().splitlines()]
    retrieval = max((line for line in lines if line["kind"] == "eval"), key=lambda line: line["r1"])
    rows.append(("retrieval R@1 of 100, the encoder", 1 / retrieval["candidates"], None, None, retrieval["r1"]))
    for index, name in enumerate(("the training encoder", "an independent judge")):
        judge, before = ours["judges"][index], untrained["judges"][index]
        values = (judge["chance"], before["generated"]["mean"], judge["generated"]["mean"], judge["real"]["mean"])
        rows.append((f"R-precision, {name}", *values))
    now, before = ours["attributes"], untrained["attributes"]
    for key, name in (("mean", "attributes in their places (oracle)"), ("found", "birds found (oracle)")):
        chance = now["chance"] if key == "mean" else None
        rows.append((name, chance, before["generated"][key], now["generated"][key], now["real"][key]))
    for name, key, title in (("fid", "value", "FID"), ("inception_score", "mean", "Inception Score")):
        real = json.loads((ROOT / REAL / f"{name}.json").read_text())[key]
        rows.append((f"{title}, random network *", None, score(UNTRAINED, name)[key], score(NET_G, name)[key], real))
    print(f"{'':37}" + "".join(f"{name:>13}" for name in ("chance", "untrained", "ours", "real images")))
    for name, *values in rows:
        print(f"{name:37}" + "".join(f"{'–' if value is None else f'{value:.3f}':>13}" for value in values))
    print("* these compare within this table only: no pretrained Inception network is used. The real images of the FID")
    print("  are of the training split, the others of the test split, whose colour combinations training never saw.")


if __name__ == "__main__":
    run_script(main)
