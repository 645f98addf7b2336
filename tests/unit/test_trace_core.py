"""Real cores of the kernel and of gcore: memory, registers, symbols, thread-locals, places."""

from __future__ import annotations

import struct
from pathlib import Path
from typing import Any, Iterator, List, Tuple

import pytest
from elftools.elf.elffile import ELFFile
from trace_cores import Told, gcore_told, kernel_told

from gdb_uffd.protocol.model import GPR, MemoryUnavailable, UffdError
from gdb_uffd.trace.core.core import CoreSnapshot, open_core
from gdb_uffd.trace.source import FILE, UNAVAILABLE, ZERO

Opened = Tuple[CoreSnapshot, Told]


@pytest.fixture(scope="module", params=["kernel", "gcore"])
def opened(
    request: pytest.FixtureRequest, tmp_path_factory: pytest.TempPathFactory
) -> Iterator[Opened]:
    folder = tmp_path_factory.mktemp(request.param)
    told = kernel_told(folder) if request.param == "kernel" else gcore_told(folder)
    snapshot = open_core(str(told.core))
    yield snapshot, told
    snapshot.close()


@pytest.fixture(scope="module")
def static(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Opened]:
    told = kernel_told(tmp_path_factory.mktemp("static"), "-static", library=False)
    snapshot = open_core(str(told.core))
    yield snapshot, told
    snapshot.close()


def _oracle_loads(core: Path) -> List[Tuple[int, int, bytes]]:
    """(start, memsz, dumped bytes) of the user PT_LOADs, by pyelftools."""
    with core.open("rb") as f:
        loads = [s for s in ELFFile(f).iter_segments() if s["p_type"] == "PT_LOAD"]
        return [(s["p_vaddr"], s["p_memsz"], s.data()) for s in loads if s["p_vaddr"] < 1 << 47]


def test_no_warning_and_facts(opened: Opened) -> None:
    snapshot, told = opened
    assert snapshot.warnings == []
    assert snapshot.executable == str(told.program)
    assert snapshot.threads[0].tid == snapshot.pid
    assert {t.tid for t in snapshot.threads} == set(told.said["tls"])
    assert snapshot.threads[0].name == "telltale"
    assert len(snapshot.threads[0].siginfo) == 128
    assert snapshot.thread(snapshot.pid) is snapshot.threads[0]
    with pytest.raises(KeyError):
        snapshot.thread(1)


def test_dumped_memory_is_what_pyelftools_finds(opened: Opened) -> None:
    snapshot, told = opened
    vvar = {m.start for m in snapshot.mappings if m.name == "[vvar]"}
    loads = _oracle_loads(told.core)
    assert len(loads) > 10
    for start, memsz, data in loads:
        if start in vvar:
            continue
        assert snapshot.read(start, len(data)) == data
        assert len(snapshot.read(start, memsz)) == memsz


def test_segments_cover_the_mappings_exactly(opened: Opened) -> None:
    snapshot, _ = opened
    covered: List[Tuple[int, int]] = []
    for s in snapshot.segments:
        assert s.start < s.end and not (s.start | s.end) & 4095
        if covered and covered[-1][1] == s.start:
            covered[-1] = (covered[-1][0], s.end)
        else:
            assert not covered or covered[-1][1] < s.start
            covered.append((s.start, s.end))
        if s.kind == FILE:
            assert s.data is not None
            assert s.offset < s.data_end <= min(len(s.data), s.offset + s.end - s.start)
    joined: List[Tuple[int, int]] = []
    for m in snapshot.mappings:
        if joined and joined[-1][1] == m.start:
            joined[-1] = (joined[-1][0], m.end)
        else:
            joined.append((m.start, m.end))
    assert covered == joined


def test_notes_agree_with_pyelftools(opened: Opened) -> None:
    snapshot, told = opened
    with told.core.open("rb") as f:
        (segment,) = [s for s in ELFFile(f).iter_segments() if s["p_type"] == "PT_NOTE"]
        notes = list(segment.iter_notes())
    statuses = [n for n in notes if n["n_type"] == "NT_PRSTATUS"]
    assert len(statuses) == len(snapshot.threads) == 3
    for n, thread in zip(statuses, snapshot.threads):
        raw = n["n_descdata"]
        assert struct.unpack_from("<I", raw, 32)[0] == thread.tid
        assert list(struct.unpack_from("<27Q", raw, 112)) == thread.registers.gpr
    (files,) = [n for n in notes if n["n_type"] == "NT_FILE"]
    desc = files["n_desc"]
    names = [p.decode() for p in desc["filename"]]
    for entry, name in zip(desc["Elf_Nt_File_Entry"], names):
        inside = [m for m in snapshot.mappings if m.start == entry["vm_start"]]
        assert [m.name for m in inside] == [name]
        assert inside[0].offset == entry["page_offset"] * desc["page_size"]


def test_files_fill_what_is_not_dumped(opened: Opened) -> None:
    snapshot, told = opened
    text = told.one("libtext")
    assert told.library is not None
    mapping = next(m for m in snapshot.mappings if m.start <= text < m.end)
    offset = mapping.offset + text - mapping.start
    assert mapping.prot_text() == "r-x"
    assert snapshot.read(text, 16) == told.library.read_bytes()[offset : offset + 16]


def test_untouched_anonymous_memory_is_zeros(opened: Opened) -> None:
    snapshot, told = opened
    assert snapshot.read(told.one("untouched"), 3 * 4096) == bytes(3 * 4096)
    if told.core.name == "core":
        assert any(s.kind == ZERO for s in snapshot.segments)


def test_unmapped_memory_is_unavailable(opened: Opened) -> None:
    snapshot, _ = opened
    last = snapshot.mappings[-1]
    with pytest.raises(MemoryUnavailable, match="not mapped"):
        snapshot.read(last.end - 4, 8)
    with pytest.raises(MemoryUnavailable):
        snapshot.read(0, 1)
    assert snapshot.read(last.end - 4, 4) is not None
    assert snapshot.read(5, 0) == b""
    with pytest.raises(UffdError):
        snapshot.read(last.start, -1)
    with pytest.raises(UffdError):
        snapshot.read(0, 1 << 60)


def test_thread_locals_are_where_the_program_said(opened: Opened) -> None:
    snapshot, told = opened
    for thread in snapshot.threads:
        said = told.said["tls"][thread.tid]
        fs_base = thread.registers.gpr[GPR["fs_base"]]
        found = snapshot.tls_address(thread.tid, 0, 0, fs_base, snapshot.read)
        assert found <= said < found + 400
        offset = said - found
        for link_map in (0, _executable_link_map(snapshot)):
            assert said == snapshot.tls_address(
                thread.tid, offset, link_map, fs_base, snapshot.read
            )
        value = int.from_bytes(snapshot.read(said, 8), "little")
        assert 1000 <= value <= 1002


def _executable_link_map(snapshot: CoreSnapshot) -> int:
    # _r_debug.r_map: what gdb passes to qGetTLSAddr for the executable
    debug = snapshot.symbol("_r_debug")
    assert debug is not None
    return int.from_bytes(snapshot.read(debug + 8, 8), "little")


def test_thread_locals_of_a_library_loaded_later(opened: Opened) -> None:
    snapshot, told = opened
    main, other = snapshot.threads[0], snapshot.threads[1]
    fs_base = main.registers.gpr[GPR["fs_base"]]
    found = snapshot.tls_address(main.tid, 0, told.one("libmap"), fs_base, snapshot.read)
    assert found == told.one("libtls")
    with pytest.raises(UffdError, match="not allocated"):
        fs_base = other.registers.gpr[GPR["fs_base"]]
        snapshot.tls_address(other.tid, 0, told.one("libmap"), fs_base, snapshot.read)


def test_thread_locals_of_nonsense(opened: Opened) -> None:
    snapshot, told = opened
    tid = snapshot.pid
    for link_map, fs_base in ((0, 0), (0, 8), (4096, told.one("heap")), (1 << 64, 1 << 64)):
        with pytest.raises(UffdError):
            snapshot.tls_address(tid, 0, link_map, fs_base, snapshot.read)


def test_symbols(opened: Opened) -> None:
    snapshot, told = opened
    assert snapshot.symbol("data_value") == told.one("data")
    assert snapshot.symbol("bss_value") == told.one("bss") - 40000
    assert snapshot.symbol("library_data") == told.one("libdata")
    assert snapshot.symbol("no_such_symbol_anywhere") is None
    assert snapshot.symbol("tls_value") is None
    assert snapshot.symbol("") is None
    malloc = snapshot.symbol("malloc")
    assert malloc is not None
    assert "libc" in snapshot.classify(malloc).mapping


def test_places(opened: Opened) -> None:
    snapshot, told = opened
    for tid, address in told.said["tls"].items():
        place = snapshot.classify(address)
        assert (place.kind, place.mapping, place.thread) == ("tls", "[tls]", tid)
    for tid, address in told.said["stack"].items():
        place = snapshot.classify(address)
        assert (place.kind, place.mapping, place.thread) == ("stack", "[stack]", tid)
    for address in [told.one("heap"), *told.said["arena"].values()]:
        place = snapshot.classify(address)
        assert (place.kind, place.mapping, place.thread) == ("heap", "[heap]", None)
    for name in ("data", "bss"):
        place = snapshot.classify(told.one(name))
        assert (place.kind, place.mapping) == ("data", str(told.program))
    assert snapshot.classify(told.one("libdata")).mapping == str(told.library)
    assert snapshot.classify(told.one("anon")).kind == "anonymous"
    assert snapshot.classify(told.one("anon")).mapping == "[anon]"
    for thread in snapshot.threads:  # the TCB and struct pthread belong to the thread too
        fs_base = thread.registers.gpr[GPR["fs_base"]]
        assert snapshot.classify(fs_base + 16).thread == thread.tid


def test_places_of_what_grows_later(opened: Opened) -> None:
    snapshot, _ = opened
    heap = next(m for m in snapshot.mappings if m.name == "[heap]")
    stack = next(m for m in snapshot.mappings if m.name == "[stack]")
    assert snapshot.classify(heap.end + 5000).kind == "heap"
    grown = snapshot.classify(stack.start - 5000)
    assert (grown.kind, grown.thread) == ("stack", snapshot.pid)
    assert snapshot.classify(4096).kind == "anonymous"


def test_vdso_is_patched_for_the_vessel_only(opened: Opened) -> None:
    snapshot, _ = opened
    vdso = next(m for m in snapshot.mappings if m.name == "[vdso]")
    (segment,) = [s for s in snapshot.segments if s.start == vdso.start]
    assert segment.patch is not None
    assert len(segment.patch) == vdso.end - vdso.start
    recorded = snapshot.read(vdso.start, len(segment.patch))
    assert recorded != segment.patch
    assert segment.patch.count(b"\xb8\xe4\x00\x00\x00\x0f\x05\xc3") >= 1  # clock_gettime
    assert sum(s.patch is not None for s in snapshot.segments) == 1


def test_vvar_is_never_zeros(opened: Opened) -> None:
    snapshot, _ = opened
    for m in snapshot.mappings:
        if m.name == "[vvar]":
            with pytest.raises(MemoryUnavailable, match="vvar"):
                snapshot.read(m.start, 1)
            assert m.unavailable
    assert all(s.reason for s in snapshot.segments if s.kind == UNAVAILABLE)


def test_static_executable(static: Opened) -> None:
    snapshot, told = static
    assert snapshot.warnings == []
    assert snapshot.executable == str(told.program)
    for thread in snapshot.threads:
        said = told.said["tls"][thread.tid]
        fs_base = thread.registers.gpr[GPR["fs_base"]]
        start = snapshot.tls_address(thread.tid, 0, 0, fs_base, snapshot.read)
        assert start <= said < start + 1000
        assert snapshot.classify(said).thread == thread.tid
        assert snapshot.classify(said).kind == "tls"
    assert snapshot.symbol("data_value") == told.one("data")
    assert snapshot.classify(told.one("heap")).kind == "heap"
    assert snapshot.classify(told.one("bss")).mapping == str(told.program)
    for address in told.said["arena"].values():
        assert snapshot.classify(address).kind == "heap"


@pytest.mark.parametrize("kind", ["avx", "avx512"])
def test_vector_registers_of_this_machine(all_cores: Any, kind: str) -> None:
    """tests/programs/vector.c: quadword q of register r is 0x1111111111111111 * (q + 1) + r."""
    snapshot = open_core(str(all_cores.vector(kind)))
    registers = snapshot.threads[0].registers
    xstate = registers.xstate

    def pattern(register: int, first: int, count: int) -> bytes:
        quads = [0x1111111111111111 * (q + 1) + register for q in range(first, first + count)]
        return struct.pack(f"<{count}Q", *quads)

    for r in (0, 1, 15):
        assert xstate[160 + 16 * r : 176 + 16 * r] == pattern(r, 0, 2)
        assert xstate[576 + 16 * r : 592 + 16 * r] == pattern(r, 2, 2)
        if kind == "avx512":
            assert xstate[1152 + 32 * r : 1184 + 32 * r] == pattern(r, 4, 4)
    if kind == "avx512":
        for r in (16, 31):
            at = 1664 + 64 * (r - 16)
            assert xstate[at : at + 64] == pattern(r, 0, 8)
        assert xstate[1096:1104] == (0x5A5A).to_bytes(8, "little")
    else:
        pi = bytes.fromhex("35c26821a2da0fc90040")  # what FLDPI loads
        assert xstate[32:42] == pi
    assert snapshot.threads[0].signal == 4


def test_close_twice(tmp_path: Path, opened: Opened) -> None:
    again = open_core(str(opened[1].core))
    again.close()
    again.close()
    with pytest.raises(MemoryUnavailable):
        again.read(opened[1].one("heap"), 1)
