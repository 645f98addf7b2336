"""What a call printed, told from what was pending before it."""

import pytest

from gdb_uffd.protocol.model import MemoryUnavailable
from gdb_uffd.replay import stdio


@pytest.mark.parametrize(
    ("before", "written", "after", "output", "unseen"),
    [
        (b"", b"", b"", b"", 0),
        (b"", b"direct\n", b"", b"direct\n", 0),
        (b"old", b"", b"oldnew", b"new", 3),
        (b"old", b"err", b"old", b"err", 0),
        (b"old", b"oldnew", b"", b"new", 0),
        (b"old", b"err oldnew", b"rest", b"err newrest", 4),
    ],
)
def test_printed(before, written, after, output, unseen):
    assert stdio.printed(before, written, after) == (output, unseen)


def stream(memory):
    def read(address, length):
        data = memory.get(address, b"")
        if len(data) < length:
            raise MemoryUnavailable(address, "test")
        return data[:length]

    return read


def pointers(base, at):
    return base.to_bytes(8, "little") + at.to_bytes(8, "little")


def test_pending_text_is_found():
    memory = {0x1000 + stdio.WRITE_BASE_OFFSET: pointers(0x2000, 0x2005), 0x2000: b"hello"}
    assert stdio.pending(stream(memory), 0x1000) == b"hello"


@pytest.mark.parametrize(
    "memory",
    [
        {},
        {0x1020: pointers(0, 0)},
        {0x1020: pointers(0x2005, 0x2000)},
        {0x1020: pointers(0x2000, 0x2000 + stdio.PENDING_MAX + 1)},
        {0x1020: pointers(0x2000, 0x2005)},
    ],
)
def test_nonsense_is_no_text(memory):
    assert stdio.pending(stream(memory), 0x1000) == b""
    assert stdio.pending(stream(memory), None) == b""
