"""tools/web_demo.py: a sentence is typed into a browser, and pictures come."""

import importlib.util
import os
import socket
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import pytest
from browser import PATIENCE, Tab, open_browser
from tiny_model import write_tiny_model

import clipgan
from clipgan.errors import UserError
from clipgan.flags import run_script

SERVER = Path(__file__).with_name("served_demo.py")
HOSTILE = "<img src=x onerror=\"document.title='run'\">"


@pytest.fixture(scope="module")
def web_demo(script):
    return script("tools/web_demo.py")


class Server:
    """``served_demo.py`` in a process of its own."""

    def __init__(self, said: Path):
        with socket.socket() as free:
            free.bind(("127.0.0.1", 0))
            self.port = free.getsockname()[1]
        self._said = said
        with open(said, "w") as out:
            command = [sys.executable, str(SERVER), str(self.port)]
            path = os.pathsep.join(sys.path)
            self.process = subprocess.Popen(command, stdout=out, stderr=out, env=os.environ | {"PYTHONPATH": path})

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self.port}/"

    @property
    def lines(self) -> list[str]:
        """What it has printed."""
        return self._said.read_text().splitlines()


@pytest.fixture(scope="module")
def server(tmp_path_factory, browser):
    if importlib.util.find_spec("gradio") is None:
        pytest.skip("gradio is not installed: pip install -r requirements-demo.txt")
    server = Server(tmp_path_factory.mktemp("server") / "said.txt")
    yield server
    server.process.kill()
    server.process.wait()


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture(scope="module")
def tab(browser, server):
    until = time.monotonic() + PATIENCE
    while server.url not in server.lines:
        assert server.process.poll() is None and time.monotonic() < until, server.lines
        browser.listen(0.1)
    tab = Tab(browser, server.url)
    tab.wait_for(READY)
    return tab


# The page is built piece by piece.
READY = " && ".join(f"document.querySelector('{part}')" for part in ("#sentence textarea", "#draw", "#status"))
IMAGES = "[...document.querySelectorAll('#pictures .thumbnail-item img')]"
STATUS = "document.querySelector('#status').innerText"


def draw(tab: Tab, text: str, said: str | None = None) -> None:
    """Type a text, press the button, and wait for what is said of it: by default, that it was drawn."""
    tab.evaluate("document.querySelector('#sentence textarea').select()")
    tab.evaluate("document.querySelector('#sentence textarea').focus()")
    tab.type(text)
    # By a key, as what is above the button may still be moving.
    tab.evaluate("document.querySelector('#draw').focus()")
    tab.press("Enter")
    tab.wait_for(f"{STATUS}.includes({(said or 'drew ' + text)!r})")


def pixels(tab: Tab) -> np.ndarray:
    """Of the first picture, as the browser has it."""
    return np.array(
        tab.evaluate(f"""(async () => {{
            const image = {IMAGES}[0], canvas = document.createElement("canvas");
            await image.decode();
            [canvas.width, canvas.height] = [image.naturalWidth, image.naturalHeight];
            const context = canvas.getContext("2d");
            context.drawImage(image, 0, 0);
            return [...context.getImageData(0, 0, canvas.width, canvas.height).data];
        }})()""")
    ).reshape(256, 256, 4)


def choose(tab: Tab, group: str, label: str) -> None:
    """Choose a radio button by its label, and wait until the first picture is another."""
    before = tab.evaluate(f"{IMAGES}[0].src")
    labels = tab.evaluate(f"[...document.querySelectorAll('#{group} label')].map(label => label.innerText.trim())")
    tab.evaluate(f"document.querySelectorAll('#{group} input')[{labels.index(label)}].click()")
    tab.wait_for(f"{IMAGES}[0].src !== {before!r}")


def test_a_sentence_becomes_pictures(tab, server):
    draw(tab, "red bird")
    tab.wait_for(f"{IMAGES}.length === 4")
    assert (pixels(tab)[..., :3] == 128).all()
    assert tab.evaluate(STATUS) == "drew red bird"
    assert "seed 0 number 3" in tab.evaluate("document.querySelector('#pictures').innerText")
    assert all(address.startswith(server.url) for address in tab.requests)
    assert tab.complaints == []
    assert {line for line in server.lines if line.startswith("reached")} <= {"reached 127.0.0.1", "reached a file"}


def test_a_word_lights_up_where_it_attends(tab):
    draw(tab, "red bird with wings")
    choose(tab, "word", "red")
    lit = pixels(tab)[..., :3].mean(-1)
    assert lit[:, 32:96].mean() > 2 * lit[:, 160:224].mean()
    choose(tab, "word", "bird")
    lit = pixels(tab)[..., :3].mean(-1)
    assert lit[:, 160:224].mean() > 2 * lit[:, 32:96].mean()
    choose(tab, "size", "16 px")  # the smallest comes from the sentence as a whole
    assert (pixels(tab)[..., :3] == 128).all()


def test_an_error_is_one_line_and_the_pictures_stay(tab):
    draw(tab, "a bird")
    draw(tab, "an unreadable text", "holds no word")
    assert tab.evaluate(STATUS) == f"the text 'an unreadable text' holds no word {HOSTILE}"
    assert tab.evaluate(f"{IMAGES}.length") == 4
    draw(tab, "a large text", "out of memory")
    draw(tab, " ", "type one first")
    assert "Traceback" not in tab.evaluate("document.body.innerText")


def test_hostile_text_is_text(tab):
    draw(tab, f"red bird {HOSTILE}", "drew red bird <img")
    assert tab.evaluate("document.title").startswith("Birds & <img")
    assert tab.evaluate("[...document.images].filter(image => image.getAttribute('src') === 'x').length") == 0
    assert HOSTILE in tab.evaluate("document.querySelector('h1').innerText")
    assert "onerror" in tab.evaluate("document.querySelector('#word').innerText")


def test_the_demo_fits_a_phone(browser, tab, server):
    phone = Tab(browser, server.url, width=360, height=740, touch=True)
    phone.wait_for(READY)
    draw(phone, "red bird")
    phone.wait_for(f"{IMAGES}.length === 4")
    assert phone.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    phone.close()


def test_the_policy_keeps_the_browser_on_this_machine(tab, web_demo):
    assert tab.evaluate("fetch('/').then(answer => answer.headers.get('content-security-policy'))") == web_demo.POLICY
    assert tab.evaluate("fetch('http://127.0.0.2:9/').then(() => 'sent', () => 'refused')") == "refused"
    assert any("Content Security Policy" in complaint for complaint in tab.complaints)


def test_a_port_that_is_taken_is_one_line(tab, server):
    tab.wait_until(lambda: any(f"--port {server.port}: cannot be served" in line for line in server.lines))


@pytest.mark.parametrize(
    ("text", "count", "seed", "said"),
    [
        ("  ", 1, 0, "no sentence"),
        ("a", 0, 0, "Pictures must be"),
        ("a", 17, 0, "Pictures must be"),
        ("a", 1.5, 0, "Pictures must be"),
        ("a", None, 0, "Pictures must be"),
        ("a", 1, -1, "Seed must be"),
        ("a", 1, None, "Seed must be"),
        ("a", 1, float("nan"), "Seed must be"),
        ("a", 1, 2**53, "Seed must be"),
    ],
)
def test_what_cannot_be_drawn_is_said(web_demo, text, count, seed, said):
    with pytest.raises(UserError, match=said):
        web_demo.checked(text, count, seed)


def test_what_can_be_drawn_passes(web_demo):
    assert web_demo.checked("a bird", 16.0, 3.0) == ("a bird", 16, 3)


def test_the_gallery_shows_what_a_loaded_model_draws(web_demo, tmp_path, tiny_clip_config):
    write_tiny_model(tmp_path / "tiny.safetensors", tiny_clip_config)
    model = clipgan.load(tmp_path / "tiny.safetensors", "cpu")
    drawn = model.draw(*web_demo.checked("a purple bird", 2.0, 1.0))
    plain, lit = (web_demo.labelled(drawn, 2, word) for word in (web_demo.NO_WORD, 2))
    assert [label for _, label in plain] == ["seed 1 number 0", "seed 1 number 1"]
    assert all(np.array_equal(np.asarray(shown)[::8, ::8], np.asarray(d.image))
               for (shown, _), d in zip(plain, drawn, strict=True))  # fmt: skip
    assert all(not np.array_equal(*map(np.asarray, pair)) for pair in
               ((one, other) for (one, _), (other, _) in zip(plain, lit, strict=True)))  # fmt: skip
    assert "purple" in web_demo.notes_html(drawn) and "8 px, 16 px, 32 px" in web_demo.facts_table(model.facts)


def test_a_missing_gradio_is_one_line(web_demo, monkeypatch, capsys):
    monkeypatch.setitem(sys.modules, "gradio", None)
    monkeypatch.setattr(sys, "argv", ["web_demo.py", "--model", "nowhere.safetensors"])
    with pytest.raises(SystemExit) as end:
        run_script(web_demo.main)
    assert end.value.code == 2
    assert capsys.readouterr().err == "error: the web demo needs gradio: pip install -r requirements-demo.txt\n"
