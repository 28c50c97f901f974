"""What the package saves against the plain form of the same arithmetic (bench/baseline.py): python bench/run.py

Every item is measured in this one run, plain and ours in turn, and is a ratio of the two medians; before that, both
must give the same numbers. Steps are taken in processes of their own, ours set up as the scripts set up theirs. Prints
a table in Markdown; exit status 1 when the two differ. Weights are random and the inputs made up, so nothing is needed
but the requirements (and ``--data_dir`` for the loader); the bird config's steps need 20 GB.

``--small`` tries the machinery in a minute; its ratios mean nothing. What is measured stands in bench/steps.py; how it
grows with the batch, the captions and the processes, bench/growth.py says.
"""

from __future__ import annotations

import argparse
import contextlib
import datetime
import functools
import gc
import io
import os
import platform
import statistics
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Iterable
from dataclasses import dataclass
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

import baseline
import numpy as np
import torch
from steps import (
    DONE,
    TINY,
    TINY_ENCODER,
    Bench,
    Subjects,
    alone,
    gradient_differences,
    loss_difference,
    made_up_captions,
    numbers,
)
from torch import Tensor

from clipgan.data.dataset import EpochBatchSampler, make_loader
from clipgan.data.examples import Example
from clipgan.data.from_config import read_split, training_set
from clipgan.evaluation.encoding import encode_captions
from clipgan.evaluation.metrics.frechet import Statistics, frechet_distance
from clipgan.evaluation.metrics.r_precision import retrieval_hits
from clipgan.losses import damsm
from clipgan.machine.cpu_products import fast_products
from clipgan.machine.device import choose_device
from clipgan.machine.precision import Precision, has_bf16
from clipgan.networks.clip_encoder import build_encoder

TABLE = "| what | plain | ours | ratio | equal to | target |\n|---|---|---|---|---|---|"
KEPT = "the plain form keeping freed memory"


@dataclass
class Row:
    """A line of the table; ``plain`` and ``ours`` are shown, ``ratio`` is how much better ours is."""

    what: str
    plain: str
    ours: str
    ratio: float | None = None
    equal: str = "–"
    target: str = "–"

    def __str__(self) -> str:
        ratio = "–" if self.ratio is None else f"{self.ratio:.2f}×"
        return f"| {self.what} | {self.plain} | {self.ours} | {ratio} | {self.equal} | {self.target} |"


def seconds(times: list[float]) -> str:
    both = (statistics.median(times), min(times))
    median, best = (f"{value:.2f} s" if value > 1 else f"{1000 * value:.1f} ms" for value in both)
    return f"{median} (best {best})"


def faster(plain: list[float], ours: list[float]) -> float:
    return statistics.median(plain) / statistics.median(ours)


class Contestant:
    """A step in a process of its own, as in a run: what memory another form left behind is not there to be taken."""

    def __init__(self, bench: Bench, kind: str, form: str, batch: int):
        flags = bench.flags
        command = [sys.executable, __file__, "--alone", kind, form, "--batch", str(batch), "--cfg", flags.cfg]
        command += ["--gpu", str(flags.gpu), "--threads", str(torch.get_num_threads())]
        command += ["--small"] if flags.small else []
        self._what = f"{kind} {form}"
        self._process = subprocess.Popen(command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, text=True)

    def __call__(self) -> None:
        """Take a step."""
        with contextlib.suppress(BrokenPipeError):  # of a process that has ended: then nothing comes back
            print(file=self._process.stdin, flush=True)
        for line in self._process.stdout:
            if line.strip() == DONE:
                return
        raise SystemExit(f"{self._what} ended with status {self._process.wait()}: too little memory?")

    def end(self) -> int:
        """End the process; returns the bytes that its steps needed."""
        return int(self._process.communicate()[0].splitlines()[-1])


def compare_steps(bench: Bench, kind: str, batch: int, what: str) -> list[Row]:
    """A step of ours against the plain one; for the GAN also in low precision, and the share of the machine's peak."""
    names = {"plain": "the plain form", "ours": "ours in fp32"}
    if not has_bf16(bench.device):
        print(f"{what}: not measured in bf16, which this {bench.device.type} emulates")
    elif kind == "gan" or bench.cuda:
        names["fast"] = f"ours in {bench.fast}"
    flops, equal = same_numbers(bench, kind, batch, what, list(names))
    times, peaks = race_alone(bench, kind, batch, list(names))
    rows = [Row(f"{what}: {name}", seconds(times["plain"]), seconds(times[form]), faster(times["plain"], times[form]),
                equal[form]) for form, name in names.items() if form != "plain"]
    if not bench.cuda:  # a race of its own: all forms at once would need more memory
        again, peaks_again = race_alone(bench, kind, batch, ["kept", "ours"])
        peaks["kept"] = peaks_again["kept"]
        rows.append(Row(f"{what}: ours in fp32, against {KEPT}, too", seconds(again["kept"]), seconds(again["ours"]),
                        faster(again["kept"], again["ours"])))
    if kind == "gan":
        rows += arithmetic(bench, flops, times)
    pairs = [("plain", form) for form in names if form != "plain"] + [("kept", "ours")] * ("kept" in peaks)
    for plain, form in pairs:
        against = f", against {KEPT}, too" if plain == "kept" else ""
        rows.append(Row(f"its peak memory: {names[form]}{against}", f"{peaks[plain] / 2**20:.0f} MiB",
                        f"{peaks[form] / 2**20:.0f} MiB = {peaks[form] / peaks[plain]:.2f} of it"))
    return rows


def race_alone(
    bench: Bench, kind: str, batch: int, forms: list[str]
) -> tuple[dict[str, list[float]], dict[str, int]]:
    """Seconds of each form's steps and the bytes that they need, each form in a process of its own."""
    contestants = {form: Contestant(bench, kind, form, batch) for form in forms}
    times = dict(zip(forms, bench.race(*contestants.values()), strict=True))
    return times, {form: contestant.end() for form, contestant in contestants.items()}


def same_numbers(
    bench: Bench, kind: str, batch: int, what: str, forms: list[str]
) -> tuple[dict[str, int], dict[str, str]]:
    """Floating-point operations of the plain form and ours, and how near each form's numbers are to the plain one's."""
    subjects, flops = Subjects(bench, kind, batch), {}
    bench.tf32(False)
    losses, gradients, flops["plain"] = numbers(subjects.step("plain"))
    with fast_products(bench.device):  # as the scripts do
        our_losses, our_gradients, flops["ours"] = numbers(subjects.step("ours"))
        fast_losses = numbers(subjects.step("fast"), count=False)[0] if "fast" in forms else {}
    whole, single = gradient_differences(gradients, our_gradients)
    cells = [f"losses {bench.check(f'{what}: losses', loss_difference(losses, our_losses), 1e-4)}",
             f"gradients {bench.check(f'{what}: gradients', whole, 2e-3)}",
             f"of one tensor {bench.check(f'{what}: gradients of one tensor', single, 2e-2)}"]
    equal = {"ours": ", ".join(cells)}
    if "fast" in forms:
        lossy = loss_difference(losses, fast_losses)
        equal["fast"] = f"losses {bench.check(f'{what}: losses in {bench.fast}', lossy, 0.05)}"
    return flops, equal


def arithmetic(bench: Bench, flops: dict[str, int], times: dict[str, list[float]]) -> list[Row]:
    """How much there is of it, and how fast it is against a large product of matrices."""
    plain, ours = flops["plain"], flops["ours"]
    rows = [Row("its arithmetic", f"{plain / 1e9:.1f} GFLOP", f"{ours / 1e9:.1f} GFLOP", plain / ours)]
    rates = {form: (plain if form == "plain" else ours) / statistics.median(own) for form, own in times.items()}
    side = bench.size(4096, 512)
    for form, dtype in (("ours", torch.float32), ("fast", torch.bfloat16)):
        if form in rates:
            peak = matmul_rate(bench, side, dtype)
            cells = [f"{rates[one] / 1e9:.1f} GFLOP/s = {rates[one] / peak:.0%}" for one in ("plain", form)]
            what = f"its speed as a share of a {side}³ {str(dtype)[6:]} product's {peak / 1e9:.0f} GFLOP/s"
            rows.append(Row(what, cells[0] if form == "ours" else "–", cells[1]))
    return rows


def matmul_rate(bench: Bench, side: int, dtype: torch.dtype) -> float:
    """FLOP/s of the best of several products of square matrices, by PyTorch's choice of library and by ours."""
    a, b = (torch.randn(side, side, device=bench.device).to(dtype) for _ in range(2))
    times = bench.race(lambda: a @ b)[0]
    with fast_products(bench.device) as faster:
        times += bench.race(lambda: a @ b)[0] if faster else []
    return 2 * side**3 / min(times)


def gan(bench: Bench) -> list[Row]:
    return compare_steps(bench, "gan", bench.flags.batch, f"GAN step, batch {bench.flags.batch}")


def pretrain(bench: Bench) -> list[Row]:
    return compare_steps(bench, "pretrain", bench.flags.pretrain_batch,
                         f"pretraining step, batch {bench.flags.pretrain_batch}")


def words(bench: Bench, length: int = 28) -> list[Row]:
    batch, dim, regions = bench.size(48, 8), bench.size(512, 64), bench.size(49, 16)
    generator = torch.Generator().manual_seed(0)
    inputs = [torch.randn(batch, dim, n, generator=generator) for n in (length, regions)]
    inputs = [tensor.to(bench.device).requires_grad_() for tensor in inputs]
    lengths = torch.randint(min(8, length), length + 1, (batch, 1), generator=generator)
    mask = (torch.arange(length) < lengths).to(bench.device)
    class_ids = (torch.arange(batch) - 1).clamp(min=0).to(bench.device)

    def run(loss: Callable) -> list[Tensor]:
        value = loss(inputs[0], mask, inputs[1], class_ids, 4.0, 5.0, 10.0)
        value = sum(value) if isinstance(value, tuple) else value
        return [value.detach(), *torch.autograd.grad(value, inputs)]

    bench.tf32(False)
    what = f"word loss and its gradient, batch {batch}, {length} words"
    plain, ours = (functools.partial(run, module.words_loss) for module in (baseline, damsm))
    ours = fast_products(bench.device)(ours)  # as the scripts do
    equal = bench.check(what, max(gradient_differences([plain()], [ours()])), 1e-3)
    times = bench.race(plain, ours)
    return [Row(what, *map(seconds, times), faster(*times), equal, "≥ 9×" if length == 28 else "–")]


def retrieval(bench: Bench) -> list[Row]:
    """The images' features are their captions' with noise, so that about half of them hit."""
    base = TINY_ENCODER if bench.flags.small else "ViT-B-32"
    torch.manual_seed(0)
    encoder = build_encoder(base, "", 28).freeze().to(bench.device)
    images, captions_num, measured, queries_num = bench.size(268, 60), bench.size(10, 4), bench.size(6, 20), 1000
    texts = made_up_captions(images * captions_num, 0)
    groups = [tuple(texts[i * captions_num : (i + 1) * captions_num]) for i in range(images)]
    examples = [Example(Path(), str(i), group, i % 5, None) for i, group in enumerate(groups)]
    own = torch.randint(len(texts), (queries_num,))

    start = time.perf_counter()
    with fast_products(bench.device):  # as the scripts do
        captions = encode_captions(encoder, examples, bench.device)
    encoding = time.perf_counter() - start
    chosen = captions.sentences[own]
    # Against 99 others the noise that lets half of the images hit grows with the root of the dimensions.
    queries = chosen + 0.28 * chosen.shape[1] ** 0.5 * chosen.std(dim=0) * torch.randn(chosen.shape)
    start = time.perf_counter()
    hits, candidates = retrieval_hits(queries, captions.sentences, own, captions.classes[own], captions.classes)
    ours = encoding + time.perf_counter() - start

    classes, on_device, start = captions.classes.tolist(), queries.to(bench.device), time.perf_counter()
    plain_hits = [
        baseline.retrieval_hit(encoder, on_device[i], i, texts, classes, int(own[i]), candidates=candidates)
        for i in range(measured)
    ]
    plain = (time.perf_counter() - start) / measured * queries_num
    different = sum(a != b for a, b in zip(plain_hits, hits[:measured].tolist(), strict=True))
    found = f"{sum(plain_hits)} of {measured} images hit"
    print(f"R-precision: {found}; of all {queries_num}, {int(hits.sum())}")
    what = f"R-precision of {queries_num} images, {len(texts)} captions"
    equal = bench.check(f"{what}: hits", different, 0)
    return [Row(what, f"{plain:.1f} s (from {measured} images)", f"{ours:.2f} s (once)", plain / ours,
                f"hits: {equal}; {found}")]


def fid(bench: Bench) -> list[Row]:
    dims, rng = bench.size(2048, 128), np.random.default_rng(0)
    a, b = (
        Statistics(features.mean(axis=0), np.cov(features, rowvar=False))
        for features in (rng.standard_normal((2 * dims, dims)) @ rng.standard_normal((dims, dims)) / dims**0.5
                         for _ in range(2))
    )
    what = f"Fréchet distance, {dims} dimensions"
    distances = baseline.frechet_distance(a, b), frechet_distance(a, b)
    equal = bench.check(what, abs(distances[1] / distances[0] - 1), 1e-6)
    times = bench.race(lambda: baseline.frechet_distance(a, b), lambda: frechet_distance(a, b), warm=True)
    return [Row(what, *map(seconds, times), faster(*times), equal, "≥ 5×")]


def loader(bench: Bench) -> list[Row]:
    """The cache is made before the clock starts, and two batches are taken first, while the worker starts."""
    if not (bench.flags.data_dir and Path(bench.flags.data_dir).is_dir()):
        print("loader: skipped, as --data_dir names no folder")
        return []
    config = bench.config(bench.flags.cfg, TINY)
    config.DATA_DIR, config.WORKERS = bench.flags.data_dir, bench.flags.workers
    config.TRAIN.BATCH_SIZE = batch_size = 16
    tokenize = build_encoder(TINY_ENCODER, "", config.TEXT.WORDS_NUM).tokenize
    examples = read_split(config, "train")[: bench.size(16 * 16, 16 * 5)]
    with tempfile.TemporaryDirectory() as folder:
        config.OUTPUT_DIR = folder
        loaders = []
        for cached in (False, True):
            config.DATA.CACHE = cached
            dataset = training_set(config, examples, config.image_sizes, tokenize)
            sampler = EpochBatchSampler(len(examples), batch_size, config.SEED)
            loaders.append(make_loader(dataset, sampler, config.WORKERS, bench.device))
        plain, ours = (next(iter(one)) for one in loaders)
        pairs = zip([*plain.images, *plain.tokens], [*ours.images, *ours.tokens], strict=True)
        what = f"images/s of the loader, {config.WORKERS} worker(s), {config.image_size} px"
        equal = bench.check(f"{what}: a batch", max(float((a - b).abs().max()) for a, b in pairs), 0)

        def rate(one: Iterable) -> float:
            batches = iter(one)
            for _ in range(2):
                next(batches)
            start = time.perf_counter()
            count = sum(len(batch.class_ids) for batch in batches)
            return count / (time.perf_counter() - start)

        rates = [[rate(one) for one in loaders] for _ in range(bench.flags.repeats)]
        plain, ours = (statistics.median(side) for side in zip(*rates, strict=True))
    return [Row(what, f"{plain:.0f}/s", f"{ours:.0f}/s with DATA.CACHE", ours / plain, f"batch: {equal}")]


def compiled(bench: Bench) -> list[Row]:
    """TRAIN.COMPILE alone: ours compiled against ours. The first step, which compiles all it needs, is not timed."""
    batch = bench.flags.batch
    what = f"GAN step, batch {batch}, ours in {Precision('bf16', bench.device)}: as it is, and compiled"
    subjects = Subjects(bench, "gan", batch)
    steps = [subjects.step(form) for form in ("bf16", "compiled")]
    losses, first, said = [], [], io.StringIO()
    bench.tf32(True)  # as in the race: a change of it, even on a CPU, would compile everything anew
    for step in steps:
        torch.manual_seed(1)
        start = time.perf_counter()
        with contextlib.redirect_stdout(said):
            losses.append(step())
        first.append(time.perf_counter() - start)
    print(f"{said.getvalue()}compile: the first step takes {first[1]:.1f} s compiled, {first[0]:.2f} s as it is")
    if "uncompiled" in said.getvalue():
        print("compile: skipped, as not everything compiles here")
        return []
    equal = bench.check(f"{what}: losses", loss_difference(*losses), 0.05)
    times = bench.race(*steps)
    return [Row(what, *map(seconds, times), faster(*times), f"losses {equal}")]


ITEMS = {"gan": gan, "pretrain": pretrain, "words": words, "r_precision": retrieval, "fid": fid, "loader": loader}
ON_REQUEST = {"compile": compiled}  # takes minutes on a CPU


def machine(bench: Bench) -> str:
    """One line: what this was measured on, and when."""
    info = Path("/proc/cpuinfo")
    models = [line.split(":")[1].strip() for line in info.read_text().splitlines() if line.startswith("model name")] \
        if info.is_file() else []
    processor = torch.cuda.get_device_name(bench.device) if bench.cuda else models[0] if models else platform.machine()
    return (f"{processor}, {os.cpu_count()} cores, {torch.get_num_threads()} threads, torch {torch.__version__}, "
            f"{datetime.date.today()}, {bench.flags.repeats} repeats")


def flag_parser(description: str, items: Iterable[str], on_request: Iterable[str] = ()) -> argparse.ArgumentParser:
    """The flags that bench/growth.py has, too."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    also = f"; on request also {', '.join(on_request)}" if on_request else ""
    parser.add_argument("--items", default=",".join(items), help=f"of {','.join(items)}{also}")
    parser.add_argument("--cfg", default="cfg/clip_bird_DMGAN.yml", help="config of the GAN step, in this repository")
    parser.add_argument("--repeats", type=int, default=3, help="timed repetitions of each form")
    parser.add_argument("--threads", type=int, help="of PyTorch; those of NumPy and SciPy follow OMP_NUM_THREADS")
    parser.add_argument("--gpu", type=int, default=-1, help="CUDA device (default: the CPU)")
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the machinery")
    return parser


def set_up(parser: argparse.ArgumentParser, items: dict[str, Callable]) -> tuple[Bench, dict[str, Callable]]:
    """What the flags ask for: the bench, and the items, in the order of ``--items``."""
    flags = parser.parse_args()
    names = flags.items.split(",")
    unknown = set(names) - set(items)
    if unknown:
        parser.error(f"unknown items {', '.join(sorted(unknown))}; there are {', '.join(items)}")
    if flags.threads:
        torch.set_num_threads(flags.threads)
    return Bench(flags, choose_device(flags.gpu)), {name: items[name] for name in names}


def main() -> None:
    parser = flag_parser(__doc__, ITEMS, ON_REQUEST)
    parser.add_argument("--batch", type=int, default=4, help="images of a GAN step (default: 4)")
    parser.add_argument("--pretrain-batch", type=int, help="images of a pretraining step (default: 48)")
    parser.add_argument("--data_dir", help="birds, for the loader")
    parser.add_argument("--workers", type=int, default=1, help="of the loader")
    parser.add_argument("--alone", nargs=2, help=argparse.SUPPRESS)
    bench, items = set_up(parser, ITEMS | ON_REQUEST)
    flags = bench.flags
    flags.pretrain_batch = flags.pretrain_batch or bench.size(48, 8)
    if flags.alone:
        alone(bench, *flags.alone)
        return
    rows = []
    for name, item in items.items():
        print(f"{name} …", flush=True)
        rows += item(bench)
        gc.collect()
    print(f"\n{machine(bench)}\n\n{TABLE}", *rows, sep="\n")
    bench.exit()


if __name__ == "__main__":
    main()
