"""What each part of the method contributes, on the drawn data: python bench/ablate.py

Trains the GAN of cfg/toy/GAN.yml (or, with ``--scene two_birds``, of cfg/two_birds/GAN.yml) with one part changed at a
time, with the same seeds and steps, and lets the training encoder, an independent judge and the oracle score the test
split. Needs the encoders of ``make demo``, or those that pretrain_DAMSM.py makes of cfg/two_birds/DAMSM.yml and
judge.yml. Runs that are done (their ``scores.json`` is there) are not repeated, so a stopped ablation goes on where it
was, and several processes may share the work by ``--variants``.
"""

from __future__ import annotations

import argparse
import json
import statistics
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.config import Config, load_config
from clipgan.data.examples import Example
from clipgan.data.from_config import read_split, training_set
from clipgan.evaluation.measure import evaluate_generator, load_judges
from clipgan.evaluation.sampling import generate_samples, sample_order
from clipgan.flags import REPOSITORY, run_script
from clipgan.machine.device import choose_device, place, seed_everything
from clipgan.networks.clip_encoder import ClipEncoder
from clipgan.networks.generator import Generator, GeneratorOutput
from clipgan.runs.folder import RunFolder
from clipgan.runs.report import write_json
from clipgan.runs.snapshots import load_encoder, load_generator
from clipgan.training.gan_loop import train_gan
from clipgan.training.gan_networks import GanNetworks

VARIANTS = {
    "full method": [],
    "no contrastive loss": ["TRAIN.CONTRASTIVE.WEIGHT=0"],
    "no DAMSM in the generator": ["TRAIN.SMOOTH.LAMBDA=0"],
    "no word loss": ["TRAIN.WORD_LOSS=False"],
    "no EMA": ["TRAIN.EMA=0"],
    "inverted mask (the original's)": [],
    "no words in the generator": [],
}
SCORES = {
    "R-precision, training encoder": lambda report: report["judges"][0]["generated"]["mean"],
    "R-precision, independent judge": lambda report: report["judges"][1]["generated"]["mean"],
    "attributes in their places": lambda report: report["attributes"]["generated"]["mean"],
    "birds found": lambda report: report["attributes"]["generated"]["found"],
}
SWAP = "told from the swapped caption by the judge"  # two birds only


class NoWordsGenerator(Generator):
    """Its memory is full of zeros whatever the caption says: all that it knows of it is the sentence."""

    def forward(
        self, noise: Tensor, condition_noise: Tensor, sentence: Tensor, words: Tensor, word_mask: Tensor
    ) -> GeneratorOutput:
        return super().forward(noise, condition_noise, sentence, torch.zeros_like(words), word_mask)


class InvertedMaskGenerator(Generator):
    """The original's mistake: its attention sees the padding and not the words."""

    def forward(
        self, noise: Tensor, condition_noise: Tensor, sentence: Tensor, words: Tensor, word_mask: Tensor
    ) -> GeneratorOutput:
        return super().forward(noise, condition_noise, sentence, words, ~word_mask)


def run(variant: str, config: Config, examples: dict[str, list[Example]], encoder: ClipEncoder) -> dict:
    """Train and score one variant; returns its scores."""
    path = Path(config.OUTPUT_DIR) / config.run_name / "scores.json"
    if path.is_file():
        return json.loads(path.read_text())
    device = choose_device(config.GPU_ID, config.CUDA)
    seed_everything(config.SEED)
    networks = GanNetworks.build(config, encoder)
    kind = {"inverted": InvertedMaskGenerator, "no words": NoWordsGenerator}.get(variant[:8], Generator)
    networks.generator.__class__ = kind
    dataset = training_set(config, examples["train"], config.image_sizes, encoder.tokenize)
    folder = RunFolder.create(config)
    last = train_gan(config, networks, encoder, dataset, device, folder)
    generator = load_generator(last, networks.generator_arguments).requires_grad_(False).eval()
    place(generator, device)
    generator.__class__ = kind
    judges = load_judges(config, encoder, device)
    report = evaluate_generator(
        generator, encoder, judges, examples["test"], config, device, last.with_suffix("") / "valid" / "single"
    )
    scores = {name: score(report) for name, score in SCORES.items()}
    if config.DATASET_NAME == "two_birds":
        scores[SWAP] = told_from_swapped(generator, encoder, judges[1], examples["test"], config, device)
    write_json(path, scores)
    return scores


@torch.no_grad()
def told_from_swapped(
    generator: Generator,
    encoder: ClipEncoder,
    judge: ClipEncoder,
    examples: list[Example],
    config: Config,
    device: torch.device,
) -> float:
    """How often the judge finds an image nearer to its own caption than to that of the scene with the birds exchanged.

    The test split of the two birds has the exchanged scene after, or before, each scene. Chance is 0.5.
    """
    order = sample_order(examples, len(examples))
    right = []
    for batch, images in generate_samples(generator, encoder, examples, order, config, device):
        places = [sample.example for sample in batch]
        of_image = F.normalize(judge.encode_image(images).image, dim=1)
        own, swapped = (
            F.normalize(judge.encode_text(judge.tokenize(captions).to(device)).sentence, dim=1)
            for captions in ([examples[place ^ other].captions[0] for place in places] for other in (0, 1))
        )
        right.append((of_image * own).sum(1) > (of_image * swapped).sum(1))
    return torch.cat(right).double().mean().item()


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--steps", type=int, default=1000, help="of each run (default %(default)s)")
    parser.add_argument("--seeds", type=int, nargs="+", default=[1, 2, 3], help="default 1 2 3")
    parser.add_argument("--gpu", type=int, default=-1, help="CUDA device; -1, the default, is the CPU")
    parser.add_argument("--scene", choices=("one_bird", "two_birds"), default="one_bird", help="default %(default)s")
    parser.add_argument("--variants", nargs="+", choices=VARIANTS, default=list(VARIANTS), help="default: all")
    parser.add_argument("--data_dir", help="default: the scene's, data/toy or data/two_birds")
    parser.add_argument("--encoder", metavar="FILE", help="default: the scene's, in output/")
    parser.add_argument("--judge", metavar="FILE", help="default: the scene's, in output/")
    parser.add_argument("--output", default="output/ablation", help="default %(default)s")
    args = parser.parse_args(argv)
    scene = {"one_bird": "toy", "two_birds": "two_birds"}[args.scene]
    args.data_dir = args.data_dir or f"data/{scene}"
    args.encoder = args.encoder or f"output/{scene}_DAMSM/Model/clip_best.pth"
    args.judge = args.judge or f"output/{scene}_judge/Model/clip_best.pth"

    encoder = load_encoder(args.encoder).freeze()
    common = [
        f"DATA_DIR={args.data_dir}", f"OUTPUT_DIR={args.output}", f"TRAIN.MAX_STEPS={args.steps}", f"GPU_ID={args.gpu}",
        "TRAIN.MAX_EPOCH=100000", "TRAIN.SNAPSHOT_INTERVAL=100000", f"TRAIN.CLIP_MODEL_CHECKPOINT={args.encoder}",
        f"EVAL.JUDGE.CLIP_MODEL_CHECKPOINT={args.judge}",
        "EVAL.NUM_IMAGES=2000", "EVAL.BATCH_SIZE=64", "EVAL.INTERVAL=0",
    ]  # fmt: skip
    table: dict[str, list[dict]] = {}
    for seed in args.seeds:  # seed by seed, so that a stopped ablation has whole rows
        for variant, settings in ((variant, VARIANTS[variant]) for variant in args.variants):
            name = f"{variant.split(' (')[0].replace(' ', '_')}_{seed}"
            overrides = [*common, *settings, f"SEED={seed}", f"CONFIG_NAME={name}"]
            config = load_config(REPOSITORY / f"cfg/{scene}/GAN.yml", overrides)
            encoder.to(choose_device(config.GPU_ID, config.CUDA))
            examples = {split: read_split(config, split) for split in ("train", "test")}
            table.setdefault(variant, []).append(run(variant, config, examples, encoder))
    print(markdown(table, args.steps))


def markdown(table: dict[str, list[dict]], steps: int) -> str:
    """Mean ± standard deviation over the seeds, a row for each variant."""
    seeds = min(len(runs) for runs in table.values())
    scores = list(next(iter(table.values()))[0])
    rows = [
        f"{steps} steps, {seeds} seeds, torch {torch.__version__}",
        "",
        f"| variant | {' | '.join(scores)} |",
        "|---" * (len(scores) + 1) + "|",
    ]
    for variant, runs in table.items():
        cells = []
        for score in scores:
            values = [run[score] for run in runs]
            spread = statistics.stdev(values) if len(values) > 1 else 0.0
            cells.append(f"{statistics.mean(values):.3f} ± {spread:.3f}")
        rows.append(f"| {variant} | {' | '.join(cells)} |")
    return "\n".join(rows)


if __name__ == "__main__":
    run_script(main)
