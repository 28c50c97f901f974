"""Type a sentence in the browser, see pictures: python tools/web_demo.py --model birds.safetensors

Serves a page on this machine (--host 0.0.0.0 lets others of the network in, without a password). Shows every size of
every picture, what a word attends to, and what the model did not know of the sentence. Nothing leaves the machine.
Needs gradio: pip install -r requirements-demo.txt
"""

from __future__ import annotations

import argparse
import os
import socket
import sys
from collections.abc import Awaitable, Callable, Sequence
from html import escape
from pathlib import Path
from typing import Any, Protocol

sys.path.insert(0, str(Path(__file__).resolve().parents[1] / "code"))

# gradio reads these when it is imported.
os.environ["GRADIO_ANALYTICS_ENABLED"] = "False"
os.environ["HF_HUB_DISABLE_TELEMETRY"] = "1"

import torch
from PIL import Image

import clipgan
from clipgan.config import BOUNDS
from clipgan.drawing.drawing import Drawing
from clipgan.errors import UserError
from clipgan.flags import run_script, whole_number
from clipgan.machine.device import choose_device
from clipgan.machine.failures import explained, explanation
from clipgan.visualize import fit_to_cell, lit

MOST_PICTURES = 16
LONGEST_SENTENCE = 2000  # characters; an encoder reads far fewer
LARGEST_SEED = 2**53 - 1  # above this, the browser's numbers skip some
NO_WORD = -1
SIDE = 256  # smaller images are enlarged to about this, in pixels
POLICY = "default-src 'self' 'unsafe-inline' 'unsafe-eval' data: blob:; form-action 'self'; frame-ancestors 'self'"
STYLE = """
.gradio-container { width: 100%; max-width: 75rem !important; }
.gradio-container .main.fillable { width: 100%; max-width: none; padding: 1rem; }
#heading h1 { margin: 0.5rem 0 0; font-size: 1.75rem; font-weight: 650; letter-spacing: -0.015em; }
#heading p { margin: 0.25rem 0 0.5rem; color: var(--neutral-500); }
.dark #heading p { color: var(--neutral-400); }
#status p { margin: 0; padding: 0.5rem 0.75rem; border-left: 3px solid #e8a317; overflow-wrap: anywhere; }
#status p + p { margin-top: 0.5rem; }
#status p.error { border-color: #d92d20; }
#pictures .grid-wrap { height: auto; max-height: none; }
#pictures .caption-label { max-width: 100%; font-size: 0.75rem; font-variant-numeric: tabular-nums; }
#facts table { font-size: 0.875rem; }
#facts th { padding: 0.2rem 1.5rem 0.2rem 0; text-align: left; font-weight: 400; }
#facts td { overflow-wrap: anywhere; }
"""


class Model(Protocol):
    """What the page needs of a model, as ``clipgan.load`` returns it."""

    name: str
    facts: Sequence[tuple[str, str]]

    def draw(self, texts: str | Sequence[str], count: int = 1, seed: int = 0) -> list[Drawing]: ...


def import_gradio() -> Any:
    """The module gradio.

    Raises:
        UserError: it is not installed.
    """
    try:
        import gradio
    except ImportError:
        raise UserError("the web demo needs gradio: pip install -r requirements-demo.txt") from None
    return gradio


def build_app(model: Model) -> Any:
    """The page as a ``gradio.Blocks``, not yet served; whoever has it open shares the one model, one at a time."""
    gr = import_gradio()
    with gr.Blocks(title=model.name, analytics_enabled=False, delete_cache=(3600, 3600)) as app:
        gr.HTML(f"<h1>{escape(model.name)}</h1><p>A sentence becomes pictures.</p>", elem_id="heading", padding=False)
        drawings = gr.State([], time_to_live=3600)
        with gr.Row():
            with gr.Column(scale=2, min_width=240):
                sentence = gr.Textbox(
                    label="Sentence", placeholder="Say what to draw", lines=1, max_lines=8, autofocus=True,
                    max_length=LONGEST_SENTENCE, elem_id="sentence",
                )  # fmt: skip
                with gr.Row():
                    count = gr.Number(4, label=f"Pictures (1–{MOST_PICTURES})", min_width=100, elem_id="count")
                    seed = gr.Number(0, label="Seed", min_width=100, elem_id="seed")
                button = gr.Button("Draw", variant="primary", elem_id="draw")
                status = gr.HTML(elem_id="status", padding=False)
                if model.facts:
                    with gr.Accordion("The model", open=False):
                        gr.HTML(facts_table(model.facts), elem_id="facts")
            with gr.Column(scale=5, min_width=240):
                size = gr.Radio([], label="Size", visible=False, elem_id="size")
                word = gr.Radio([], label="Where a word attends", visible=False, elem_id="word")
                pictures = gr.Gallery(
                    label="Pictures", show_label=False, columns=2, fit_columns=False, height="auto",
                    object_fit="contain", format="png", buttons=["download", "fullscreen"], interactive=False,
                    elem_id="pictures",
                )  # fmt: skip

        def draw(text: str, how_many: float | None, number: float | None) -> dict[Any, Any]:
            try:
                drawn = model.draw(*checked(text, how_many, number))
            except Exception as error:
                line = str(error) if isinstance(error, UserError) else explanation(error)
                if line is None:
                    raise
                return {status: f'<p class="error" role="alert">{escape(line)}</p>'}
            first = drawn[0]
            sides = [image.width for image in first.images]
            words = [("the picture itself", NO_WORD), *((word, place) for place, word in enumerate(first.words))]
            return {
                drawings: drawn,
                status: notes_html(drawn),
                size: gr.Radio([(f"{side} px", place) for place, side in enumerate(sides)], value=len(sides) - 1,
                               visible=len(sides) > 1),
                word: gr.Radio(words, value=NO_WORD, visible=bool(first.attention),
                               label=f"Where a word attends (from {sides[min(1, len(sides) - 1)]} px on)"),
                pictures: gr.Gallery(labelled(drawn, len(sides) - 1, NO_WORD), columns=2 if len(drawn) <= 4 else 3),
            }  # fmt: skip

        gr.on(
            [button.click, sentence.submit], draw, [sentence, count, seed], [drawings, status, size, word, pictures],
            api_visibility="private", show_progress_on=pictures,
        )  # fmt: skip
        # `input` is the user's choice, not a change that `draw` makes.
        gr.on(
            [size.input, word.input], labelled, [drawings, size, word], pictures, api_visibility="private",
            show_progress="hidden",
        )  # fmt: skip
    return app


def checked(text: str, count: float | None, seed: float | None) -> tuple[str, int, int]:
    """What the user typed, for ``Model.draw``; raises ``UserError``."""
    if not text.strip():
        raise UserError("no sentence: type one first")
    for name, value, (low, high) in (("Pictures", count, (1, MOST_PICTURES)), ("Seed", seed, (0, LARGEST_SEED))):
        if value is None or not low <= value <= high or value != int(value):
            raise UserError(f"{name} must be a whole number, at least {low} and at most {high}")
    return text, int(count), int(seed)


def labelled(drawings: Sequence[Drawing], size: int | None, word: int | None) -> list[tuple[Image.Image, str]]:
    """The pictures as the gallery shows them, each with its label.

    Args:
        drawings: of one caption.
        size: place of the size, smallest first.
        word: place of the word whose attention lights up, or ``NO_WORD``. The smallest image comes from the sentence
            as a whole, so no word lights up there.
    """
    shown = []
    for drawing in drawings:
        place = len(drawing.images) - 1 if size is None else size
        label = f"seed {drawing.seed} number {drawing.number}"
        if drawing.score is not None:
            label += f" score {drawing.score:.2f}"
        stage = place - (len(drawing.images) - len(drawing.attention))
        lights = word is not None and word != NO_WORD and stage >= 0
        shown.append((picture(drawing.images[place], drawing.attention[stage][word] if lights else None), label))
    return shown


def picture(image: Image.Image, attention: Any = None) -> Image.Image:
    """An image, whole pixels enlarged where it is small; with a word's attention [h, w], lit where it attends."""
    cell = image.width * max(1, SIDE // image.width)
    enlarged = fit_to_cell(image, cell)
    return enlarged if attention is None else lit(enlarged, torch.from_numpy(attention), cell)


def notes_html(drawings: Sequence[Drawing]) -> str:
    """What the drawings note, each sentence once."""
    notes = dict.fromkeys(note for drawing in drawings for note in drawing.notes)
    return "".join(f"<p>{escape(note)}</p>" for note in notes)


def facts_table(facts: Sequence[tuple[str, str]]) -> str:
    rows = (f'<tr><th scope="row">{escape(name)}</th><td>{escape(value)}</td></tr>' for name, value in facts)
    return f"<table>{''.join(rows)}</table>"


class WithPolicy:
    """ASGI middleware: the browser is told to fetch nothing from elsewhere."""

    def __init__(self, app: Callable[..., Awaitable[None]]):
        self.app = app

    async def __call__(self, scope: dict, receive: Callable, send: Callable) -> None:
        async def send_with_policy(message: dict) -> None:
            if message["type"] == "http.response.start":
                message.setdefault("headers", []).append((b"content-security-policy", POLICY.encode()))
            await send(message)

        await self.app(scope, receive, send_with_policy)


def serve(app: Any, host: str, port: int) -> str:
    """Serve an app of :func:`build_app` in a thread; ``app.close()`` ends it.

    Returns:
        The page's address.

    Raises:
        UserError: the address cannot be served.
    """
    gr = import_gradio()
    from starlette.middleware import Middleware  # gradio's

    # gradio's amber buttons have white letters, which only a darker amber sets off.
    theme = gr.themes.Default(primary_hue="amber", neutral_hue="stone", font=["system-ui", "sans-serif"],
                              font_mono=["ui-monospace", "monospace"])  # fmt: skip
    buttons = {f"button_primary_background_fill{hover}{dark}": f"*primary_{800 if hover else 700}"
               for hover in ("", "_hover") for dark in ("", "_dark")}  # fmt: skip
    try:
        # gradio would say of every failure that the port is taken.
        family, *_, address = socket.getaddrinfo(host, port, type=socket.SOCK_STREAM)[0]
        socket.create_server(address, family=family).close()
        _, url, _ = app.launch(
            server_name=host, server_port=port, prevent_thread_lock=True, quiet=True, share=False, inbrowser=False,
            ssr_mode=False, pwa=False, mcp_server=False, run_history=False, footer_links=[], css=STYLE,
            theme=theme.set(**buttons), app_kwargs={"middleware": [Middleware(WithPolicy)]},
        )  # fmt: skip
    except OSError as error:
        reason = (error.strerror or str(error)).partition(" (while")[0]
        raise UserError(f"--host {host} --port {port}: cannot be served ({reason}): choose others") from None
    return url


@explained
def main(argv: Sequence[str] | None = None) -> None:
    gpu, port = whole_number("--gpu", *BOUNDS["GPU_ID"]), whole_number("--port", 1, 65535)
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--model", required=True, metavar="FILE", help="a trained model, such as birds.safetensors")
    parser.add_argument("--gpu", type=gpu, metavar="N", help="CUDA device, -1 for the CPU (default: CUDA if any)")
    parser.add_argument("--host", default="127.0.0.1", help="address to serve at (default: %(default)s)")
    parser.add_argument("--port", type=port, default=7860, metavar="N", help="default: %(default)s")
    args = parser.parse_args(argv)
    import_gradio()
    app = build_app(clipgan.load(args.model, choose_device(args.gpu)))
    print(f"{serve(app, args.host, args.port)} (Ctrl-C ends it)", flush=True)
    app.block_thread()


if __name__ == "__main__":
    run_script(main)
