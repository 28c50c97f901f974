"""Trains the Inception Score's network on the classes of a data set, as the field does for birds.

ImageNet's network sees a handful of bird classes, so that the score of birds hardly tells generators apart. The papers
score birds with an Inception that was fine-tuned on the training classes (Zhang et al. 2017, arXiv:1612.03242, §4.1).
"""

from __future__ import annotations

from collections.abc import Iterator, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import Any

import numpy as np
import torch
import torch.nn.functional as F
from torch import Tensor, nn
from torch.utils.data import DataLoader, Dataset
from torchvision.models.inception import Inception3
from tqdm import tqdm

from clipgan.config import Config
from clipgan.data.examples import Example
from clipgan.data.from_config import read_split
from clipgan.data.images import crop_and_flip, from_uint8, load_shrunk
from clipgan.errors import UserError, counted
from clipgan.evaluation.inception import SIDE, read_score_weights
from clipgan.files.writing import replacing, write_failure

SMALLEST_SIDE = 75  # pixels, of torchvision's network
_AUXILIARY_SIDE = 289  # from which on the auxiliary classifier's last convolution has room
_HELD_OUT = 0.1
_AUXILIARY_WEIGHT = 0.4  # Szegedy et al. 2016, arXiv:1512.00567, as torchvision trains it
_SMOOTHING = 0.1  # of the labels, section 7 there


@dataclass(frozen=True)
class Schedule:
    """How long and how fast: SGD with Nesterov's momentum 0.9 and weight decay 1e-4, the rate falling by a cosine to 0.

    Attributes:
        init: published, random, or a file of weights to start from; their classifier is replaced.
        splits: whose classes are learned.
        epochs, batch_size, lr: lr is the first learning rate.
        side: of the images in pixels. Below 289 there is no auxiliary classifier.
        seed: of the held-out images, of crops and order, and of new weights.
    """

    init: str = "published"
    splits: tuple[str, ...] = ("train",)
    epochs: int = 30
    batch_size: int = 32
    lr: float = 0.01
    side: int = SIDE
    seed: int = 100


class Photographs(Dataset):
    """Photographs as ``main.py`` crops them, at another size: (image float [3, side, side] in [−1, 1], label).

    Args:
        items: (example, label).
        train: crop and flip at random, another way in each ``epoch``; otherwise take the centre.
    """

    def __init__(self, items: Sequence[tuple[Example, int]], config: Config, side: int, seed: int, train: bool):
        self.items, self.epoch = items, 0
        self._config, self._side, self._seed, self._train = config, side, seed, train

    def __len__(self) -> int:
        return len(self.items)

    def __getitem__(self, index: int) -> tuple[Tensor, int]:
        example, label = self.items[index]
        box = example.box if self._config.DATA.BOX_CROP else None
        shrunk = load_shrunk(example.image, box, self._side, self._config.DATA.CROP_SCALE)
        rng = np.random.default_rng((self._seed, self.epoch, index)) if self._train else None
        return from_uint8(crop_and_flip(np.asarray(shrunk), self._side, rng, flip=True)), label


def labelled(config: Config, splits: Sequence[str]) -> tuple[list[tuple[Example, int]], int]:
    """The examples of some splits with labels from 0 on, and how many classes there are.

    Raises:
        UserError: fewer than two classes, or one with a single image, of which none can be held out.
    """
    examples = [example for split in splits for example in read_split(config, split)]
    numbers = {class_id: number for number, class_id in enumerate(sorted({e.class_id for e in examples}))}
    items = [(example, numbers[example.class_id]) for example in examples]
    counts = np.bincount([label for _, label in items])
    if len(counts) < 2:
        raise UserError(f"{config.DATA_DIR}: a classifier needs at least 2 classes, not {len(counts)}")
    if counts.min() < 2:
        alone = next(example for example, label in items if counts[label] == 1)
        raise UserError(f"{config.DATA_DIR}: {alone.key} is the only image of its class: each needs at least 2")
    return items, len(counts)


def hold_out(
    items: Sequence[tuple[Example, int]], seed: int
) -> tuple[list[tuple[Example, int]], list[tuple[Example, int]]]:
    """A tenth of each class, at least one image, apart from the others: (to train on, held out)."""
    labels, rng = np.array([label for _, label in items]), np.random.default_rng(seed)
    apart: set[int] = set()
    for label in range(labels.max() + 1):
        rows = np.flatnonzero(labels == label)
        apart |= set(rng.permutation(rows)[: max(1, round(_HELD_OUT * len(rows)))].tolist())
    return [items[i] for i in range(len(items)) if i not in apart], [items[i] for i in sorted(apart)]


def build_classifier(classes: int, schedule: Schedule) -> tuple[Inception3, str]:
    """torchvision's Inception v3 with a new classifier, and where its other weights come from.

    Raises:
        UserError: the weights cannot be had, or are of another network.
    """
    torch.manual_seed(schedule.seed)
    auxiliary = schedule.side >= _AUXILIARY_SIDE
    network = Inception3(num_classes=classes, aux_logits=auxiliary, init_weights=False)
    if schedule.init == "random":
        return network, f"random (seed {schedule.seed})"
    state, provenance = read_score_weights(schedule.init)
    own = network.state_dict()
    replaced = ("fc.", "AuxLogits.fc.")
    kept = {name: tensor for name, tensor in state.items() if name in own and not name.startswith(replaced)}
    wrong = [name for name, tensor in kept.items() if tensor.shape != own[name].shape]
    missing = [name for name in own if name not in kept and not name.startswith(("fc.", "AuxLogits."))
               and not name.endswith("num_batches_tracked")]  # fmt: skip
    if wrong or missing:
        raise UserError(f"{provenance.source} is not torchvision's inception_v3: see {(wrong + missing)[0]}")
    network.load_state_dict(own | kept)
    return network, provenance.source


def fine_tune(config: Config, schedule: Schedule, output: Path, device: torch.device) -> dict[str, Any]:
    """Train, and keep the epoch with the best held-out accuracy in ``output``; returns what the file says of itself.

    Raises:
        UserError: too few classes or images, an image is unreadable, the loss is not finite, or the disk is full.
    """
    items, classes = labelled(config, schedule.splits)
    shown, apart = hold_out(items, schedule.seed)
    network, init = build_classifier(classes, schedule)
    network = network.to(device, memory_format=torch.channels_last)
    count = counted(classes, "class", "classes")
    print(f"{count}, {len(shown)} images to train on, {len(apart)} held out; from {init}")
    data = Photographs(shown, config, schedule.side, schedule.seed, train=True)
    held_out = Photographs(apart, config, schedule.side, schedule.seed, train=False)
    steps = schedule.epochs * len(list(_batches(len(data), schedule, 0)))
    decayed = [weight for weight in network.parameters() if weight.ndim > 1]
    others = [weight for weight in network.parameters() if weight.ndim <= 1]
    groups = [{"params": decayed, "weight_decay": 1e-4}, {"params": others, "weight_decay": 0.0}]
    optimizer = torch.optim.SGD(groups, lr=schedule.lr, momentum=0.9, nesterov=True)
    rate = torch.optim.lr_scheduler.CosineAnnealingLR(optimizer, steps)
    said: dict[str, Any] = {}
    for epoch in range(1, schedule.epochs + 1):
        data.epoch = epoch
        loss = _train_epoch(network, data, optimizer, rate, schedule, config.WORKERS, device)
        accuracy = _accuracy(network, held_out, schedule.batch_size, config.WORKERS, device)
        print(f"epoch {epoch}: loss {loss:.3f}, held-out accuracy {accuracy:.3f} (chance {1 / classes:.3f})")
        if not said or accuracy >= said["accuracy"]:
            said = {
                "dataset": config.DATASET_NAME,
                "classes": classes,
                "images": len(shown),
                "held_out": len(apart),
                "accuracy": accuracy,
                "epoch": epoch,
                "init": init,
                **{name: value for name, value in asdict(schedule).items() if name != "init"},
                "splits": "+".join(schedule.splits),
            }
            _write(output, network, said)
    return said


def _batches(images: int, schedule: Schedule, epoch: int) -> Iterator[list[int]]:
    """Rows of an epoch's batches, in random order; a last batch of one image, which batch norm refuses, is left out."""
    order = np.random.default_rng((schedule.seed, epoch)).permutation(images).tolist()
    batches = [order[start : start + schedule.batch_size] for start in range(0, images, schedule.batch_size)]
    return (batch for batch in batches if len(batch) > 1)


def _train_epoch(
    network: Inception3,
    data: Photographs,
    optimizer: torch.optim.Optimizer,
    rate: torch.optim.lr_scheduler.LRScheduler,
    schedule: Schedule,
    workers: int,
    device: torch.device,
) -> float:
    """One epoch; returns the mean loss."""
    network.train()
    batches = list(_batches(len(data), schedule, data.epoch))
    losses = torch.zeros((), device=device)
    for images, labels in tqdm(_loader(data, batches, workers), desc=f"epoch {data.epoch}", leave=False):
        images = images.to(device, memory_format=torch.channels_last)
        loss = classification_loss(network(images), labels.to(device))
        optimizer.zero_grad(set_to_none=True)
        loss.backward()
        optimizer.step()
        rate.step()
        losses += loss.detach()
    mean = float(losses) / len(batches)
    if not np.isfinite(mean):
        raise UserError(f"the loss is {mean}: the training has diverged; lower --lr (it was {schedule.lr})")
    return mean


def classification_loss(output: Any, labels: Tensor) -> Tensor:
    """Cross entropy of smoothed labels [B], that of the auxiliary classifier added with the weight 0.4."""
    if isinstance(output, Tensor):
        return F.cross_entropy(output, labels, label_smoothing=_SMOOTHING)
    both = [F.cross_entropy(logits, labels, label_smoothing=_SMOOTHING) for logits in output]
    return both[0] + _AUXILIARY_WEIGHT * both[1]


@torch.no_grad()
def _accuracy(network: nn.Module, data: Photographs, batch_size: int, workers: int, device: torch.device) -> float:
    network.eval()
    batches = [list(range(len(data)))[start : start + batch_size] for start in range(0, len(data), batch_size)]
    right = 0
    for images, labels in _loader(data, batches, workers):
        right += int((network(images.to(device)).argmax(dim=1).cpu() == labels).sum())
    return right / len(data)


def _loader(data: Photographs, batches: list[list[int]], workers: int) -> DataLoader:
    return DataLoader(data, batch_sampler=batches, num_workers=min(workers, len(batches)))


def _write(path: Path, network: nn.Module, said: dict[str, Any]) -> None:
    state = {name: tensor.cpu().contiguous() for name, tensor in network.state_dict().items()}
    try:
        with replacing(path) as temporary:
            torch.save({"state_dict": state, "fine_tuned": said}, temporary)
    except (OSError, RuntimeError) as error:
        raise write_failure(error if isinstance(error, OSError) else OSError(str(error)), path) from None
