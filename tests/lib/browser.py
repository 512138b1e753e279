"""A real headless chromium, driven over its DevTools protocol: no driver and no package of its own is needed."""

from __future__ import annotations

import base64
import itertools
import json
import os
import shutil
import subprocess
import tempfile
import time
from contextlib import contextmanager
from pathlib import Path

from websockets.sync.client import connect  # among the pins: vLLM's server needs it

NAMES = ("chromium", "chromium-browser", "google-chrome")
FLAGS = (
    "--headless",
    "--no-sandbox",  # as root there is no other way
    "--disable-gpu",
    "--disable-dev-shm-usage",
    "--no-first-run",
    "--disable-background-networking",
    "--disable-component-update",
    "--disable-sync",
    "--remote-debugging-port=0",
)
START_SECONDS = 60.0


def find() -> str | None:
    return next((path for name in NAMES if (path := shutil.which(name))), None)


class Page:
    """One tab; `events` holds what it has reported so far."""

    def __init__(self, url: str):
        self._socket = connect(url, max_size=None)
        self._numbers = itertools.count(1)
        self.events: list[dict] = []
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **params: object) -> dict:
        number = next(self._numbers)
        self._socket.send(json.dumps({"id": number, "method": method, "params": params}))
        while True:
            message = json.loads(self._socket.recv(timeout=START_SECONDS))
            if message.get("id") == number:
                assert "error" not in message, (method, message["error"])
                return message["result"]
            self.events.append(message)

    def evaluate(self, expression: str):
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def open(self, path: Path) -> None:
        self.events.clear()
        self.call("Page.navigate", url=path.resolve().as_uri())
        deadline = time.monotonic() + START_SECONDS
        while not any(event["method"] == "Page.loadEventFired" for event in self.events):
            assert time.monotonic() < deadline, f"{path} was not loaded in {START_SECONDS:g} s"
            self.evaluate("1")
            time.sleep(0.02)

    def resize(self, width: int, height: int = 900) -> None:
        metrics = {"width": width, "height": height, "deviceScaleFactor": 1, "mobile": width < 600}
        self.call("Emulation.setDeviceMetricsOverride", **metrics)

    def dark(self, on: bool) -> None:
        feature = {"name": "prefers-color-scheme", "value": "dark" if on else "light"}
        self.call("Emulation.setEmulatedMedia", features=[feature])

    def point(self, x: float, y: float) -> None:
        self.call("Input.dispatchMouseEvent", type="mouseMoved", x=x, y=y)

    def click(self, x: float, y: float) -> None:
        for kind in ("mousePressed", "mouseReleased"):
            self.call("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", clickCount=1)

    def key(self, name: str) -> None:
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=name)

    def screenshot(self, path: Path, complete: bool = True) -> None:
        result = self.call("Page.captureScreenshot", captureBeyondViewport=complete)
        path.write_bytes(base64.b64decode(result["data"]))

    def requests(self) -> list[str]:
        """The addresses that the page asked for, itself included."""
        sent = (event for event in self.events if event["method"] == "Network.requestWillBeSent")
        return [event["params"]["request"]["url"] for event in sent]

    def errors(self) -> list[dict]:
        """Exceptions, console.error and .warn, and what the browser itself complained of."""

        def bad(event: dict) -> bool:
            params = event["params"]
            if event["method"] == "Runtime.consoleAPICalled":
                return params["type"] in ("error", "warning", "assert")
            if event["method"] == "Log.entryAdded":
                return params["entry"]["level"] in ("error", "warning")
            return event["method"] == "Runtime.exceptionThrown"

        return [event for event in self.events if bad(event)]

    def close(self) -> None:
        self._socket.close()


@contextmanager
def launch(program: str):
    """A browser of its own, with a profile that goes when it goes."""
    profile = Path(tempfile.mkdtemp(prefix="sspo-browser-"))
    environment = {**os.environ, "HOME": str(profile)}
    process = subprocess.Popen(
        [program, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
        stdin=subprocess.DEVNULL,
        stdout=subprocess.DEVNULL,
        stderr=(profile / "stderr").open("w"),
        env=environment,
        start_new_session=True,
    )
    page = None
    try:
        page = Page(_address(process, profile))
        yield page
    finally:
        if page is not None:
            page.close()
        process.terminate()
        try:
            process.wait(10)
        except subprocess.TimeoutExpired:
            os.killpg(process.pid, 9)
            process.wait()
        shutil.rmtree(profile, ignore_errors=True)


def _address(process: subprocess.Popen, profile: Path) -> str:
    """The first tab's; chromium writes its port to a file once it listens."""
    import urllib.request

    file, deadline = profile / "DevToolsActivePort", time.monotonic() + START_SECONDS
    while time.monotonic() < deadline:
        assert process.poll() is None, f"chromium ended with {process.returncode}: {(profile / 'stderr').read_text()}"
        lines = file.read_text().splitlines() if file.exists() else []
        if len(lines) >= 2:
            with urllib.request.urlopen(f"http://127.0.0.1:{lines[0]}/json/list", timeout=10) as reply:
                tabs = [tab for tab in json.load(reply) if tab["type"] == "page"]
            if tabs:
                return tabs[0]["webSocketDebuggerUrl"]
        time.sleep(0.05)
    raise AssertionError(f"chromium did not listen in {START_SECONDS:g} s: {(profile / 'stderr').read_text()}")
