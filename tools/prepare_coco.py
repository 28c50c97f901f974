"""Bring COCO 2014 into the layout that training reads: python tools/prepare_coco.py --data_dir data/coco

Put these from cocodataset.org into the folder first:

    annotations/captions_train2014.json   annotations/captions_val2014.json   train2014/*.jpg   val2014/*.jpg
    (or the images of both in images/*.jpg)

It adds text/<image>.txt with an image's captions, a line each, and {train,test}/filenames.pickle; the images stay where
they are. The test split is val2014.
"""

from __future__ import annotations

import argparse
import contextlib
import os
import pickle
import sys
from collections.abc import Iterator, Sequence
from pathlib import Path
from typing import Any

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from tqdm import tqdm

from clipgan.data.example import require_name
from clipgan.data.sources import coco
from clipgan.errors import UserError
from clipgan.files.gate import printable, short
from clipgan.files.shapes import Misfit
from clipgan.flags import run_script
from clipgan.machine.failures import explained

FOLDERS = {"train": "train2014", "test": "val2014"}
_EXPECTED = (
    "COCO's caption format, images with id and file_name and annotations with image_id and caption; "
    "annotations_trainval2014 has it"
)


def _image_name(value: Any, name: str) -> None:
    """The plain name of a JPEG."""
    try:
        plain = require_name(value, name)
    except UserError as error:
        raise Misfit(str(error)) from None
    if plain != value or "/" in value or "\\" in value or not value.endswith(".jpg") or value.startswith("."):
        raise Misfit(f"{name} must be a plain name that ends with .jpg, not {short(value)}")


def read_captions(path: Path) -> dict[str, list[str]]:
    """Captions by image name (without extension) of one of COCO's caption files, images in the order of their names.

    Annotations of images that the file does not list are left out, and so are images without a caption.

    Raises:
        UserError: the file is missing or not of COCO's caption format, or two images have one id or one name.
    """
    by_file = coco.read_captions(path, _image_name, 20_000, _EXPECTED)
    by_name = {file.removesuffix(".jpg"): texts for file, texts in by_file.items()}
    captions = {}
    for name, texts in sorted(by_name.items()):
        # Some captions hold line breaks, but here a line is a caption.
        lines = [line for line in (" ".join(printable(text).split()) for text in texts) if line]
        if lines:
            captions[name] = lines
    return captions


def require_images(folder: Path, names: Sequence[str]) -> None:
    """Raise a UserError unless ``folder`` holds a JPEG of each name."""
    try:
        with os.scandir(folder) as entries:
            present = {entry.name for entry in entries}
    except OSError as error:
        reason = "no such folder" if isinstance(error, FileNotFoundError) else f"cannot be read ({error.strerror})"
        raise UserError(f"{folder}: {reason}; expected COCO's images there") from None
    missing = [name for name in names if f"{name}.jpg" not in present]
    if missing:
        raise UserError(f"{folder}: lacks {len(missing)} of {len(names)} images, {missing[0]}.jpg for one")


def require_apart(splits: dict[str, dict[str, list[str]]]) -> None:
    """Raise a UserError if an image is in both splits: its captions would be written to one file."""
    both = splits["train"].keys() & splits["test"].keys()
    if both:
        raise UserError(f"{len(both)} images are in both train2014 and val2014, {min(both)} for one; expected none")


def write_whole(path: Path, content: bytes) -> None:
    """Write a file so that it is the old one or the whole new one; raises ``UserError``."""
    temporary = path.with_name(f".{os.getpid()}.tmp")
    with _writing(path):
        try:
            temporary.write_bytes(content)
            os.replace(temporary, path)
        finally:
            with contextlib.suppress(OSError):
                temporary.unlink()


@contextlib.contextmanager
def _writing(path: Path) -> Iterator[None]:
    try:
        yield
    except OSError as error:
        raise UserError(
            f"{path}: cannot be written ({error.strerror or error}); all other files are whole: run this again when "
            "that is mended"
        ) from None


def write_splits(root: Path, splits: dict[str, dict[str, list[str]]]) -> None:
    """Write the caption files of all splits, then the lists of their images.

    Raises:
        UserError: a file cannot be written; all that is there is whole.
    """
    for folder in ("text", *splits):
        with _writing(root / folder):
            (root / folder).mkdir(exist_ok=True)
    for split, captions in splits.items():
        for name, texts in tqdm(captions.items(), desc=split, unit="image"):
            write_whole(root / "text" / f"{name}.txt", ("\n".join(texts) + "\n").encode())
    for split, captions in splits.items():
        write_whole(root / split / "filenames.pickle", pickle.dumps(list(captions), protocol=2))


@explained
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--data_dir", default="data/coco", metavar="DIR", help="default: %(default)s")
    parser.add_argument("--annotations", metavar="DIR", help="folder of the two JSON files (DATA_DIR/annotations)")
    parser.add_argument("--skip_image_check", action="store_true", help="the images come later")
    args = parser.parse_args(argv)
    root = Path(args.data_dir)
    if not os.path.isdir(root):
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
    require_apart(splits)

    write_splits(root, splits)
    counts = ", ".join(
        f"{split}: {len(captions)} images, {sum(map(len, captions.values()))} captions"
        for split, captions in splits.items()
    )
    print(f"{root} is ready ({counts})")


if __name__ == "__main__":
    run_script(main)
