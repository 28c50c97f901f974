"""How long a step takes on a GPU, and how much memory it needs: python bench/gpu.py --gpu 0

The steps are those of the shipped configs on made-up batches (bench/steps.py), in each form in turn and in growing
batches: the plain form (bench/baseline.py, TF32), ours in TF32, in bf16, and in bf16 compiled. One table in Markdown;
its seconds are medians, its memory is the peak of PyTorch's allocator. Ratios to the plain form, with the check that
both give the same numbers, are bench/run.py's (``--gpu 0``).
"""

from __future__ import annotations

import argparse
import contextlib
import gc
import io
import statistics
import time

import torch
from run import machine
from steps import Bench, Subjects

from clipgan.machine.device import choose_device

FORMS = {"plain": "plain, TF32", "ours": "ours, TF32", "bf16": "ours, bf16", "compiled": "ours, bf16, compiled"}
KINDS = {"gan": "GAN step, cfg/clip_bird_DMGAN.yml", "pretrain": "pretraining step, cfg/DAMSM/bird.yml"}


def measured(bench: Bench, kind: str, form: str, batch: int) -> str:
    """A row of the table."""
    what = f"| {KINDS[kind]} | {batch} | {FORMS[form]} |"
    gc.collect()
    torch._dynamo.reset()  # another batch is compiled as in a run of its own
    torch.cuda.empty_cache()
    torch.cuda.reset_peak_memory_stats()
    said = io.StringIO()
    try:
        step = Subjects(bench, kind, batch).step(form)
        bench.tf32(True)
        start = time.perf_counter()
        with contextlib.redirect_stdout(said):
            step()
        torch.cuda.synchronize()
        first = time.perf_counter() - start
        times = bench.race(step)[0]
    except torch.OutOfMemoryError:
        return f"{what} out of memory | | | |"
    if said.getvalue():
        print(said.getvalue())
    median = statistics.median(times)
    peak = torch.cuda.max_memory_allocated() / 2**20
    return f"{what} {1000 * median:.1f} ms | {batch / median:.0f} | {peak:.0f} MiB | {first:.1f} s |"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gpu", type=int, default=0)
    parser.add_argument("--kinds", default="gan,pretrain")
    parser.add_argument("--forms", default=",".join(FORMS), help=f"of {','.join(FORMS)}")
    parser.add_argument("--batches", default="10,32", help="of the GAN")
    parser.add_argument("--pretrain-batches", default="48", help="of pretraining")
    parser.add_argument("--cfg", default="cfg/clip_bird_DMGAN.yml", help="of the GAN, in this repository")
    parser.add_argument("--repeats", type=int, default=20)
    parser.add_argument("--small", action="store_true", help="tiny sizes, to try the machinery")
    flags = parser.parse_args()
    bench = Bench(flags, choose_device(flags.gpu))
    print("| step | batch | form | time | images/s | peak memory | first step |")
    print("|---|---|---|---|---|---|---|", flush=True)
    for kind in flags.kinds.split(","):
        for form in flags.forms.split(","):
            for batch in (flags.batches if kind == "gan" else flags.pretrain_batches).split(","):
                print(measured(bench, kind, form, int(batch)), flush=True)
    print(f"\n{machine(bench)}")


if __name__ == "__main__":
    main()
