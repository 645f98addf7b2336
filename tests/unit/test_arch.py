"""Every processor on whatever machine the tests run: that all of it is there, cores and packets of
plain registers.  Then AArch64: cores read and written, registers in packets, thread-locals, the
vdso, numbers of system calls; and what is said where its code cannot run."""

from __future__ import annotations

import re
import struct
import xml.etree.ElementTree as ET
from pathlib import Path

import pytest
from harness import ROOT
from hypothesis import given
from hypothesis import strategies as st

from gdb_uffd.arch import AARCH64, ALL, X86_64, Architecture, aarch64, host, of_gdb, of_machine
from gdb_uffd.native import ffi
from gdb_uffd.protocol.model import Mapping, Registers, ThreadState, UffdError
from gdb_uffd.replay.policy import syscalls
from gdb_uffd.replay.vessel import Vessel
from gdb_uffd.server.stub import packets
from gdb_uffd.trace.core.core import open_core
from gdb_uffd.trace.core.core_write import write_core
from gdb_uffd.trace.core.vdso import patch_vdso
from gdb_uffd.trace.tls import RecordedThreadLocals

WORDS = st.integers(0, (1 << 64) - 1)
BASE = 0x400000
PAGE = 4096


def registers(seed: int = 1, features: int = aarch64.FPSIMD | aarch64.PAC) -> Registers:
    """Every byte another one."""
    gpr = [seed << 32 | n for n in range(len(AARCH64.names))]
    gpr[AARCH64.gpr["cpsr"]] = 0x60000000 + seed
    image = bytearray((seed + n) % 251 for n in range(aarch64.SIZE))
    image[520:528] = bytes(8)  # reserved
    return Registers(gpr, bytes(image), features, AARCH64)


def made_core(path: Path, *threads: Registers) -> Path:
    states = [ThreadState(100 + n, r, signal=6) for n, r in enumerate(threads)]
    for state in states:
        state.registers.gpr[state.registers.arch.sp] = BASE + 64
    memory = bytes(range(256)) * (PAGE // 256)
    mappings = [Mapping(BASE, BASE + PAGE, 3)]
    auxv = struct.pack("<4Q", 6, PAGE, 0, 0)
    write_core(str(path), 100, states, auxv, mappings, lambda a, n: memory[a - BASE :][:n])
    return path


# -- the interface ----------------------------------------------------------------------------


def test_architectures_are_told_apart():
    assert [of_machine(a.machine) for a in ALL] == list(ALL)
    assert [of_gdb(a.gdb) for a in ALL] == list(ALL)
    assert of_machine(75) is None and of_gdb("vax") is None


each_processor = pytest.mark.parametrize("arch", ALL, ids=lambda a: a.name)


def plain(arch: Architecture, features: int) -> Registers:
    """Small numbers, and nothing in the extended registers."""
    return Registers(
        [n + 1 for n in range(len(arch.names))], bytes(arch.vectors.size), features, arch
    )


@each_processor
def test_its_c_has_every_function_that_is_asked_of_it(arch):
    kernel = ROOT / "gdb_uffd" / "native" / "kernel"
    code, header = ((kernel / f"arch_{arch.name}.{suffix}").read_text() for suffix in "ch")
    asked = (kernel / "arch.h").read_text()
    for line in re.findall(r"^(?:PYTHON )?\w[\w ]*? \*?arch_\w+\(.*\);$", asked, re.M):
        assert f"{line[:-1].replace('PYTHON ', '')}\n{{" in code, line
    for name in re.findall(r"^extern const struct machine_code (\w+);$", asked, re.M):
        assert f"const struct machine_code {name} = " in code
    assert f'#include "kernel/arch_{arch.name}.h"' in asked and "struct registers {" in header


@each_processor
@pytest.mark.parametrize("features", [0, 1, 3, 7])
def test_plain_registers_cross_in_a_packet(arch, features):
    r = plain(arch, features)
    form = packets.format_of(arch, features)
    root = ET.fromstring(packets.description(r))
    described = root.findall("feature/reg")
    assert root.findtext("architecture") == arch.gdb
    assert form.size == sum(int(d.get("bitsize", "0")) for d in described) // 8
    assert form.decode(form.encode(r), r) == r
    assert len(form.encode_hex(r)) == 2 * form.size
    names = [d.get("name") for d in described]
    assert [names[number] for number, _ in arch.expedited] == [
        arch.names[index] for _, index in arch.expedited
    ]
    assert all(names[n] == name for n, name in enumerate(arch.numbered) if name)


@each_processor
def test_plain_registers_cross_in_a_core(arch, tmp_path):
    snapshot = open_core(str(made_core(tmp_path / "core", plain(arch, 0))), None)
    (thread,) = snapshot.threads
    assert snapshot.arch is arch and thread.registers.sp == BASE + 64
    assert thread.registers.gpr == [
        BASE + 64 if n == arch.sp else n + 1 for n in range(len(arch.names))
    ]
    snapshot.close()


@each_processor
def test_its_stub_for_the_vdso_is_whole_instructions(arch):
    stub = arch.vdso_stub(5)
    assert arch.syscall in stub and len(stub) % arch.code_alignment == 0


@each_processor
def test_indices_name_the_registers_they_should(arch):
    wanted = {
        X86_64: ("rip", "rsp", "rbp", "fs_base", "rax", "rax", "rdi rsi rdx r10 r8 r9"),
        AARCH64: ("pc", "sp", "x29", "tpidr", "x8", "x0", "x0 x1 x2 x3 x4 x5"),
    }[arch]
    found = [arch.pc, arch.sp, arch.frame, arch.thread_pointer, arch.number, arch.result]
    assert [arch.names[i] for i in found] == list(wanted[:6])
    assert [arch.names[i] for i in arch.arguments] == wanted[6].split()
    assert len(arch.breakpoint) % arch.code_alignment == 0


# -- cores ------------------------------------------------------------------------------------


def test_a_core_that_was_written_is_read(tmp_path):
    first, second = registers(1, 15), registers(7)
    snapshot = open_core(str(made_core(tmp_path / "core", first, second)), None)
    assert snapshot.arch is AARCH64
    one, two = (t.registers for t in snapshot.threads)
    assert one == first and two.gpr == second.gpr
    assert one.thread_pointer == first.gpr[AARCH64.gpr["tpidr"]] == first.gpr[34]
    assert (one.pc, one.sp) == (first.gpr[32], BASE + 64)
    # What was not recorded comes out empty.
    assert two.xfeatures == aarch64.FPSIMD | aarch64.PAC
    assert two.xstate[:544] == second.xstate[:544] and not any(two.xstate[544:])
    assert snapshot.read(BASE, 4) == b"\0\1\2\3"
    snapshot.close()


def test_its_addresses_reach_higher_than_x86_64_s(tmp_path):
    high = 0xFFFF_8000_0000
    path = tmp_path / "core"
    thread = ThreadState(5, registers(), signal=11)
    mappings = [Mapping(high, high + PAGE, 3)]
    write_core(str(path), 5, [thread], b"", mappings, lambda _a, n: b"x" * n)
    snapshot = open_core(str(path), None)
    assert snapshot.read(high, 2) == b"xx"
    snapshot.close()


def test_scalable_vectors_are_said_to_be_left_out():
    def of(sve: bytes) -> list[str]:
        notes = {aarch64.NT_ARM_SVE: sve, aarch64.NT_PRFPREG: bytes(528)}
        image, features = AARCH64.vectors.read(notes, {})
        assert len(image) == aarch64.SIZE and features & aarch64.FPSIMD
        return ["SVE"] if features & aarch64.SVE else []

    header = struct.pack("<IIHHHH", 16, 4096, 64, 256, 1, 0)
    assert of(header) == []  # only the header: not in use
    assert of(header + bytes(100)) == ["SVE"]
    assert of(struct.pack("<IIHHHH", 528, 4096, 64, 256, 0, 0) + bytes(512)) == []


@given(st.binary(max_size=700), st.sampled_from(sorted(aarch64.NOTES)))
def test_no_note_breaks_the_reader(raw, kind):
    image, features = AARCH64.vectors.read({kind: raw}, {})
    assert len(image) == aarch64.SIZE and 0 <= features < 64


# -- packets ----------------------------------------------------------------------------------


@pytest.mark.parametrize("features", [0, aarch64.FPSIMD, 3])
def test_description_and_packet_agree(features):
    r = registers(3, features)
    form = packets.format_of(AARCH64, features)
    root = ET.fromstring(packets.description(r))
    described = root.findall("feature/reg")
    assert root.findtext("architecture") == "aarch64"
    assert form.size == sum(int(d.get("bitsize", "0")) for d in described) // 8
    assert [int(d.get("regnum", "-1")) for d in described] == list(range(len(described)))
    # gdb's own numbers (gdb/arch/aarch64.h), which it takes when it reads cores.
    names = [d.get("name") for d in described]
    assert [names.index(n) for n in ("x0", "sp", "pc", "cpsr", "v0", "fpsr")] == [
        0,
        31,
        32,
        33,
        34,
        66,
    ]
    assert ("pauth_cmask" in names) == bool(features & aarch64.PAC)
    types = {e.get("id") for e in root.iter() if e.get("id")}
    used = {d.get("type") for d in described} - {"int", "data_ptr", "code_ptr"}
    assert used <= types


def test_where_the_registers_lie():
    form, r = aarch64.Aarch64RegisterFormat(3), registers(5, 3)
    packet = form.encode(r)
    for number, (offset, size) in enumerate(form.slots[:33]):
        assert packet[offset : offset + size] == r.gpr[number].to_bytes(8, "little")
    offset, size = form.slots[34]
    assert packet[offset : offset + size] == r.xstate[:16]
    offset, size = form.slots[69]
    assert packet[offset : offset + size] == r.xstate[528:536]


@given(st.integers(1, 200), st.integers(1, 200))
def test_decode_inverts_encode(one, other):
    form, mine, theirs = aarch64.Aarch64RegisterFormat(1), registers(one, 1), registers(other, 1)
    assert form.decode(form.encode(mine), mine) == mine
    back = form.decode(form.encode(theirs), mine)
    assert form.encode(back) == form.encode(theirs)


@given(WORDS)
def test_one_register_is_written(value):
    form, r = aarch64.Aarch64RegisterFormat(1), registers(1, aarch64.FPSIMD)
    after = form.write(32, value.to_bytes(8, "little"), r)
    assert after.pc == value and after.gpr[:32] == r.gpr[:32] and after.xstate == r.xstate
    vector = value.to_bytes(16, "little")
    after = form.write(34 + 31, vector, registers(1, 0))
    assert after.xstate[496:512] == vector and after.xfeatures == aarch64.FPSIMD
    with pytest.raises(ValueError, match="no register"):
        form.write(len(form.slots), b"", r)


def test_what_was_not_recorded_is_shown_as_unknown():
    text = aarch64.Aarch64RegisterFormat(0).encode_hex(registers(1, 0))
    offset, _ = aarch64.Aarch64RegisterFormat(0).slots[34]
    assert text[2 * offset : 2 * offset + 32] == b"x" * 32
    assert b"x" not in text[: 2 * offset]


# -- thread-locals ----------------------------------------------------------------------------


def test_thread_locals_lie_above_the_thread_pointer():
    """Variant I: the dtv is the TCB's first word, and module 1 lies behind the TCB."""
    tp, dtv, block = 0x7000, 0x9000, 0xABC000
    words = {tp: dtv, dtv - 16: 4, dtv + 16 * 2: block, 0x5000 + 8: 2}
    fields = {
        "link_map_l_tls_modid": 8,
        "pthread_dtvp": 12345,
        "dtv_dtv": 0,
        "dtv_t_pointer_val": 0,
    }
    sizes = {"dtv_dtv": 128}
    at = {f"_thread_db_{name}": 0x100 + 12 * n for n, name in enumerate(fields)}

    def recorded(address: int, length: int) -> bytes:
        name = next(n for n, a in at.items() if a == address)[len("_thread_db_") :]
        return struct.pack("<III", sizes.get(name, 64), 1, fields[name])

    def read(address: int, length: int) -> bytes:
        return words[address].to_bytes(8, "little")[:length]

    locals_ = RecordedThreadLocals(at.get, recorded, [], None, AARCH64)
    assert locals_.address(1, 0x10, 0x5000, tp, read) == block + 0x10


# -- what runs --------------------------------------------------------------------------------


def test_vdso_functions_become_system_calls():
    code = AARCH64.vdso_stub(AARCH64.vdso["clock_gettime"])
    assert struct.unpack("<3I", code) == (0xD2800E28, 0xD4000001, 0xD65F03C0)  # as gas has them
    with pytest.raises(UffdError, match="vdso"):
        patch_vdso(b"nonsense", AARCH64)


def test_numbers_of_system_calls():
    arm, x86 = syscalls.table(AARCH64), syscalls.table(X86_64)
    names = {call.name: call for call in arm.values()}
    # include/uapi/asm-generic/unistd.h
    for name, number in (("openat", 56), ("mmap", 222), ("futex", 98), ("exit_group", 94),
                         ("rt_sigreturn", 139), ("userfaultfd", 282), ("clone3", 435)):  # fmt: skip
        assert names[name].number == number == arm[number].number
    assert not {"open", "fork", "poll", "arch_prctl"} & set(names)
    # From there on they are the same everywhere.
    assert {n: c for n, c in arm.items() if n >= 424} == {n: c for n, c in x86.items() if n >= 424}


def test_each_processor_has_a_column_of_numbers():
    text = syscalls.TABLE.read_text(encoding="ascii")
    head, *rows = (line.split() for line in text.splitlines() if line[0] != "#")
    assert head[: head.index("NAME")] == [arch.name for arch in ALL]
    for column, arch in enumerate(ALL):
        numbers = [int(row[column]) for row in rows if row[column] != "-"]
        assert sorted(syscalls.table(arch)) == sorted(numbers) and len(numbers) > 300
        # Those of the vdso's functions are told twice: arch/ imports nothing of the policy's.
        named = {call.name: number for number, call in syscalls.table(arch).items()}
        assert {name: named[name] for name in arch.vdso} == arch.vdso


@pytest.mark.skipif(host() is AARCH64, reason="this is such a machine")
def test_its_code_is_not_run_elsewhere(tmp_path):
    snapshot = open_core(str(made_core(tmp_path / "core", registers())), None)
    vessel = Vessel(snapshot)
    with pytest.raises(UffdError, match="recorded on AArch64; its code cannot run on this machine"):
        vessel.ensure()
    assert not vessel.running
    assert ffi.string(vessel.identity.uname[4]) == b"aarch64"
    vessel.close()
    snapshot.close()


HEADER = Path("/usr/include/x86_64-linux-gnu/asm/processor-flags.h")


@pytest.mark.skipif(not HEADER.exists(), reason="no header of Linux for x86 here")
def test_the_flags_of_x86_are_where_the_kernel_has_them():
    bits = {
        name: int(bit)
        for name, bit in re.findall(r"X86_EFLAGS_(\w+)_BIT\s+(\d+)", HEADER.read_text())
    }
    for name in ("FIXED", "IOPL"):  # always set; of two bits, which gdb does not name
        del bits[name]
    described = ET.fromstring(X86_64.description(3))
    found = {
        field.get("name"): int(field.get("start") or -1)
        for each in described.iter()
        if each.tag.endswith("flags") and each.get("id") == "i386_eflags"
        for field in each
        if field.get("name")
    }
    assert found == bits


ELF_HEADER = Path("/usr/include/elf.h")
RELOCATIONS = {"x86-64": "R_X86_64_", "AArch64": "R_AARCH64_"}


@pytest.mark.skipif(not ELF_HEADER.exists(), reason="no elf.h here")
@pytest.mark.parametrize("arch", [X86_64, AARCH64], ids=lambda arch: arch.name)
def test_relocations_have_the_numbers_of_elf_h(arch):
    text, prefix = ELF_HEADER.read_text(), RELOCATIONS[arch.spoken]
    numbers = dict(re.findall(rf"#define\s+{prefix}(\w+)\s+(\d+)", text))
    jump = "JUMP_SLOT" if "JUMP_SLOT" in numbers else "JUMP_SLO"
    assert arch.relocations == tuple(int(numbers[n]) for n in (jump, "GLOB_DAT", "IRELATIVE"))


SELECTORS = {"cs": 0x33, "ss": 0x2B, "ds": 0, "es": 0, "fs": 0, "gs": 0}
"""__USER_CS, __USER_DS (arch/x86/include/asm/segment.h)."""
USER_END = 0x7FFFFFFFF000


@pytest.mark.parametrize("name", SELECTORS)
def test_selectors_that_linux_would_not_take_are_the_usual_ones(name):
    at = X86_64.gpr[name]
    for value, loaded in (
        (0x33, 0x33), (0x2B, 0x2B), (0x63, 0x63), (0xFFFF, 0xFFFF),
        (0x30, SELECTORS[name]), (0x10003, SELECTORS[name]), (0, SELECTORS[name]),
    ):  # fmt: skip
        gpr = [0x1003] * len(X86_64.names)
        gpr[at] = value
        wanted = list(gpr)
        wanted[at] = loaded
        assert X86_64.loadable(gpr) == wanted, hex(value)


@pytest.mark.parametrize("name", ["fs_base", "gs_base"])
def test_bases_that_are_no_addresses_of_a_program_are_none(name):
    for value, loaded in ((USER_END - 1, USER_END - 1), (USER_END, 0), (1 << 63, 0), (0, 0)):
        gpr = [0x1003] * len(X86_64.names)
        gpr[X86_64.gpr[name]] = value
        assert X86_64.loadable(gpr)[X86_64.gpr[name]] == loaded, hex(value)


@pytest.mark.parametrize(
    ("word", "need"),
    [
        (0x2518E3E0, "SVE"),  # ptrue p0.b
        (0x04A0E3E0, "SVE"),  # cntw x0
        (0xA400A000, "SVE"),  # ld1b {z0.b}, p0/z, [x0]
        (0xB8200041, "LSE atomics"),  # ldadd w0, w1, [x2]
        (0xF8E03041, "LSE atomics"),  # ldsetal x0, x1, [x2]
        (0x38208041, "LSE atomics"),  # swpb w0, w1, [x2]
        (0x88A07C41, "LSE atomics"),  # cas w0, w1, [x2]
        (0xC8E0FC41, "LSE atomics"),  # casal x0, x1, [x2]
        (0xB9400041, None),  # ldr w1, [x2]
        (0xF8636841, None),  # ldr x1, [x2, x3]
        (0x885F7C41, None),  # ldxr w1, [x2]
        (0x88037C41, None),  # stxr w3, w1, [x2]
        (0x4EA08420, None),  # add v0.4s, v1.4s, v0.4s
        (0xD503201F, None),  # nop
    ],
)
def test_what_an_instruction_of_aarch64_needs(word, need):
    code = word.to_bytes(4, "little")
    for given_ in (code, code + b"\xff" * 8):
        found = AARCH64.needed(given_)
        assert (found[0] if found else None) == need
    assert AARCH64.needed(code[:3]) is None or need == "SVE"
    assert AARCH64.needed(b"") is None
