"""Turn pictures with captions into a data set: python tools/make_manifest.py SOURCE

SOURCE is one of these; which one is found out:

    a folder of pictures with a .txt beside each, a caption a line; sub-folders are classes
    a CSV or TSV with a row for each caption: columns image and caption, perhaps class and split
    COCO's captions_*.json, one, or one to train on and one to test (--images names the folder of the images)
    CUB-200-2011, its folder or CUB_200_2011.tgz (--captions names the folder or archive of its captions)
    Oxford's 102 flowers, the folder of jpg/ or 102flowers.tgz, with imagelabels.mat beside it (--captions as above)
    an archive (.tgz, .tar.gz, .tar, .zip) of any of these (--out names the folder to unpack it into)

It writes train.jsonl and test.jsonl into the folder of the pictures or into --out, says what was found and what cannot
be used, and ends with the commands that check the data set and train on it. It opens no picture: the check does that.
Each split needs two pictures. A flag that would have no effect on what SOURCE is, is an error.
"""

from __future__ import annotations

import argparse
import math
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from clipgan.data.sources.kinds import CAPTIONS, COLUMN_FLAGS, IMAGES, KINDS, NO_CLASSES
from clipgan.data.sources.making import Request, make_manifest
from clipgan.data.sources.splitting import SEED, TEST_SHARE, WAYS
from clipgan.data.sources.table import COLUMNS
from clipgan.errors import UserError
from clipgan.files.gate import short
from clipgan.flags import run_script, whole_number
from clipgan.machine.failures import explained


def share(text: str) -> float:
    """The ``type`` of ``--test-share``: a number between 0 and 1."""
    try:
        number = float(text)
    except ValueError:
        number = math.nan
    if not 0 < number < 1:
        raise UserError(f"--test-share must lie between 0 and 1, such as 0.2, not {short(text)}")
    return number


def parse(argv: Sequence[str] | None) -> Request:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    add = parser.add_argument
    add("sources", metavar="SOURCE", nargs="+", type=Path, help="folder, file or archive; two of COCO's files")
    add("--kind", choices=tuple(KINDS), help="what SOURCE is (default: found out)")
    add(IMAGES, type=Path, metavar="DIR", help="where the images of a table or of COCO lie (default: beside)")
    texts = "where the texts of a folder, CUB or the flowers lie (default: beside the pictures)"
    add(CAPTIONS, type=Path, metavar="DIR|ARCHIVE", help=texts)
    add("--out", type=Path, metavar="DIR", help="folder to write to (default: the folder of the pictures)")
    add("--copy", action="store_true", help="copy the pictures into --out, if they lie elsewhere")
    add("--overwrite", action="store_true", help="replace a train.jsonl and test.jsonl that are there")
    add("--raw", action="store_true", help="also take captions of other than English letters and digits")
    add(NO_CLASSES, action="store_true", help="sub-folders or a column of classes are none (COCO has none)")
    add("--split-by", choices=WAYS, help="divide by classes or at random (default: as SOURCE says, or by class)")
    add("--test-share", type=share, metavar="SHARE", help=f"of the classes or pictures (default: {TEST_SHARE})")
    add("--seed", type=whole_number("--seed", 0, 2**63), metavar="N", help=f"of the division (default: {SEED})")
    for column, usual in COLUMNS.items():
        add(COLUMN_FLAGS[column], metavar="NAME", help=f"a table's column (default: {', '.join(usual[:3])}, …)")
    args = vars(parser.parse_args(argv))
    columns = {column: args.pop(f"{column}_column") for column in COLUMNS}
    named = {column: name for column, name in columns.items() if name is not None}
    return Request(tuple(args.pop("sources")), classes=not args.pop("no_classes"), columns=named, **args)


@explained
def main(argv: Sequence[str] | None = None) -> None:
    print(*make_manifest(parse(argv)), sep="\n")


if __name__ == "__main__":
    run_script(main)
