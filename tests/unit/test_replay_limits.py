"""More mappings than this machine allows a process: told by name; neighbours are one."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import List

import pytest

from gdb_uffd.native import lib
from gdb_uffd.replay.policy.limits import MAX_MAP_COUNT, too_many_mappings


def regions(count: int, gap: int = 0, prots: int = 1) -> List[SimpleNamespace]:
    return [
        SimpleNamespace(
            start=i * (4096 + gap), end=i * (4096 + gap) + 4096, prot=1 + i % prots,
            kind=lib.REGION_ZERO, flags=0,
        )
        for i in range(count)
    ]  # fmt: skip


@pytest.mark.parametrize(
    "many, told",
    [
        (regions(100), False),
        (regions(100, gap=4096), True),
        (regions(100, prots=2), True),
        (regions(30, prots=2), False),
    ],
)
def test_what_does_not_join_is_counted(tmp_path: Path, many: List[SimpleNamespace], told: bool):
    setting = tmp_path / "max_map_count"
    setting.write_text("64\n")
    text = too_many_mappings(many, str(setting))
    assert bool(text) == told
    if told:
        assert "100 mappings" in text and "have 64" in text and "sysctl vm.max_map_count=" in text


def test_unavailable_memory_does_not_join_what_is_there(tmp_path: Path) -> None:
    many = regions(100)
    for region in many[::2]:
        region.kind = lib.REGION_UNAVAILABLE
    setting = tmp_path / "max_map_count"
    setting.write_text("64\n")
    assert too_many_mappings(many, str(setting))
    assert too_many_mappings(many, str(tmp_path / "nothing")) == ""
    assert Path(MAX_MAP_COUNT).exists()
