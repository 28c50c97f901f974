"""What each process of ``torchrun`` does in these tests: one batch of pretraining, two GAN steps, an evaluation.

Called with a folder that holds data, encoder and output; rank 0 leaves what came of it in ``<folder>/<processes>.pt``.
"""

from __future__ import annotations

import contextlib
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))

import torch

from clipgan.config import Config, load_config
from clipgan.data.dataset import EpochBatchSampler, make_loader
from clipgan.data.from_config import read_split, training_set
from clipgan.evaluation.measure import evaluate_generator, load_judges
from clipgan.evaluation.monitor import Monitor
from clipgan.evaluation.retrieval import Validation
from clipgan.machine import distributed
from clipgan.machine.device import seed_everything
from clipgan.machine.precision import Precision
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.runs.folder import RunFolder
from clipgan.runs.snapshots import load_encoder, load_generator
from clipgan.training import damsm_loop, gan_loop
from clipgan.training.gan_networks import GanNetworks
from clipgan.training.trained_network import TrainedNetwork

CPU = torch.device("cpu")


def pretraining(config: Config, encoder: ClipEncoder, folder: RunFolder) -> dict:
    """Losses and gradients of one batch, at once and in parts; and the validation."""
    examples = {split: read_split(config, split) for split in ("train", "test")}
    dataset = training_set(config, examples["train"], [config.image_size], encoder.tokenize)
    sampler = EpochBatchSampler(
        len(dataset), config.TRAIN.BATCH_SIZE, 0, rank=distributed.rank(), world_size=distributed.world_size()
    )
    batch = next(iter(make_loader(dataset, sampler, 0, CPU)))
    precision = Precision("fp32", CPU)
    damsm_loop.trained_weights(encoder)
    parallel_encoder = distributed.data_parallel(encoder)
    results = {}
    for parts in (1, 2):
        config.TRAIN.ACCUMULATE = parts
        encoder.zero_grad()
        losses = damsm_loop.backward(parallel_encoder, batch, config, precision, precision.scaler())
        results[f"losses in {parts}"] = {name: float(distributed.mean(loss)) for name, loss in losses.items()}
        results[f"gradients in {parts}"] = gradients_of(encoder)
    config.TRAIN.ACCUMULATE = 1
    validate = Validation(examples["test"], config, CPU, folder)
    results["validation"] = validate(encoder.freeze(), 1)
    return results


def gan_training(config: Config, encoder: ClipEncoder, folder: RunFolder) -> dict:
    """The gradients of every update of the loop, and the last weights."""
    examples = {split: read_split(config, split) for split in ("train", "test")}
    dataset = training_set(config, examples["train"], config.image_sizes, encoder.tokenize)
    seed_everything(config.SEED)
    networks = GanNetworks.build(config, encoder)
    recorded, update = [], TrainedNetwork.update

    def recording_update(self, loss):
        recorded.append([float(distributed.mean(loss.detach()))])
        with monkeypatched(self.optimizer, "step", lambda: recorded[-1].append(gradients_of(self.network))):
            update(self, loss)

    monitor = Monitor(examples, encoder, config, CPU)
    with monkeypatched(TrainedNetwork, "update", recording_update, instead=True):
        gan_loop.train_gan(config, networks, encoder, dataset, CPU, folder, measure=monitor)
    return {"updates": recorded, "statistics": networks.generator.state_dict()}


@contextlib.contextmanager
def monkeypatched(owner, name: str, function, instead: bool = False):
    """Call ``function`` before (or instead of) a method."""
    original = getattr(owner, name)

    def before(*arguments, **keywords):
        function()
        return original(*arguments, **keywords)

    setattr(owner, name, function if instead else before)
    try:
        yield
    finally:
        setattr(owner, name, original)


def gradients_of(network: torch.nn.Module) -> dict:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def main(root: Path) -> None:
    distributed.initialise(CPU)
    torch.set_num_threads(1)
    processes = distributed.world_size()
    config = load_config(root / "config.yml", [f"OUTPUT_DIR={root / f'output_{processes}'}"])
    encoder = load_encoder(root / "encoder.pth")
    folder = RunFolder.create(config)
    results = {"pretraining": pretraining(config, encoder, folder)}
    results["gan"] = gan_training(config, encoder, folder)
    generator = load_generator(
        root / "generator.pth", config.generator_arguments(encoder.word_dim, encoder.sentence_dim)
    )
    results["report"] = evaluate_generator(
        generator.eval(), encoder, load_judges(config, encoder, CPU), read_split(config, "test"), config, CPU,
        root / f"samples_{processes}",
    )  # fmt: skip
    if distributed.is_main():
        torch.save(results, root / f"{processes}.pt")
    distributed.shut_down()


if __name__ == "__main__":
    main(Path(sys.argv[1]))
