"""Writes drawings as one page for a browser: a single file that fetches nothing and can be sent to anyone.

The layout, style and script are in ``page_template.html``. Everything that comes from captions, words and facts is
escaped, and the page's own Content-Security-Policy lets no script run but the template's.
"""

from __future__ import annotations

import base64
import hashlib
import io
import re
from collections.abc import Sequence
from dataclasses import dataclass
from html import escape
from pathlib import Path

import numpy as np
from PIL import Image

from clipgan.drawing.drawing import Drawing
from clipgan.drawing.files import name_of
from clipgan.errors import counted
from clipgan.files.gate import printable
from clipgan.files.writing import write_text

TEMPLATE = Path(__file__).with_name("page_template.html")
MAP_SIDE = 32  # cells of a word's map along its longer side; larger maps are averaged
SMOOTH_FROM = 200  # images whose side is smaller are enlarged with sharp pixels
_HELP = " Point at a word to see where it speaks to the picture, or at a place to see which words speak there."


def write_page(
    path: str | Path, drawings: Sequence[Drawing], title: str, facts: Sequence[tuple[str, str]] = ()
) -> None:
    """Write a self-contained HTML page that shows the drawings, grouped by caption in the order given.

    Args:
        path: the file to write, such as ``index.html``; its folder is made.
        drawings: at least one.
        title: of the page.
        facts: of the model, (name, value), for a small table.

    Raises:
        ValueError: there are no drawings, or one's attention does not fit its words and images.
        UserError: the file cannot be written.
    """
    if not drawings:
        raise ValueError("a page needs at least one drawing")
    groups = _by_caption(drawings)
    template = TEMPLATE.read_text(encoding="utf-8")
    content = {
        "policy": _policy(template),
        "title": _text(title),
        "summary": f"{counted(len(drawings), 'picture')} of {counted(len(groups), 'sentence')}.",
        "help": f'<span class="help">{_HELP}</span>' if any(d.attention for d in drawings) else "",
        "captions": "\n".join(_caption(number, group) for number, group in enumerate(groups)),
        "facts": _facts_table(facts),
    }
    # In one pass, so that a caption with "{{facts}}" in it stays what it is.
    write_text(path, re.sub(r"\{\{(\w+)\}\}", lambda found: content[found[1]], template))


def place_words(caption: str, words: Sequence[str]) -> list[tuple[str, int | None]] | None:
    """Find the encoder's words in the caption as it was typed.

    Args:
        caption: as it was given.
        words: what the encoder read of it, in order, in any case. Between them it may have left out anything but a-z
            and digits, such as commas, and within an ASCII word letters that are not ASCII.

    Returns:
        The caption in parts, each with the number of its word, or None for what is between words and for the rest.
        None if the words are not the caption's beginning, as where a tokenizer mended the text.
    """
    parts: list[tuple[str, int | None]] = []
    place = 0
    for number, word in enumerate(words):
        letters = map(re.escape, word)
        spelling = r"[^\x00-\x7f]*".join(letters) if word.isascii() else "".join(letters)
        found = re.compile(f"([^a-z0-9]*?)({spelling})", re.IGNORECASE).match(caption, place)
        if not word or found is None:
            return None
        parts += [(found[1], None)] if found[1] else []
        parts.append((found[2], number))
        place = found.end()
    return parts + ([(caption[place:], None)] if place < len(caption) else [])


@dataclass(frozen=True)
class _Maps:
    """Attention as bytes: each word's map is scaled to its own peak, so that faint words keep their shape."""

    rows: int
    columns: int
    peaks: list[float]
    shares: bytes

    @staticmethod
    def of(attention: np.ndarray) -> _Maps:
        """From shares [W, h, w]; maps of more than ``MAP_SIDE`` cells a side are averaged."""
        _, height, width = attention.shape
        shrink = max(1.0, max(height, width) / MAP_SIDE)
        rows, columns = max(1, round(height / shrink)), max(1, round(width / shrink))
        maps = np.stack(
            [
                np.asarray(Image.fromarray(word).resize((columns, rows), Image.Resampling.BOX))
                for word in attention.astype(np.float32)
            ]
        )
        peaks = maps.max(axis=(1, 2))
        scaled = maps / np.maximum(peaks, 1e-12)[:, None, None]
        return _Maps(rows, columns, peaks.tolist(), np.rint(255 * scaled.clip(0, 1)).astype(np.uint8).tobytes())

    def attributes(self) -> str:
        peaks = " ".join(f"{peak:.4f}" for peak in self.peaks)
        shares = base64.b64encode(self.shares).decode()
        return f' data-rows="{self.rows}" data-columns="{self.columns}" data-peaks="{peaks}" data-shares="{shares}"'


def _by_caption(drawings: Sequence[Drawing]) -> list[list[Drawing]]:
    groups: dict[tuple, list[Drawing]] = {}
    for drawing in drawings:
        _check(drawing)
        key = (drawing.caption, drawing.words, tuple(image.size for image in drawing.images), len(drawing.attention))
        groups.setdefault(key, []).append(drawing)
    return list(groups.values())


def _check(drawing: Drawing) -> None:
    maps, images, words = drawing.attention, len(drawing.images), len(drawing.words)
    if not images or len(maps) not in (0, images - 1) or any(m.ndim != 3 or len(m) != words for m in maps):
        shapes = [m.shape for m in maps]
        raise ValueError(f"{images} images of {words} words do not go with attention of shapes {shapes}")


def _policy(template: str) -> str:
    """Only the template's own script and style, and images that are in the page itself."""

    def hash_of(tag: str) -> str:
        content = re.search(f"<{tag}>(.*?)</{tag}>", template, re.DOTALL)[1]
        return f"'sha256-{base64.b64encode(hashlib.sha256(content.encode()).digest()).decode()}'"

    own = f"script-src {hash_of('script')}; style-src {hash_of('style')}"
    return f"default-src 'none'; img-src data:; {own}; base-uri 'none'; form-action 'none'"


def _caption(number: int, group: Sequence[Drawing]) -> str:
    """A section: the caption's words, the choice of size, what all its drawings note, and the pictures."""
    first = group[0]
    notes = [note for note in first.notes if all(note in drawing.notes for drawing in group)]
    width = {1: "one", 2: "few", 4: "few"}.get(len(group), "many")
    pictures = "\n".join(_picture(place, len(group), drawing, notes) for place, drawing in enumerate(group, start=1))
    return f"""<section class="caption" aria-labelledby="caption-{number}">
<div class="text">
<div class="speech">
{_sentence(number, first)}
<p class="readout" aria-live="polite"></p>
</div>
{_sizes(number, first)}
{_notes(notes)}
</div>
<ul class="pictures {width}">
{pictures}
</ul>
</section>"""


def _sentence(number: int, drawing: Drawing) -> str:
    """The caption with its words marked up or, where they are not found in it, the words in a line of their own."""
    parts = place_words(drawing.caption, drawing.words)
    heading = f'<h2 class="sentence" id="caption-{number}" dir="auto">'
    if parts is not None:
        return f"{heading}{''.join(_part(*part) for part in parts)}</h2>"
    words = " ".join(_part(word, place) for place, word in enumerate(drawing.words))
    label = '<span class="read-label">As the encoder reads it</span>'
    return f'{heading}{_text(drawing.caption)}</h2>\n<p class="read" dir="auto">{label} {words}</p>'


def _part(text: str, word: int | None) -> str:
    if word is not None:
        return f'<span class="word">{_text(text)}</span>'
    if any(character.isalnum() for character in text):
        return f'<span class="unread" title="not read by the encoder">{_text(text)}</span>'
    return _text(text)


def _sizes(number: int, drawing: Drawing) -> str:
    if len(drawing.images) == 1:
        return ""
    choices = "\n".join(
        f'<label><input type="radio" name="size-{number}" value="{_size(image)}"{" checked" if last else ""}>'
        f"<span>{_size(image)}{' px' if last else ''}</span></label>"
        for image, last in ((image, image is drawing.image) for image in drawing.images)
    )
    return f'<fieldset class="sizes"><legend class="hidden-label">Size of the pictures</legend>\n{choices}\n</fieldset>'


def _picture(place: int, count: int, drawing: Drawing, shared_notes: Sequence[str]) -> str:
    of = f", picture {place} of {count}" if count > 1 else ""
    alt = f"“{drawing.caption}”{of}"
    attention = (None,) * (len(drawing.images) - len(drawing.attention)) + drawing.attention
    images = "\n".join(
        _image(image, maps, alt, image is drawing.image)
        for image, maps in zip(drawing.images, attention, strict=True)
    )
    facts = [f"seed {drawing.seed}", f"number {drawing.number}"]
    facts += [] if drawing.score is None else [f"score {drawing.score:.3f}".replace("-", "−")]
    spans = "".join(f"<span>{_text(fact)}</span>" for fact in facts)
    name = f"{name_of(drawing.caption)}_s{drawing.seed}_{drawing.number}"
    return f"""<li class="picture"><figure>
<div class="frame">
{images}
</div>
<figcaption>
<p class="facts-of-picture">{spans}</p>
<a class="download" href="#" data-name="{_text(name)}" title="Save as PNG" aria-label="Save picture {place} as PNG">\
<svg aria-hidden="true"><use href="#arrow-down"/></svg></a>
</figcaption>
{_notes([note for note in drawing.notes if note not in shared_notes])}</figure></li>"""


def _image(image: Image.Image, attention: np.ndarray | None, alt: str, shown: bool) -> str:
    """One size of a picture; the script shows one and hides the others."""
    file = io.BytesIO()
    image.convert("RGB").save(file, "PNG", optimize=True)
    source = f"data:image/png;base64,{base64.b64encode(file.getvalue()).decode()}"
    small = ' class="small"' if max(image.size) < SMOOTH_FROM else ""
    maps = "" if attention is None else _Maps.of(attention).attributes()
    return (
        f'<img{small} width="{image.width}" height="{image.height}" data-size="{_size(image)}" decoding="async" '
        f'loading="lazy" alt="{_text(alt)}"{"" if shown else " hidden"}{maps} src="{source}">'
    )


def _notes(notes: Sequence[str]) -> str:
    lines = "".join(f'<li dir="auto">{_text(note)}</li>' for note in notes)
    return f'<ul class="notes" aria-label="Notes">{lines}</ul>' if lines else ""


def _facts_table(facts: Sequence[tuple[str, str]]) -> str:
    rows = "\n".join(
        f'<tr><th scope="row">{_text(name)}</th><td dir="auto">{_text(value)}</td></tr>' for name, value in facts
    )
    return f'<footer class="model"><h2>The model</h2>\n<table>\n{rows}\n</table></footer>' if rows else ""


def _text(text: object) -> str:
    return escape(printable(str(text)), quote=True)


def _size(image: Image.Image) -> str:
    return str(image.width) if image.width == image.height else f"{image.width}×{image.height}"
