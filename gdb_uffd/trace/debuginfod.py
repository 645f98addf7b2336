"""Executables and libraries by build-id from debuginfod servers, in the cache that elfutils' client
and gdb share.

debuginfod(8), "WEBAPI": GET URL/buildid/BUILDID/executable.  debuginfod_find_executable(3),
"CACHE": $DEBUGINFOD_CACHE_PATH, else $XDG_CACHE_HOME/debuginfod_client, else
~/.cache/debuginfod_client; in it BUILDID/executable, empty for what no server had.
"""

from __future__ import annotations

import contextlib
import os
import tempfile
import urllib.error
import urllib.parse
import urllib.request
from typing import Optional, Sequence, Tuple

SECONDS = 20.0
"""How long one server may be silent.  gdb waits a minute for the whole core to be opened."""

MAX_BYTES = 4 << 30
_CHUNK = 1 << 20


def servers(text: str) -> Tuple[str, ...]:
    """The URLs of $DEBUGINFOD_URLS (or gdb's `debuginfod urls`), those of http and https."""
    return tuple(
        url.rstrip("/")
        for url in text.split()
        if urllib.parse.urlsplit(url).scheme in ("http", "https")
    )


def cache_folder() -> str:
    """Where fetched files are kept."""
    given = os.environ.get("DEBUGINFOD_CACHE_PATH")
    if given:
        return given
    base = os.environ.get("XDG_CACHE_HOME") or os.path.expanduser("~/.cache")
    return os.path.join(base, "debuginfod_client")


def executable(build_id: bytes, urls: Sequence[str]) -> Optional[str]:
    """The file with that build-id, from the cache or else from the first server that has it.

    None when nobody has it, or the cache cannot be written.  The caller checks the build-id.
    """
    name = build_id.hex()
    kept = os.path.join(cache_folder(), name, "executable")
    with contextlib.suppress(OSError):
        if os.path.getsize(kept):
            return kept
    for url in urls:
        try:
            if _fetch(f"{url}/buildid/{name}/executable", kept):
                return kept
        except (OSError, urllib.error.URLError, ValueError):
            continue  # the next one may have it
    return None


def _fetch(url: str, target: str) -> bool:
    folder = os.path.dirname(target)
    with urllib.request.urlopen(url, timeout=SECONDS) as answer:
        if int(answer.headers.get("Content-Length") or 0) > MAX_BYTES:
            return False
        os.makedirs(folder, exist_ok=True)
        part, path = tempfile.mkstemp(dir=folder, prefix="executable.")
        try:
            with os.fdopen(part, "wb") as file:
                left = MAX_BYTES
                while left > 0 and (data := answer.read(min(_CHUNK, left))):
                    file.write(data)
                    left -= len(data)
            if left <= 0 or not os.path.getsize(path):
                return False
            os.chmod(path, 0o400)  # as elfutils' client leaves it
            os.replace(path, target)
            return True
        finally:
            with contextlib.suppress(FileNotFoundError):
                os.unlink(path)
