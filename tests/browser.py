"""Headless Chromium for tests, driven by its DevTools protocol over a pipe; tests skip where none is installed."""

from __future__ import annotations

import base64
import json
import os
import shutil
import subprocess
import tempfile
from pathlib import Path
from typing import Any

import pytest

PROGRAMS = ("chromium-headless-shell", "chromium", "chromium-browser", "google-chrome")


class Browser:
    """One tab. Its messages are JSON that ends in a zero byte, on file descriptors 3 (ours) and 4 (its)."""

    def __init__(self) -> None:
        program = next((found for name in PROGRAMS if (found := shutil.which(name))), None)
        if program is None:
            pytest.skip(f"no Chromium is installed ({', '.join(PROGRAMS)})")
        self._profile = tempfile.TemporaryDirectory(ignore_cleanup_errors=True)
        theirs_in, self._out = os.pipe()
        self._in, theirs_out = os.pipe()

        command = [program, "--headless", "--remote-debugging-pipe", f"--user-data-dir={self._profile.name}"]
        command += ["--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--window-size=1280,900"]
        # the two descriptors may already be 3 or 4 here, so a shell puts them in place
        shell = 'exec 3<&"$IN" 4>&"$OUT"; exec "$@"'
        self._process = subprocess.Popen(
            ["bash", "-c", shell, "browser", *command],
            env={**os.environ, "IN": str(theirs_in), "OUT": str(theirs_out)},
            pass_fds=(theirs_in, theirs_out),
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
        )
        os.close(theirs_in)
        os.close(theirs_out)
        self._buffer = b""
        self._number = 0
        self._session = ""
        self.events: list[dict[str, Any]] = []
        target = self.send("Target.createTarget", url="about:blank")["targetId"]
        self._session = self.send("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        for domain in ("Page", "Runtime", "Network", "Log"):
            self.send(f"{domain}.enable")

    def send(self, method: str, **parameters: Any) -> dict[str, Any]:
        """Sends a command and returns its result; other messages are kept in events. Raises RuntimeError for an
        error."""
        self._number += 1
        message = {"id": self._number, "method": method, "params": parameters}
        message |= {"sessionId": self._session} if self._session else {}
        os.write(self._out, json.dumps(message).encode() + b"\0")
        while True:
            found = self._read()
            if found.get("id") == self._number:
                if "error" in found:
                    raise RuntimeError(f"{method}: {found['error']['message']}")
                return found["result"]
            self.events.append(found)

    def _read(self) -> dict[str, Any]:
        while b"\0" not in self._buffer:
            chunk = os.read(self._in, 1 << 16)
            if not chunk:
                raise RuntimeError("the browser has ended")
            self._buffer += chunk
        line, self._buffer = self._buffer.split(b"\0", 1)
        return json.loads(line)

    def open(self, path: Path) -> None:
        """Opens a file and waits until the page says that it is ready."""
        self.send("Page.navigate", url=path.resolve().as_uri())
        self.run(
            "new Promise((done, fail) => { const look = () => document.documentElement?.dataset.ready ? done() : "
            "document.querySelector('#error:not([hidden])') ? fail(document.querySelector('#error').textContent) : "
            "setTimeout(look, 10); look(); })"
        )

    def run(self, script: str) -> Any:
        """The value of a JavaScript expression, awaited. Raises RuntimeError for one that throws."""
        found = self.send("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True)
        if "exceptionDetails" in found:
            raise RuntimeError(json.dumps(found["exceptionDetails"])[:500])
        return found["result"].get("value")

    def press(self, key: str, text: str = "") -> None:
        """Presses a key, as a keyboard does."""
        for kind in ("keyDown", "keyUp"):
            self.send("Input.dispatchKeyEvent", type=kind, key=key, code=key, **({"text": text} if text else {}))

    def write(self, text: str) -> None:
        """Types text into the focused element."""
        self.send("Input.insertText", text=text)

    def media(self, dark: bool, width: int = 1280, height: int = 900) -> None:
        """Sets the preferred colour scheme and the window's size in pixels."""
        scheme = {"name": "prefers-color-scheme", "value": "dark" if dark else "light"}
        self.send("Emulation.setEmulatedMedia", features=[scheme])
        self.send("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=False)

    def screenshot(self, path: Path) -> None:
        """What the window shows, as PNG."""
        path.write_bytes(base64.b64decode(self.send("Page.captureScreenshot", format="png")["data"]))

    def close(self) -> None:
        """Closes the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._out)
        os.close(self._in)
        self._profile.cleanup()
