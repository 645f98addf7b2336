"""Headless Chromium, driven through its DevTools protocol over a pipe: no driver, no port.

`--remote-debugging-pipe`: descriptors 3 (in) and 4 (out) carry JSON messages, each ended by a zero
byte (Chromium, content/browser/devtools/devtools_pipe_handler.cc).
"""

from __future__ import annotations

import json
import os
import select
import subprocess
import time
from pathlib import Path
from typing import Any, Dict, List, Optional

from harness import CACHE

CHROMIUM = CACHE / "chromium" / "run"
"""The machine's, or what tools/test-extras unpacks."""


def find() -> Optional[str]:
    """A Chromium to test with, or None."""
    return str(CHROMIUM) if CHROMIUM.exists() else None


def why_not() -> str:
    """Why there is none."""
    reason = CACHE / "chromium.skipped"
    return reason.read_text().strip() if reason.exists() else "no Chromium: run `make test-extras`"


class Browser:
    """One page of a browser of its own."""

    def __init__(self, program: str, profile: Path) -> None:
        to_read, self._to = os.pipe()
        self._from, to_write = os.pipe()
        os.set_inheritable(to_read, True)
        os.set_inheritable(to_write, True)

        def place() -> None:
            # Out of the way first: either may be 3 or 4 itself.
            read, write = os.dup(to_read), os.dup(to_write)
            high = [os.dup2(read, 100), os.dup2(write, 101)]
            os.dup2(high[0], 3)
            os.dup2(high[1], 4)

        self._process = subprocess.Popen(
            [program, "--headless", "--remote-debugging-pipe", "--no-sandbox", "--disable-gpu"]
            + ["--no-first-run", "--disable-dev-shm-usage", f"--user-data-dir={profile}"]
            + ["about:blank"],
            stdin=subprocess.DEVNULL,
            stdout=subprocess.DEVNULL,
            stderr=subprocess.DEVNULL,
            close_fds=False,
            preexec_fn=place,
        )
        os.close(to_read)
        os.close(to_write)
        self._buffer = b""
        self._next = 0
        self.events: List[Dict[str, Any]] = []
        self._session: Optional[str] = None
        targets = self.call("Target.getTargets")["targetInfos"]
        page = next(t["targetId"] for t in targets if t["type"] == "page")
        attached = self.call("Target.attachToTarget", targetId=page, flatten=True)
        self._session = attached["sessionId"]
        for domain in ("Page", "Runtime", "Log", "Network"):
            self.call(f"{domain}.enable")

    def call(self, method: str, **parameters: Any) -> Dict[str, Any]:
        """The result of one command."""
        self._next += 1
        message: Dict[str, Any] = {"id": self._next, "method": method, "params": parameters}
        if self._session is not None:
            message["sessionId"] = self._session
        os.write(self._to, json.dumps(message).encode() + b"\0")
        while True:
            answer = self._receive()
            if answer.get("id") == self._next:
                assert "error" not in answer, answer
                result = answer["result"]
                assert isinstance(result, dict)
                return result
            self.events.append(answer)

    def _receive(self, seconds: float = 60) -> Dict[str, Any]:
        deadline = time.monotonic() + seconds
        while b"\0" not in self._buffer:
            left = deadline - time.monotonic()
            ready = select.select([self._from], [], [], max(0, left))[0]
            assert ready, "the browser does not answer"
            data = os.read(self._from, 1 << 16)
            assert data, "the browser has gone"
            self._buffer += data
        message, _, self._buffer = self._buffer.partition(b"\0")
        answer = json.loads(message)
        assert isinstance(answer, dict)
        return answer

    def wait(self, event: str) -> None:
        """Until such an event has come."""
        while not any(e.get("method") == event for e in self.events):
            self.events.append(self._receive())

    def open(self, url: str, width: int = 1200, height: int = 900) -> None:
        """Load a page to its end."""
        self.call(
            "Emulation.setDeviceMetricsOverride",
            width=width, height=height, deviceScaleFactor=1, mobile=False,
        )  # fmt: skip
        self.events.clear()
        self.call("Page.navigate", url=url)
        self.wait("Page.loadEventFired")

    def evaluate(self, expression: str) -> Any:
        """The value of a JavaScript expression in the page."""
        result = self.call("Runtime.evaluate", expression=expression, returnByValue=True)
        assert "exceptionDetails" not in result, result
        return result["result"].get("value")

    def methods(self, name: str) -> List[Dict[str, Any]]:
        """The parameters of the events of that name since the page was opened."""
        return [e["params"] for e in self.events if e.get("method") == name]

    def close(self) -> None:
        """End the browser."""
        self._process.kill()
        self._process.wait()
        os.close(self._to)
        os.close(self._from)
