"""docs/compatibility.md from the results."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping

from checks import FAIL, Result

HEAD = """# Compatibility

Written by `make matrix`, which runs the tests on other kernels (Debian's, in QEMU without KVM:
slow, and without AVX-512), with other gdbs and with lldb. Nothing is decided by a version:
everything is probed.

A cell says how many tests passed; "lack" counts those that the kernel, the CPU or the debugger
cannot do, for the reasons below the table. An empty cell was not run.
"""

KERNELS = """
## Kernels

| kernel | {columns} |
| --- |{lines}
{rows}

`travelled`: cores that another kernel made on another CPU (this machine's; on this machine the
oldest emulated kernel's). `its cores here`: cores that this kernel made, opened on this machine.
"""

GDBS = """
## gdb

`tests/gdb` on this machine's kernel, without the tests of bad input, of processes that die and of
the installation.

| gdb | from | its Python | tests |
| --- | --- | --- | --- |
{rows}
"""

LLDBS = """
## lldb

`tests/lldb`: threads, frames, memory, registers, calls and compiled expressions, breakpoints,
steps, watchpoints on a served core. See [lldb.md](lldb.md).

| lldb | from | tests |
| --- | --- | --- |
{rows}
"""


@dataclass
class Row:
    """One kernel, gdb or lldb."""

    kind: str
    label: str
    cells: Dict[str, Result] = field(default_factory=dict)
    details: Dict[str, str] = field(default_factory=dict)

    @classmethod
    def load(cls, data: Mapping[str, Any]) -> "Row":
        """From JSON."""
        cells = {name: Result(**cell) for name, cell in data["cells"].items()}
        return cls(data["kind"], data["label"], cells, dict(data["details"]))


def _order(row: Row) -> List[int]:
    return [int(n) for n in re.findall(r"\d+", row.label)]


def _columns(rows: List[Row]) -> List[str]:
    return list(dict.fromkeys(name for row in rows for name in row.cells))


def _notes(rows: List[Row]) -> str:
    """What lacks and what failed, one list item a row."""
    lines: List[str] = []
    for row in rows:
        reasons: Dict[str, int] = {}
        failed: List[str] = []
        for name, cell in row.cells.items():
            for reason, count in cell.lacking.items():
                reasons[reason] = reasons.get(reason, 0) + count
            failed += [f"{name}: `{test}`" for test in cell.failed]
            if cell.verdict == FAIL and not cell.failed:
                failed.append(f"{name}: {cell.note}")
        if failed:
            lines.append(f"- {row.label}: **failed** {'; '.join(failed)}")
        if reasons:
            text = "; ".join(
                _plain(r) + (f" ({n} times)" if n > 1 else "") for r, n in reasons.items()
            )
            lines.append(f"- {row.label} lacks: {text}")
    return "\n" + "\n".join(lines) + "\n" if lines else ""


def _plain(reason: str) -> str:
    return reason.replace("|", "\\|").replace("<", "&lt;")


def render(rows: List[Row]) -> str:
    """The whole page."""
    text = HEAD
    of = {
        kind: sorted((r for r in rows if r.kind == kind), key=_order)
        for kind in ("kernel", "gdb", "lldb")
    }
    if of["kernel"]:
        columns = _columns(of["kernel"])
        lines = [
            "| " + " | ".join([r.label, *(_cell(r, c) for c in columns)]) + " |"
            for r in of["kernel"]
        ]
        text += KERNELS.format(
            columns=" | ".join(columns), lines=" --- |" * len(columns), rows="\n".join(lines)
        )
        text += _notes(of["kernel"])
    for kind, form in (("gdb", GDBS), ("lldb", LLDBS)):
        if of[kind]:
            text += form.format(rows="\n".join(_debugger(r) for r in of[kind])) + _notes(of[kind])
    return text


def _cell(row: Row, column: str) -> str:
    cell = row.cells.get(column)
    return _plain(cell.cell()) if cell is not None else ""


def _debugger(row: Row) -> str:
    cells = [row.label, row.details.get("from", "")]
    if row.kind == "gdb":
        cells.append(row.details.get("Python", ""))
    return "| " + " | ".join([*cells, *(_plain(c.cell()) for c in row.cells.values())]) + " |"
