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
from clipgan.drawing.export import drawing_config, model_of_config
from clipgan.drawing.files import write_drawings, write_interpolation
from clipgan.drawing.model import LARGEST_COUNT, LARGEST_SEED, Model, load
from clipgan.drawing.page import write_page
from clipgan.errors import UserError, one_line
from clipgan.evaluation.from_snapshot import networks_of
from clipgan.files.gate import decode
from clipgan.flags import whole_number
from clipgan.machine import distributed
from clipgan.machine.device import choose_device

DEFAULT_OUT, DEFAULT_COUNT, DEFAULT_STEPS = "output/drawn", 4, 8
MOST_ON_A_PAGE = 500  # pictures, which are all in the one file
_LARGEST_INPUT = 16 << 20  # bytes of standard input
_MOST_TEXTS = 10_000
_FLAGS = ("model", "text", "text_file", "count", "seed", "best", "all_scales", "interpolate", "steps", "page", "out")


def add_drawing_flags(parser: argparse.ArgumentParser) -> None:
    """The flags that make ``main.py`` draw sentences instead of training or evaluating."""
    count, steps = whole_number("--count", 1, LARGEST_COUNT), whole_number("--steps", 2, 1000)
    group = parser.add_argument_group("draw sentences, with a model's file (--model) or a config (--cfg)")
    group.add_argument("--model", metavar="FILE", help="a model that tools/export_model.py wrote")
    group.add_argument("--text", metavar="SENTENCE", action="append", default=[], help="what to draw; may be repeated")
    group.add_argument("--text-file", metavar="FILE", help="a sentence a line; - is standard input")
    group.add_argument("--count", type=count, metavar="N", help=f"pictures of each sentence (default: {DEFAULT_COUNT})")
    group.add_argument("--seed", type=whole_number("--seed", 0, LARGEST_SEED), metavar="N",
                       help="the same seed draws the same pictures (default: 0)")  # fmt: skip
    group.add_argument("--best", type=whole_number("--best", 1, LARGEST_COUNT), metavar="N",
                       help="keep N pictures of each sentence: those that the encoder finds nearest to it")  # fmt: skip
    group.add_argument("--all-scales", action="store_true", help="also write the smaller sizes")
    group.add_argument("--interpolate", action="store_true", help="go from one --text to another: a strip and a GIF")
    group.add_argument("--steps", type=steps, metavar="N", help=f"pictures of --interpolate (default: {DEFAULT_STEPS})")
    group.add_argument("--page", action="store_true", help="also write index.html, which shows what each word does")
    group.add_argument("--out", metavar="DIR", help=f"where to write (default: {DEFAULT_OUT})")


def asks_to_draw(args: argparse.Namespace) -> bool:
    """Whether a flag was given that only drawing has."""
    return bool(_given(args, _FLAGS))


def _given(args: argparse.Namespace, names: Sequence[str]) -> list[str]:
    """Those of the flags that were given, as they are written."""
    values = {name: getattr(args, name) for name in names}
    return [
        f"--{name.replace('_', '-')}" for name, value in values.items()
        if value is not None and value is not False and value != []
    ]  # fmt: skip


def draw_from_flags(args: argparse.Namespace) -> None:
    """Do what the flags of :func:`add_drawing_flags` ask for, and say what was written.

    Raises:
        UserError: flags that do not go together, no model, no readable text, or a folder that cannot be written.
    """
    if distributed.world_size() > 1:
        raise UserError("drawing takes one process: start it without torchrun")
    texts = _texts(args)
    if bool(args.model) == bool(args.cfg):
        raise UserError("name what draws: --model FILE, or --cfg FILE (one of the two)")
    places = dict(reversed(texts))  # where each sentence was said first
    distinct = list(dict.fromkeys(text for text, _ in texts))
    count, seed, out = args.count or DEFAULT_COUNT, args.seed or 0, Path(args.out or DEFAULT_OUT)
    _refuse_contradictions(args, len(distinct), count)
    model = _model(args)
    for text in distinct:
        _say_notes(model, text, places[text])
    if args.interpolate:
        _interpolate(model, distinct, args.steps or DEFAULT_STEPS, seed, out)
    else:
        _draw(model, distinct, count, seed, args, out)


def _texts(args: argparse.Namespace) -> list[tuple[str, str]]:
    """The sentences to draw, each with where it was said."""
    texts = [(text, "--text: ") for text in args.text]
    if args.text_file is not None:
        where = f"--text-file {args.text_file}, sentence "
        texts += [(text, f"{where}{number}: ") for number, text in enumerate(_lines(args.text_file), start=1)]
    if not texts:
        flag = _given(args, _FLAGS)[0]
        seeds = " (a run's own seed is --manualSeed)" if flag == "--seed" else ""
        raise UserError(
            f'nothing to draw: {flag} goes with --text "a sentence", or --text-file FILE with a sentence a line{seeds}'
        )
    if len(texts) > _MOST_TEXTS:
        raise UserError(f"{len(texts)} sentences: at most {_MOST_TEXTS} are drawn in one call")
    return texts


def _refuse_contradictions(args: argparse.Namespace, sentences: int, count: int) -> None:
    """Refuse flags that do not go together, or would do nothing."""
    if args.resume is not None:
        raise UserError("--resume goes on with a training run: it does not draw sentences")
    if args.manualSeed is not None:
        raise UserError("--manualSeed is the seed of a run: pictures have --seed")
    if args.model:
        unused = [f"--{flag}" for flag in ("NET_G", "data_dir", "set") if getattr(args, flag)]
        if unused:
            raise UserError(f"{unused[0]} changes a config; --model {args.model} has its own: leave one of them out")
    if args.interpolate:
        unused = _given(args, ("count", "best", "all_scales", "page"))
        if unused:
            raise UserError(f"{unused[0]} does nothing with --interpolate: leave one of them out")
        if sentences != 2:
            raise UserError("--interpolate goes from one sentence to another: give two that differ")
        return
    if args.steps is not None:
        raise UserError("--steps is of --interpolate: give that, too, or --count for the number of pictures")
    if args.best and args.best > count:
        raise UserError(f"--best {args.best} keeps more pictures than --count {count} draws")
    total = sentences * (args.best or count)
    if args.page and total > MOST_ON_A_PAGE:
        raise UserError(f"--page holds {MOST_ON_A_PAGE} pictures at most, not {total}: lower --count, or leave it out")


def _say_notes(model: Model, text: str, where: str) -> None:
    """Say what the reader should know of a text, before anything is drawn."""
    try:
        caption = model.read(text)
    except UserError as error:
        raise UserError(f"{where}{error}") from None
    for note in caption.notes:
        print(f"{one_line(text, 80)}: {note}")


def _lines(path: str) -> list[str]:
    """The sentences of ``--text-file``."""
    if not path:
        raise UserError("--text-file is empty: name a file with a sentence a line, or - for standard input")
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
        return load(args.model, choose_device(args.gpu))
    config = drawing_config(args)
    generator, encoder = networks_of(config)
    model, said = model_of_config(config, generator, encoder, config.run_name)
    if said:
        print(*said, sep="\n")
    return Model(model, choose_device(config.GPU_ID, config.CUDA))


def _draw(
    model: Model, texts: Sequence[str], count: int, seed: int, args: argparse.Namespace, out: Path
) -> None:
    start = time.perf_counter()
    total = len(texts) * (args.best or count)
    kept: list[Drawing] = []  # for the page, which shows all at once
    scores: list[str] = []

    def watched() -> Iterator[Drawing]:
        for drawing in _bar(model.drawings(texts, count, seed, args.best), total):
            if args.page:
                kept.append(drawing)
            if args.best:
                scores.append(f"  {drawing.score:.3f}  number {drawing.number}  {one_line(drawing.caption, 80)}")
            yield drawing

    written = write_drawings(out, watched(), all_scales=args.all_scales)
    if args.page:
        written.append(out / "index.html")
        title = texts[0] if len(texts) == 1 else f"{texts[0]}, and {len(texts) - 1} more"
        write_page(written[-1], kept, title, model.facts)
    seconds = time.perf_counter() - start
    nearest = f"the {args.best} of {count} that the encoder finds nearest, " if args.best else ""
    print(f"{total} picture{'s' * (total > 1)} of {len(texts)} sentence{'s' * (len(texts) > 1)}, {nearest}"
          f"seed {seed}, {model.sizes[-1]} px, in {seconds:.1f} s", *scores, sep="\n")  # fmt: skip
    for path in written if len(written) <= 12 else [*written[:4], f"… ({len(written)} files)", *written[-2:]]:
        print(f"  {path}")


def _interpolate(model: Model, texts: Sequence[str], steps: int, seed: int, out: Path) -> None:
    start = time.perf_counter()
    pictures = model.interpolate(*texts, steps=steps, seed=seed)
    written = write_interpolation(out, pictures, *texts, seed)
    print(f"{len(pictures)} pictures from one sentence to the other, in {time.perf_counter() - start:.1f} s")
    for path in written:
        print(f"  {path}")


def _bar(drawings: Iterator[Drawing], total: int) -> Iterator[Drawing]:
    return tqdm(drawings, total=total, desc="drawing", unit="picture", leave=False, disable=total < 4)
