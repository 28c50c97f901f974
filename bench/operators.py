"""How many operators PyTorch starts in a training step, in the form that a GPU runs: python bench/operators.py

At small batches a GPU waits for Python to start them. They are counted on a CPU, with the fast forms for CPUs turned
off, at the shipped configs but for the networks' widths, which do not change the number. Views are not counted.
"""

from __future__ import annotations

import argparse
import contextlib
import functools
import sys
from collections import Counter
from collections.abc import Callable, Iterator
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

import torch
from steps import GanStep, PretrainStep, made_up_batch
from torch.utils._python_dispatch import TorchDispatchMode

from clipgan.config import load_config
from clipgan.flags import REPOSITORY
from clipgan.machine import precision as precision_module
from clipgan.machine.door import plain_forms
from clipgan.networks.clip_encoder import build_encoder
from clipgan.training.gan_networks import GanNetworks

CPU = torch.device("cpu")


class OperatorCounter(TorchDispatchMode):
    """Counts the operators that make or change numbers: all but views and questions about a tensor."""

    def __init__(self) -> None:
        super().__init__()
        self.counts: Counter[str] = Counter()

    def __torch_dispatch__(self, function, types, arguments=(), keywords=None):
        returns = function._schema.returns
        only_views = bool(returns) and all(r.alias_info is not None and not r.alias_info.is_write for r in returns)
        if not only_views and function.namespace == "aten" and not str(function).startswith("aten.detach"):
            self.counts[function.overloadpacket.__name__] += 1
        return function(*arguments, **(keywords or {}))


def gan_step(precision: str) -> Callable[[], object]:
    config = load_config(REPOSITORY / "cfg/clip_bird_DMGAN.yml", ["GAN.GF_DIM=4", "GAN.DF_DIM=2"])
    encoder = build_encoder(config.TRAIN.CLIP_MODEL_BASE, "", config.TEXT.WORDS_NUM)
    batch = made_up_batch(encoder, config.image_sizes, config.TRAIN.BATCH_SIZE, CPU)
    return functools.partial(GanStep(config, GanNetworks.build(config, encoder), encoder, CPU, precision), batch)


def pretrain_step(precision: str) -> Callable[[], object]:
    config = load_config(REPOSITORY / "cfg/DAMSM/bird.yml", ["TRAIN.BATCH_SIZE=4"])
    encoder = build_encoder(config.TRAIN.CLIP_MODEL_BASE, "", config.TEXT.WORDS_NUM)
    batch = made_up_batch(encoder, config.image_sizes, config.TRAIN.BATCH_SIZE, CPU)
    return functools.partial(PretrainStep(config, encoder, CPU, precision), batch)


@contextlib.contextmanager
def any_processor() -> Iterator[None]:
    """Let bf16 be counted on processors that would emulate it."""
    before, precision_module.has_bf16 = precision_module.has_bf16, lambda device: True
    try:
        yield
    finally:
        precision_module.has_bf16 = before


def count(make_step: Callable[[str], Callable[[], object]], precision: str) -> Counter[str]:
    with any_processor(), plain_forms():
        step = make_step(precision)
        step()  # the optimizers' states are made
        with OperatorCounter() as counter:
            step()
    return counter.counts


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--most", type=int, default=0, help="also list the most frequent operators")
    flags = parser.parse_args()
    print(f"torch {torch.__version__}\n\n| step | fp32 | bf16 |\n|---|---|---|")
    for name, make_step in (("GAN step, cfg/clip_bird_DMGAN.yml", gan_step),
                            ("pretraining step, cfg/DAMSM/bird.yml", pretrain_step)):
        counts = [count(make_step, precision) for precision in ("fp32", "bf16")]
        print(f"| {name} | {' | '.join(str(counter.total()) for counter in counts)} |")
        for counter in counts if flags.most else ():
            print(f"    {', '.join(f'{operator} {number}' for operator, number in counter.most_common(flags.most))}")


if __name__ == "__main__":
    main()
