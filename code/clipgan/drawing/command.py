"""Drawing from the command line: the flags of ``main.py`` that draw sentences, and what they do."""

from __future__ import annotations

import argparse
import sys
import time
from collections.abc import Iterator, Sequence
from pathlib import Path

from tqdm import tqdm

from clipgan.data.captions import read_caption_file
from clipgan.drawing.drawing import Drawing
from clipgan.drawing.export import drawing_config, gather
from clipgan.drawing.files import write_drawings, write_interpolation
from clipgan.drawing.model import LARGEST_COUNT, LARGEST_SEED, Model, load
from clipgan.drawing.page import write_page
from clipgan.errors import UserError, one_line
from clipgan.evaluation.from_snapshot import networks_of
from clipgan.files.gate import decode
from clipgan.flags import whole_number
from clipgan.machine import distributed
from clipgan.machine.device import choose_device

DEFAULT_OUT = "output/drawn"
_LARGEST_INPUT = 16 << 20  # bytes of standard input
_MOST_TEXTS = 10_000
_FLAGS = ("model", "text", "text_file", "page", "interpolate", "best", "all_scales")


def add_drawing_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that make ``main.py`` draw sentences instead of training or evaluating."""
    count, steps = whole_number("--count", 1, LARGEST_COUNT), whole_number("--steps", 2, 1000)
    group = parser.add_argument_group("draw sentences, with a model's file (--model) or a config (--cfg)")
    group.add_argument("--model", metavar="FILE", help="a model that tools/export_model.py wrote")
    group.add_argument("--text", metavar="SENTENCE", action="append", default=[], help="what to draw; may be repeated")
    group.add_argument("--text-file", metavar="FILE", help="a sentence a line; - is standard input")
    group.add_argument("--count", type=count, default=4, metavar="N", help="pictures of each sentence (default: 4)")
    group.add_argument("--seed", type=whole_number("--seed", 0, LARGEST_SEED), default=0, metavar="N",
                       help="the same seed draws the same pictures (default: 0)")  # fmt: skip
    group.add_argument("--best", type=whole_number("--best", 1, LARGEST_COUNT), metavar="N",
                       help="keep N pictures of each sentence: those that the encoder finds nearest to it")  # fmt: skip
    group.add_argument("--all-scales", action="store_true", help="also write the smaller sizes")
    group.add_argument("--interpolate", action="store_true", help="go from one --text to another: a strip and a GIF")
    group.add_argument("--steps", type=steps, default=8, metavar="N", help="pictures of --interpolate (default: 8)")
    group.add_argument("--page", action="store_true", help="also write index.html, which shows what each word does")
    group.add_argument("--out", metavar="DIR", default=DEFAULT_OUT, help=f"where to write (default: {DEFAULT_OUT})")


def asks_to_draw(args: argparse.Namespace) -> bool:
    """Whether a flag was given that only drawing has."""
    return any(getattr(args, name) not in (None, False, []) for name in _FLAGS)


def draw_from_flags(args: argparse.Namespace) -> None:
    """Do what the flags of :func:`add_drawing_flags` ask for, and say what was written.

    Raises:
        UserError: flags that do not go together, no model, no readable text, or a folder that cannot be written.
    """
    if distributed.world_size() > 1:
        raise UserError("drawing takes one process: start it without torchrun")
    if bool(args.model) == bool(args.cfg):
        raise UserError("name what draws: --model FILE, or --cfg FILE (one of the two)")
    if args.resume is not None:
        raise UserError("--resume goes on with a training run: it does not draw sentences")
    texts = [*args.text, *_lines(args.text_file)]
    if not texts:
        raise UserError('nothing to draw: give --text "a sentence", or --text-file FILE with a sentence a line')
    if len(texts) > _MOST_TEXTS:
        raise UserError(f"{len(texts)} sentences: at most {_MOST_TEXTS} are drawn in one call")
    if args.interpolate and (len(texts) != 2 or args.best or args.page):
        raise UserError("--interpolate goes from one sentence to another: give two, without --best and --page")
    if args.best and args.best > args.count:
        raise UserError(f"--best {args.best} keeps more pictures than --count {args.count} draws")
    model = _model(args)
    out = Path(args.out)
    if args.interpolate:
        _interpolate(model, texts, args, out)
    else:
        _draw(model, texts, args, out)


def _lines(path: str | None) -> list[str]:
    """The sentences of ``--text-file``."""
    if path is None:
        return []
    if path != "-":
        return read_caption_file(path)
    content = sys.stdin.buffer.read(_LARGEST_INPUT + 1)
    if len(content) > _LARGEST_INPUT:
        raise UserError(f"--text-file -: standard input has more than {_LARGEST_INPUT >> 20} MB")
    lines = [line for line in decode(content).split("\n") if line.strip()]
    if not lines:
        raise UserError("--text-file -: standard input is empty: expected a sentence a line")
    return lines


def _model(args: argparse.Namespace) -> Model:
    """The model of ``--model`` or ``--cfg``."""
    if args.model:
        unused = [flag for flag in ("NET_G", "data_dir", "set") if getattr(args, flag)]
        if unused:
            raise UserError(f"--{unused[0]} changes a config; --model {args.model} has its own: leave one of them out")
        return load(args.model, choose_device(args.gpu))
    config = drawing_config(args)
    generator, encoder = networks_of(config)
    model, said = gather(config, generator, encoder, config.run_name)
    if not model.vocabulary:
        print(said[0])
    return Model(model, choose_device(config.GPU_ID, config.CUDA))


def _draw(model: Model, texts: Sequence[str], args: argparse.Namespace, out: Path) -> None:
    texts = list(dict.fromkeys(texts))
    _say_notes(model, texts)
    start = time.perf_counter()
    total = len(texts) * (args.best or args.count)
    drawings = list(_bar(model.drawings(texts, args.count, args.seed, args.best), total))
    written = write_drawings(out, drawings, all_scales=args.all_scales)
    if args.page:
        written.append(out / "index.html")
        title = texts[0] if len(texts) == 1 else f"{texts[0]}, and {len(texts) - 1} more"
        write_page(written[-1], drawings, title, model.facts)
    seconds = time.perf_counter() - start
    kept = f"the {args.best} of {args.count} that the encoder finds nearest, " if args.best else ""
    print(f"{total} picture{'s' * (total > 1)} of {len(texts)} sentence{'s' * (len(texts) > 1)}, {kept}"
          f"seed {args.seed}, {model.sizes[-1]} px, in {seconds:.1f} s")  # fmt: skip
    if args.best:
        for drawing in drawings:
            print(f"  {drawing.score:.3f}  number {drawing.number}  {one_line(drawing.caption, 80)}")
    for path in written if len(written) <= 12 else [*written[:4], f"… ({len(written)} files)", *written[-2:]]:
        print(f"  {path}")


def _interpolate(model: Model, texts: Sequence[str], args: argparse.Namespace, out: Path) -> None:
    _say_notes(model, texts)
    start = time.perf_counter()
    pictures = model.interpolate(*texts, steps=args.steps, seed=args.seed)
    written = write_interpolation(out, pictures, *texts, args.seed)
    print(f"{len(pictures)} pictures from one sentence to the other, in {time.perf_counter() - start:.1f} s")
    for path in written:
        print(f"  {path}")


def _say_notes(model: Model, texts: Sequence[str]) -> None:
    """Say what the reader should know of each text, before anything is drawn."""
    for text in texts:
        for note in model.read(text).notes:
            print(f"{one_line(text, 80)}: {note}")


def _bar(drawings: Iterator[Drawing], total: int) -> Iterator[Drawing]:
    return tqdm(drawings, total=total, desc="drawing", unit="picture", leave=False, disable=total < 4)
