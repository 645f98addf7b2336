"""Files by build-id from debuginfod servers, in the cache that elfutils' client and gdb share.

debuginfod(8), "WEBAPI": GET URL/buildid/BUILDID/executable or /debuginfo.
debuginfod_find_executable(3), "CACHE": $DEBUGINFOD_CACHE_PATH, else
$XDG_CACHE_HOME/debuginfod_client, else ~/.cache/debuginfod_client; in it BUILDID/executable,
empty for what no server had; "ENVIRONMENT VARIABLES": DEBUGINFOD_TIMEOUT, DEBUGINFOD_MAXTIME.

A server is only asked within bounds: it must answer, and send no slower than a bad modem.  One that
does not is not asked again.  SIGINT ends a download, and all that would follow.
"""

from __future__ import annotations

import contextlib
import os
import signal
import threading
import time
from dataclasses import replace
from typing import Any, Iterator, List, Optional, Sequence, Tuple

from gdb_uffd.outputs import whole_file
from gdb_uffd.protocol.messages import Progress, TellProgress

SECONDS = 10.0
"""How long a server may be silent, before its answer and in it."""
SLOWEST = 4 << 10
"""Bytes a second that a download must bring on average, once SECONDS are over."""
MAX_BYTES = 4 << 30
_CHUNK = 1 << 20
_TOLD_EVERY = 0.2  # seconds

EXECUTABLE, DEBUGINFO = "executable", "debuginfo"


def servers(text: str) -> Tuple[str, ...]:
    """The URLs of $DEBUGINFOD_URLS (or gdb's `debuginfod urls`), those of http and https."""
    words = (url.rstrip("/") for url in text.split())
    return tuple(url for url in words if url.startswith(("http://", "https://")))


def cache_folder() -> str:
    """Where fetched files are kept."""
    given = os.environ.get("DEBUGINFOD_CACHE_PATH")
    if given:
        return given
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "debuginfod_client")


def _seconds(variable: str, otherwise: float) -> float:
    text = os.environ.get(variable, "")
    return float(text) if text.isdigit() and 0 < int(text) < 1 << 20 else otherwise


class _Empty(Exception):
    """Nothing was sent."""


class DebuginfodClient:
    """Asks `urls`, one after the other.  `problems`: a line for each that is asked no more."""

    def __init__(self, urls: Sequence[str], tell: Optional[TellProgress] = None) -> None:
        self._urls = list(urls)
        self._tell: TellProgress = tell or (lambda _now: None)
        self.problems: List[str] = []

    def get(self, build_id: bytes, name: str = "", kind: str = EXECUTABLE) -> Optional[str]:
        """The file with that build-id, from the cache or else from the first server that has it.
        `name`: what the user knows it by.

        None when nobody has it, or the cache cannot be written.  The caller checks the build-id.
        """
        text = build_id.hex()
        kept = os.path.join(cache_folder(), text, kind)
        with contextlib.suppress(OSError):
            if os.path.getsize(kept):
                return kept
        for url in list(self._urls):
            try:
                with _interruptible():
                    if self._fetch(url, f"{url}/buildid/{text}/{kind}", kept, name or text):
                        return kept
            except KeyboardInterrupt:
                self._urls.clear()
                self.problems.append("download ended by Ctrl-C; debuginfod is asked no more")
                return None
            except Exception as error:  # OSError, ValueError, and what http.client raises
                self._give_up(url, error)
            finally:
                self._tell(None)
        return None

    def _give_up(self, url: str, error: Exception) -> None:
        if url in self._urls:
            self._urls.remove(url)
        reason = getattr(error, "reason", None) or getattr(error, "strerror", None) or error
        self.problems.append(f"{url}: {reason or type(error).__name__}; it is asked no more")

    def _fetch(self, url: str, address: str, target: str, name: str) -> bool:
        self._tell(Progress("asking", name, url))
        silence = _seconds("DEBUGINFOD_TIMEOUT", SECONDS)
        answer = _opened(address, silence)
        if answer is None:
            return False
        with answer:
            total = int(answer.headers.get("Content-Length") or 0)
            if total > MAX_BYTES:
                return False
            folder = os.path.dirname(target)
            os.makedirs(folder, exist_ok=True)
            with contextlib.suppress(_Empty), whole_file(target, replace=True) as fd:
                with os.fdopen(os.dup(fd), "wb") as file:
                    loads = Progress("downloading", name, url, 0, total)
                    for piece in self._pieces(answer, silence, loads):
                        if not file.tell() and not b"\x7fELF".startswith(piece[:4]):
                            raise ValueError("sent no ELF file")
                        file.write(piece)
                if not os.fstat(fd).st_size:
                    raise _Empty
                os.fchmod(fd, 0o400)  # as elfutils' client leaves it
            return os.path.exists(target)

    def _pieces(self, answer: Any, silence: float, state: Progress) -> Iterator[bytes]:
        began = told = time.monotonic()
        limit = _seconds("DEBUGINFOD_MAXTIME", float("inf"))
        done = 0
        self._tell(state)
        while True:
            piece = answer.read1(_CHUNK)
            if not piece:
                break
            done += len(piece)
            now = time.monotonic()
            if done > MAX_BYTES:
                raise OSError("sent too much")
            if now - began > limit:
                raise TimeoutError(f"took longer than DEBUGINFOD_MAXTIME, {limit:.0f} s")
            if now - began > silence and done < SLOWEST * (now - began):
                raise TimeoutError(f"sent {done:,} bytes in {now - began:.0f} s")
            if now - told > _TOLD_EVERY:
                told = now
                self._tell(replace(state, done=done))
            yield piece
        if state.total and done < state.total:
            raise OSError(f"sent {done:,} of {state.total:,} bytes")


def _opened(address: str, silence: float) -> Any:
    """The answer to a GET, None when the server has no such file.  On a thread of its own:
    the time limit of a socket starts anew with each byte of the headers."""
    import urllib.error
    import urllib.request  # slow to import, and seldom needed

    found: List[Any] = []
    over = threading.Event()

    def ask() -> None:
        try:
            answer = urllib.request.urlopen(address, timeout=silence)
        except Exception as error:
            answer = error
        found.append(answer)
        if over.is_set() and not isinstance(answer, Exception):
            answer.close()

    thread = threading.Thread(target=ask, daemon=True)
    thread.start()
    try:
        thread.join(silence + 1)
    finally:
        over.set()
    if not found:
        raise TimeoutError(f"no answer in {silence:.0f} s")
    if isinstance(found[0], urllib.error.HTTPError):
        found[0].close()
        if found[0].code in (404, 410):
            return None
        raise OSError(f"HTTP error {found[0].code}")
    if isinstance(found[0], Exception):
        raise found[0]
    return found[0]


@contextlib.contextmanager
def _interruptible() -> Iterator[None]:
    """Within, SIGINT raises KeyboardInterrupt, also in a process that ignores it otherwise."""
    if threading.current_thread() is not threading.main_thread():
        yield
        return
    before = signal.signal(signal.SIGINT, signal.default_int_handler)
    try:
        yield
    finally:
        signal.signal(signal.SIGINT, before)
