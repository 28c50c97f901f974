"""Put a trained model into one file: python tools/export_model.py --cfg cfg/eval_clip_bird.yml --out birds.safetensors

The file holds the generator, the encoder, the words of the training captions, the scores, and a text about the model.
Draw with it by ``python main.py --model birds.safetensors --text "…"``, or in Python by ``clipgan.load``. It cannot
run anything.
"""

from __future__ import annotations

import argparse
import sys
from collections.abc import Sequence
from pathlib import Path

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

from clipgan.drawing.export import drawing_config, gather
from clipgan.errors import UserError, counted
from clipgan.evaluation.from_snapshot import networks_of
from clipgan.files.gate import MEGABYTE, read_text, reading, short
from clipgan.flags import add_common_flags, run_script
from clipgan.machine.failures import explained
from clipgan.runs.model_file import LONGEST_CARD, LONGEST_NAME, require_suffix, write_model


@explained
def main(argv: Sequence[str] | None = None) -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--cfg", metavar="FILE", required=True, help="config of an evaluation, whose TRAIN.NET_G it is")
    parser.add_argument("--out", metavar="FILE", required=True, help="the file to write: ….safetensors")
    parser.add_argument("--name", help="the model's name (default: that of the file)")
    parser.add_argument(
        "--with-judge",
        action="store_true",
        help="the encoder's image side too, which --best and ranking take",
    )
    parser.add_argument("--card", metavar="FILE", help="a text in Markdown to stand below the model's own card")
    add_common_flags(parser)
    args = parser.parse_args(argv)

    require_suffix(args.out)
    name = _name(args.name, args.out)
    config = drawing_config(args)
    words = ""
    if args.card:
        with reading(args.card, "a text in Markdown"):
            words = read_text(args.card, LONGEST_CARD // 2)
    generator, encoder = networks_of(config)
    model, said = gather(config, generator, encoder, name, with_judge=args.with_judge)
    for line in said:
        print(line)
    model.card += f"\n{words}" if words else ""
    arguments = config.generator_arguments(encoder.word_dim, encoder.sentence_dim)
    write_model(args.out, model, arguments)
    side = "with" if args.with_judge else "without"
    size = Path(args.out).stat().st_size / MEGABYTE
    scores = counted(len(model.scores), "score")
    print(f"{args.out}: {size:.1f} MB, {side} the encoder's image side, {scores}")
    print(f'draw: python main.py --model {args.out} --text "a sentence"')


def _name(given: str | None, out: str) -> str:
    """The model's name: that of ``--name``, or else of the file; raises ``UserError`` for one that no card can show."""
    name = Path(out).stem if given is None else given
    if not 1 <= len(name) <= LONGEST_NAME or not name.isprintable():
        without = "; without it, the name is that of --out" if given is None else ""
        raise UserError(f"--name must be a line of 1 to {LONGEST_NAME} characters, not {short(name)}{without}")
    return name


if __name__ == "__main__":
    run_script(main)
