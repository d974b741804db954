"""Headless Chromium by its own protocol over pipes: no driver, no package, nothing to download."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import shutil
import subprocess
import tempfile
from itertools import count
from pathlib import Path
from types import TracebackType
from typing import Any, Self

__all__ = ["Browser", "find_chromium"]

_NAMES = ("chromium", "chromium-browser", "google-chrome", "google-chrome-stable", "chrome")
# The background networking of a browser has no place in a build.
_OPTIONS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--disable-quic", "--no-first-run", "--disable-sync"),
    *("--disable-background-networking", "--disable-component-update", "--hide-scrollbars"),
)


def find_chromium() -> str | None:
    """Return the path of a Chromium, if one is installed."""
    return next((path for name in _NAMES if (path := shutil.which(name))), None)


def _pipe() -> tuple[int, int]:
    """A pipe whose ends are out of the way of the two descriptors that the browser uses."""
    ends = os.pipe()
    above = tuple(fcntl.fcntl(end, fcntl.F_DUPFD_CLOEXEC, 10) for end in ends)
    for end in ends:
        os.close(end)
    return above[0], above[1]


class Browser:
    """One page of a headless Chromium, as a context manager.

    Attributes:
        messages: What the page wrote to its console, and what the browser had to say against the page.
    """

    def __init__(self, path: str | None = None) -> None:
        self.path = path or find_chromium()
        self.messages: list[str] = []
        self._received = b""
        self._numbers = count(1)

    def __enter__(self) -> Self:
        if self.path is None:
            raise FileNotFoundError(f"no Chromium: none of {', '.join(_NAMES)} is on the path")
        self._profile = tempfile.TemporaryDirectory(prefix="chromium-", ignore_cleanup_errors=True)
        # The browser reads commands from its descriptor 3 and answers on 4.
        (inward, self._out), (self._in, outward) = _pipe(), _pipe()
        line = f'exec "$@" 3<&{inward} 4>&{outward}'
        command = ["bash", "-c", line, "chromium", self.path, *_OPTIONS, "--remote-debugging-pipe"]
        self._process = subprocess.Popen(
            [*command, f"--user-data-dir={self._profile.name}", "about:blank"],
            pass_fds=(inward, outward),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(inward)
        os.close(outward)
        self._session: str | None = None
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Log"):
            self.send(f"{domain}.enable")
        return self

    def __exit__(self, kind: type[BaseException] | None, error: BaseException | None, at: TracebackType | None) -> None:
        os.close(self._out)
        os.close(self._in)
        self._process.terminate()
        self._process.wait(timeout=30)
        self._profile.cleanup()

    def send(self, method: str, **params: Any) -> dict[str, Any]:
        """Send a command and return its result.

        Args:
            method: Name of the command in the protocol.
            **params: Its parameters.

        Returns:
            The result.

        Raises:
            RuntimeError: If the browser refuses it or is gone.
        """
        number = next(self._numbers)
        message = {"id": number, "method": method, "params": params}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == number:
                if "error" in answer:
                    raise RuntimeError(f"{method}: {answer['error']}")
                result: dict[str, Any] = answer["result"]
                return result
            self._note(answer)

    def open(self, page: Path) -> None:
        """Load a page.

        Args:
            page: A file.
        """
        self.send("Page.navigate", url=page.resolve().as_uri())
        wait = (
            "new Promise(done => document.readyState == 'complete' ? done() : addEventListener('load', () => done()))"
        )
        self.value(wait)

    def look(self, width: int, *, dark: bool = False, paper: bool = False) -> None:
        """Look at the page with another screen, or on paper.

        Args:
            width: Width in pixels of the page.
            dark: Whether the reader prefers a dark page.
            paper: Whether the page is shown as it is printed, though on one long sheet.
        """
        size = {"width": width, "height": 900, "deviceScaleFactor": 1, "mobile": False}
        self.send("Emulation.setDeviceMetricsOverride", **size)
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", media="print" if paper else "screen", features=[scheme])

    def value(self, expression: str) -> Any:
        """Return the value of an expression on the page; the page's own policy does not apply to it.

        Args:
            expression: JavaScript.

        Returns:
            Its value.

        Raises:
            RuntimeError: If it throws.
        """
        answer = self.send("Runtime.evaluate", expression=expression, returnByValue=True, awaitPromise=True)
        if "exceptionDetails" in answer:
            raise RuntimeError(f"{expression}: {answer['exceptionDetails']}")
        return answer["result"].get("value")

    def picture(self, top: int = 0, height: int | None = None) -> bytes:
        """Return a picture of the page as PNG.

        Args:
            top: Where the picture begins, in pixels from the top of the page.
            height: Its height; the whole page by default.

        Returns:
            The file's content.
        """
        size = self.send("Page.getLayoutMetrics")["cssContentSize"]
        clip = {"x": 0, "y": top, "width": size["width"], "height": height or size["height"] - top, "scale": 1}
        answer = self.send("Page.captureScreenshot", format="png", clip=clip, captureBeyondViewport=True)
        return base64.b64decode(answer["data"])

    def pdf(self) -> bytes:
        """Return the page as it is printed on A4; nothing that was asked of the screen applies."""
        self.send("Emulation.setEmulatedMedia", media="", features=[])
        answer = self.send("Page.printToPDF", paperWidth=8.27, paperHeight=11.69, printBackground=False)
        return base64.b64decode(answer["data"])

    def _read(self) -> dict[str, Any]:
        """The next message of the browser; each ends with a zero byte."""
        while b"\0" not in self._received:
            part = os.read(self._in, 1 << 16)
            if not part:
                raise RuntimeError("Chromium has ended")
            self._received += part
        text, _, self._received = self._received.partition(b"\0")
        message: dict[str, Any] = json.loads(text)
        return message

    def _note(self, event: dict[str, Any]) -> None:
        """Keep what the page or the browser complains of."""
        method, params = event.get("method"), event.get("params", {})
        if method == "Runtime.consoleAPICalled":
            self.messages.append(" ".join(str(each.get("value", each)) for each in params["args"]))
        elif method == "Runtime.exceptionThrown":
            self.messages.append(str(params["exceptionDetails"].get("text")))
        elif method == "Log.entryAdded":
            self.messages.append(f"{params['entry']['level']}: {params['entry']['text']}")
