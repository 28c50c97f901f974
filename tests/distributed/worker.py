"""What each process of ``torchrun`` does in these tests: one batch of pretraining, two GAN steps, an evaluation.

Called with a folder that holds data, encoder and output; rank 0 leaves what came of it in ``<folder>/<processes>.pt``.
"""

from __future__ import annotations

import functools
import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[2] / "code"))

import torch

from clipgan import distributed, runtime
from clipgan.config import Config, load_config
from clipgan.data.dataset import EpochBatchSampler, make_loader
from clipgan.data.from_config import read_split, training_set
from clipgan.evaluation.measure import evaluate_generator, load_judges
from clipgan.evaluation.monitor import Monitor
from clipgan.evaluation.retrieval import Validation
from clipgan.networks.clip_encoder import ClipEncoder, load_encoder
from clipgan.networks.snapshots import load_generator
from clipgan.training import damsm_loop, gan_loop
from clipgan.training.precision import Precision

CPU = torch.device("cpu")


def pretraining(config: Config, encoder: ClipEncoder, folder: runtime.RunFolder) -> dict:
    """Losses and gradients of one batch, at once and in parts; and the validation."""
    examples = {split: read_split(config, split) for split in ("train", "test")}
    dataset = training_set(config, examples["train"], [config.image_size], encoder.tokenize)
    sampler = EpochBatchSampler(
        len(dataset), config.TRAIN.BATCH_SIZE, 0, rank=distributed.rank(), world_size=distributed.world_size()
    )
    batch = next(iter(make_loader(dataset, sampler, 0, CPU)))
    precision = Precision("fp32", CPU)
    results = {}
    for parts in (1, 2):
        config.TRAIN.ACCUMULATE = parts
        encoder.zero_grad()
        losses = damsm_loop.backward(encoder, batch, config, precision, precision.scaler())
        distributed.average_gradients(encoder.parameters())
        results[f"losses in {parts}"] = {name: float(distributed.mean(loss)) for name, loss in losses.items()}
        results[f"gradients in {parts}"] = gradients_of(encoder)
    config.TRAIN.ACCUMULATE = 1
    validate = Validation(examples["test"], config, CPU, folder)
    results["validation"] = validate(encoder.freeze(), 1)
    return results


def gan_training(config: Config, encoder: ClipEncoder, folder: runtime.RunFolder) -> dict:
    """The gradients of every update of the loop, and the last weights."""
    examples = {split: read_split(config, split) for split in ("train", "test")}
    dataset = training_set(config, examples["train"], config.image_sizes, encoder.tokenize)
    runtime.seed_everything(config.SEED)
    gan = gan_loop.Gan.build(config, encoder)
    recorded, update, average = [], gan_loop._update, distributed.average_gradients

    def recording_losses(optimizer, network, loss, scaler):
        recorded.append([float(distributed.mean(loss.detach()))])
        distributed.average_gradients = functools.partial(recording_gradients, network)
        update(optimizer, network, loss, scaler)

    def recording_gradients(network, parameters):
        average(parameters)
        recorded[-1].append(gradients_of(network))

    gan_loop._update = recording_losses
    monitor = Monitor(examples, encoder, config, CPU)
    gan_loop.train_gan(config, gan, encoder, dataset, CPU, folder, measure=monitor)
    gan_loop._update, distributed.average_gradients = update, average
    return {"updates": recorded, "statistics": gan.generator.state_dict()}


def gradients_of(network: torch.nn.Module) -> dict:
    return {name: p.grad.clone() for name, p in network.named_parameters() if p.grad is not None}


def main(root: Path) -> None:
    distributed.initialise(CPU)
    torch.set_num_threads(1)
    processes = distributed.world_size()
    config = load_config(root / "config.yml", [f"OUTPUT_DIR={root / f'output_{processes}'}"])
    encoder = load_encoder(root / "encoder.pth")
    folder = runtime.RunFolder.create(config)
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
