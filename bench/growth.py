"""How the cost of a step grows, with the batch, the captions' length and the processes: python bench/growth.py

Prints tables in Markdown. The steps are those of bench/run.py, and the flags; the processes run the real training loop
under torchrun on a drawn data set, a thread each, the same batch shared among them.
"""

from __future__ import annotations

import contextlib
import json
import math
import os
import statistics
import subprocess
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

import baseline
import torch
from run import TABLE, flag_parser, machine, race_alone, set_up, words
from steps import TINY_ENCODER, Bench

from clipgan.config import Config, load_config
from clipgan.data.toy import draw_toy_dataset
from clipgan.flags import REPOSITORY
from clipgan.machine import distributed
from clipgan.machine.precision import Precision
from clipgan.networks.clip_encoder import ClipEncoder, TextFeatures, build_encoder
from clipgan.networks.discriminator import Discriminator
from clipgan.networks.generator import Generator
from clipgan.runs.snapshots import save_encoder
from clipgan.training.damsm_loop import Features, compare
from clipgan.training.gan_loop import guidance_losses, wrong_pairs_of

TOY, SKIPPED = "cfg/toy/GAN.yml", 20  # the first steps of a run are slower


def mebibytes(count: float) -> str:
    return f"{count / 2**20:.0f} MiB" if count >= 10 * 2**20 else f"{count / 2**20:.2f} MiB"


def with_the_batch(bench: Bench) -> None:
    """Time and peak memory of a step, each form in a process of its own."""
    print("\n| step | batch | plain | ours | plain, memory | ours, memory |\n|---|---|---|---|---|---|")
    for kind, batches in (("gan", (2, 4, 8)), ("pretrain", bench.size((12, 24, 48), (3, 6, 12)))):
        for batch in batches:
            times, peaks = race_alone(bench, kind, batch, ["plain", "ours"])
            cells = [f"{statistics.median(own):.2f} s" for own in times.values()] + [*map(mebibytes, peaks.values())]
            print(f"| {kind} | {batch} | {' | '.join(cells)} |", flush=True)


def with_the_caption(bench: Bench) -> None:
    rows = [row for length in (8, 16, 28) for row in words(bench, length)]
    print(f"\n{TABLE}", *rows, sep="\n")


def with_the_processes(bench: Bench) -> None:
    """The real loop. The sentence loss, which is the whole batch's in every process, must be the same but for rounding.

    The loop logs the other losses (adversarial, KL, the discriminators') of the first process's share only.
    """
    config = load_config(REPOSITORY / TOY)
    steps, batch = bench.size(60, 40), bench.size(config.TRAIN.BATCH_SIZE, 4)
    counts = [int(count) for count in bench.flags.processes.split(",")]
    with tempfile.TemporaryDirectory() as root:
        draw_toy_dataset(f"{root}/data", train=batch * steps, test=40)  # no epoch ends before the last step
        torch.manual_seed(0)
        save_encoder(f"{root}/encoder.pth", build_encoder(TINY_ENCODER, "", config.TEXT.WORDS_NUM))
        what = f"of {TOY} in {Precision(config.TRAIN.PRECISION, bench.device)}, batch {batch} in all, a thread each"
        loss = f"sentence loss, steps {SKIPPED + 1}–{steps}"
        print(f"\n| processes | a step {what} | speed-up | {loss} |\n|---|---|---|---|")
        first = None
        for count in counts:
            if bench.cuda and count > torch.cuda.device_count():
                print(f"| {count} | skipped: {torch.cuda.device_count()} GPU(s) | – | – |")
                continue
            lines = training_lines(bench, Path(root), count, steps, batch)
            time = (lines[-1]["seconds"] - lines[0]["seconds"]) / (lines[-1]["step"] - lines[0]["step"])
            first = first or time
            loss = sum(line["sentence"] for line in lines[1:]) / len(lines[1:])
            print(f"| {count} | {1000 * time:.0f} ms | {first / time:.2f}× | {loss:.4f} |", flush=True)


def training_lines(bench: Bench, root: Path, processes: int, steps: int, batch: int) -> list[dict]:
    """The lines of a run's ``metrics.jsonl``, of the steps from ``SKIPPED`` on."""
    output = root / f"output_{processes}"
    keys = {"OUTPUT_DIR": output, "TRAIN.CLIP_MODEL_BASE": TINY_ENCODER, "EVAL.MEASURE_IMAGES": 4,
            "TRAIN.CLIP_MODEL_CHECKPOINT": root / "encoder.pth", "TRAIN.MAX_STEPS": steps, "TRAIN.BATCH_SIZE": batch,
            "TRAIN.STATE_INTERVAL": 0}
    command = [sys.executable, "-m", "torch.distributed.run", "--standalone", f"--nproc_per_node={processes}"]
    command += ["main.py", "--cfg", TOY, "--gpu", str(bench.flags.gpu), "--data_dir", str(root / "data"), "--set"]
    command += [f"{key}={value}" for key, value in keys.items()]
    done = subprocess.run(command, cwd=REPOSITORY, env=os.environ | {"OMP_NUM_THREADS": "1"}, capture_output=True,
                          text=True)
    if done.returncode:
        raise SystemExit(f"{' '.join(command)}\nended with status {done.returncode}:\n{done.stderr[-3000:]}")
    path = next(output.glob("*/metrics.jsonl"))
    lines = [json.loads(line) for line in path.read_text().splitlines()]
    return [line for line in lines if line["kind"] == "train" and line["step"] >= SKIPPED]


def between_processes(bench: Bench) -> None:
    """What travels in a step of the shipped configs, of the whole batch, whatever the number of processes.

    Gradients are averaged by an all-reduce, for which a process of N sends 2 (N - 1) / N times as many bytes.
    """
    gan, pretraining = (load_config(REPOSITORY / file) for file in ("cfg/clip_bird_DMGAN.yml", "cfg/DAMSM/bird.yml"))
    with torch.device("meta"):  # sizes only
        base = pretraining.TRAIN.CLIP_MODEL_BASE
        encoder = build_encoder(base, "", pretraining.TEXT.WORDS_NUM)
        of = {"GAN: generator": Generator(**gan.generator_arguments(encoder.word_dim, encoder.sentence_dim))}
        for arguments in gan.discriminator_arguments(encoder.sentence_dim):
            of[f"GAN: discriminator of {arguments['image_size']} px"] = Discriminator(**arguments)
    of = {name: list(network.parameters()) for name, network in of.items()}
    of[f"pretraining: {base}"] = baseline.trained(encoder)
    print("\n| gradients in a step, float32 | numbers | bytes |\n|---|---|---|")
    for name, parameters in of.items():
        count = sum(parameter.numel() for parameter in parameters)
        print(f"| {name} | {count / 1e6:.1f} M | {mebibytes(4 * count)} |")

    print("\n| features gathered in a step | batch | bytes | their gradients |\n|---|---|---|---|")
    for name, config, run in (("GAN", gan, gan_exchange), ("pretraining", pretraining, pretraining_exchange)):
        with counted() as travelled:
            run(config, encoder)
        cells = " | ".join(mebibytes(travelled[key]) for key in ("features", "gradients"))
        print(f"| {name} | {config.TRAIN.BATCH_SIZE} | {cells} |")


def gan_exchange(config: Config, encoder: ClipEncoder) -> None:
    """What a GAN step compares over the batch, of random features."""
    batch, (regions, image, words, word_mask, sentence) = config.TRAIN.BATCH_SIZE, random_features(config, encoder, 2)
    stand_in = SimpleNamespace(encode_image=lambda _images: (regions, image))
    text = TextFeatures(words.detach(), word_mask, sentence.detach())
    wrong_pairs_of(text.sentence)
    guidance_losses(stand_in, None, text, torch.arange(batch), config)


def pretraining_exchange(config: Config, encoder: ClipEncoder) -> None:
    """What a pretraining step compares over the batch, of random features."""
    regions, image, *text = random_features(config, encoder)
    views = (torch.stack([part, part], dim=1) for part in text)
    compare(Features(regions, image, *views), torch.arange(config.TRAIN.BATCH_SIZE), config)


def random_features(config: Config, encoder: ClipEncoder, views: int = 1) -> list[torch.Tensor]:
    """regions [n, D, R], image [n, E], words [n, D, W], word_mask [n, W], sentence [n, E] of n = views · batch."""
    n, length = views * config.TRAIN.BATCH_SIZE, config.TEXT.WORDS_NUM
    shapes = [(encoder.word_dim, math.prod(encoder.region_grid)), (encoder.sentence_dim,),
              (encoder.word_dim, length), (encoder.sentence_dim,)]
    regions, image, words, sentence = (torch.randn(n, *shape, requires_grad=True) for shape in shapes)
    return [regions, image, words, torch.ones(n, length, dtype=torch.bool), sentence]


@contextlib.contextmanager
def counted() -> Iterator[dict[str, int]]:
    """Count the bytes of what `distributed.gather` is asked for, and of what gets a gradient by the same way back."""
    travelled, gather = {"features": 0, "gradients": 0}, distributed.gather

    def counting(x: torch.Tensor) -> torch.Tensor:
        travelled["features"] += x.nbytes
        travelled["gradients"] += x.nbytes if x.requires_grad else 0
        return gather(x)

    distributed.gather = counting
    try:
        yield travelled
    finally:
        distributed.gather = gather


ITEMS = {"batch": with_the_batch, "caption": with_the_caption, "processes": with_the_processes,
         "traffic": between_processes}


def main() -> None:
    parser = flag_parser(__doc__, ITEMS)
    parser.add_argument("--processes", default="1,2", help="numbers of processes")
    bench, items = set_up(parser, ITEMS)
    print(machine(bench))
    for item in items.values():
        item(bench)
    bench.exit()


if __name__ == "__main__":
    main()
