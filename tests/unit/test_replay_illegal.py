"""What an illegal instruction needs of a CPU; the encodings are the assembler's."""

from __future__ import annotations

import shutil
import subprocess
from pathlib import Path
from typing import List, Optional, Tuple

import pytest

from gdb_uffd.arch import X86_64
from gdb_uffd.arch.x86_64 import instructions
from gdb_uffd.client.show.ends import end_text
from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.replay import illegal

INSTRUCTIONS: List[Tuple[str, Optional[str]]] = [
    ("vpaddd %zmm0, %zmm1, %zmm2", "AVX-512"),
    ("vmovdqu64 (%rsi), %ymm17", "AVX-512"),
    ("kmovw %eax, %k1", "AVX-512"),
    ("kortestd %k0, %k1", "AVX-512"),
    ("kmovq (%rsi), %k1", "AVX-512"),
    ("kandw %k1, %k2, %k3", "AVX-512"),
    ("kunpckbw %k1, %k2, %k3", "AVX-512"),
    ("kmovd %k1, %eax", "AVX-512"),
    ("ktestw %k1, %k2", "AVX-512"),
    ("vmovmskps %ymm1, %eax", "AVX or AVX2"),
    ("vcomisd %xmm1, %xmm2", "AVX or AVX2"),
    ("vaddps %ymm0, %ymm1, %ymm2", "AVX or AVX2"),
    ("vpaddd %ymm8, %ymm1, %ymm2", "AVX or AVX2"),
    ("vmovdqu (%r9), %ymm11", "AVX or AVX2"),
    ("vpbroadcastb %xmm0, %ymm1", "AVX2, FMA or BMI"),
    ("vfmadd231ps %ymm0, %ymm1, %ymm2", "AVX2, FMA or BMI"),
    ("andn %rax, %rcx, %rdx", "AVX2, FMA or BMI"),
    (".byte 0xc4, 0xe2, 0x7b, 0x4b, 0x0c, 0x08", "AMX"),  # tileloadd (%rax,%rcx,1), %tmm1
    (".byte 0xc4, 0xe2, 0x78, 0x49, 0x00", "AMX"),  # ldtilecfg (%rax)
    (".byte 0xc4, 0xe2, 0x72, 0x5c, 0xd0", "AMX"),  # tdpbf16ps %tmm1, %tmm0, %tmm2
    (".byte 0xc4, 0xe2, 0x70, 0x6c, 0xd0", "AMX"),  # tcmmrlfp16ps %tmm1, %tmm0, %tmm2
    (".byte 0xc4, 0xe2, 0x7b, 0x5e, 0xd1", "AMX"),  # tdpbssd %tmm0, %tmm1, %tmm2: as < 2.35
    ("xsavec 0x40(%rsp)", "XSAVEC"),
    ("xsavec64 (%rax)", "XSAVEC"),
    ("xsaveopt (%rax)", "XSAVEOPT"),
    ("xsave (%rax)", "XSAVE"),
    ("xrstor (%rax)", "XSAVE"),
    ("xsaves (%rax)", "XSAVES"),
    ("xrstors64 (%rax)", "XSAVES"),
    ("rdrand %rax", "RDRAND"),
    ("rdseed %r9", "RDSEED"),
    ("popcnt %rax, %rcx", "POPCNT"),
    ("lzcnt %eax, %ecx", "LZCNT"),
    ("pshufb %xmm0, %xmm1", "SSSE3 or SSE4"),
    ("pcmpistri $0, %xmm8, %xmm9", "SSSE3 or SSE4"),
    ("ud2", None),
    ("mov %rax, %rcx", None),
    ("bsr %eax, %ecx", None),
    ("tzcnt %eax, %ecx", "BMI"),
    ("bsf %eax, %ecx", None),
    ("popcntw %ax, %cx", "POPCNT"),
    ("fs tzcntq (%r8, %r9, 8), %r10", "BMI"),
    ("lock cmpxchg16b (%rax)", None),
    ("clflush (%rax)", None),
    ("mfence", None),
    ("rep movsb", None),
    ("crc32b %sil, %eax", "SSSE3 or SSE4"),
    (".byte 0x50, 0x0f, 0xc7, 0xf0", None),  # push %rax; rdrand %eax
    ("fxsave (%rax)", None),
    ("movaps %xmm0, %xmm1", None),
    ("lfence", None),
]


@pytest.fixture(scope="module")
def encoded(tmp_path_factory) -> List[bytes]:
    """Each instruction's bytes, with room behind it."""
    if not shutil.which("as") or not shutil.which("objcopy"):
        pytest.skip("no assembler here")
    folder: Path = tmp_path_factory.mktemp("illegal")
    lines = "".join(f".balign 32, 0x90\n{text}\n" for text, _ in INSTRUCTIONS)
    (folder / "x.s").write_text(lines + ".balign 32, 0x90\n")
    subprocess.run(["as", "-o", folder / "x.o", folder / "x.s"], check=True)
    command = ["objcopy", "-O", "binary", "-j", ".text", folder / "x.o", folder / "x"]
    subprocess.run(command, check=True)
    data = (folder / "x").read_bytes()
    return [data[i : i + 15] for i in range(0, len(INSTRUCTIONS) * 32, 32)]


def test_what_is_needed(encoded: List[bytes]) -> None:
    for (text, name), code in zip(INSTRUCTIONS, encoded):
        need = instructions.needed(code)
        assert (need[0] if need else None) == name, (text, code.hex())


def test_no_bytes_raise() -> None:
    for first in range(256):
        for code in (b"", bytes([first]), bytes([first]) * 15, b"\x66" * 15, b"\x0f" * 3):
            instructions.needed(code)


def test_the_line_names_what_lacks(encoded: List[bytes]) -> None:
    code = encoded[0]

    def read(address: int, length: int) -> bytes:
        return code[:length]

    text = end_text(
        illegal.explain(X86_64, 0x1000, read, frozenset({"fpu", "avx512f", "avx512bw"}))
    )
    assert "0x1000 needs AVX-512" in text and "no avx512vl" in text and "\n" not in text
    assert (
        illegal.explain(X86_64, 0x1000, read, frozenset({"avx512f", "avx512vl", "avx512bw"}))
        is None
    )
    assert illegal.explain(X86_64, 0x1000, read, frozenset()) is None


def test_at_the_end_of_a_page(encoded: List[bytes]) -> None:
    def read(address: int, length: int) -> bytes:
        if length > 4:
            raise MemoryUnavailable(address + 4, "not mapped")
        return encoded[0][:length]

    found = illegal.explain(X86_64, 0xFFC, read, frozenset({"fpu"}))
    assert found is not None and found.needs == "AVX-512"

    def nothing(address: int, length: int) -> bytes:
        raise MemoryUnavailable(address, "not mapped")

    assert illegal.explain(X86_64, 0xFFC, nothing, frozenset({"fpu"})) is None


def test_this_machine_s_flags() -> None:
    assert "fpu" in illegal.cpu_flags()
