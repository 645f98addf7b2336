"""Cores of 32-bit programs: gdb shows what it shows of them without us, and nothing runs."""

from __future__ import annotations

import struct
import subprocess
from pathlib import Path
from typing import List

import pytest
from harness import cores

SOURCE = """
int numbers[4] = {1, 2, 3, 4};
int counter = 41;

static int crash(int k)
{
	counter += k;
	*(volatile int *)0 = 1;
	return counter;
}

int bump(int k)
{
	return crash(k) + 1;
}

void _start(void)
{
	bump(1);
	for (;;)
		;
}
"""
FLAGS = ["-g", "-O0", "-nostdlib", "-static", "-fno-pic", "-no-pie", "-fno-stack-protector"]
ASKED = [
    *("backtrace", "info registers eax ebx ecx edx esi edi ebp esp eip eflags cs ss ds"),
    *("print counter", "print numbers", "x/3i $pc", "x/4xw $esp", "print $_siginfo.si_signo"),
    *("info auxv", "print $mxcsr", "print $fctrl", "print $xmm0.uint128", "print $st0"),
]


def program(folder: Path, width: str) -> Path:
    folder.mkdir()
    (folder / "narrow.c").write_text(SOURCE)
    built = folder / "narrow"
    command = ["cc", width, *FLAGS, "-o", str(built), str(folder / "narrow.c")]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    if done.returncode:
        pytest.skip(f"the compiler makes no {width} programs: {done.stderr.strip()[-200:]}")
    return built


@pytest.fixture(scope="module")
def i386(tmp_path_factory) -> Path:
    folder = tmp_path_factory.mktemp("i386")
    built = program(folder / "built", "-m32")
    try:
        return cores.kernel_core([str(built)], folder / "run")
    except (cores.NoKernelCore, OSError) as why:
        pytest.skip(f"no core of an i386 program: {why}")


def shown(gdb, asked: List[str]) -> List[str]:
    return [gdb.run(command).strip() for command in asked]


@pytest.mark.every_gdb
def test_an_i386_program(start_gdb, i386):
    stock = start_gdb()
    stock.run(f"file {i386.parent.parent / 'built' / 'narrow'}")
    stock.run(f"core-file {i386}")
    expected = shown(stock, ASKED)
    stock.quit()
    gdb = start_gdb()
    assert "SIGSEGV" in gdb.run(f"uffd spawn {i386}")
    for command, wanted, got in zip(ASKED, expected, shown(gdb, ASKED)):
        # gdb 13 shows no SSE registers of a core with components that it does not know.
        assert got == wanted or "unavailable" in wanted, command
    for command in ("print bump(3)", "uffd call bump(3)", "stepi"):
        text = " ".join(gdb.run(command).split())
        assert "32-bit program (i386)" in text, (command, text)
        gdb.run("uffd reset")
    assert gdb.value("counter") == "42"
    said = gdb.run(f"uffd export {i386.parent / 'again'}")
    assert "i386's programs can be read, and not written" in said


def x32_core(path: Path) -> Path:
    """Registers as x86-64 has them, words and headers as i386 does (<sys/procfs.h> for x32)."""
    gpr = [0x1111111100000000 + n for n in range(27)]
    gpr[16], gpr[17], gpr[19], gpr[20] = 0x401000, 0x33, 0x7F0010, 0x2B  # rip cs rsp ss
    head = struct.pack("<iiihHII", 11, 0, 0, 11, 0, 0, 0) + struct.pack("<4i", 77, 1, 77, 77)
    status = head.ljust(72, b"\0") + struct.pack("<27Q", *gpr) + bytes(8)
    note = struct.pack("<III", 5, len(status), 1) + b"CORE\0\0\0\0" + status
    notes_at, memory_at = 52 + 3 * 32, 4096
    ident = b"\x7fELF\x01\x01\x01".ljust(16, b"\0")
    header = struct.pack("<16sHHIIIIIHHHHHH", ident, 4, 62, 1, 0, 52, 0, 0, 52, 32, 3, 0, 0, 0)
    headers = struct.pack("<8I", 4, notes_at, 0, 0, len(note), 0, 0, 4)
    headers += struct.pack("<8I", 1, memory_at, 0x401000, 0, 4096, 4096, 5, 4096)
    headers += struct.pack("<8I", 1, memory_at + 4096, 0x7F0000, 0, 4096, 4096, 6, 4096)
    raw = (header + headers + note).ljust(memory_at, b"\0")
    path.write_bytes(raw + b"\x90" * 4096 + bytes(range(256)) * 16)
    return path


def test_an_x32_program(start_gdb, tmp_path):
    core = x32_core(tmp_path / "core")
    asked = ["info registers rax rbx r8 r15 rip rsp rbp eflags cs ss", "x/4xw $rsp", "x/2i $pc"]
    stock = start_gdb()
    stock.run(f"core-file {core}")
    expected = shown(stock, asked)
    assert "0x401000" in expected[0] and "13121110" in expected[1], expected
    stock.quit()
    gdb = start_gdb()
    gdb.run(f"uffd spawn {core}")
    assert shown(gdb, asked) == expected
    assert "32-bit program (x32)" in " ".join(gdb.run("stepi").split())
