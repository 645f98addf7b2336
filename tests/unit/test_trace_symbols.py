"""In which order names are looked up, and what comes of them."""

from __future__ import annotations

from typing import Any, Dict, List, Optional, Tuple

import pytest

from gdb_uffd.trace import symbols
from gdb_uffd.trace.core.elf import ElfError
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.symbols import SymbolTable


class Image:
    """Of which only names are asked for; `asked` counts how often."""

    def __init__(self, exported: Dict[bytes, int], every: Dict[bytes, int]) -> None:
        self.exported, self.every, self.asked = exported, every, 0

    def dynamic_symbol(self, name: bytes) -> Optional[Tuple[int, int]]:
        self.asked += 1
        return (self.exported[name], 8) if name in self.exported else None

    def static_symbol(self, name: bytes) -> Optional[Tuple[int, int]]:
        return (self.every[name], 8) if name in self.every else None


class Damaged(Image):
    def dynamic_symbol(self, name: bytes) -> Optional[Tuple[int, int]]:
        raise ElfError("a table that ends nowhere")


def table(*images: Any) -> SymbolTable:
    order: List[Module] = [
        Module(f"/lib/{n}.so", image=image, bias=0x1000 * (n + 1)) for n, image in enumerate(images)
    ]
    return SymbolTable(order)


def test_what_a_later_object_exports_comes_before_what_an_earlier_one_has_for_itself():
    own, exported = Image({}, {b"name": 5}), Image({b"name": 7}, {b"name": 7})
    assert table(own, exported).find("name") == 0x2007
    assert table(own).find("name") == 0x1005


def test_the_first_that_exports_it():
    assert table(None, Image({b"name": 1}, {}), Image({b"name": 2}, {})).find("name") == 0x2001


def test_a_damaged_object_is_passed_over():
    assert table(Damaged({}, {b"own": 3}), Image({b"name": 2}, {})).find("name") == 0x2002
    assert table(Damaged({}, {b"own": 3})).find("own") == 0x1003


def test_an_object_below_its_own_addresses():
    """Its bias is negative, as two's complement."""
    image = Image({b"name": 0x400010}, {})
    order = [Module("/bin/x", image=image, bias=(1 << 64) - 0x400000)]  # type: ignore[arg-type]
    assert SymbolTable(order).find("name") == 0x10


def test_answers_are_kept_up_to_a_limit(monkeypatch: pytest.MonkeyPatch):
    monkeypatch.setattr(symbols, "MAX_CACHED", 3)
    image = Image({b"a": 1}, {})
    names = table(image)
    for _ in range(3):
        for name, found in (("a", 0x1001), ("none", None), ("nor", None)):
            assert names.find(name) == found
    assert image.asked == 3
    assert names.find("further") is None and names.find("a") == 0x1001
    assert image.asked == 5
