"""What the user is told: what was found and left out, and the commands that go on from there."""

from __future__ import annotations

import re
import shlex
from collections.abc import Sequence
from pathlib import Path

from clipgan.data.sources.output import manifest
from clipgan.data.sources.pictures import Picture, Source
from clipgan.data.sources.splitting import Parts
from clipgan.errors import counted

# TRAIN.BATCH_SIZE and TEXT.CAPTIONS_PER_IMAGE of the configs that the commands name.
CONFIGS = {
    "cfg/DAMSM/bird.yml": (48, 10),
    "cfg/DAMSM/coco.yml": (48, 5),
    "cfg/clip_bird_DMGAN.yml": (10, 10),
    "cfg/clip_coco_DMGAN.yml": (16, 5),
}


def found(source: Source, parts: Parts) -> list[str]:
    """Lines with the numbers of pictures, captions and classes, of what was left out, and of the splits."""
    pictures = [*parts.train, *parts.test]
    captions = [len(picture.captions) for picture in pictures]
    each = f"{min(captions)}" if min(captions) == max(captions) else f"{min(captions)} to {max(captions)}"
    boxes = ", with boxes" if any(picture.box for picture in pictures) else ""
    return [
        f"{counted(len(pictures), 'picture')}, {counted(sum(captions), 'caption')} ({each} each), "
        f"{_classes(pictures)}{boxes}",
        *(f"left out: {line}" for line in source.left_out.lines()),
        f"train: {counted(len(parts.train), 'picture')}, {_classes(parts.train)}; "
        f"test: {counted(len(parts.test), 'picture')}, {_classes(parts.test)} ({parts.how})",
    ]


def _classes(pictures: Sequence[Picture]) -> str:
    number = len({picture.label for picture in pictures} - {None})
    return counted(number, "class", "classes") if number else "no classes"


def next_steps(out: Path, parts: Parts, raw: bool, configs: str) -> list[str]:
    """Lines with what was written, and the commands that check it and train on it; ``configs``: bird or coco."""
    name = re.sub(r"[^A-Za-z0-9_-]+", "_", out.absolute().name).strip("_")[:50] or "mine"
    encoder = f"TRAIN.CLIP_MODEL_CHECKPOINT=output/{name}_DAMSM/Model/clip_best.pth"
    pretraining, training = f"cfg/DAMSM/{configs}.yml", f"cfg/clip_{configs}_DMGAN.yml"
    most = max(len(picture.captions) for picture in (*parts.train, *parts.test))

    def command(script: str, config: str, *more: str) -> str:
        settings = [f"DATASET_NAME={name}", *more]
        batch, captions = CONFIGS[config]
        if most != captions:
            settings.append(f"TEXT.CAPTIONS_PER_IMAGE={most}")
        if raw:
            settings.append("TEXT.RAW_CAPTIONS=True")
        if len(parts.train) < batch and not script.startswith("tools"):
            settings.append(f"TRAIN.BATCH_SIZE={len(parts.train)}")
        return f"python {script} --cfg {config} --data_dir {shlex.quote(str(out))} --set {' '.join(settings)}"

    return [
        f"written: {manifest(out, 'train')}, {manifest(out, 'test')}",
        "next:    no picture was opened here; the check opens each of them, and says which cannot be used",
        f"check:   {command('tools/check_data.py', pretraining)}",
        f"train:   {command('pretrain_DAMSM.py', pretraining)}",
        f"then:    {command('main.py', training, encoder)}",
    ]
