"""The processes of ``torchrun``: who this one is, what all of them know together, and nothing to do for one alone.

    torchrun --nproc_per_node=8 main.py --cfg cfg/clip_coco_DMGAN.yml

Every process holds the same weights and an equal, contiguous share of each batch. A training step of N processes is
the step of one process on the whole batch:

- losses that compare the pairs of a batch see the features of all processes (:func:`gather`);
- batch norm takes its statistics from all of them (:func:`synchronise_batch_norm`);
- each process's loss is such that their *mean* is the loss of the whole batch, so that the mean of the processes'
  gradients (:func:`data_parallel`) is its gradient.

CPU tensors and objects travel by gloo, CUDA tensors by NCCL.
"""

from __future__ import annotations

import contextlib
import os
import platform
import sys
from collections.abc import Iterator, Sequence
from datetime import timedelta
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn
from torch.distributed.nn.functional import all_gather, all_reduce
from torch.nn.parallel import DistributedDataParallel

from clipgan.errors import UserError

T = TypeVar("T")

# How long processes wait for one another. In `main_first` one of them downloads weights while the others wait.
_PATIENCE = timedelta(minutes=30)
_PATIENCE_WITH_DOWNLOADS = timedelta(days=7)

_waiting_group: Any = None


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
    """Connect to the other processes, and fall silent but for rank 0; nothing where there is one process.

    Raises:
        UserError: two processes compute on the same GPU.
    """
    global _waiting_group
    if world_size() == 1 or dist.is_initialized():
        return
    dist.init_process_group("cpu:gloo,cuda:nccl" if device.type == "cuda" else "gloo", timeout=_PATIENCE)
    _waiting_group = dist.new_group(backend="gloo", timeout=_PATIENCE_WITH_DOWNLOADS)
    if device.type == "cuda":
        _refuse_shared_gpus(gather_objects((platform.node(), str(torch.cuda.get_device_properties(device).uuid))))
    if not is_main():
        sys.stdout = open(os.devnull, "w", encoding="utf-8")  # noqa: SIM115 (until the process ends)


def _refuse_shared_gpus(gpus: list[tuple[str, str]]) -> None:
    """Take the machine and the GPU of each process."""
    if len(set(gpus)) < len(gpus):
        raise UserError(
            f"{len(gpus)} processes, but only {len(set(gpus))} GPUs for them: start as many processes as GPUs "
            "(torchrun --nproc_per_node), or give each its own by CUDA_VISIBLE_DEVICES"
        )


def shut_down() -> None:
    """Disconnect from the other processes, at the end of a script."""
    global _waiting_group
    if dist.is_initialized():
        dist.destroy_process_group()
        _waiting_group = None


def barrier() -> None:
    """Wait until all processes are here."""
    if dist.is_initialized():
        dist.barrier(_waiting_group)


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
    return any_process_for_each(flag)[0]


def any_process_for_each(*flags: bool) -> list[bool]:
    """`any_process` for several questions at once."""
    if not dist.is_initialized():
        return list(flags)
    answers = torch.tensor(flags, dtype=torch.uint8)
    dist.all_reduce(answers, dist.ReduceOp.MAX)
    return [bool(answer) for answer in answers.tolist()]


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


def gather(x: Tensor) -> Tensor:
    """The tensors of all processes behind one another: [b, …] → [N b, …], the same shape in each.

    Gradients come back: a process's part gets the sum of what all processes' losses ask of it.
    """
    if not dist.is_initialized():
        return x
    if not x.requires_grad:
        parts = [torch.empty_like(x) for _ in range(world_size())]
        dist.all_gather(parts, x.contiguous())
        return torch.cat(parts)
    # As one row: PyTorch's backward pass of `all_gather` mixes up the numbers of gradients that are not contiguous.
    return torch.cat(all_gather(x.flatten())).view(-1, *x.shape[1:])


def mean(x: Tensor) -> Tensor:
    """The mean of the processes' tensors of one shape, without a gradient."""
    if not dist.is_initialized():
        return x
    total = x.clone()
    dist.all_reduce(total)
    return total / world_size()


def highest(flag: Tensor) -> Tensor:
    """The highest of the processes' numbers, without a gradient; on a GPU it is not waited for."""
    if not dist.is_initialized():
        return flag
    flag = flag.clone()
    dist.all_reduce(flag, dist.ReduceOp.MAX)
    return flag


def own_slice(whole: Tensor) -> Tensor:
    """This process's rows of a tensor that all of them hold."""
    size = len(whole) // world_size()
    return whole[rank() * size : (rank() + 1) * size]


def data_parallel(network: nn.Module) -> nn.Module:
    """The network to call in training: gradients become the mean over the processes while the backward pass runs.

    All processes start with the weights of rank 0. One process gets the network itself.
    """
    if not dist.is_initialized():
        return network
    # Buffers need not travel at each step: statistics are those of all processes, singular vectors follow the weights.
    return DistributedDataParallel(network, broadcast_buffers=False, gradient_as_bucket_view=True)


@contextlib.contextmanager
def gradients_averaged(network: nn.Module, wanted: bool) -> Iterator[None]:
    """Around a forward and backward pass of :func:`data_parallel`'s network: not ``wanted``, gradients only add up."""
    wait = isinstance(network, DistributedDataParallel) and not wanted
    with network.no_sync() if wait else contextlib.nullcontext():
        yield


def synchronise_batch_norm(network: nn.Module) -> nn.Module:
    """Let the network's batch norms take their statistics from all processes; parameters and names stay."""
    if not dist.is_initialized():
        return network
    if next(network.parameters()).device.type == "cuda":
        return nn.SyncBatchNorm.convert_sync_batchnorm(network)
    for module in list(network.modules()):
        for name, child in module.named_children():
            if isinstance(child, nn.BatchNorm1d | nn.BatchNorm2d):
                setattr(module, name, GlooBatchNorm(child))
    return network


class GlooBatchNorm(nn.modules.batchnorm._BatchNorm):
    """``nn.SyncBatchNorm`` for CPUs, which PyTorch has for CUDA only: batch norm over equal shares of a batch."""

    def __init__(self, norm: nn.Module) -> None:
        super().__init__(norm.num_features, norm.eps, norm.momentum)
        self._parameters, self._buffers = norm._parameters, norm._buffers
        self.train(norm.training)

    def _check_input_dim(self, x: Tensor) -> None:
        pass  # any number of dimensions

    def forward(self, x: Tensor) -> Tensor:
        """Raises ValueError in training mode for a batch with a single value for each channel."""
        if not self.training:
            return super().forward(x)
        count = world_size() * x.numel() // x.shape[1]
        if count == 1:
            raise ValueError(f"Expected more than 1 value per channel when training, got input size {list(x.shape)}")
        others = [dimension for dimension in range(x.ndim) if dimension != 1]
        variance, mean = torch.var_mean(x.float(), others, correction=0)
        variance, mean = variance.double(), mean.double()  # the squares of large means would drown small variances
        mean, square = all_reduce(torch.stack([mean, variance + mean.square()])) / world_size()  # [C] each
        variance = (square - mean.square()).clamp_min(0)
        with torch.no_grad():
            self.num_batches_tracked += 1
            self.running_mean.lerp_(mean.to(self.running_mean), self.momentum)
            self.running_var.lerp_((variance * (count / (count - 1))).to(self.running_var), self.momentum)
        scale = self.weight * torch.rsqrt(variance + self.eps).float()
        shape = (1, -1, *[1] * (x.ndim - 2))
        centred = x.float() - mean.float().view(shape)
        return (centred * scale.view(shape) + self.bias.view(shape)).to(x.dtype)


@torch.no_grad()
def average_running_statistics(network: nn.Module) -> None:
    """Give all processes the mean of their batch norms' running statistics, where those are not synchronised."""
    statistics = [
        statistic
        for module in network.modules()
        if isinstance(module, nn.BatchNorm1d | nn.BatchNorm2d)
        for statistic in (module.running_mean, module.running_var)
    ]
    if not dist.is_initialized() or not statistics:
        return
    means = mean(torch.cat(statistics)).split([len(statistic) for statistic in statistics])
    torch._foreach_copy_(statistics, list(means))
