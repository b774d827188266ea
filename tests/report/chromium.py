"""A headless Chromium that does what a person does: opens a page, moves the mouse, looks; by its DevTools protocol."""

import asyncio
import base64
import itertools
import json
import subprocess
import time
import urllib.request
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

from tornado.websocket import WebSocketClientConnection, websocket_connect

_PATIENCE_SECONDS = 60
_LARGEST_MESSAGE = 1 << 28


class Page:
    """One page of a browser; calls return when the browser has done what they ask."""

    def __init__(self, loop: asyncio.AbstractEventLoop, connection: WebSocketClientConnection):
        self._loop = loop
        self._connection = connection
        self._numbers = itertools.count(1)
        self.requests: list[str] = []
        self.errors: list[str] = []
        for domain in ("Page", "Runtime", "Network"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """The answer to one command of the protocol."""
        return self._loop.run_until_complete(asyncio.wait_for(self._send(method, parameters), _PATIENCE_SECONDS))

    def open(self, url: str) -> None:
        """Load a page and wait until it has run its scripts."""
        self.send("Page.navigate", url=url)
        self.wait_for("document.readyState === 'complete'")

    def size(self, width: int, height: int) -> None:
        """The window in CSS pixels."""
        self.send(
            "Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600
        )

    def ask(self, script: str) -> Any:
        """The value of an expression on the page, awaited where it is a promise; raises where it throws."""
        answer = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        assert "exceptionDetails" not in answer, answer["exceptionDetails"]
        return answer["result"].get("value")

    def wait_for(self, script: str) -> None:
        """Ask until the answer is true."""
        end = time.monotonic() + _PATIENCE_SECONDS
        while not self.ask(script):
            assert time.monotonic() < end, f"never true: {script}"

    def mouse(self, kind: str, x: float, y: float) -> None:
        """A mouse event of the protocol (mousePressed, mouseMoved, mouseReleased) with the left button held."""
        self.send("Input.dispatchMouseEvent", type=kind, x=x, y=y, button="left", buttons=1, clickCount=1)

    def screenshot(self, path: Path, whole: bool = False) -> Path:
        """A picture of the window, or of the whole page."""
        answer = self.send("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(answer["data"]))
        return path

    async def _send(self, method: str, parameters: dict[str, Any]) -> dict[str, Any]:
        number = next(self._numbers)
        await self._connection.write_message(json.dumps({"id": number, "method": method, "params": parameters}))
        while True:
            message = json.loads(await self._connection.read_message() or "null")
            assert message is not None, "the browser has gone"
            if message.get("method") == "Network.requestWillBeSent":
                self.requests.append(message["params"]["request"]["url"])
            if message.get("method") == "Runtime.exceptionThrown":
                self.errors.append(message["params"]["exceptionDetails"]["text"])
            if message.get("id") == number:
                assert "error" not in message, message["error"]
                result: dict[str, Any] = message["result"]
                return result


@contextmanager
def open_page(command: list[str], profile: Path) -> Iterator[Page]:
    """A page of a browser that is started with `command` and ended afterwards."""
    browser = subprocess.Popen(
        [*command, "--remote-debugging-port=0", "about:blank"], stdout=subprocess.DEVNULL, stderr=subprocess.DEVNULL
    )
    loop = asyncio.new_event_loop()
    try:
        connection = loop.run_until_complete(_connect(browser, profile / "DevToolsActivePort"))
        yield Page(loop, connection)
        connection.close()
    finally:
        browser.terminate()
        browser.wait(_PATIENCE_SECONDS)
        loop.close()


async def _connect(browser: subprocess.Popen, port_file: Path) -> WebSocketClientConnection:
    end = time.monotonic() + _PATIENCE_SECONDS
    while not (port_file.is_file() and port_file.read_text().count("\n")):
        assert browser.poll() is None, "the browser did not start"
        assert time.monotonic() < end, "the browser opened no port"
        await asyncio.sleep(0.05)
    port = port_file.read_text().split()[0]
    while True:
        with urllib.request.urlopen(f"http://127.0.0.1:{port}/json", timeout=10) as answer:
            pages = [one for one in json.load(answer) if one["type"] == "page"]
        if pages:
            return await websocket_connect(pages[0]["webSocketDebuggerUrl"], max_message_size=_LARGEST_MESSAGE)
        assert time.monotonic() < end, "the browser has no page"
