"""What run.py and growth.py measure: the package's steps and the plain ones, on the same weights and batch.

The steps are those of the training loops, in their order and from their parts; what is left out (noise by the step's
number, loss curves, training states) costs next to nothing.
"""

from __future__ import annotations

import argparse
import contextlib
import copy
import functools
import gc
import sys
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from types import SimpleNamespace

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

import baseline
import numpy as np
import torch
from torch import Tensor
from torch.utils.flop_counter import FlopCounterMode

from clipgan.config import Config, load_config
from clipgan.flags import REPOSITORY
from clipgan.losses.adversarial import discriminator_loss
from clipgan.machine.compiling import compile_forward
from clipgan.machine.cpu_memory import keep_freed_memory
from clipgan.machine.device import prepare_training
from clipgan.machine.door import speed_up
from clipgan.machine.precision import Precision
from clipgan.networks.clip_encoder import ClipEncoder, build_encoder
from clipgan.runs.folder import RunFolder
from clipgan.training.damsm_loop import compare, encode, trained_weights
from clipgan.training.gan_loop import FrozenEncoder, generator_losses, wrong_pairs_of
from clipgan.training.gan_networks import GanNetworks
from clipgan.training.guard import Guard
from clipgan.training.trained_network import TrainedNetwork

DONE = "done"  # what a contestant says after each step
WORDS = (
    "a the this small large bird with and has is that red black yellow white brown grey blue orange wings head breast "
    "belly beak tail crown feathers throat eyes legs short long pointed striped spotted bright dark light"
)
TINY_ENCODER = str(REPOSITORY / "cfg/toy/encoder.json")
TINY_PRETRAINING = ["TREE.BASE_SIZE=24", "TEXT.EMBEDDING_DIM=128", f"TRAIN.CLIP_MODEL_BASE={TINY_ENCODER}"]
TINY = [*TINY_PRETRAINING, "TREE.BASE_SIZE=16", "GAN.GF_DIM=8", "GAN.DF_DIM=8", "GAN.CONDITION_DIM=16"]


@dataclass
class Bench:
    """The flags, the device, and what went wrong so far."""

    flags: argparse.Namespace
    device: torch.device
    failed: list[str] = field(default_factory=list)

    @property
    def cuda(self) -> bool:
        return self.device.type == "cuda"

    @property
    def fast(self) -> str:
        """What the fastest form of ours does beyond the float32 one."""
        return "bf16, channels-last, compiled" if self.cuda else "bf16"

    def config(self, file: str, tiny: Sequence[str]) -> Config:
        return load_config(REPOSITORY / file, tiny if self.flags.small else [])

    def size(self, full: int, small: int) -> int:
        return small if self.flags.small else full

    def check(self, what: str, difference: float, tolerance: float) -> str:
        """Note a failure unless ``difference`` is small enough (NaN is not); returns the table's cell."""
        same = difference <= tolerance
        print(f"{'equal' if same else 'NOT EQUAL'}: {what} differs by {difference:.1e} (allowed: {tolerance:.0e})")
        if not same:
            self.failed.append(what)
        return f"{difference:.0e} (≤ {tolerance:.0e})" if same else f"**{difference:.0e}, not ≤ {tolerance:.0e}**"

    def tf32(self, allowed: bool) -> None:
        """It differs by 1e-3 by itself: off where numbers are compared, on for both sides where they `race`."""
        torch.backends.cuda.matmul.allow_tf32 = torch.backends.cudnn.allow_tf32 = allowed

    def race(self, *contestants: Callable[[], object], warm: bool = False) -> list[list[float]]:
        """Seconds of every repetition of each contestant. They take turns, so that other load hits all of them."""
        self.tf32(True)
        times: list[list[float]] = [[] for _ in contestants]
        for repetition in range(self.flags.repeats + (not warm)):
            for run, own in zip(contestants, times, strict=True):
                start = time.perf_counter()
                run()
                if self.cuda:
                    torch.cuda.synchronize()
                if repetition or warm:
                    own.append(time.perf_counter() - start)
        return times

    def exit(self) -> None:
        """Exit status 1 if anything was not equal."""
        if self.failed:
            raise SystemExit(f"NOT EQUAL: {'; '.join(self.failed)}")


def loss_difference(plain: dict[str, Tensor], ours: dict[str, Tensor]) -> float:
    """Largest relative difference of two formulations' losses."""
    return float(np.max([abs(float(ours[name]) / float(value) - 1) for name, value in plain.items()]))


def gradient_differences(plain: list[list[Tensor]], ours: list[list[Tensor]]) -> tuple[float, float]:
    """Largest |a − b| / |b| of two formulations' gradients: of a network's as one vector, and of a single tensor's.

    Where a LeakyReLU's input is 0 but for rounding, its slope is a matter of chance: noise in the last digit of the
    generator's weights moves the plain gradient itself by 7e-4, single tensors of it by 7e-3. So steps are allowed 2e-3
    and 2e-2. A tensor counts as at least 1e-3 of the typical one of its network: some are 0 but for rounding.
    """
    whole = single = 0.0
    for of_plain, of_ours in zip(plain, ours, strict=True):
        norms = torch.stack([a.norm() for a in of_plain])
        distances = torch.stack([(a - b).norm() for a, b in zip(of_plain, of_ours, strict=True)])
        floor = 1e-3 * norms.square().mean().sqrt()
        # NaN must stay, which max() of Python would drop.
        whole = float(np.maximum(whole, float(distances.norm() / norms.norm())))
        single = float(np.maximum(single, float((distances / norms.maximum(floor)).max())))
    return whole, single


def made_up_captions(count: int, seed: int) -> list[str]:
    """As long as the birds' are: 8 to 18 words."""
    rng = np.random.default_rng(seed)
    return [" ".join(rng.choice(WORDS.split(), rng.integers(8, 19))) for _ in range(count)]


def _padded(rows: Tensor, length: int) -> Tensor:
    return torch.nn.functional.pad(rows, (0, length - rows.shape[1]))


def made_up_batch(encoder: ClipEncoder, sizes: Sequence[int], count: int, device: torch.device) -> SimpleNamespace:
    """What a step uses of a ``clipgan.data.dataset.Batch``; of three images or more, two are of one class."""
    generator = torch.Generator().manual_seed(0)
    images = [torch.rand(count, 3, size, size, generator=generator).to(device) * 2 - 1 for size in sizes]
    tokens = [encoder.tokenize(made_up_captions(count, seed)) for seed in (0, 1)]
    tokens = tuple(_padded(rows, max(one.shape[1] for one in tokens)).to(device) for rows in tokens)
    class_ids = torch.arange(count).to(device)
    class_ids[2:3] = 0
    caption_ids = torch.arange(2 * len(class_ids), device=class_ids.device).view(-1, 2)  # no two are equal
    return SimpleNamespace(images=images, tokens=tokens, class_ids=class_ids, caption_ids=caption_ids)


class GanStep(baseline.Step):
    """The package's step, in the order of ``clipgan.training.gan_loop``; ``networks`` are trained in place."""

    def __init__(
        self,
        config: Config,
        networks: GanNetworks,
        encoder: ClipEncoder,
        device: torch.device,
        precision: str = "fp32",
        compiled: bool = False,
    ):
        self.config, self.networks, self.device = copy.deepcopy(config), networks, device
        train = self.config.TRAIN
        train.COMPILE, train.GENERATOR_LR, train.DISCRIMINATOR_LR = compiled, 0.0, 0.0
        self.precision = Precision(precision, device)
        prepare_training(device)
        self.guard = Guard(device, RunFolder(Path()), "")
        prepared = networks.prepare(self.config, device, self.precision, self.guard)
        self.generator, self.discriminators, self.average = prepared
        self.frozen = FrozenEncoder(encoder.freeze(), self.config, self.precision)
        for network in (self.generator, *self.discriminators):
            self._record(network)

    def _record(self, network: TrainedNetwork) -> None:
        """Copy the gradients that the optimizer sees, where ``self.gradients`` is a list."""
        step = network.optimizer.step

        def recording(*arguments, **keywords):
            if self.gradients is not None:
                self.gradients.append([weight.grad.clone() for weight in network.network.parameters()])
            return step(*arguments, **keywords)

        network.optimizer.step = recording

    def __call__(self, batch) -> dict[str, Tensor]:
        gan, count = self.config.GAN, len(batch.class_ids)
        self.guard.begin(self.networks.generator)
        with torch.no_grad(), self.precision.autocast():
            text = self.frozen.encode_text(torch.cat(batch.tokens))
        noise = torch.randn(count, gan.Z_DIM, device=self.device).repeat(2, 1)
        condition_noise = torch.randn(count, gan.CONDITION_DIM, device=self.device).repeat(2, 1)
        with self.precision.autocast():
            out = self.generator(noise, condition_noise, text.sentence, text.words, text.word_mask)

        self.networks.discriminators.requires_grad_(True).train(self.power_iterations)
        wrong_sentences, *wrong_pairs = wrong_pairs_of(text.sentence, batch.caption_ids)
        loss_d = torch.zeros((), device=self.device)
        for i, discriminator in enumerate(self.discriminators):
            views = out.images[i].detach().chunk(2), text.sentence.chunk(2), wrong_sentences
            with self.precision.autocast():
                loss = discriminator_loss(discriminator, batch.images[i], *views, *wrong_pairs)
            discriminator.update(loss)
            loss_d += loss.detach()

        self.networks.discriminators.requires_grad_(False).eval()
        with self.precision.autocast():
            of_batch = text, batch.class_ids, self.config, batch.caption_ids
            losses = generator_losses(out, self.networks.discriminators, self.frozen, *of_batch)
        self.generator.update(losses["loss_g"])
        self.average.update(self.networks.generator, self.guard.end(step=1))
        return {"loss_d": loss_d, "loss_g": losses["loss_g"].detach()}


class PretrainStep(baseline.Step):
    """The package's step, in the order of ``clipgan.training.damsm_loop``; ``encoder`` is trained in place."""

    def __init__(
        self,
        config: Config,
        encoder: ClipEncoder,
        device: torch.device,
        precision: str = "fp32",
        compiled: bool = False,
    ):
        self.config, self.encoder = config, encoder.requires_grad_(True).train()
        self.precision = Precision(precision, device)
        backbone, projection = trained_weights(encoder)
        self.optimizer = torch.optim.Adam([*backbone, *projection], 0.0, (0.9, 0.98), fused=True)
        if compiled:
            compile_forward(encoder, varying=[(1, 1)])

    def __call__(self, batch) -> dict[str, Tensor]:
        with self.precision.autocast():
            features = encode(self.encoder, batch.images[-1], torch.stack(batch.tokens, dim=1))
            loss = compare(features, batch.class_ids, self.config, batch.caption_ids)["loss"]
        self.update(self.optimizer, loss, self.config.TRAIN.RNN_GRAD_CLIP)
        return {"loss": loss.detach()}


class Subjects:
    """Steps of one kind, ``gan`` or ``pretrain``, with the same weights, and a batch for them."""

    def __init__(self, bench: Bench, kind: str, batch: int):
        self.kind, self.device = kind, bench.device
        file, tiny = (bench.flags.cfg, TINY) if kind == "gan" else ("cfg/DAMSM/bird.yml", TINY_PRETRAINING)
        self.config = bench.config(file, tiny)
        torch.manual_seed(0)
        self.encoder = build_encoder(self.config.TRAIN.CLIP_MODEL_BASE, "", self.config.TEXT.WORDS_NUM).to(bench.device)
        if kind == "gan":
            self.networks = GanNetworks.build(self.config, self.encoder)
        self.batch = made_up_batch(self.encoder, self.config.image_sizes, batch, bench.device)

    def step(self, form: str) -> Callable[[], dict[str, Tensor]]:
        """A step on the batch, in one of five forms.

        ``plain``; ours in float32 (``ours``), in ``bf16``, in bf16 and ``compiled``, or ``fast``: see `Bench.fast`.
        """
        encoder, fast_on_cuda = copy.deepcopy(self.encoder), form == "fast" and self.device.type == "cuda"
        options = {"precision": "fp32" if form == "ours" else "bf16", "compiled": form == "compiled" or fast_on_cuda}
        if self.kind == "gan" and form == "plain":
            step = baseline.GanStep(
                self.config, self.networks.generator, self.networks.discriminators, encoder
            )
        elif self.kind == "gan":
            step = GanStep(self.config, copy.deepcopy(self.networks), encoder, self.device, **options)
        elif form == "plain":
            step = baseline.PretrainStep(self.config, encoder)
        else:
            step = PretrainStep(self.config, encoder, self.device, **options)
        return functools.partial(step, self.batch)


def numbers(run: functools.partial, count: bool = True) -> tuple[dict[str, Tensor], list[list[Tensor]], int]:
    """Losses, gradients and floating-point operations of a step of fixed noise, without power iterations."""
    step = run.func
    step.gradients, step.power_iterations = [], False
    torch.manual_seed(1)
    torch.backends.mha.set_fastpath_enabled(not count)  # what it fuses would not be counted
    counter = FlopCounterMode(display=False)
    with counter if count else contextlib.nullcontext():
        losses = run()
    torch.backends.mha.set_fastpath_enabled(True)
    gradients, step.gradients, step.power_iterations = step.gradients, None, True
    return losses, gradients, counter.get_total_flops() if count else 0


def alone(bench: Bench, kind: str, form: str) -> None:
    """Take a step for each line of standard input; then print what the steps needed beyond weights and inputs.

    Ours is set up as the scripts are; ``kept`` is the plain form, keeping what it frees as they do. The peak is the
    kernel's VmHWM, reset first: ``ru_maxrss`` also counts the process that started this one.
    """
    run = Subjects(bench, kind, bench.flags.batch).step("plain" if form == "kept" else form)
    if form not in ("plain", "kept"):
        speed_up(bench.device)
    bench.tf32(True)
    gc.collect()
    if bench.cuda:
        torch.cuda.reset_peak_memory_stats()
        before = torch.cuda.memory_allocated()
    else:
        Path("/proc/self/clear_refs").write_text("5")
        before = resident("VmRSS")
    for _ in sys.stdin:
        run()
        if bench.cuda:
            torch.cuda.synchronize()
        print(DONE, flush=True)
        if form != "plain":
            keep_freed_memory(bench.device)  # as the training loops do
    print((torch.cuda.max_memory_allocated() if bench.cuda else resident("VmHWM")) - before)


def resident(name: str) -> int:
    """Bytes of one of the sizes in /proc/self/status."""
    lines = Path("/proc/self/status").read_text().splitlines()
    return next(int(line.split()[1]) for line in lines if line.startswith(name)) * 1024
