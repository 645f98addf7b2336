"""Calls in a core through replay.diversion, as gdb makes them, without gdb."""

from __future__ import annotations

import subprocess
from pathlib import Path
from typing import Any, Callable, Dict, List, Optional

from gdb_uffd.protocol.model import CallReport
from gdb_uffd.replay.diversion import Diversion
from gdb_uffd.replay.interface import SOFTWARE, Resume, Stop
from gdb_uffd.trace.core.core import CoreSnapshot, open_core
from harness import telling
from harness.cores import kernel_core

ROOT = Path(__file__).resolve().parents[3]


def kernel_core_path(folder: Path) -> Path:
    """The core of tests/programs/kernel.c, built and crashed in `folder`."""
    program = folder / "kernel"
    source = ROOT / "tests" / "programs" / "kernel.c"
    subprocess.run(["cc", "-g", "-O1", "-w", "-o", program, source], check=True)
    return kernel_core([str(program)], folder)


class Client:
    """No input; the output is kept."""

    def __init__(self) -> None:
        self.written = b""

    def fileno(self) -> int:
        return -1

    def interrupt_requested(self) -> bool:
        return False

    def output(self, data: bytes) -> None:
        self.written += data

    def runs_on(self, seconds: float) -> None:
        pass


class Caller:
    """A core and its diversion."""

    def __init__(self, core: Path, change: Callable[[CoreSnapshot], None] = lambda _: None) -> None:
        self.snapshot = open_core(str(core), None)
        change(self.snapshot)
        self.diversion = Diversion(self.snapshot)
        self.tid = self.snapshot.threads[0].tid
        self.reports: List[CallReport] = []
        self.more: Dict[str, int] = {}  # further registers that a function begins with

    def symbol(self, name: str) -> int:
        found = self.snapshot.symbol(name)
        assert found is not None, name
        return found

    def start(self, name: str, argument: int = 0, client: Optional[Any] = None) -> Stop:
        """Begin the transaction, push a frame, run until the return or another stop."""
        self.diversion.begin()
        return self.enter(name, argument, client)

    def enter(self, name: str, argument: int = 0, client: Optional[Any] = None) -> Stop:
        """The same in an open transaction."""
        d = self.diversion
        d.call_begin(self.symbol(name), False)
        registers = d.registers(self.tid).copy()
        arch, stack = registers.arch, registers.sp - 512 & ~15
        self.landing = stack + 64
        values = {arch.result: 0, arch.pc: self.symbol(name), arch.arguments[0]: argument}
        if arch.link is not None:
            values[arch.link] = self.landing
        else:
            stack -= 8
            self.landing = stack + 64
            d.write_memory(stack, self.landing.to_bytes(8, "little"))
        values[arch.sp] = stack
        d.insert_breakpoint(SOFTWARE, self.landing, 1)
        values.update(arch.pending)
        values.update({arch.gpr[register]: value for register, value in self.more.items()})
        for register, value in values.items():
            registers.gpr[register] = value
        saved = d.registers(self.tid)
        d.set_registers(self.tid, registers)
        stop = d.resume(Resume(self.tid, "c"), client or Client())
        d.remove_breakpoint(SOFTWARE, self.landing, 1)
        self.result = d.registers(self.tid).gpr[arch.result]
        if stop.breakpoint == "swbreak":
            d.set_registers(self.tid, saved)  # as gdb does when it pops the frame
        return stop

    @property
    def refused(self) -> List[str]:
        """Of the last call."""
        return telling.refused(self.reports[-1])

    def call(self, name: str, argument: int = 0, keep: bool = False) -> int:
        """The function's value (64 bits, signed)."""
        stop = self.start(name, argument)
        assert stop.breakpoint == "swbreak", stop
        result = self.result
        self.diversion.call_end()
        self.reports.append(self.diversion.end(keep))
        return result - (1 << 64) if result >> 63 else result

    def close(self) -> None:
        self.diversion.close()
        self.snapshot.close()
