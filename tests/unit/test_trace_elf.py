"""ELF objects against pyelftools, and the vdso's patching."""

from __future__ import annotations

import ctypes
import os
import struct
from pathlib import Path
from typing import Callable, Dict, Tuple

import pytest
from elftools.elf.elffile import ELFFile
from elftools.elf.sections import SymbolTableSection
from hypothesis import given, settings
from hypothesis import strategies as st
from trace_cores import build_library, note

from gdb_uffd.arch import X86_64
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.trace.core.elf import ElfError, ElfImage, iter_notes, read_header
from gdb_uffd.trace.core.vdso import patch_vdso


def _libc() -> Path:
    for line in Path("/proc/self/maps").read_text().splitlines():
        path = line.split()[-1]
        if "/libc.so" in path or "/libc-" in path:
            return Path(path)
    pytest.skip("this Python has no libc.so mapped")


def _symbols(path: Path, section: str) -> Dict[str, set[Tuple[int, int]]]:
    """Defined symbols with an address, by name, as pyelftools finds them."""
    found: Dict[str, set[Tuple[int, int]]] = {}
    with path.open("rb") as f:
        table = ELFFile(f).get_section_by_name(section)
        assert isinstance(table, SymbolTableSection)
        for s in table.iter_symbols():
            kind = s["st_info"]["type"]
            if isinstance(s["st_shndx"], str) or not s.name or kind in ("STT_TLS", "STT_LOOS"):
                continue
            found.setdefault(s.name, set()).add((s["st_value"], s["st_size"]))
    return found


def test_dynamic_symbols_of_libc() -> None:
    path = _libc()
    image = ElfImage.from_file(path.read_bytes())
    symbols = _symbols(path, ".dynsym")
    assert len(symbols) > 1000
    for name, places in symbols.items():
        found = image.dynamic_symbol(name.encode())
        assert found in places, name
        assert image.dynamic_symbol(name.encode() + b"_not") is None


@pytest.mark.parametrize("style", ["gnu", "sysv", "both"])
def test_both_kinds_of_hash_table(tmp_path: Path, style: str) -> None:
    path = build_library(tmp_path, 1, f"-Wl,--hash-style={style}")
    image = ElfImage.from_file(path.read_bytes())
    for name, places in _symbols(path, ".dynsym").items():
        assert image.dynamic_symbol(name.encode()) in places
    assert image.dynamic_symbol(b"absent") is None
    assert image.dynamic_symbol(b"library_tls") is None  # thread-local: no address of its own


def test_static_symbols(tmp_path: Path) -> None:
    path = build_library(tmp_path)
    image = ElfImage.from_file(path.read_bytes())
    for name, places in _symbols(path, ".symtab").items():
        assert image.static_symbol(name.encode()) in places, name
    assert image.static_symbol(b"alue") is None  # the tail of a name is another string
    assert image.static_symbol(b"") is None


def test_build_id_and_segments(tmp_path: Path) -> None:
    path = build_library(tmp_path)
    image = ElfImage.from_file(path.read_bytes())
    with path.open("rb") as f:
        oracle = ELFFile(f)
        (build_id,) = [
            n["n_desc"]
            for s in oracle.iter_segments()
            if s["p_type"] == "PT_NOTE"
            for n in s.iter_notes()
            if n["n_type"] == "NT_GNU_BUILD_ID"
        ]
        loads = [s["p_vaddr"] for s in oracle.iter_segments() if s["p_type"] == "PT_LOAD"]
    assert image.build_id().hex() == build_id
    assert [s.vaddr for s in image.loads] == loads
    assert image.tls_size()[0] == 800
    assert (
        ElfImage.from_file(
            build_library(tmp_path, 1, "-Wl,--build-id=none").read_bytes()
        ).build_id()
        == b""
    )


def test_memory_image_of_a_loaded_library() -> None:
    """Our own libc, read from our own memory: relocated dynamic section and all."""
    path = _libc()
    lines = [x.split() for x in Path("/proc/self/maps").read_text().splitlines()]
    base = int(next(x[0] for x in lines if x[-1] == str(path)).split("-")[0], 16)
    with open("/proc/self/mem", "rb", buffering=0) as memory:

        def read(address: int, length: int) -> bytes:
            return os.pread(memory.fileno(), length, address)

        image = ElfImage.from_memory(base, read)
        own = ctypes.CDLL(str(path))  # not a name that the executable gives a place of its own
        for name in ("malloc", "printf", "environ"):
            found = image.dynamic_symbol(name.encode())
            assert found is not None
            if name == "malloc":
                address = ctypes.cast(own.malloc, ctypes.c_void_p).value
                assert found[0] + image.bias == address
        assert image.build_id() == ElfImage.from_file(path.read_bytes()).build_id()


@settings(max_examples=150, deadline=None)
@given(data=st.data())
def test_damaged_objects_raise_elf_errors_only(
    tmp_path_factory: pytest.TempPathFactory, data: st.DataObject
) -> None:
    raw = bytearray(_small(tmp_path_factory))
    for at, new in data.draw(
        st.lists(
            st.tuples(st.integers(0, len(raw) - 1), st.binary(min_size=1, max_size=9)), max_size=30
        )
    ):
        raw[at : at + len(new)] = new
    raw = raw[: data.draw(st.one_of(st.just(len(raw)), st.integers(0, len(raw))))]
    calls: Tuple[Callable[[ElfImage], object], ...] = (
        ElfImage.build_id,
        ElfImage.tls_size,
        lambda i: i.dynamic_symbol(b"library_data"),
        lambda i: i.dynamic_symbol(b"absent"),
        lambda i: i.static_symbol(b"value"),
    )
    try:
        image = ElfImage.from_file(bytes(raw))
    except ElfError:
        return
    for call in calls:
        try:
            call(image)
        except ElfError as error:
            assert str(error)


_SMALL: Dict[str, bytes] = {}


def _small(factory: pytest.TempPathFactory) -> bytes:
    if not _SMALL:
        _SMALL["raw"] = build_library(factory.mktemp("small")).read_bytes()
    return _SMALL["raw"]


@given(st.binary(max_size=400), st.integers(0, 500), st.integers(0, 500))
def test_notes_of_garbage_stay_inside(data: bytes, start: int, end: int) -> None:
    for _, _, at, length in iter_notes(data, start, end):
        assert start <= at <= at + length <= min(end, len(data))


def test_notes_of_odd_lengths() -> None:
    raw = note(b"CORE", 1, b"abc") + note(b"LINUXLINUX", 2, b"") + note(b"GNU", 3, b"12345")
    found = [(o, k, raw[a : a + n]) for o, k, a, n in iter_notes(raw, 0, len(raw))]
    assert found == [(b"CORE", 1, b"abc"), (b"LINUXLINUX", 2, b""), (b"GNU", 3, b"12345")]


def test_header_of_garbage() -> None:
    for raw in (b"", b"\x7fELF", b"\x7fELF\x02\x01" + bytes(20), bytes(64)):
        with pytest.raises(ElfError):
            read_header(raw)


def _own_vdso() -> bytes:
    for line in Path("/proc/self/maps").read_text().splitlines():
        if line.endswith("[vdso]"):
            start, end = (int(x, 16) for x in line.split()[0].split("-"))
            with open("/proc/self/mem", "rb", buffering=0) as memory:
                return os.pread(memory.fileno(), end - start, start)
    pytest.skip("this kernel gives no vdso")


def test_patched_vdso_has_system_calls_at_its_entries(tmp_path: Path) -> None:
    image = _own_vdso()
    patched = patch_vdso(image)
    assert len(patched) == len(image)
    (tmp_path / "vdso").write_bytes(image)
    entries = _symbols(tmp_path / "vdso", ".dynsym")
    changed = set()
    for name, places in entries.items():
        number = X86_64.vdso.get(name.replace("__vdso_", ""))
        ((at, size),) = places
        code = patched[at : at + 8]
        if number is None:
            assert name.startswith("LINUX") or code == image[at : at + 8]
            continue
        assert size >= 8
        assert code == b"\xb8" + struct.pack("<I", number) + b"\x0f\x05\xc3"
        changed.update(range(at, at + 8))
    assert changed
    assert all(i in changed for i in range(len(image)) if image[i] != patched[i])


@given(st.binary(max_size=300))
def test_what_is_no_vdso_is_refused(raw: bytes) -> None:
    with pytest.raises(UffdError, match="vdso"):
        patch_vdso(raw)


@settings(deadline=None)
@given(st.dictionaries(st.integers(0, 1500), st.integers(0, 255), max_size=20))
def test_damaged_vdso(changes: Dict[int, int]) -> None:
    image = bytearray(_own_vdso())
    for at, value in changes.items():
        image[at] = value
    try:
        assert len(patch_vdso(bytes(image))) == len(image)
    except UffdError as error:
        assert "vdso" in str(error)
