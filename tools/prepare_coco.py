"""Bring COCO 2014 into the layout that training reads: python tools/prepare_coco.py --data_dir data/coco

Put these from cocodataset.org into the folder first:

    annotations/captions_train2014.json   annotations/captions_val2014.json   train2014/*.jpg   val2014/*.jpg
    (or the images of both in images/*.jpg)

It adds text/<image>.txt with an image's captions, a line each, and {train,test}/filenames.pickle; the images stay where
they are. The test split is val2014.
"""

from __future__ import annotations

import argparse
import json
import os
import pickle
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from tqdm import tqdm

from clipgan.errors import UserError
from clipgan.flags import run_script

FOLDERS = {"train": "train2014", "test": "val2014"}


def read_captions(path: Path) -> dict[str, list[str]]:
    """Captions by image name (without extension) of one of COCO's caption files, images in the order of their names.

    Raises:
        UserError: the file is missing or not of COCO's caption format.
    """
    try:
        content = json.loads(path.read_text(encoding="utf-8"))
        images = {image["id"]: Path(image["file_name"]).stem for image in content["images"]}
        captions: dict[str, list[str]] = {name: [] for name in sorted(images.values())}
        for annotation in content["annotations"]:
            # Some captions hold line breaks, but here a line is a caption.
            text = " ".join(annotation["caption"].split())
            if text and annotation["image_id"] in images:
                captions[images[annotation["image_id"]]].append(text)
    except OSError as error:
        raise UserError(f"{path}: cannot be read ({error.strerror}); COCO's annotations_trainval2014 has it") from None
    except (ValueError, KeyError, TypeError, AttributeError) as error:
        raise UserError(
            f"{path}: expected COCO's caption format, images with id and file_name and annotations with image_id and "
            f"caption ({type(error).__name__}: {error})"
        ) from None
    return {name: texts for name, texts in captions.items() if texts}


def require_images(folder: Path, names: Sequence[str]) -> None:
    """Raise a UserError unless ``folder`` holds a JPEG of each name."""
    if not folder.is_dir():
        raise UserError(f"{folder}: no such folder; expected COCO's images there")
    present = {entry.name for entry in os.scandir(folder)}
    missing = [name for name in names if f"{name}.jpg" not in present]
    if missing:
        raise UserError(f"{folder}: lacks {len(missing)} of {len(names)} images, {missing[0]}.jpg for one")


def write_split(root: Path, split: str, captions: dict[str, list[str]]) -> None:
    """Write a split's caption files, then the list of its images."""
    (root / "text").mkdir(exist_ok=True)
    for name, texts in tqdm(captions.items(), desc=split, unit="image"):
        (root / "text" / f"{name}.txt").write_text("\n".join(texts) + "\n", encoding="utf-8")
    (root / split).mkdir(exist_ok=True)
    (root / split / "filenames.pickle").write_bytes(pickle.dumps(list(captions), protocol=2))


def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data/coco", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--annotations", metavar="DIR", help="folder of the two JSON files (DATA_DIR/annotations)")
    parser.add_argument("--skip_image_check", action="store_true", help="the images come later")
    args = parser.parse_args(argv)
    root = Path(args.data_dir)
    if not root.is_dir():
        raise UserError(f"{root}: no such folder; expected COCO's annotations and images in it (--help lists them)")
    annotations = Path(args.annotations) if args.annotations else root / "annotations"

    # Check everything before writing anything
    splits = {split: read_captions(annotations / f"captions_{folder}.json") for split, folder in FOLDERS.items()}
    for split, captions in splits.items():
        if not captions:
            raise UserError(f"{annotations / f'captions_{FOLDERS[split]}.json'}: has no captions")
        if not args.skip_image_check:
            together = root / "images"
            require_images(together if together.is_dir() else root / FOLDERS[split], list(captions))

    for split, captions in splits.items():
        write_split(root, split, captions)
    counts = ", ".join(
        f"{split}: {len(captions)} images, {sum(map(len, captions.values()))} captions"
        for split, captions in splits.items()
    )
    print(f"{root} is ready ({counts})")


if __name__ == "__main__":
    run_script(main)
