"""What each process of ``torchrun`` does in the tests of patience, of gradients and of batch norm that is its own.

Called with a file, to which rank 0 writes what came of it.
"""

from __future__ import annotations

import sys
import time
from datetime import timedelta
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))

import torch
from torch import nn

from clipgan.machine import distributed
from clipgan.training.ema import EMA

CPU = torch.device("cpu")


def waited_for_a_download() -> list[float]:
    """How long each process was in a block that rank 0 leaves later than processes usually wait for one another."""
    start = time.monotonic()
    with distributed.main_first():
        if distributed.is_main():
            time.sleep(4)
    return distributed.gather_objects(time.monotonic() - start)


def gathered_gradient() -> list[torch.Tensor]:
    """Each process's gradient, where that of the gathered tensor does not lie in memory as the tensor does."""
    x = torch.arange(6.0).view(2, 3).add(10 * distributed.rank()).requires_grad_()
    every = distributed.gather(x)  # [4, 3]
    weights = torch.arange(12.0).view(3, 4) ** (1 + distributed.rank())
    (every.T * weights).sum().backward()
    return distributed.gather_objects(x.grad)


def far_from_zero() -> list[dict[str, torch.Tensor]]:
    """Outputs and running variances of numbers whose mean is large and whose variance is small or none."""
    torch.manual_seed(0)
    numbers = torch.cat([20 + 0.01 * torch.randn(8, 4), torch.full((8, 4), 15.3)], dim=1).double()
    network = nn.Sequential(nn.BatchNorm1d(8))
    whole = nn.BatchNorm1d(8).double()
    distributed.synchronise_batch_norm(network)
    share = distributed.own_slice(numbers)
    ours, exact = network(share.float()), distributed.own_slice(whole(share.new_tensor(numbers.tolist())))
    found = {"out": ours.detach(), "exact": exact.detach(), "variance": network[0].running_var}
    return distributed.gather_objects(found | {"exact variance": whole.running_var})


def statistics(synchronised: bool, per_process: int) -> list[dict[str, torch.Tensor]]:
    """Running statistics of each process's average after a batch of the numbers 0, 1, 2, … shared among them."""
    network = nn.Sequential(nn.Linear(1, 2), nn.BatchNorm1d(2))
    for weight in network[0].parameters():
        nn.init.ones_(weight)
    if synchronised:
        distributed.synchronise_batch_norm(network)
    average = EMA(network, decay=0.0)
    first = per_process * distributed.rank()
    numbers = torch.arange(first, first + per_process, dtype=torch.float32)[:, None]
    distributed.data_parallel(network)(numbers).sum().backward()
    average.update(network)
    return distributed.gather_objects(dict(average.network.state_dict()))


def main(path: str) -> None:
    distributed._PATIENCE = timedelta(seconds=2)
    distributed.initialise(CPU)
    results = {
        "waited": waited_for_a_download(),
        "gradients": gathered_gradient(),
        "own": statistics(synchronised=False, per_process=4),
        "synchronised": statistics(synchronised=True, per_process=4),
        "far": far_from_zero(),
        "one value each": statistics(synchronised=True, per_process=1),
    }
    if distributed.is_main():
        torch.save(results, path)
    distributed.shut_down()


if __name__ == "__main__":
    main(sys.argv[1])
