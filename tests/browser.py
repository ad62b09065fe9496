"""A headless Chromium, steered over a pipe with the DevTools protocol: no driver, no port, nothing to install but the browser."""

from __future__ import annotations

import base64
import fcntl
import json
import os
import select
import shutil
import subprocess
import time
from pathlib import Path
from typing import Any

from fakes import PATIENCE_S

PROGRAM = shutil.which("chromium") or shutil.which("chromium-browser")
FLAGS = (
    *("--headless", "--no-sandbox", "--disable-gpu", "--no-first-run", "--disable-background-networking"),
    *("--disable-component-update", "--disable-sync", "--disable-dev-shm-usage", "--no-proxy-server", "--lang=en"),
    *("--hide-scrollbars", "--remote-debugging-pipe"),
)
START_S = 60.0  # on a busy machine


class BrowserError(Exception):
    """The page's script has thrown, or the browser refused a command."""


class Browser:
    """One browser with an empty profile.  ``pages`` share nothing but that."""

    def __init__(self, profile: Path) -> None:
        ours, theirs = [], []
        for read_first in (True, False):  # commands, answers
            reading, writing = os.pipe()
            theirs.append(fcntl.fcntl(reading if read_first else writing, fcntl.F_DUPFD, 10))
            os.close(reading if read_first else writing)
            ours.append(writing if read_first else reading)
        assert PROGRAM is not None
        # The protocol is fixed to the descriptors 3 and 4; ours are from 10 on, so as not to be in their way.
        line = f'exec "$0" "$@" 3<&{theirs[0]} 4>&{theirs[1]} {theirs[0]}<&- {theirs[1]}>&-'
        self.process = subprocess.Popen(
            ["bash", "-c", line, PROGRAM, *FLAGS, f"--user-data-dir={profile}", "about:blank"],
            pass_fds=theirs,
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            start_new_session=True,
        )
        for descriptor in theirs:
            os.close(descriptor)
        self._commands, self._answers = ours
        self._buffer = b""
        self._last_id = 0
        self.events: list[dict[str, Any]] = []

    def call(self, method: str, session: str = "", **parameters: Any) -> Any:
        """Carry out one command and wait for its answer; events that come meanwhile are kept in ``events``."""
        self._last_id += 1
        message: dict[str, Any] = {"id": self._last_id, "method": method, "params": parameters}
        if session:
            message["sessionId"] = session
        os.write(self._commands, json.dumps(message).encode() + b"\0")
        end = time.monotonic() + START_S
        while True:
            for found in self._read(max(0.0, end - time.monotonic())):
                if found.get("id") == self._last_id:
                    if "error" in found:
                        raise BrowserError(f"{method}: {found['error']}")
                    return found["result"]

    def _read(self, wait: float) -> list[dict[str, Any]]:
        if not select.select([self._answers], [], [], wait)[0]:
            raise TimeoutError("the browser does not answer")
        data = os.read(self._answers, 1 << 20)
        if not data:
            raise BrowserError(f"the browser has ended: {self.process.wait(PATIENCE_S)}")
        *whole, self._buffer = (self._buffer + data).split(b"\0")
        found = [json.loads(message) for message in whole]
        self.events += [message for message in found if "method" in message]
        return found

    def page(self, width: int = 1280, height: int = 900, dark: bool = False) -> Page:
        """A new page of this size, in a context (cookies, storage) of its own."""
        context = self.call("Target.createBrowserContext")["browserContextId"]
        target = self.call("Target.createTarget", url="about:blank", browserContextId=context)["targetId"]
        session = self.call("Target.attachToTarget", targetId=target, flatten=True)["sessionId"]
        page = Page(self, session)
        for domain in ("Page", "Runtime", "Log", "Network"):
            page.call(f"{domain}.enable")
        page.resize(width, height)
        page.call("Emulation.setEmulatedMedia", features=[{"name": "prefers-color-scheme", "value": "dark" if dark else "light"}])
        return page

    def close(self) -> None:
        """End it."""
        try:
            self.call("Browser.close")
        except (BrowserError, OSError, TimeoutError):
            self.process.kill()
        self.process.wait(PATIENCE_S)
        os.close(self._commands)
        os.close(self._answers)


class Page:
    """One page."""

    def __init__(self, browser: Browser, session: str) -> None:
        self.browser = browser
        self.session = session

    def call(self, method: str, **parameters: Any) -> Any:
        """Carry out one command of the protocol."""
        return self.browser.call(method, self.session, **parameters)

    def resize(self, width: int, height: int) -> None:
        self.call("Emulation.setDeviceMetricsOverride", width=width, height=height, deviceScaleFactor=1, mobile=width < 600)

    def open(self, url: str) -> None:
        """Go there, and wait until the document is complete."""
        found = self.call("Page.navigate", url=url)
        assert "errorText" not in found, found
        self.wait("document.readyState === 'complete' && location.href !== 'about:blank'")

    def run(self, script: str) -> Any:
        """The value of an expression, awaited if it is a promise.  Raises BrowserError when it throws."""
        found = self.call("Runtime.evaluate", expression=script, awaitPromise=True, returnByValue=True, userGesture=True)
        if "exceptionDetails" in found:
            details = found["exceptionDetails"]
            raise BrowserError(details.get("exception", {}).get("description") or str(details))
        return found["result"].get("value")

    def wait(self, script: str, seconds: float = 30.0) -> None:
        """Wait until an expression is true."""
        end = time.monotonic() + seconds
        while not self.run(f"Promise.resolve({script}).then(Boolean)"):
            assert time.monotonic() < end, f"in vain: {script}\n{self.run('document.body.innerText')[:3000]}"
            self.run("new Promise(requestAnimationFrame)")

    def text(self, selector: str) -> str:
        """What a user reads there."""
        return str(self.run(f"document.querySelector({json.dumps(selector)}).innerText"))

    def click(self, selector: str) -> None:
        self.run(f"document.querySelector({json.dumps(selector)}).click()")

    def fill(self, selector: str, value: str) -> None:
        """Put a value into a field, and tell the page as a user's typing does."""
        where = f"document.querySelector({json.dumps(selector)})"
        self.run(
            f"{where}.value = {json.dumps(value)}; "
            f"for (const kind of ['input', 'change']) {where}.dispatchEvent(new Event(kind, {{ bubbles: true }}))"
        )

    def press(self, key: str, code: int) -> None:
        """One key, as from a keyboard."""
        text = {"Enter": "\r"}.get(key, "")
        more = {"text": text} if text else {}
        for kind in ("keyDown", "keyUp"):
            self.call("Input.dispatchKeyEvent", type=kind, key=key, code=key, windowsVirtualKeyCode=code, **more)

    def complaints(self) -> list[str]:
        """What the console said that is no mere remark, and what was thrown and not caught."""
        found = []
        for event in self.browser.events:
            if event.get("sessionId") != self.session:
                continue
            method, about = event["method"], event["params"]
            if method == "Runtime.exceptionThrown":
                found.append(str(about["exceptionDetails"].get("exception", {}).get("description")))
            elif method == "Runtime.consoleAPICalled" and about["type"] in ("error", "warning", "assert"):
                found.append(str(about["args"]))
            elif method == "Log.entryAdded" and about["entry"]["level"] in ("error", "warning"):
                found.append(f"{about['entry']['text']} {about['entry'].get('url', '')}")
        return found

    def hosts_asked(self) -> set[str]:
        """All that the page has asked for something, as scheme and host."""
        asked = set()
        for event in self.browser.events:
            if event.get("sessionId") == self.session and event["method"] == "Network.requestWillBeSent":
                asked.add("/".join(event["params"]["request"]["url"].split("/")[:3]))
        return asked

    def picture(self, path: Path, whole: bool = True) -> None:
        """A screenshot, of the whole page or of what is seen."""
        found = self.call("Page.captureScreenshot", format="png", captureBeyondViewport=whole)
        path.write_bytes(base64.b64decode(found["data"]))
