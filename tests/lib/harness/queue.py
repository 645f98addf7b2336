"""Divides the tests among several runs (tools/test): each takes the next module that none took.

In the folder that they share are, by the module's path, a file for each that was taken, and for
each run what it collected and what it ran: tools/test compares.
"""

from __future__ import annotations

import os
from pathlib import Path
from typing import Dict, Iterator, List, Sequence
from urllib.parse import quote

import pytest

WEIGHTS = {"slow": 60, "gdb": 10, "native": 60}
"""About how many times longer than others a test takes: marked so, or in that folder."""


def _weight(item: pytest.Item) -> int:
    return max([WEIGHTS.get(part, 1) for part in item.path.parts] + [WEIGHTS["slow"]] * _slow(item))


def _slow(item: pytest.Item) -> bool:
    return item.get_closest_marker("slow") is not None


class Queue:
    """The modules of `items` in `folder`, for this run's part of them."""

    def __init__(self, folder: Path, items: Sequence[pytest.Item]) -> None:
        self._folder = folder
        self._modules: Dict[str, List[pytest.Item]] = {}
        for item in items:
            self._modules.setdefault(item.nodeid.partition("::")[0], []).append(item)
        names = (item.nodeid + "\n" for item in items)
        (folder / f"collected.{os.getpid()}").write_text("".join(names), encoding="utf-8")
        self._ran = folder / f"ran.{os.getpid()}"

    def items(self) -> Iterator[pytest.Item]:
        """Those of one module after the other, as they are taken; the longest come first, so that
        the runs end together."""
        for name in sorted(self._modules, key=lambda name: (-self._length(name), name)):
            if self._take(name):
                yield from self._modules[name]

    def note(self, item: pytest.Item) -> None:
        """It has been run."""
        with self._ran.open("a", encoding="utf-8") as file:
            file.write(item.nodeid + "\n")

    def _length(self, name: str) -> int:
        return sum(_weight(item) for item in self._modules[name])

    def _take(self, name: str) -> bool:
        try:
            os.close(os.open(self._folder / quote(name, safe=""), os.O_CREAT | os.O_EXCL))
        except FileExistsError:
            return False
        return True
