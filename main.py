"""Train the GAN, evaluate it, or draw sentences: python main.py --cfg cfg/clip_bird_DMGAN.yml --gpu 0

``--text "a small red bird"`` draws, with a model's file (``--model``) or with the generator that a config evaluates.

``TRAIN.FLAG: True`` trains. ``False`` evaluates ``TRAIN.NET_G``: with ``B_VALIDATION: True`` it samples the test split
and measures R-precision, with ``False`` it draws the captions that ``<DATA_DIR>/example_filenames.txt`` lists.

On several GPUs: torchrun --nproc_per_node=8 main.py --cfg cfg/clip_coco_DMGAN.yml
"""

from __future__ import annotations

import argparse
import functools
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "code"))

import torch

from clipgan.config import Config, require_embedding_dim, require_generator_size
from clipgan.data.examples import read_own_captions
from clipgan.data.from_config import batch_line, data_fingerprint, read_split, require_even_shares, training_set
from clipgan.drawing.command import add_drawing_flags, asks_to_draw, draw_from_flags
from clipgan.errors import UserError
from clipgan.evaluation.caption_sheet import draw_captions, has_words
from clipgan.evaluation.chosen import Chosen
from clipgan.evaluation.from_snapshot import encoder_of, networks_of
from clipgan.evaluation.measure import evaluate_generator, load_judges
from clipgan.evaluation.monitor import Monitor, SnapshotGrid
from clipgan.evaluation.sampling import sample_folder
from clipgan.flags import add_training_flags, run_script, training_config
from clipgan.machine import distributed
from clipgan.machine.cpu_memory import keep_freed_memory
from clipgan.machine.device import choose_device, place, seed_everything
from clipgan.machine.door import speed_up
from clipgan.machine.failures import explained
from clipgan.machine.precision import Precision
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.runs.folder import RunFolder, open_run
from clipgan.runs.record import command_line, recorded
from clipgan.runs.report import versions, write_json
from clipgan.training.gan_loop import train_gan
from clipgan.training.gan_networks import GanNetworks


@explained
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_flags(parser)
    add_drawing_flags(parser)
    args = parser.parse_args(argv)
    if asks_to_draw(args):
        draw_from_flags(args)
        return
    config, earlier = training_config(args)
    require_generator_size(config)
    device = choose_device(config.GPU_ID, config.CUDA)
    distributed.initialise(device)
    speed_up(device)
    seed_everything(config.SEED)

    if not config.TRAIN.FLAG and not config.TRAIN.NET_G:
        raise UserError("TRAIN.NET_G is empty: name the generator's snapshot to evaluate, by --NET_G or in the config")
    if not config.TRAIN.FLAG and earlier is not None:
        raise UserError("--resume goes on with a training run, but TRAIN.FLAG is False, which evaluates")
    if config.TRAIN.FLAG:
        Chosen.of(config)  # a score that there is not is refused before anything is read
        with distributed.main_first():  # one process downloads
            encoder = encoder_of(config).to(device)
        require_embedding_dim(config, encoder.word_dim)
        _train(config, encoder, device, earlier, command_line("main.py", argv))
    else:
        with distributed.main_first():
            generator, encoder = networks_of(config)
        generator, encoder = place(generator, device), encoder.to(device)
        keep_freed_memory(device)
        evaluate = _validate if config.B_VALIDATION else _draw_own_captions
        evaluate(config, generator, encoder, device)


def _train(
    config: Config, encoder: ClipEncoder, device: torch.device, earlier: RunFolder | None, command: str
) -> None:
    require_even_shares(config)
    precision = Precision(config.TRAIN.PRECISION, device)
    if config.TRAIN.ACCUMULATE > 1:
        raise UserError(
            "TRAIN.ACCUMULATE is for pretraining: batch norm and the matching losses of GAN training see whole batches "
            "only; for less memory lower TRAIN.BATCH_SIZE, set TRAIN.PRECISION to bf16 or fp16, or use more processes"
        )
    examples = {split: read_split(config, split) for split in ("train", "test")}
    dataset = training_set(config, examples["train"], config.image_sizes, encoder.tokenize)
    networks = GanNetworks.build(config, encoder)
    if config.TRAIN.NET_G and earlier is None:
        networks.load(config)
    monitor = Monitor(examples, encoder, config, device)
    grid = SnapshotGrid(examples["test"], encoder, config, device)
    origin = {
        "command": command,
        "data": {split: data_fingerprint(of_split) for split, of_split in examples.items()},
        "encoder": networks.encoder_fingerprint,
    }
    with open_run(config, earlier) as folder, recorded(folder, config, device, precision, **origin):
        sizes = "/".join(str(size) for size in config.image_sizes)
        print(f"{len(examples['train'])} training images from {config.DATA_DIR}, sizes {sizes} px")
        print(f"{encoder.spec.name} on {device}, {precision}, writing to {folder.root}")
        print(batch_line(config))
        draw = functools.partial(grid, folder=folder)
        last = train_gan(
            config, networks, encoder, dataset, device, folder, measure=monitor, draw=draw, resume=earlier is not None
        )
        folder.finish()
        print(f"the last generator is {last}")


def _validate(config: Config, generator: torch.nn.Module, encoder: ClipEncoder, device: torch.device) -> None:
    examples = read_split(config, "test")
    judges = load_judges(config, encoder, device)
    folder = sample_folder(config.TRAIN.NET_G)
    report = evaluate_generator(generator, encoder, judges, examples, config, device, folder)
    report |= {"generator": config.TRAIN.NET_G, "versions": versions()}
    path = folder.parent / "r_precision.json"
    if distributed.is_main():
        write_json(path, report)
    print(f"{report['judges'][0]['generated']['images']} images in {folder}")
    for score in report["judges"]:
        ours, real = score["generated"], score["real"]
        flattered = " (it also trained the generator, which flatters the score)"
        print(f"judge {score['judge']}{flattered if score['judge_trained_the_generator'] else ''}")
        score_line = f"{ours['mean']:.4f} ± {ours['std']:.4f} over {ours['folds']} folds"
        print(f"  R-precision among {ours['candidates']}: {score_line}")
        print(f"  real images: {real['mean']:.4f} ± {real['std']:.4f}; chance: {score['chance']:.4f}")
    if report["attributes"]:
        values = report["attributes"]
        print(
            f"attributes that the oracle reads: {values['generated']['mean']:.4f} right; "
            f"real images: {values['real']['mean']:.4f}; chance: {values['chance']:.4f}"
        )
    print(f"written to {path}")


def _draw_own_captions(config: Config, generator: torch.nn.Module, encoder: ClipEncoder, device: torch.device) -> None:
    if not distributed.is_main():  # a handful of pictures
        return
    root = Path(config.TRAIN.NET_G).with_suffix("")
    in_words = functools.partial(has_words, encoder)
    for name, captions in read_own_captions(config.DATA_DIR, raw_captions=config.TEXT.RAW_CAPTIONS, has_words=in_words):
        folder = root / name
        draw_captions(generator, encoder, captions, config, device, folder)
        print(f"{sum(map(bool, captions))} captions of {name} drawn in {folder}")


if __name__ == "__main__":
    run_script(main)
