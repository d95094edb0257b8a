"""Opens a page in headless Chromium and says what it did there.

Speaks the Chrome DevTools Protocol over a pipe (--remote-debugging-pipe: JSON messages that end in
a zero byte), so nothing is installed and no port is opened.
"""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

CHROMIUM = shutil.which("chromium")
_PATIENCE_S = 60


@dataclass
class Visit:
    """messages: of the console, errors of scripts, refusals of the page's own policy. requests:
    addresses that the page asked for, beyond itself."""

    messages: list[str] = field(default_factory=list)
    requests: list[str] = field(default_factory=list)
    values: list[Any] = field(default_factory=list)  # of the scripts that were evaluated, in order
    screenshot: bytes = b""  # PNG of the whole page


def visit(
    page: Path, *scripts: str, dark: bool = False, width: int = 1280, height: int = 0
) -> Visit:
    """Open `page`, evaluate `scripts` one after another, and take a screenshot.

    A height of 0: of the whole page.
    """
    with tempfile.TemporaryDirectory() as profile:
        browser = _Browser(Path(profile))
        try:
            return browser.visit(page, scripts, dark, width, height)
        finally:
            browser.close()


class _Browser:
    def __init__(self, profile: Path) -> None:
        to_browser, self._to = os.pipe()
        self._from, from_browser = os.pipe()
        flags = "--headless --no-sandbox --disable-gpu --disable-dev-shm-usage --no-first-run"
        flags += " --disable-background-networking --disable-component-update"
        flags += " --remote-debugging-pipe"
        assert CHROMIUM
        # Chromium reads descriptor 3 and writes 4; a shell puts them there.
        command = ["bash", "-c", f'exec "$@" 3<&{to_browser} 4>&{from_browser}', "bash", CHROMIUM]
        self._process = subprocess.Popen(
            [*command, *flags.split(), f"--user-data-dir={profile}", "about:blank"],
            pass_fds=[to_browser, from_browser],
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(to_browser)
        os.close(from_browser)
        self._buffer = b""
        self._next = 0
        self._session: str | None = None
        self._seen = Visit()
        self._page = ""
        self._loaded = False

    def visit(
        self, page: Path, scripts: tuple[str, ...], dark: bool, width: int, height: int
    ) -> Visit:
        target = self._ask("Target.createTarget", url="about:blank")["targetId"]
        attached = self._ask("Target.attachToTarget", targetId=target, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Runtime", "Log", "Network", "Page"):
            self._ask(f"{domain}.enable")
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self._ask("Emulation.setEmulatedMedia", features=[scheme])
        size = {"deviceScaleFactor": 1, "mobile": False}
        self._ask("Emulation.setDeviceMetricsOverride", width=width, height=height or 900, **size)
        self._page = page.resolve().as_uri()
        self._ask("Page.navigate", url=self._page)
        while not self._loaded:
            self._read()
        for script in scripts:
            done = self._ask("Runtime.evaluate", expression=script, returnByValue=True)
            assert "exceptionDetails" not in done, done
            self._seen.values.append(done["result"].get("value"))
        # What was begun while loading, such as drawing or a request, is seen after two frames.
        frames = "new Promise(r => requestAnimationFrame(() => requestAnimationFrame(r)))"
        self._ask("Runtime.evaluate", expression=frames, awaitPromise=True)
        shot = self._ask("Page.captureScreenshot", captureBeyondViewport=not height)
        self._seen.screenshot = base64.b64decode(shot["data"])
        return self._seen

    def close(self) -> None:
        os.close(self._to)  # at which the browser ends
        try:
            self._process.wait(_PATIENCE_S)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()
        os.close(self._from)

    def _ask(self, method: str, **parameters: Any) -> dict[str, Any]:
        self._next += 1
        message: dict[str, Any] = {"id": self._next, "method": method, "params": parameters}
        if self._session:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._read()
            if answer.get("id") == self._next:
                assert "error" not in answer, answer
                return dict(answer["result"])

    def _read(self) -> dict[str, Any]:
        """One message; what concerns the page is noted."""
        while b"\0" not in self._buffer:
            data = os.read(self._from, 1 << 20)
            assert data, "the browser ended"
            self._buffer += data
        raw, _, self._buffer = self._buffer.partition(b"\0")
        message: dict[str, Any] = json.loads(raw)
        parameters = message.get("params", {})
        match message.get("method"):
            case "Runtime.consoleAPICalled":
                texts = [str(a.get("value", a.get("description"))) for a in parameters["args"]]
                self._seen.messages.append(f"{parameters['type']}: {' '.join(texts)}")
            case "Runtime.exceptionThrown":
                details = parameters["exceptionDetails"]
                said = details.get("exception", {}).get("description", details["text"])
                self._seen.messages.append(f"exception: {said}")
            case "Log.entryAdded":
                self._seen.messages.append(f"log: {parameters['entry']['text']}")
            case "Network.requestWillBeSent":
                url = parameters["request"]["url"]
                if url != self._page and not url.startswith(("data:", "blob:")):
                    self._seen.requests.append(url)
            case "Page.loadEventFired":
                self._loaded = True
        return message
