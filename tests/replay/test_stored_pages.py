"""Pages that come from a trace's page file: checked against their sums before they are fed."""

from __future__ import annotations

import array
import dataclasses
import mmap
import os
import zlib

import pytest
from harness.calls import Caller

from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.model import PAGE_SIZE, PROT_WRITE, MemoryUnavailable
from gdb_uffd.trace.source import FILE, PAGES, SLOT_UNAVAILABLE, SLOT_ZERO


class Stored:
    """The writable segments of a core, moved into a page file as a recorder would."""

    def __init__(self, core, path):
        self.slots, self.at = {}, {}
        data, sums = bytearray(PAGE_SIZE), array.array("I", [0])
        segments = []
        for segment in core.segments:
            if segment.kind != FILE or not segment.prot & PROT_WRITE:
                segments.append(segment)
                continue
            slots = array.array("I")
            for page in range(segment.start, segment.end, PAGE_SIZE):
                content = core.read(page, PAGE_SIZE)
                self.at[page] = len(sums)
                if not any(content):
                    slots.append(SLOT_ZERO)
                    continue
                slots.append(len(sums))
                sums.append(zlib.crc32(content))
                data += content
            self.slots[segment.start] = slots
            segments.append(
                dataclasses.replace(segment, kind=PAGES, data=None, slots=slots, sums=sums)
            )
        path.write_bytes(data)
        self.path, self.sums = path, sums
        with path.open("rb") as file:
            mapped = mmap.mmap(file.fileno(), 0, access=mmap.ACCESS_READ)
        core.segments = [
            dataclasses.replace(s, data=mapped) if s.kind == PAGES else s for s in segments
        ]

    def slot(self, address):
        """(array, index) of the page at `address`."""
        page = address & -PAGE_SIZE
        start = max(s for s in self.slots if s <= page)
        return self.slots[start], (page - start) // PAGE_SIZE


@pytest.fixture
def stored(kernel_core, tmp_path):
    held = {}

    def change(snapshot):
        held["stored"] = Stored(snapshot, tmp_path / "pages")

    made = Caller(kernel_core, change)
    made.stored = held["stored"]
    yield made
    made.close()


def test_calls_run_on_stored_pages(stored):
    assert stored.call("bump") == 42
    assert stored.call("bump", keep=True) == 42
    assert stored.call("map_and_keep") == 4 + 43
    assert stored.call("read_counter") == 42
    stored.diversion.reset()
    assert stored.call("read_counter") == 41


def counter_page(caller):
    return caller.snapshot.symbol("counter") & -PAGE_SIZE


def flip(stored, page):
    """Damage the page in the file."""
    slots, index = stored.slot(page)
    assert slots[index] not in (SLOT_ZERO, SLOT_UNAVAILABLE)
    with stored.path.open("r+b") as file:
        file.seek(slots[index] * PAGE_SIZE + 4000)
        byte = file.read(1)
        file.seek(-1, os.SEEK_CUR)
        file.write(bytes([byte[0] ^ 1]))


def test_a_damaged_page_is_never_fed(stored):
    page = counter_page(stored)
    flip(stored.stored, page)
    with pytest.raises(MemoryUnavailable, match="checksum mismatch"):
        stored.diversion.read_memory(page, 8)
    stop = stored.start("bump")
    stored.diversion.call_end()
    end = stored.diversion.end(keep=False).end
    assert stop.signal and end is not None and end.unavailable
    assert stored.call("block_usr2") in (0, 1)  # whatever does not need it goes on


@pytest.mark.parametrize("slot", [SLOT_UNAVAILABLE, 0x7FFFFFFF])
def test_a_page_that_is_not_there_is_never_fed(stored, slot):
    page = counter_page(stored)
    slots, index = stored.stored.slot(page)
    slots[index] = slot
    with pytest.raises(MemoryUnavailable):
        stored.diversion.read_memory(page, 8)
    with pytest.raises(MemoryUnavailable):
        stored.diversion.write_memory(page, b"x")


def test_a_page_file_cut_short_is_no_crash(stored):
    page = counter_page(stored)
    os.truncate(stored.stored.path, PAGE_SIZE)
    with pytest.raises(MemoryUnavailable):
        stored.diversion.read_memory(page, 8)


def test_the_checksum_is_zlib_s():
    store = ffi.new("struct page_store *")
    lib.page_store_init(store, ffi.NULL, 0, ffi.NULL, 0)
    for length in (0, 16, 4096, 4096 * 16):
        for data in (bytes(length), b"\xff" * length, os.urandom(length)):
            assert lib.page_store_crc(store, data, length) == zlib.crc32(data)
