"""What ``tools/score.py`` does with its flags: finds the images and judges, scores, writes, prints."""

from __future__ import annotations

import argparse
from pathlib import Path
from typing import Any

import torch
import torch.nn.functional as F
from torch import Tensor

from clipgan.config import Config, config_of_settings
from clipgan.errors import UserError
from clipgan.evaluation.compared import Files, Run
from clipgan.evaluation.encoding import evaluation_images
from clipgan.evaluation.from_snapshot import encoder_of, settle_image_size
from clipgan.evaluation.image_files import load_file, require_images
from clipgan.evaluation.measure import Judge, independent_judge, load_judges
from clipgan.evaluation.outputs import JUDGED
from clipgan.evaluation.protocols import Protocol, protocol_of
from clipgan.evaluation.score_flags import generate_command, read_config, refuse_config_flags, save_report, settings_of
from clipgan.evaluation.score_reports import read_r_precision
from clipgan.evaluation.score_table import score_table
from clipgan.evaluation.scores import Settings, generated_images
from clipgan.evaluation.scoring import Request, nearest_pairs, score_folders, score_run
from clipgan.evaluation.unfinished import NEAREST, SCORES
from clipgan.machine import distributed
from clipgan.visualize import save_grid


def score_from_flags(args: argparse.Namespace) -> None:
    """Score, print the table, and write the JSON: beside a run's images, and to ``--output``.

    Raises:
        UserError: flags that contradict each other; no images; a score that cannot be measured.
    """
    keys = [] if "all" in args.metrics else args.metrics
    protocol = protocol_of(args.protocol)
    if args.path2:
        report, beside = _score_folders(args, keys, protocol), None
    else:
        report, beside = _score_run(args, keys, protocol)
    if not distributed.is_main():
        return
    generated, reference = report["generated"], report["reference"]
    print(f"{generated['count']} images in {generated['path']} against {reference['images']} in {reference['path']}")
    print(score_table(report))
    for number, judge in enumerate(report["networks"]["judges"], 1):
        flattered = ", which trained the generator and flatters it" if judge["trained_the_generator"] else ""
        print(f"judge {number}: {judge['judge']}{flattered}")
    for notice in sorted({score["notice"] for score in report["scores"] if score["notice"]}):
        print(f"* {notice}")
    for reason in report["left_out"]:
        print(f"left out: {reason}")
    save_report(report, beside, args.output)


def _request(args: argparse.Namespace, keys: list[str], protocol: Protocol, settings: Settings, seed: int) -> Request:
    weights = {}
    for name, wanted in (("fid_weights", protocol.inception_weights), ("is_weights", protocol.score_weights)):
        weights[name] = getattr(args, name) or args.weights
        if wanted is not None and weights[name] != wanted:
            raise UserError(f"--{name} {weights[name]}: the protocol {protocol.name} takes {wanted} weights")
    of_pass = (settings.device, settings.batch_size, settings.workers)
    request = Request(keys, protocol, weights["fid_weights"], weights["is_weights"], args.dims, *of_pass, seed)
    request.metrics  # noqa: B018 (a name that no score has is refused before anything is read)
    return request


def _score_run(args: argparse.Namespace, keys: list[str], protocol: Protocol) -> tuple[dict[str, Any], Path | None]:
    config = read_config(args)
    if args.path1 and args.NET_G:
        raise UserError("--path1 stands for the images that --NET_G generated: give one of the two")
    settings = settings_of(args, config)
    request = _request(args, keys, protocol, settings, config.SEED)
    if args.path1:
        folder, files, beside = Path(args.path1), require_images(args.path1), None
        settle_image_size(config, files)
    else:
        folder, files = generated_images(config, generate_command(args, config))
        beside = folder.parent / SCORES
    run = Run(config, Files(folder, files), protocol)
    judges: list[Judge] = []
    if any(metric.needs in JUDGED for metric in request.metrics):
        with distributed.main_first():
            encoder = encoder_of(config).to(settings.device)
        judges = load_judges(config, encoder, settings.device)
    generator = None
    if beside is not None and (beside.parent / "r_precision.json").is_file():
        generator = read_r_precision(beside.parent / "r_precision.json")[0]
    made_by = {"dataset": config.DATASET_NAME, "generator": generator}
    report = score_run(run, request, judges, **made_by)
    pairs, written = nearest_pairs(report), beside or args.output
    if pairs and written and distributed.is_main():
        _draw_nearest(Path(written).with_name(NEAREST), run, pairs, config)
    return report, beside


def _draw_nearest(path: Path, run: Run, pairs: list[tuple[int, int]], config: Config) -> None:
    """Draw the generated images that are nearest to training images beside these."""
    side = config.image_size
    ours = torch.cat([_at(load_file(run.files.paths[row])[0], side) for row, _ in pairs])
    examples = [run.train.examples[row] for _, row in pairs]
    columns = [("generated", ours), ("nearest in training", evaluation_images(examples, config))]
    save_grid(path, columns, [example.captions[0] for example in examples])
    print(f"the nearest training images are drawn in {path}")


def _at(pixels: Tensor, side: int) -> Tensor:
    return F.interpolate(pixels[None].float() / 127.5 - 1, size=(side, side), mode="bilinear", antialias=True)


def _score_folders(args: argparse.Namespace, keys: list[str], protocol: Protocol) -> dict[str, Any]:
    config = config_of_settings(args.set)
    refuse_config_flags(args, "--path2", allowed=("set",))
    settings = settings_of(args)
    seed = config.SEED if args.manualSeed is None else args.manualSeed
    request = _request(args, keys, protocol, settings, seed)
    first, second = (Files(Path(path), require_images(path)) for path in (args.path1, args.path2))
    judges = independent_judge(config, settings.device) if any(m.needs in JUDGED for m in request.metrics) else []
    return score_folders(first, second, request, judges)
