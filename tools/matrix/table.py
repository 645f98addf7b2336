"""docs/compatibility.md from the results."""

from __future__ import annotations

import re
from dataclasses import dataclass, field
from typing import Any, Dict, List, Mapping

from checks import FAIL, Result

HEAD = """# Compatibility

Written by `make matrix`, which runs tests on other kernels (Debian's, in QEMU without KVM: slow,
and without AVX-512), with other gdbs and with lldb. Nothing is decided by a version: everything is
probed. `make test` runs all tests on this machine's kernel with its own gdb and 18.1; here each
column is a selection, named in `tools/matrix/checks.py`.

A cell says how many tests passed; "lack" counts those that the kernel, the CPU or the debugger
cannot do, for the reasons below the table. An empty cell was not run.
"""

KERNELS = """
## Kernels

| kernel | {columns} |
| --- |{lines}
{rows}

- `doctor`: the probes of `uffd doctor`; every engine plays its trial.
- `native`: the pager's orders of events, in C. `engines`: random programs under every engine that
  the kernel has. `calls, undo`, `system calls`, `why`: calls in cores without a gdb. `record`: the
  recorder, by the kernel's tracking where it has that, else by comparing all memory.
- `gdb: ...`: one test of each kind with the distribution's gdb: an emulated machine takes up to a
  minute for one.
- `travelled`: cores that another kernel made on another CPU (this machine's; on this machine the
  oldest emulated kernel's). `its cores here`: cores that this kernel made, opened on this machine.
"""

AARCH64 = """
## AArch64

Debian's userland and kernels for arm64 in qemu-system-aarch64, the native module cross compiled on
this machine, gdb 13.1 of that userland.

| kernel | {columns} |
| --- |{lines}
{rows}

The columns are those of the kernels above, with fewer tests. See
[architectures.md](architectures.md) for what there is not.
"""

GDBS = """
## gdb

On this machine's kernel.

| gdb | from | its Python | {columns} |
| --- | --- | --- |{lines}
{rows}
"""

LLDBS = """
## lldb

`tests/lldb`: threads, frames, memory, registers, calls and compiled expressions, breakpoints,
steps, watchpoints on a served core. See [lldb.md](lldb.md).

| lldb | from | {columns} |
| --- | --- |{lines}
{rows}
"""

BENCH = """
## What a written page costs

`benchmarks/engines.py` in a guest with Linux 6.12, where all four engines exist: an emulator's
microseconds, so the ratios count. See [engines.md](engines.md).

```
{text}
```
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
    forms = {"kernel": KERNELS, "aarch64": AARCH64, "gdb": GDBS, "lldb": LLDBS}
    for kind, form in forms.items():
        its = sorted((r for r in rows if r.kind == kind), key=_order)
        if its:
            columns = _columns(its)
            text += form.format(
                columns=" | ".join(columns),
                lines=" --- |" * len(columns),
                rows="\n".join(_line(row, columns) for row in its),
            )
            text += _notes(its)
    for row in rows:
        if row.kind == "bench" and not row.cells:
            text += BENCH.format(text=row.details["text"].strip())
    return text


def _line(row: Row, columns: List[str]) -> str:
    told = {"gdb": ("from", "Python"), "lldb": ("from",)}.get(row.kind, ())
    cells = [row.cells[c].cell() if c in row.cells else "" for c in columns]
    words = [row.label, *(row.details.get(d, "") for d in told), *map(_plain, cells)]
    return "| " + " | ".join(words) + " |"
