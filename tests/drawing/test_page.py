"""The page of drawings: what it holds, and what people see and can do in a real browser."""

import base64
import io
import re
from html.parser import HTMLParser

import numpy as np
import pytest
from browser import Tab, open_browser
from PIL import Image

from clipgan.drawing import page
from clipgan.drawing.drawing import Drawing
from clipgan.drawing.files import name_of
from clipgan.drawing.page import place_words, write_page
from clipgan.errors import UserError

IMAGE = "<img src=x onerror=\"document.title='run'\">"
HOSTILE = f"</script></h2>{IMAGE}<script>document.title='run'</script>'\"`${{title}}{{{{facts}}}}"
RIGHT_TO_LEFT = "طائر أحمر 🐦 صغير"
LONG_WORD = "x" * 300
GREY = (128, 128, 128)


def attention(side: int, *more: np.ndarray) -> np.ndarray:
    """Three words, [3, side, side]: "left" has 0.8 of the left half, "right" of the right half, "and" 0.1 of all."""
    left = np.full((side, side), 0.1, np.float32)
    left[:, : side // 2] = 0.8
    return np.stack([left, np.full_like(left, 0.1), left[:, ::-1], *more])


def drawing(caption: str, number: int = 0, words: tuple[str, ...] = ("left", "and", "right"), **more) -> Drawing:
    """Grey images of 32, 64 and 256 px; the red of the largest tells the number."""
    sizes = (32, 64, 256)
    images = [Image.new("RGB", (size, size), GREY) for size in sizes[:-1]]
    images.append(Image.new("RGB", (256, 256), (128 + number, 128, 128)))
    return Drawing(caption, words, tuple(images), (attention(16), attention(64)), seed=7, number=number, **more)


DRAWINGS = (
    drawing("Left and RIGHT", 0, score=0.25, notes=("cut after “right”",)),
    drawing("Left and RIGHT", 1, score=-0.125, notes=("cut after “right”", "only the second")),
    drawing(HOSTILE, words=(f"</script>{IMAGE}", LONG_WORD, "<b>"), notes=(HOSTILE,)),
    drawing(RIGHT_TO_LEFT, words=tuple(RIGHT_TO_LEFT.split())[:3]),
)
FACTS = (("sizes", "32, 64, 256 px"), (HOSTILE, HOSTILE), ("sha256", "0123456789abcdef" * 4))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    path = tmp_path_factory.mktemp("page") / "made" / "index.html"
    write_page(path, DRAWINGS, "Left & right", FACTS)
    return path


@pytest.fixture(scope="module")
def browser(tmp_path_factory):
    with open_browser(tmp_path_factory.mktemp("profile")) as browser:
        yield browser


@pytest.fixture
def open_page(browser, path):
    tabs = []

    def open_page(**how) -> Tab:
        tabs.append(Tab(browser, path.as_uri(), **how))
        return tabs[-1]

    yield open_page
    for tab in tabs:
        tab.close()


class Reader(HTMLParser):
    """The tags of a page with their attributes, and its text outside script and style."""

    def __init__(self, html: str):
        super().__init__()
        self.tags, self.text, self._in = [], "", None
        self.feed(html)

    def handle_starttag(self, tag, attributes):
        self.tags.append((tag, dict(attributes)))
        self._in = tag

    def handle_data(self, data):
        self.text += "" if self._in in ("script", "style") else data


@pytest.fixture(scope="module")
def html(path) -> Reader:
    return Reader(path.read_text(encoding="utf-8"))


# What the file holds.


def test_the_page_is_one_file_that_asks_for_nothing(path, html):
    assert [file.name for file in path.parent.iterdir()] == ["index.html"]
    addresses = [value for _, attributes in html.tags for name, value in attributes.items() if name in ("src", "href")]
    assert addresses and all(address.startswith(("data:", "#")) for address in addresses)
    assert not {"iframe", "object", "embed", "form", "base"} & {tag for tag, _ in html.tags}


def test_captions_notes_facts_and_numbers_are_in_the_text(html):
    for text in ("Left & right", "Left and RIGHT", HOSTILE, RIGHT_TO_LEFT, "only the second", "32, 64, 256 px"):
        assert text in html.text
    for text in ("seed 7", "number 1", "score 0.250", "score −0.125", "4 pictures of 3 sentences."):
        assert text in html.text
    assert html.text.count("cut after “right”") == 1  # of both pictures, said once
    assert [tag for tag, _ in html.tags].count("script") == 1


def test_the_images_are_those_that_were_drawn(html):
    images = [attributes for tag, attributes in html.tags if tag == "img"]
    assert [a["data-size"] for a in images] == ["32", "64", "256"] * len(DRAWINGS)
    assert ["hidden" in a for a in images] == [True, True, False] * len(DRAWINGS)
    for attributes, image in zip(images, (image for d in DRAWINGS for image in d.images), strict=True):
        data = base64.b64decode(attributes["src"].removeprefix("data:image/png;base64,"))
        assert np.array_equal(np.asarray(Image.open(io.BytesIO(data))), np.asarray(image))


def test_attention_is_kept_to_a_byte(html):
    shown = next(a for tag, a in html.tags if tag == "img" and a["data-size"] == "64")
    rows, columns = int(shown["data-rows"]), int(shown["data-columns"])
    peaks = np.array([float(peak) for peak in shown["data-peaks"].split()])
    shares = np.frombuffer(base64.b64decode(shown["data-shares"]), np.uint8).reshape(3, rows, columns)
    assert (rows, columns) == (16, 16)
    assert np.abs(shares / 255 * peaks[:, None, None] - attention(16)).max() < 0.005


def test_large_maps_are_averaged_and_keep_their_sum():
    random = np.random.default_rng(0).random((5, 128, 64), dtype=np.float32)
    maps = page._Maps.of(random / random.sum(0))
    assert (maps.rows, maps.columns) == (page.MAP_SIDE, page.MAP_SIDE // 2)
    shares = np.frombuffer(maps.shares, np.uint8).reshape(5, maps.rows, maps.columns)
    sums = (shares / 255 * np.array(maps.peaks)[:, None, None]).sum(0)
    assert np.abs(sums - 1).max() < 0.01
    expected = (random / random.sum(0)).reshape(5, 32, 4, 16, 4).mean(axis=(2, 4))
    assert np.abs(shares / 255 * np.array(maps.peaks)[:, None, None] - expected).max() < 0.002


@pytest.mark.parametrize(
    ("caption", "words", "parts"),
    [
        ("A Bird, red", "a bird , red", [("A", 0), (" ", None), ("Bird", 1), (",", 2), (" ", None), ("red", 3)]),
        ("  a\tbird  ", "a bird", [("  ", None), ("a", 0), ("\t", None), ("bird", 1), ("  ", None)]),
        ("a bird on a log", "a bird", [("a", 0), (" ", None), ("bird", 1), (" on a log", None)]),
        ("A bird, its wings-red.", "a bird its wings red",
         [("A", 0), (" ", None), ("bird", 1), (", ", None), ("its", 2), (" ", None), ("wings", 3), ("-", None),
          ("red", 4), (".", None)]),
        ("naïve café: red", "nave caf red", [("naïve", 0), (" ", None), ("caf", 1), ("é: ", None), ("red", 2)]),
        ("鳥 bird", "bird", [("鳥 ", None), ("bird", 0)]),
        ("鳥鳥 bird", "鳥鳥 bird", [("鳥鳥", 0), (" ", None), ("bird", 1)]),
        ("a bird", "a fish", None),
        ("a red bird", "a bird", None),
        ("a", "a bird", None),
        ("naive &amp; blue", "naive & blue", None),
        ("🐦 bird", "\ufffd bird", None),
    ],
)  # fmt: skip
def test_the_words_are_found_in_the_caption(caption, words, parts):
    assert place_words(caption, words.split()) == parts


def test_what_the_encoder_did_not_read_looks_different(tmp_path):
    write_page(tmp_path / "p.html", [drawing("Left, and right, but no more!")], "Cut")
    text = (tmp_path / "p.html").read_text(encoding="utf-8")
    assert re.findall(r'class="unread"[^>]*>(.*?)<', text) == [", but no more!"]


def test_the_words_of_a_mended_caption_stand_in_a_line_of_their_own(html):
    assert html.text.count("As the encoder reads it") == 1  # of the hostile caption
    words = [a for tag, a in html.tags if tag == "span" and a.get("class") == "word"]
    assert len(words) == 3 * 3  # three captions of three words


def test_what_is_no_text_is_replaced(tmp_path):
    write_page(tmp_path / "p.html", [drawing("a\0b \ud800", words=("left", "and", "\udfff"))], "\ud800")
    assert "a\ufffdb \ufffd" in Reader((tmp_path / "p.html").read_text(encoding="utf-8")).text


def test_a_model_of_one_size_has_a_page(tmp_path):
    one = Drawing("a bird", ("a", "bird"), (Image.new("RGB", (64, 64)),), (), 0, 0)
    write_page(tmp_path / "p.html", [one], "One")
    tags = Reader((tmp_path / "p.html").read_text(encoding="utf-8")).tags
    assert not [a for tag, a in tags if tag == "input" or "data-shares" in a]


def test_what_cannot_be_drawn_is_refused(tmp_path):
    good = drawing("a b c")
    with pytest.raises(ValueError, match="at least one drawing"):
        write_page(tmp_path / "p.html", [], "None")
    for wrong in (good.attention[:1], (good.attention[0], good.attention[1][:2])):
        with pytest.raises(ValueError, match="3 words"):
            write_page(tmp_path / "p.html", [Drawing("a", good.words, good.images, wrong, 0, 0)], "Wrong")
    (tmp_path / "file").write_text("")
    with pytest.raises(UserError, match="cannot be written"):
        write_page(tmp_path / "file" / "p.html", [good], "Nowhere")
    assert [file.name for file in tmp_path.iterdir()] == ["file"]


@pytest.mark.parametrize("dark", [False, True])
def test_colours_can_be_read(dark):
    """WCAG 2.2, 1.4.3 and 1.4.11: contrast of 4.5 for text, 3 for marks of focus and choice."""
    blocks = re.findall(r":root \{(.*?)\}", page.TEMPLATE.read_text(encoding="utf-8"), re.DOTALL)
    colours = dict(re.findall(r"--(\w+): (#\w+);", blocks[dark]))

    def luminance(colour: str) -> float:
        digits = colour[1:] if len(colour) == 7 else "".join(2 * digit for digit in colour[1:])
        channels = np.array([int(digits[i : i + 2], 16) / 255 for i in (0, 2, 4)])
        linear = np.where(channels <= 0.04045, channels / 12.92, ((channels + 0.055) / 1.055) ** 2.4)
        return float(linear @ [0.2126, 0.7152, 0.0722])

    def contrast(a: str, b: str) -> float:
        low, high = sorted((luminance(colours[a]), luminance(colours[b])))
        return (high + 0.05) / (low + 0.05)

    text = [("ink", "paper"), ("ink", "mark"), ("muted", "paper"), ("muted", "raised"), ("ink", "lifted")]
    assert min(contrast(*pair) for pair in text) >= 4.5
    assert contrast("accent", "paper") >= 3


# What people see and do.


def brightness(tab: Tab, picture: int = 0) -> tuple[float, float]:
    """Of the left and the right half of a picture as it is shown; the edges and the middle are left out."""
    left, top, width, height = (round(value) for value in tab.box(".frame", picture))
    pixels = np.asarray(tab.screenshot().crop((left, top, left + width, top + height)), np.float32)
    inner = pixels[height // 8 : -height // 8]
    return float(inner[:, width // 8 : width * 3 // 8].mean()), float(inner[:, width * 5 // 8 : -width // 8].mean())


def strengths(tab: Tab, caption: int = 0) -> list[float]:
    """How strongly each word of a caption is marked, from 0 to 1."""
    words = f"[...document.querySelectorAll('.caption')[{caption}].querySelectorAll('.word')]"
    return tab.evaluate(f"{words}.map(word => Number(word.style.getPropertyValue('--strength')))")


def readout(tab: Tab) -> str:
    return tab.evaluate("document.querySelector('.readout').innerText")


def test_the_page_opens_without_a_complaint_or_a_request(open_page, path):
    tab = open_page()
    assert tab.requests == [path.as_uri()]
    assert tab.complaints == []
    shown = "[...document.querySelectorAll('.frame img')].filter(image => !image.hidden)"
    assert tab.evaluate(f"Promise.all({shown}.map(image => image.decode())).then(() => {shown}.length)") == 4
    assert tab.evaluate(f"{shown}.map(image => [image.naturalWidth, image.naturalHeight])") == [[256, 256]] * 4
    assert brightness(tab) == pytest.approx((128, 128), abs=1)


def test_the_network_is_forbidden_to_the_page(open_page, path):
    tab = open_page()
    assert tab.evaluate("fetch('http://127.0.0.1:9/').then(() => 'sent', () => 'refused')") == "refused"
    tab.evaluate("document.body.append(Object.assign(new Image(), {src: 'http://127.0.0.1:9/a.png'}))")
    tab.evaluate("document.body.append(Object.assign(document.createElement('script'), {text: 'document.title = 1'}))")
    tab.wait_for("document.images.length")
    assert any("Content Security Policy" in complaint for complaint in tab.complaints)
    assert tab.evaluate("document.title") == "Left & right"


def test_pointing_at_a_word_lights_up_where_it_attends(open_page):
    tab = open_page()
    for word, brighter in ((0, "left"), (2, "right")):
        tab.hover(".word", word)
        assert strengths(tab)[word] == 1 and sum(strengths(tab)) == 1
        for picture in (0, 1):
            left, right = brightness(tab, picture)
            lit, dark = (left, right) if brighter == "left" else (right, left)
            assert lit > 110 and dark < 60
    assert "right has up to 80 %" in readout(tab).lower()
    tab.hover(".word", 1)  # it says the same everywhere
    left, right = brightness(tab)
    assert left == pytest.approx(right, abs=1) and left > 110
    tab.hover("h1")
    assert brightness(tab) == pytest.approx((128, 128), abs=1)
    assert strengths(tab) == [0, 0, 0]


def test_a_clicked_word_stays_until_escape(open_page):
    tab = open_page()
    tab.click(".word", 0)
    tab.hover("h1")
    left, right = brightness(tab)
    assert left > 2 * right
    assert tab.evaluate("document.querySelector('.word').getAttribute('aria-pressed')") == "true"
    tab.press("Escape")
    assert brightness(tab) == pytest.approx((128, 128), abs=1)
    assert tab.evaluate("document.querySelectorAll('[aria-pressed=true]').length") == 0


def test_pointing_at_a_place_marks_the_words_that_speak_there(open_page):
    tab = open_page()
    tab.hover(".frame", 1, x=0.75)
    left, both, right = strengths(tab)
    assert right == 1 and left == both == pytest.approx(0.1 / 0.8, abs=0.01)
    assert readout(tab).startswith("Here: RIGHT 80 %, ")
    assert strengths(tab, caption=2) == [0, 0, 0]  # of another caption
    tab.hover(".frame", 1, x=0.25)
    assert strengths(tab)[0] == 1
    tab.hover("h1")
    assert strengths(tab) == [0, 0, 0] and readout(tab) == ""


def test_words_and_pictures_are_reached_by_keys(open_page):
    tab = open_page()
    focused = "document.activeElement.className"
    tab.press("Tab")
    assert tab.evaluate(focused) == "word" and strengths(tab) == [1, 0, 0]
    assert tab.evaluate("getComputedStyle(document.activeElement).outlineStyle") == "solid"
    tab.press("ArrowRight", "ArrowRight", "ArrowRight")  # the last word is the end
    assert strengths(tab) == [0, 0, 1]
    left, right = brightness(tab)
    assert right > 2 * left
    tab.press("ArrowLeft", "Enter", "Tab")  # the word is kept when the focus goes on to the sizes
    assert strengths(tab) == [0, 1, 0] and tab.evaluate("document.activeElement.value") == "256"
    tab.press("Escape", "Tab")
    assert tab.evaluate(focused).startswith("frame")
    tab.press("ArrowRight")
    assert strengths(tab)[2] == 1
    tab.press(*["ArrowLeft"] * 3)
    assert strengths(tab)[0] == 1
    tab.press("Tab")
    assert tab.evaluate(focused) == "download" and strengths(tab) == [0, 0, 0]


def test_keys_follow_the_direction_of_the_script(open_page):
    tab = open_page()
    first = "document.querySelectorAll('.caption')[2].querySelector('.word')"
    assert tab.evaluate(f"getComputedStyle({first}.parentElement).direction") == "rtl"
    assert tab.evaluate(f"{first}.getBoundingClientRect().x > {first}.nextElementSibling.getBoundingClientRect().x")
    tab.evaluate(f"{first}.focus()")
    tab.press("ArrowLeft")
    assert tab.evaluate("document.activeElement.textContent") == RIGHT_TO_LEFT.split()[1]


def test_every_size_can_be_chosen(open_page):
    tab = open_page()
    shown = "document.querySelectorAll('.caption')[0].querySelectorAll('.frame img:not([hidden])')"
    for number, size in enumerate(("32", "64", "256")):
        tab.click(".sizes span", number)
        assert tab.evaluate(f"[...{shown}].map(image => image.dataset.size)") == [size, size]
        assert tab.evaluate(f"{shown}[0].decode().then(() => {shown}[0].naturalWidth)") == int(size)
        tab.hover(".word", 0)
        left, right = brightness(tab)
        assert (left, right) == pytest.approx((128, 128), abs=1) if size == "32" else left > 2 * right
        assert ("o word has spoken yet" in readout(tab)) == (size == "32")


def test_a_picture_can_be_saved(open_page, browser, tmp_path):
    tab = open_page()
    allowed = {"behavior": "allow", "downloadPath": str(tmp_path), "browserContextId": tab.context}
    browser.call("Browser.setDownloadBehavior", **allowed)
    tab.click(".download", 1)
    file = tmp_path / f"{name_of(DRAWINGS[1].caption)}_s7_1_256px.png"  # as main.py calls it
    tab.wait_until(file.is_file)
    assert np.array_equal(np.asarray(Image.open(file)), np.asarray(DRAWINGS[1].image))


def test_the_page_fits_a_phone_and_is_touched(open_page):
    tab = open_page(width=360, height=740, touch=True)
    assert tab.evaluate("[innerWidth, document.documentElement.scrollWidth]") == [360, 360]
    assert tab.evaluate("document.documentElement.clientWidth") == 360
    tab.tap(".word", 2)
    left, right = brightness(tab)
    assert right > 2 * left
    tab.tap(".frame", 0, x=0.25)
    assert strengths(tab)[0] == 1 and brightness(tab) == pytest.approx((128, 128), abs=3)
    tab.tap(".word", 2)  # lets it go
    assert strengths(tab) == [0, 0, 0]


def test_without_a_script_pictures_and_captions_are_there(open_page):
    tab = open_page(script=False)
    text = tab.evaluate("document.body.innerText")
    assert "Left and RIGHT" in text and "seed 7" in text and HOSTILE in text
    assert "Point at a word" not in text
    visible = "[...document.querySelectorAll('img')].filter(image => image.checkVisibility())"
    assert tab.evaluate(f"{visible}.map(image => image.naturalWidth)") == [256] * 4
    assert brightness(tab) == pytest.approx((128, 128), abs=1)
    for selector in (".sizes", ".download", ".readout"):
        assert not tab.evaluate(f"document.querySelector('{selector}').checkVisibility()")


def test_hostile_text_is_text(open_page):
    tab = open_page()
    for word in (3, 4, 5):
        tab.hover(".word", word)
    tab.hover(".frame", 2)
    assert tab.evaluate("document.title") == "Left & right"
    assert tab.evaluate("document.images.length") == 3 * len(DRAWINGS)
    assert tab.evaluate("document.scripts.length") == 1
    assert HOSTILE in tab.evaluate("document.querySelectorAll('h2')[1].textContent")
    assert tab.complaints == []


def test_the_page_follows_the_users_preferences(open_page):
    moving, still = open_page(still=False), open_page(dark=True)
    duration = "getComputedStyle(document.querySelector('.frame canvas')).transitionDuration"
    assert (moving.evaluate(duration), still.evaluate(duration)) == ("0.12s", "0s")
    assert np.asarray(moving.screenshot())[-1, 0].min() > 240
    assert np.asarray(still.screenshot())[-1, 0].max() < 32
