"""The model's dataclasses as JSON and back: addresses as hex strings, bytes as hex digits."""

from __future__ import annotations

import dataclasses
from typing import Any, Dict, List, Optional, Tuple

from gdb_uffd.protocol.heap import from_json as heap_from_json
from gdb_uffd.protocol.heap import to_json as heap_to_json
from gdb_uffd.protocol.model import (
    Block,
    CallReport,
    Damage,
    DirtyPage,
    FirstWrite,
    HeapTotals,
    PageRange,
    Path,
    Run,
)


def to_json(value: Any) -> Any:
    """A dataclass (or list, dict, scalar) as plain JSON types, by the rules above."""
    if isinstance(value, Run):  # by the hundred in a report: spelled out for speed
        run: Dict[str, Any] = {
            "address": hex(value.address),
            "before": value.before.hex(),
            "after": value.after.hex(),
        }
        for name in ("kind", "thread", "role", "symbol"):
            if getattr(value, name):
                run[name] = getattr(value, name)
        return run
    if isinstance(value, Damage):
        return heap_to_json(value)
    if isinstance(value, (str, int, float, bool)) or value is None:
        return value
    if isinstance(value, (list, tuple)):
        return [to_json(v) for v in value]
    if isinstance(value, bytes):
        return value.hex()
    if isinstance(value, dict):
        return {k: to_json(v) for k, v in value.items()}
    if dataclasses.is_dataclass(value) and not isinstance(value, type):
        out: Dict[str, Any] = {}
        for name in _field_names(type(value)):
            item = getattr(value, name)
            if type(item) in _SCALARS:
                out[name] = hex(item) if name in _ADDRESSES and item is not None else item
            else:
                out[name] = to_json(item)
        if isinstance(value, FirstWrite):
            out["callers"] = [hex(a) for a in value.callers]
        elif isinstance(value, Path):
            out["steps"] = [[hex(a), element, index] for a, element, index in value.steps]
        return out
    return value


_SCALARS = frozenset((str, int, bool, float, type(None)))
_FIELD_NAMES: Dict[type, Tuple[str, ...]] = {}


def _field_names(kind: type) -> Tuple[str, ...]:
    """The names of a dataclass's fields, looked up once."""
    names = _FIELD_NAMES.get(kind)
    if names is None:
        names = _FIELD_NAMES[kind] = tuple(f.name for f in dataclasses.fields(kind))
    return names


_ADDRESSES = {"start", "end", "address", "pc", "sp", "at", "mapping_start"}


def _runs_from_json(data: List[Dict[str, Any]]) -> List[Run]:
    return [
        Run(
            int(r["address"], 16),
            bytes.fromhex(r["before"]),
            bytes.fromhex(r["after"]),
            r.get("kind", ""),
            r.get("thread"),
            r.get("role", ""),
            r.get("symbol", ""),
        )
        for r in data
    ]


def path_from_json(data: Optional[Dict[str, Any]]) -> Optional[Path]:
    """The Path that `to_json` wrote; None for null."""
    if data is None:
        return None
    steps = tuple((int(a, 16), int(b), int(c)) for a, b, c in data["steps"])
    at, count = int(data["at"], 16), int(data.get("count", 1))
    return Path(data["root"], steps, at, data["type"], data["after"], count)


def _block_from_json(data: Dict[str, Any]) -> Block:
    return Block(int(data["start"], 16), data["size"], data["state"], path_from_json(data["path"]))


def report_from_json(data: Dict[str, Any]) -> CallReport:
    """The CallReport that `to_json` wrote; KeyError or ValueError when it is not one."""
    pages = []
    for p in data["pages"]:
        first = p["first_write"]
        pages.append(
            DirtyPage(
                start=int(p["start"], 16),
                end=int(p["end"], 16),
                kind=p["kind"],
                mapping=p["mapping"],
                bytes_changed=p["bytes_changed"],
                thread=p["thread"],
                writers=list(p["writers"]),
                first_write=None
                if first is None
                else FirstWrite(
                    int(first["pc"], 16),
                    int(first["sp"], 16),
                    first["tid"],
                    tuple(int(a, 16) for a in first["callers"]),
                    int(first["address"], 16),
                ),
                around=_runs_from_json(p["around"]),
                runs=_runs_from_json(p["runs"]),
                more_runs=p["more_runs"],
                bytes_above=p["bytes_above"],
                mapping_start=int(p["mapping_start"], 16),
            )
        )
    made: Dict[str, Any] = {"pages": pages, "blocks": [_block_from_json(b) for b in data["blocks"]]}
    made["rest"] = [
        PageRange(**{**each, "start": int(each["start"], 16), "end": int(each["end"], 16)})
        for each in data["rest"]
    ]
    made["heap"] = None if data["heap"] is None else HeapTotals(**data["heap"])
    trouble = data["heap_trouble"]
    made["heap_trouble"] = None if trouble is None else heap_from_json(Damage, trouble)
    names = [f.name for f in dataclasses.fields(CallReport) if f.name not in made]
    return CallReport(**made, **{name: data[name] for name in names})
