"""What this machine allows a process, where the recorded one had more."""

from __future__ import annotations

from typing import Any, Iterable

from gdb_uffd.native import lib

_OWN = 16  # mappings of the vessel's own, and room for what a call maps
MAX_MAP_COUNT = "/proc/sys/vm/max_map_count"


def too_many_mappings(regions: Iterable[Any], setting: str = MAX_MAP_COUNT) -> str:
    """Why no process can be made of the native `regions`, with the remedy; "" when their number is
    not why.  Neighbours of the same protection are one mapping (native/process/vessel.c)."""
    try:
        with open(setting, encoding="ascii") as file:
            allowed = int(file.read())
    except (OSError, ValueError):
        return ""
    wanted, before = _OWN, None
    for region in regions:
        key = region.prot, _is_reserved(region)
        if before != (region.start, key):
            wanted += 1
        before = region.end, key
    if wanted <= allowed:
        return ""
    return (
        f"the process had {wanted - _OWN:,} mappings, and this machine lets one have {allowed:,}: "
        f"as root, `sysctl vm.max_map_count={max(2 * wanted, 1 << 18)}`"
    )


def _is_reserved(region: Any) -> bool:
    beyond = bool(region.flags & lib.REGION_BEYOND)
    return region.kind == lib.REGION_UNAVAILABLE and not beyond
