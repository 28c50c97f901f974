"""The processes of ``torchrun``: who this one is, what all of them know together, and nothing to do for one alone.

    torchrun --nproc_per_node=8 main.py --cfg cfg/clip_coco_DMGAN.yml

Every process holds the same weights and an equal, contiguous share of each batch. A training step of N processes is
the step of one process on the whole batch:

- losses that compare the pairs of a batch see the features of all processes (:func:`gather`);
- batch norm takes its statistics from all of them (:func:`synchronise_batch_norm`);
- each process's loss is such that their *mean* is the loss of the whole batch, so that the mean of the processes'
  gradients (:func:`average_gradients`) is its gradient.

CPU tensors and objects travel by gloo, CUDA tensors by NCCL.
"""

from __future__ import annotations

import contextlib
import os
import sys
from collections.abc import Iterable, Iterator, Sequence
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

from clipgan.errors import UserError

T = TypeVar("T")

# Gradients are joined to tensors of about this many elements before they travel (100 MB in float32).
_BUCKET = 25_000_000


def rank() -> int:
    """This process's number among all, 0 when there is one."""
    return int(os.environ.get("RANK", 0))


def world_size() -> int:
    """How many processes there are on all machines."""
    return int(os.environ.get("WORLD_SIZE", 1))


def local_rank() -> int:
    """This process's number on its machine: which of the machine's GPUs it takes."""
    return int(os.environ.get("LOCAL_RANK", 0))


def is_main() -> bool:
    """Whether this is the process that prints, draws and writes."""
    return rank() == 0


def initialised() -> bool:
    """Whether the processes have met."""
    return dist.is_initialized()


def initialise(device: torch.device) -> None:
    """Meet the other processes, and fall silent but for rank 0; nothing where there is one process."""
    if world_size() == 1 or dist.is_initialized():
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo")
    if not is_main():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)


def shut_down() -> None:
    """Part from the other processes."""
    if dist.is_initialized():
        dist.destroy_process_group()


def barrier() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        any_process(False)


@contextlib.contextmanager
def main_first() -> Iterator[None]:
    """Rank 0 runs the block first, then the others: one process downloads or prepares what all of them read."""
    if not is_main():
        barrier()
    try:
        yield
    finally:
        if is_main():
            barrier()


def any_process(flag: bool) -> bool:
    """Whether any process says so; all of them learn the same answer."""
    if not dist.is_initialized():
        return flag
    flags = torch.tensor([int(flag)])
    dist.all_reduce(flags, dist.ReduceOp.MAX)
    return bool(flags.item())


def gather_objects(value: T) -> list[T]:
    """Every process's value, in the order of the ranks; tensors in it must be on the CPU."""
    if not dist.is_initialized():
        return [value]
    values: list[Any] = [None] * world_size()
    dist.all_gather_object(values, value)
    return values


def even_share(batch_size: int, processes: int) -> int:
    """How many examples of a batch each process has.

    Raises:
        UserError: the batch cannot be shared out evenly.
    """
    if batch_size % processes:
        raise UserError(f"TRAIN.BATCH_SIZE = {batch_size} cannot be shared out evenly among {processes} processes")
    return batch_size // processes


def share(items: Sequence[T]) -> Sequence[T]:
    """This process's part of some work: every ``world_size``-th item, beginning with its rank."""
    return items[rank() :: world_size()]


def join(results: list[T]) -> list[T]:
    """What all processes made of their :func:`share`, in the order of the items, known to each of them."""
    return interleave(gather_objects(results))


def interleave(parts: Sequence[list[T]]) -> list[T]:
    """The results of every process's :func:`share`, rank by rank → in the order of the items."""
    joined: list[Any] = [None] * sum(len(part) for part in parts)
    for start, part in enumerate(parts):
        joined[start :: len(parts)] = part
    return joined


class _Gather(torch.autograd.Function):
    @staticmethod
    def forward(ctx, x: Tensor) -> Tensor:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        ctx.size = len(x)
        return torch.cat(parts)

    @staticmethod
    def backward(ctx, gradient: Tensor) -> Tensor:
        gradient = gradient.contiguous().clone()
        dist.all_reduce(gradient)
        return gradient[rank() * ctx.size : (rank() + 1) * ctx.size]


def gather(x: Tensor) -> Tensor:
    """The tensors of all processes behind one another: [b, …] → [N b, …], the same shape in each.

    Gradients come back: a process's part gets the sum of what all processes' losses ask of it.
    """
    if not dist.is_initialized():
        return x
    return _Gather.apply(x)


def mean(x: Tensor) -> Tensor:
    """The mean of the processes' tensors of one shape, without a gradient."""
    if not dist.is_initialized():
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total / world_size()


def own_slice(whole: Tensor) -> Tensor:
    """This process's rows of a tensor that all of them hold."""
    size = len(whole) // world_size()
    return whole[rank() * size : (rank() + 1) * size]


@torch.no_grad()
def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over the processes. All processes must have the same gradients set."""
    if not dist.is_initialized():
        return
    bucket: list[Tensor] = []
    for gradient in [p.grad for p in parameters if p.grad is not None] + [None]:
        full = sum(g.numel() for g in bucket) > _BUCKET
        if bucket and (gradient is None or full or gradient.dtype != bucket[0].dtype):
            flat = torch.cat([g.reshape(-1) for g in bucket])
            dist.all_reduce(flat)
            flat /= world_size()
            for target, part in zip(bucket, flat.split([g.numel() for g in bucket]), strict=True):
                target.copy_(part.view_as(target))
            bucket = []
        if gradient is not None:
            bucket.append(gradient)


def synchronise_batch_norm(network: nn.Module) -> None:
    """Let the network's batch norms take their statistics from all processes (see ``networks.blocks.BatchNorm``)."""
    if not dist.is_initialized():
        return
    for module in network.modules():
        if hasattr(module, "average_over_processes"):
            module.average_over_processes, module.processes = mean, world_size()


@torch.no_grad()
def broadcast(network: nn.Module) -> None:
    """Give every process the weights of rank 0."""
    if dist.is_initialized():
        for tensor in network.state_dict().values():
            dist.broadcast(tensor, 0)
