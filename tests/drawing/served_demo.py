"""Serves tools/web_demo.py with a model that draws grey pictures: python served_demo.py PORT

A process of its own, as gradio leaves threads and sockets behind. It prints the page's address, what a second server on
the same port is told, and "reached ADDRESS" for every address that Python connects to.
"""

from __future__ import annotations

import importlib.util
import sys
import time
from pathlib import Path

import numpy as np
from PIL import Image

from clipgan.drawing.drawing import Drawing
from clipgan.errors import UserError

ROOT = Path(__file__).resolve().parents[2]
HOSTILE = "<img src=x onerror=\"document.title='run'\">"


def listen(event: str, arguments: tuple) -> None:
    if event == "socket.connect":
        print("reached", arguments[1][0] if isinstance(arguments[1], tuple) else "a file", flush=True)


sys.addaudithook(listen)
spec = importlib.util.spec_from_file_location("web_demo", ROOT / "tools" / "web_demo.py")
web_demo = importlib.util.module_from_spec(spec)
spec.loader.exec_module(web_demo)


class FakeModel:
    """Draws grey pictures of three sizes; the first word has the left half, the others share the right half."""

    name = f"Birds & {HOSTILE}"
    facts = (("sizes", "16, 32, 64 px"), (HOSTILE, HOSTILE))

    def draw(self, texts: str, count: int = 1, seed: int = 0) -> list[Drawing]:
        words = tuple(texts.split())
        if "unreadable" in words:
            raise UserError(f"the text {texts!r} holds no word {HOSTILE}")
        if "large" in words:
            raise MemoryError
        return [self._draw(texts, words, number, seed) for number in range(count)]

    def _draw(self, text: str, words: tuple[str, ...], number: int, seed: int) -> Drawing:
        images = tuple(Image.new("RGB", (side, side), (128, 128, 128)) for side in (16, 32, 64))
        attention = []
        for side in (16, 32):
            maps = np.zeros((len(words), side, side), np.float32)
            maps[0, :, : side // 2] = 1
            maps[1:, :, side // 2 :] = 1 / max(1, len(words) - 1)
            attention.append(maps)
        return Drawing(text, words, images, tuple(attention), seed, number, 0.25, (f"drew {text}",))


if __name__ == "__main__":
    port = int(sys.argv[1])
    print(web_demo.serve(web_demo.build_app(FakeModel()), "127.0.0.1", port), flush=True)
    try:
        web_demo.serve(web_demo.build_app(FakeModel()), "127.0.0.1", port)
    except UserError as error:
        print(error, flush=True)
    time.sleep(600)
