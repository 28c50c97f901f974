"""Fine-tune CLIP with DAMSM and contrastive losses: python pretrain_DAMSM.py --cfg cfg/DAMSM/bird.yml --gpu 0

On several GPUs: torchrun --nproc_per_node=8 pretrain_DAMSM.py --cfg cfg/DAMSM/bird.yml
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parent / "code"))

from clipgan.config import require_embedding_dim
from clipgan.data.from_config import batch_line, data_fingerprint, read_split, require_even_shares, training_set
from clipgan.evaluation.retrieval import Validation
from clipgan.flags import add_training_flags, run_script, training_config
from clipgan.machine import distributed
from clipgan.machine.device import choose_device, seed_everything
from clipgan.machine.door import speed_up
from clipgan.machine.failures import explained
from clipgan.machine.precision import Precision
from clipgan.networks.clip_encoder import build_encoder
from clipgan.runs.checkpoint import fingerprint
from clipgan.runs.folder import open_run
from clipgan.runs.record import command_line, recorded
from clipgan.runs.snapshots import clip_keys, load_encoder
from clipgan.training.damsm_loop import pretrain


@explained
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add_training_flags(parser)
    config, earlier = training_config(parser.parse_args(argv))
    device = choose_device(config.GPU_ID, config.CUDA)
    distributed.initialise(device)
    speed_up(device)
    seed_everything(config.SEED)
    require_even_shares(config)
    precision = Precision(config.TRAIN.PRECISION, device)

    train = config.TRAIN
    with distributed.main_first():  # one process downloads
        if train.CLIP_MODEL_CHECKPOINT:  # go on from an encoder that was fine-tuned before
            path, base = train.CLIP_MODEL_CHECKPOINT, train.CLIP_MODEL_BASE
            encoder = load_encoder(path, base, config.TEXT.WORDS_NUM, **clip_keys(train))
        else:
            base, weights = train.CLIP_MODEL_BASE, train.CLIP_PRETRAINED
            encoder = build_encoder(base, weights, config.TEXT.WORDS_NUM, **clip_keys(train))
    print(encoder.describe)
    require_embedding_dim(config, encoder.word_dim)

    examples = {split: read_split(config, split) for split in ("train", "test")}
    dataset = training_set(config, examples["train"], [config.image_size], encoder.tokenize)
    origin = {
        "command": command_line("pretrain_DAMSM.py", argv),
        "data": {split: data_fingerprint(of_split) for split, of_split in examples.items()},
        "encoder": fingerprint(encoder),
    }
    with open_run(config, earlier) as folder, recorded(folder, config, device, precision, **origin):
        print(f"{len(examples['train'])} training and {len(examples['test'])} test images from {config.DATA_DIR}")
        size = f"images of {config.image_size} px"
        print(f"{encoder.spec.name} on {device}, {precision}, {size}, writing to {folder.root}")
        print(batch_line(config))
        validate = Validation(examples["test"], config, device, folder)
        best = pretrain(config, encoder.to(device), dataset, device, folder, validate, resume=earlier is not None)
        folder.finish()
        if best.is_file():
            print(f"the best encoder is {best}")


if __name__ == "__main__":
    run_script(main)
