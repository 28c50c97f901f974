"""Drives a headless Chromium by the DevTools protocol through two pipes, so that pages are tested as people see them.

Source of the messages: https://chromedevtools.github.io/devtools-protocol/. Through pipes (``--remote-debugging-pipe``)
each message is JSON that ends with a NUL byte; no port is open and no package is needed.
"""

from __future__ import annotations

import base64
import contextlib
import fcntl
import io
import json
import os
import select
import shutil
import subprocess
import time
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from PIL import Image

NAMES = ("chromium", "chromium-browser", "google-chrome")
PATIENCE = 60  # seconds until an answer that does not come is a failure
_KEYS = {"Tab": 9, "Enter": 13, "Escape": 27, "ArrowLeft": 37, "ArrowUp": 38, "ArrowRight": 39, "ArrowDown": 40}


def find_chromium() -> str:
    """The path of a Chromium; the test is skipped where there is none."""
    path = next(filter(None, map(shutil.which, NAMES)), None)
    if path is None:
        pytest.skip(f"no browser to test with: none of {', '.join(NAMES)} is installed")
    return path


class Browser:
    """A Chromium without a window. Close it, or use :func:`open_browser`."""

    def __init__(self, profile: Path):
        """Start one with an empty profile in the folder ``profile``."""
        to_child, self._to = os.pipe()
        self._from, from_child = os.pipe()
        # The browser reads from descriptor 3 and writes to 4. Copies above these, as one may be 3 or 4 already.
        read, write = fcntl.fcntl(to_child, fcntl.F_DUPFD, 10), fcntl.fcntl(from_child, fcntl.F_DUPFD, 10)

        def take_places() -> None:
            os.dup2(read, 3)
            os.dup2(write, 4)

        flags = [
            "--headless=new", "--no-sandbox", "--remote-debugging-pipe", f"--user-data-dir={profile}", "--no-first-run",
            "--disable-gpu", "--disable-dev-shm-usage", "--disable-background-networking", "--disable-sync",
            "--disable-component-update", "--disable-extensions", "--hide-scrollbars", "--force-color-profile=srgb",
            "--host-resolver-rules=MAP * ~NOTFOUND, EXCLUDE 127.0.0.1",
        ]  # fmt: skip
        self._process = subprocess.Popen(
            [find_chromium(), *flags],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            preexec_fn=take_places,
            pass_fds=(3, 4),
        )
        for descriptor in (to_child, from_child, read, write):
            os.close(descriptor)
        self._unread = b""
        self._number = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str | None = None, **params: Any) -> dict[str, Any]:
        """Send a command and wait for its result; events that come meanwhile are kept in ``events``."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": params}
        if session is not None:
            message["sessionId"] = session
        content = json.dumps(message).encode() + b"\0"
        while content:
            content = content[os.write(self._to, content) :]
        until = time.monotonic() + PATIENCE
        while True:
            answer = self._receive(until)
            if answer.get("id") == self._number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']['message']}")
                return answer["result"]

    def listen(self, seconds: float) -> None:
        """Collect the events of so many seconds."""
        until = time.monotonic() + seconds
        with contextlib.suppress(TimeoutError):
            while True:
                self._receive(until)

    def _receive(self, until: float) -> dict[str, Any]:
        while b"\0" not in self._unread:
            if not select.select([self._from], [], [], max(0.0, until - time.monotonic()))[0]:
                raise TimeoutError("the browser does not answer")
            part = os.read(self._from, 1 << 20)
            if not part:
                raise RuntimeError("the browser has ended")
            self._unread += part
        message, _, self._unread = self._unread.partition(b"\0")
        answer = json.loads(message)
        if "method" in answer:
            self.events.append(answer)
        return answer

    def close(self) -> None:
        """End the browser."""
        with contextlib.suppress(RuntimeError, OSError, TimeoutError):
            self.call("Browser.close")
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._to)
        os.close(self._from)


class Tab:
    """A page of a browser in a window of its own size, with what it asked of the network and complained of.

    Attributes:
        requests: addresses that were asked for, other than those inside the page itself (``data:`` and ``blob:``).
        context: its browser context, by which downloads are allowed.
        complaints: errors and warnings of the console, uncaught exceptions, and what a policy forbade.
    """

    def __init__(
        self, browser: Browser, url: str, *, width: int = 1200, height: int = 900, dark: bool = False,
        script: bool = True, touch: bool = False, still: bool = True,
    ):  # fmt: skip
        """Open ``url`` and wait until it is loaded.

        Args:
            browser: where.
            url: the address.
            width: of the window in CSS pixels.
            height: of the window.
            dark: whether the user prefers dark colours.
            script: whether JavaScript runs.
            touch: whether it is a phone: touched, not pointed at.
            still: whether the user prefers reduced motion, so that a screenshot never shows a transition.
        """
        self._browser, self._first = browser, len(browser.events)
        self.context = browser.call("Target.createBrowserContext")["browserContextId"]
        target = browser.call("Target.createTarget", url="about:blank", browserContextId=self.context)["targetId"]
        self._session = browser.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")
        preferences = {"prefers-color-scheme": "dark" if dark else "light"}
        preferences["prefers-reduced-motion"] = "reduce" if still else "no-preference"
        features = [{"name": name, "value": value} for name, value in preferences.items()]
        self.call("Emulation.setEmulatedMedia", features=features)
        self.call(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=touch
        )
        self.call("Emulation.setTouchEmulationEnabled", enabled=touch)
        self.call("Emulation.setScriptExecutionDisabled", value=not script)
        self.call("Page.navigate", url=url)
        until = time.monotonic() + PATIENCE
        while not any(event["method"] == "Page.loadEventFired" for event in self._events()):
            assert time.monotonic() < until, f"{url} is not loaded after {PATIENCE} s"
            browser.listen(0.02)

    def call(self, method: str, **params: Any) -> dict[str, Any]:
        """A command of the protocol, to this page."""
        return self._browser.call(method, self._session, **params)

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression, a promise's once it is there."""
        answer = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            details = answer["exceptionDetails"]
            raise AssertionError(details.get("exception", {}).get("description") or details["text"])
        return answer["result"].get("value")

    def wait_for(self, expression: str, seconds: float = PATIENCE) -> None:
        """Evaluate until the value is true, as JavaScript sees it."""
        until = time.monotonic() + seconds
        while not self.evaluate(f"Boolean({expression})"):
            assert time.monotonic() < until, f"{expression} is not true after {seconds} s"
            self._browser.listen(0.05)

    def wait_until(self, condition: Callable[[], bool], seconds: float = PATIENCE) -> None:
        """Wait for something outside the page."""
        until = time.monotonic() + seconds
        while not condition():
            assert time.monotonic() < until, f"not true after {seconds} s"
            self._browser.listen(0.05)

    def box(self, selector: str, number: int = 0) -> tuple[float, float, float, float]:
        """x, y, width and height in the window of the ``number``-th element that fits ``selector``, scrolled to."""
        found = f"document.querySelectorAll({json.dumps(selector)})[{number}]"
        self.evaluate(f"{found}.scrollIntoView({{block: 'nearest', behavior: 'instant'}})")
        box = self.evaluate(f"{found}.getBoundingClientRect().toJSON()")
        return box["x"], box["y"], box["width"], box["height"]

    def hover(self, selector: str, number: int = 0, x: float = 0.5, y: float = 0.5) -> None:
        """Move the mouse over an element, to a place in it from 0 to 1."""
        self._mouse("mouseMoved", *self._place(selector, number, x, y))

    def click(self, selector: str, number: int = 0, x: float = 0.5, y: float = 0.5) -> None:
        """Click an element."""
        place = self._place(selector, number, x, y)
        self._mouse("mouseMoved", *place)
        self._mouse("mousePressed", *place, button="left", clickCount=1)
        self._mouse("mouseReleased", *place, button="left", clickCount=1)

    def tap(self, selector: str, number: int = 0, x: float = 0.5, y: float = 0.5) -> None:
        """Tap an element with a finger."""
        left, top = self._place(selector, number, x, y)
        self.call("Input.dispatchTouchEvent", type="touchStart", touchPoints=[{"x": left, "y": top}])
        self.call("Input.dispatchTouchEvent", type="touchEnd", touchPoints=[])

    def press(self, *keys: str) -> None:
        """Press and release keys, by name: Tab, Enter, Escape, ArrowLeft, …"""
        for key in keys:
            code = {"key": key, "code": key, "windowsVirtualKeyCode": _KEYS[key]}
            text = {"text": "\r"} if key == "Enter" else {}
            self.call("Input.dispatchKeyEvent", type="keyDown", **code, **text)
            self.call("Input.dispatchKeyEvent", type="keyUp", **code)

    def type(self, text: str) -> None:
        """Put a text where the cursor is."""
        self.call("Input.insertText", text=text)

    def screenshot(self, whole: bool = False) -> Image.Image:
        """What the window shows, RGB; with ``whole``, the page to its end."""
        answer = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        return Image.open(io.BytesIO(base64.b64decode(answer["data"]))).convert("RGB")

    @property
    def requests(self) -> list[str]:
        urls = [e["params"]["request"]["url"] for e in self._events() if e["method"] == "Network.requestWillBeSent"]
        return [url for url in urls if not url.startswith(("data:", "blob:"))]

    @property
    def complaints(self) -> list[str]:
        found = []
        for event in self._events():
            params = event["params"]
            if event["method"] == "Log.entryAdded" and params["entry"]["level"] in ("error", "warning"):
                found.append(f"{params['entry']['text']} ({params['entry'].get('url', '')})")
            elif event["method"] == "Runtime.exceptionThrown":
                details = params["exceptionDetails"]
                found.append(details.get("exception", {}).get("description") or details["text"])
            elif event["method"] == "Runtime.consoleAPICalled" and params["type"] in ("error", "warning", "assert"):
                found.append(" ".join(str(a.get("value", a.get("description"))) for a in params["args"]))
        return found

    def close(self) -> None:
        self._browser.call("Target.disposeBrowserContext", browserContextId=self.context)

    def _events(self) -> list[dict[str, Any]]:
        return [e for e in self._browser.events[self._first :] if e.get("sessionId") == self._session]

    def _place(self, selector: str, number: int, x: float, y: float) -> tuple[float, float]:
        left, top, width, height = self.box(selector, number)
        return left + x * width, top + y * height

    def _mouse(self, kind: str, x: float, y: float, **more: Any) -> None:
        self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, **more)


@contextlib.contextmanager
def open_browser(profile: Path) -> Iterator[Browser]:
    """A browser for the block."""
    browser = Browser(profile)
    try:
        yield browser
    finally:
        browser.close()
