"""A long run that is disturbed all the time must end as the run that nobody disturbed: python bench/soak.py

20 000 steps of a tiny config, twice. The first run is left alone. The second is killed, stopped, loses the process that
reads its images, finds its disk full, an image broken, its newest state cut in half; each time it is started again with
``--resume auto``. Every end must be the one that was provoked: a kill, or exit status 2 with one line and no traceback.
At the end all weights must be equal bit for bit, and all numbers of the log.
"""

from __future__ import annotations

import argparse
import json
import os
import random
import resource
import shutil
import signal
import subprocess
import sys
import tempfile
import time
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

import torch

from clipgan.config import Config, save_config
from clipgan.data.toy import draw_toy_dataset
from clipgan.networks.clip_encoder import build_encoder
from clipgan.runs.folder import RunFolder
from clipgan.runs.snapshots import save_encoder

ROOT = Path(__file__).resolve().parents[1]

CLIP = {
    "embed_dim": 24,
    "quick_gelu": False,
    "vision_cfg": {"image_size": 32, "layers": 1, "width": 32, "head_width": 16, "patch_size": 8},
    "text_cfg": {"context_length": 77, "vocab_size": 49408, "width": 16, "heads": 2, "layers": 1},
}
DISTURBANCES = ("killed", "stopped", "worker killed", "disk full", "image broken", "state cut", "killed at once")


def prepare(folder: Path, steps: int) -> Path:
    """Draw the data, make an encoder, and write the config; returns its path."""
    draw_toy_dataset(folder / "data", "birds", train=24, test=12, size=32, seed=3)
    (folder / "clip.json").write_text(json.dumps(CLIP))
    torch.manual_seed(0)
    save_encoder(folder / "encoder.pth", build_encoder(str(folder / "clip.json"), "", 28))
    config = Config(DATA_DIR=str(folder / "data"), WORKERS=1, GPU_ID=-1)
    train = config.TRAIN
    train.BATCH_SIZE, train.MAX_STEPS, train.MAX_EPOCH, train.SNAPSHOT_INTERVAL = 6, steps, steps, max(1, steps // 16)
    train.STATE_INTERVAL = 1 / 30  # two seconds
    train.CLIP_MODEL_BASE, train.CLIP_PRETRAINED = str(folder / "clip.json"), ""
    train.CLIP_MODEL_CHECKPOINT, config.TEXT.EMBEDDING_DIM = str(folder / "encoder.pth"), 16
    config.TREE.BASE_SIZE, config.TREE.BRANCH_NUM = 8, 2
    config.GAN.GF_DIM, config.GAN.DF_DIM, config.GAN.CONDITION_DIM = 4, 2, 6
    save_config(config, folder / "gan.yml")
    return folder / "gan.yml"


def start(config: Path, output: Path, log: Path, file_limit: int | None = None, *keys: str) -> subprocess.Popen:
    command = [sys.executable, str(ROOT / "main.py"), "--cfg", str(config), "--resume", "auto"]
    limit = (lambda: resource.setrlimit(resource.RLIMIT_FSIZE, (file_limit,) * 2)) if file_limit else None
    with open(log, "wb") as file:
        return subprocess.Popen(
            [*command, "--set", f"OUTPUT_DIR={output}", *keys], stdout=file, stderr=subprocess.STDOUT, preexec_fn=limit,
            start_new_session=True, env=os.environ | {"OMP_NUM_THREADS": "1"},
        )  # fmt: skip


def children(process: subprocess.Popen) -> list[int]:
    """The processes that a process has started."""
    found = []
    for task in Path(f"/proc/{process.pid}/task").glob("*/children"):
        found += map(int, task.read_text().split())
    return found


def last_step(run: RunFolder) -> int:
    return int(run.state_files[-1].stem.rpartition("_")[2]) if run.state_files else 0


def wait(process: subprocess.Popen, run: RunFolder, target: int) -> None:
    """Until the process has ended, or has saved a state of step ``target``; at most ten minutes."""
    began = time.monotonic()
    while process.poll() is None and last_step(run) < target and time.monotonic() - began < 600:
        time.sleep(0.2)


def disturb(kind: str, config: Path, folder: Path, log: Path, rng: random.Random, target: int) -> str:
    """Start the run, provoke one end when it has come to a step, and check it; returns what it said last."""
    output = folder / "disturbed"
    run = RunFolder(output / "birds_run")
    image = rng.choice(sorted((folder / "data" / "CUB_200_2011" / "images").rglob("*train*.jpg")))
    whole = image.read_bytes()
    if kind == "image broken":
        image.write_bytes(whole[: len(whole) // 2])
    if kind == "state cut" and run.state_files:
        content = run.state_files[-1].read_bytes()
        run.state_files[-1].write_bytes(content[: len(content) // 2])
    process = start(config, output, log, 50_000 if kind == "disk full" else None)
    if kind == "killed at once":
        time.sleep(rng.uniform(0.5, 8))
    else:
        wait(process, run, target)
        time.sleep(rng.uniform(0, 1))  # anywhere within a step, or while the next state is written
    if process.poll() is None:
        if kind in ("killed", "killed at once", "state cut"):
            os.killpg(process.pid, signal.SIGKILL)
        elif kind == "stopped":
            process.terminate()
        elif kind == "worker killed":
            for child in children(process):
                os.kill(child, signal.SIGKILL)
        process.wait(timeout=120)
    if kind == "image broken":
        image.write_bytes(whole)
    said = log.read_text(errors="replace").replace("\r", "\n").strip().splitlines()
    text, code = "\n".join(said), process.returncode
    if "Traceback" in text:
        raise SystemExit(f"{kind}: a traceback:\n{text[-3000:]}")
    if code == 0 and "the last generator is" in text:
        return "finished"
    wanted = {"killed": -9, "killed at once": -9, "state cut": -9, "stopped": 0}.get(kind, 2)
    if code != wanted:
        raise SystemExit(f"{kind}: exit status {code}, not {wanted}:\n{text[-3000:]}")
    errors = [line for line in said if line.startswith("error: ")]
    if code == 2 and (len(errors) != 1 or len(errors[0]) > 500):
        raise SystemExit(f"{kind}: not one line of an error:\n{text[-3000:]}")
    return errors[0] if errors else f"exit status {code}"


def same(one: Path, two: Path) -> int:
    """Compare two runs; returns how many tensors were compared."""
    names = {path.name for path in (one / "Model").iterdir()}
    if names != {path.name for path in (two / "Model").iterdir()}:
        raise SystemExit("the two runs left other snapshots")
    count = 0
    for name in names:
        a, b = (torch.load(run / "Model" / name, weights_only=True)["weights"] for run in (one, two))
        for key in a:
            count += 1
            if not torch.equal(a[key], b[key]):
                raise SystemExit(f"{name} differs in {key}")
    lines = [
        [{**json.loads(line), "seconds": 0} for line in (run / "metrics.jsonl").read_text().splitlines()]
        for run in (one, two)
    ]
    if lines[0] != lines[1]:
        raise SystemExit("the numbers of the log differ")
    return count


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=20_000, metavar="N", help="of each run (default %(default)s)")
    parser.add_argument("--seed", type=int, default=0, metavar="N", help="of the disturbances (default %(default)s)")
    parser.add_argument("--disturbances", type=int, default=28, metavar="N", help="how many (default %(default)s)")
    args = parser.parse_args()
    rng, began = random.Random(args.seed), time.monotonic()
    with tempfile.TemporaryDirectory() as name:
        folder = Path(name)
        config = prepare(folder, args.steps)
        shutil.copytree(folder / "data", folder / "whole")  # the images of the other run get broken
        clean = start(config, folder / "clean", folder / "clean.log", None, f"DATA_DIR={folder / 'whole'}")
        kinds = [DISTURBANCES[number % len(DISTURBANCES)] for number in range(args.disturbances)]
        rng.shuffle(kinds)
        run = RunFolder(folder / "disturbed" / "birds_run")
        for number, kind in enumerate(kinds, start=1):
            target = args.steps * number // (len(kinds) + 1)
            said = disturb(kind, config, folder, folder / "disturbed.log", rng, target)
            print(f"{time.monotonic() - began:6.0f} s  {number:3}  {kind:15} state of step {last_step(run):6}  {said}")
            sys.stdout.flush()
            if said == "finished":
                raise SystemExit("finished before all disturbances: ask for more --steps")
        process = start(config, folder / "disturbed", folder / "disturbed.log")
        if process.wait() or clean.wait():
            raise SystemExit("".join((folder / f"{run}.log").read_text()[-3000:] for run in ("disturbed", "clean")))
        count = same(folder / "clean" / "birds_run", folder / "disturbed" / "birds_run")
        print(f"{time.monotonic() - began:6.0f} s  {args.steps} steps, {len(kinds)} disturbances: "
              f"{count} tensors equal bit for bit, and all numbers of the log")


if __name__ == "__main__":
    main()
