"""Damage that knows the formats: ELF cores, the store's files, tar archives, compressed frames.

Everything is drawn from the given generator, so that a seed makes the same damage again.
"""

from __future__ import annotations

import random
import sqlite3
import struct
from contextlib import closing, suppress
from pathlib import Path
from typing import Callable, List, Sequence, Tuple

from gdb_uffd.trace.store import format as form

Chance = random.Random

EHDR = [(4, 1), (5, 1), (7, 1), (16, 2), (18, 2), (20, 4), (24, 8), (32, 8), (40, 8)]
EHDR += [(48, 4), (52, 2), (54, 2), (56, 2), (58, 2), (60, 2), (62, 2)]
"""(offset, size) of the fields of Elf64_Ehdr, elf(5)."""
PHDR = [(0, 4), (4, 4), (8, 8), (16, 8), (24, 8), (32, 8), (40, 8), (48, 8)]
"""The same of Elf64_Phdr."""
PHDR_SIZE, PT_NOTE = 56, 4
SOME = [0, 1, 2, 7, 8, 0x7F, 0xFF, 0xFFF, 0x1000, 0x1001, 0xFFFF, 0x10000, 0x7FFFFFFF, 0x80000000]
SOME += [0xFFFFFFFF, 0x100000000, 0x7FFFFFFFE000, 0x7FFFFFFFF000, 0x800000000000, (1 << 63) - 1]
SOME += [1 << 63, (1 << 64) - 4096, (1 << 64) - 1]


NOT_SQL = (sqlite3.Error, OverflowError)
"""What the database itself refuses to hold."""


def number(chance: Chance, old: int, size: int) -> int:
    """Another value for a field of `size` bytes that holds `old`."""
    near = old + chance.choice([-4096, -8, -1, 1, 8, 16, 4096])
    drawn = chance.choice(
        [near, near, chance.choice(SOME), chance.getrandbits(64), ~old, old << 12]
    )
    return drawn & ((1 << 8 * size) - 1)


def field(chance: Chance, data: bytearray, at: int, size: int) -> None:
    """Write another value into a little-endian field, if it is inside."""
    if 0 <= at <= len(data) - size:
        old = int.from_bytes(data[at : at + size], "little")
        data[at : at + size] = number(chance, old, size).to_bytes(size, "little")


def raw(chance: Chance, data: bytearray, first: int = 0, last: int = 0) -> None:
    """Flip, zero, cut, grow or splice somewhere in [first, last) (0: the end)."""
    last = min(last or len(data), len(data))
    if first >= last:
        return
    at = chance.randrange(first, last)
    length = min(chance.choice([1, 2, 8, 64, 4096]), last - at)
    how = chance.randrange(10)
    if how < 5:
        data[at] ^= 1 << chance.randrange(8)
    elif how < 7:
        data[at : at + length] = chance.randbytes(length)
    elif how == 7:
        data[at : at + length] = bytes(length)
    elif how == 8:
        other = chance.randrange(first, last)
        data[at : at + length] = data[other : other + length]
    elif chance.random() < 0.5:
        del data[at:]
    else:
        data[at:at] = data[at : at + length]


def headers(data: bytearray) -> List[int]:
    """Where the program headers lie in the file."""
    if len(data) < 64:
        return []
    at, count = struct.unpack_from("<Q", data, 32)[0], struct.unpack_from("<H", data, 56)[0]
    found = [at + PHDR_SIZE * n for n in range(min(count, 4096))]
    return [one for one in found if one + PHDR_SIZE <= len(data)]


def notes(data: bytearray) -> List[Tuple[int, int, int]]:
    """(offset, bytes of the name, bytes of the descriptor) of each note, elf(5)."""
    found: List[Tuple[int, int, int]] = []
    for header in headers(data):
        kind, offset = struct.unpack_from("<I", data, header)[0], _word(data, header + 8)
        size = _word(data, header + 32)
        if kind != PT_NOTE:
            continue
        at = offset
        while at + 12 <= min(offset + size, len(data)) and len(found) < 1000:
            name, descriptor, _ = struct.unpack_from("<3I", data, at)
            found.append((at, name, descriptor))
            at += 12 + (name + 3 & ~3) + (descriptor + 3 & ~3)
    return found


def _word(data: bytearray, at: int) -> int:
    return int(struct.unpack_from("<Q", data, at)[0])


def _note(chance: Chance, data: bytearray) -> None:
    found = notes(data)
    if not found:
        return
    at, name, size = chance.choice(found)
    start = at + 12 + (name + 3 & ~3)
    name = min(name, len(data) - at - 12)  # what is cut short was a mutation, too
    how = chance.randrange(6)
    if how == 0:
        field(chance, data, at + 4 * chance.randrange(3), 4)
    elif how == 1:
        other = chance.choice(found)
        data[at + 8 : at + 12] = data[other[0] + 8 : other[0] + 12]
    elif how == 2 and name:
        data[at + 12 + chance.randrange(name)] = chance.randrange(256)
    elif size and how == 3:
        raw(chance, data, start, start + size - 1)
    elif size >= 8:
        for _ in range(chance.choice([1, 1, 4])):
            field(chance, data, start + 8 * chance.randrange(size // 8), 8)


def _header(chance: Chance, data: bytearray) -> None:
    found = headers(data)
    if not found:
        return
    at = chance.choice(found)
    how = chance.randrange(5)
    if how < 3:
        offset, size = chance.choice(PHDR)
        field(chance, data, at + offset, size)
    else:
        other = chance.choice(found)
        if how == 3:
            data[at : at + PHDR_SIZE] = data[other : other + PHDR_SIZE]
        else:
            offset, size = chance.choice(PHDR)
            data[at + offset : at + offset + size] = data[other + offset : other + offset + size]


def _memory(chance: Chance, data: bytearray) -> None:
    """A word of what the process held: the linker's and malloc's lists, stacks, code."""
    found = [one for one in headers(data) if struct.unpack_from("<I", data, one)[0] == 1]
    if not found:
        return
    header = chance.choice(found)
    offset, size = _word(data, header + 8), _word(data, header + 32)
    last = min(offset + size, len(data)) - 8
    for _ in range(chance.choice([1, 8, 64])):
        for _ in range(40):  # what is zero matters least
            if offset >= last:
                return
            at = chance.randrange(offset, last) & ~7
            if any(data[at : at + 8]):
                field(chance, data, at, 8)
                break


def _ehdr(chance: Chance, data: bytearray) -> None:
    field(chance, data, *chance.choice(EHDR))


def core(chance: Chance, data: bytearray) -> None:
    """Damage an ELF core of 64 bits in place."""
    kinds: Sequence[Callable[[Chance, bytearray], None]]
    kinds = [_note, _note, _header, _header, _memory, _memory, _ehdr, raw]
    kinds = [chance.choice(kinds)] if chance.random() < 0.5 else kinds
    for _ in range(chance.choice([1, 1, 2, 3, 8])):
        if len(data) > 64:
            chance.choice(kinds)(chance, data)


def trace(chance: Chance, folder: Path) -> None:
    """Damage a trace's directory; where a checksum would tell it is often made again."""
    for turn in range(chance.choice([1, 1, 2, 4])):
        how = chance.randrange(10)
        # What another turn has damaged may be no number, no bytes, no object any more.
        damaged = NOT_SQL if turn == 0 else (Exception,)
        if how < 3:
            name = chance.choice(("index.sqlite", "pages", "sums"))
            with suppress(OSError):
                data = bytearray((folder / name).read_bytes())
                raw(chance, data)
                (folder / name).write_bytes(data)
        elif how == 3:
            (folder / "index.sqlite-wal").write_bytes(
                chance.randbytes(chance.choice([0, 32, 8192]))
            )
        else:
            with closing(sqlite3.connect(folder / "index.sqlite")) as db, suppress(*damaged):
                chance.choice([_row, _row, _object, _object, _table, _table, _pragma])(chance, db)
                db.commit()


def _value(chance: Chance, old: object) -> object:
    if chance.random() < 0.2:
        return chance.choice([None, 0, -1, 1 << 40, 0.5, "x", "\x1b[2J\n", b"", b"\0" * 16])
    if isinstance(old, int):
        return (
            number(chance, old, 8) - (chance.choice([0, 1]) << 63)
            if chance.random() < 0.3
            else (old + chance.choice([-1, 1, 4096]))
        )
    if isinstance(old, bytes):
        data = bytearray(old)
        raw(chance, data)
        return bytes(data)
    return f"{old}{chance.choice(['', 'x', '/../../etc', chr(0), chr(0x202E)])}"


def _row(chance: Chance, db: sqlite3.Connection) -> None:
    table = chance.choice(
        ["trace", "snapshots", "snapshots", "processes", "objects", "page_tables"]
    )
    rows = db.execute(f"SELECT rowid, * FROM {table}").fetchall()
    columns = [one[1] for one in db.execute(f"PRAGMA table_info({table})")]
    if not rows:
        return
    rowid, *values = chance.choice(rows)
    if chance.random() < 0.1:
        db.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))
        return
    which = chance.randrange(len(columns))
    values[which] = _value(chance, values[which])
    if columns[-1] == "crc" and which != len(columns) - 1 and chance.random() < 0.8:
        with suppress(Exception):
            values[-1] = form.row_crc(values[:-1])
    sets = ", ".join(f"{column} = ?" for column in columns)
    db.execute(f"UPDATE {table} SET {sets} WHERE rowid = ?", (*values, rowid))


def _object(chance: Chance, db: sqlite3.Connection) -> None:
    """Change an object's content, and give it the digest by which it is asked for."""
    rows = db.execute("SELECT * FROM objects").fetchall()
    if not rows:
        return
    digest, kind, packed = chance.choice(rows)
    content = bytearray(form.unpack_object(digest, kind, packed))
    if kind in ("layout", "process") and chance.random() < 0.7:
        _digits(chance, content)
    elif len(content) >= 8 and chance.random() < 0.7:
        field(chance, content, 8 * chance.randrange(len(content) // 8), 8)
    else:
        raw(chance, content)
    if chance.random() < 0.02:
        content += bytes(chance.choice([1 << 20, 1 << 28]))
    fresh = form.digest(kind, bytes(content))
    packed = form.pack_object(bytes(content))
    db.execute("INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", (fresh, kind, packed))
    if kind == "thread":
        for name, listed in db.execute(
            "SELECT digest, content FROM objects WHERE kind = 'threads'"
        ).fetchall():
            text = form.unpack_object(name, "threads", listed).replace(digest, fresh)
            renamed = form.digest("threads", text)
            db.execute(
                "INSERT OR REPLACE INTO objects VALUES (?, 'threads', ?)",
                (renamed, form.pack_object(text)),
            )
            _rename(db, name, renamed)
    else:
        _rename(db, digest, fresh)


def _rename(db: sqlite3.Connection, old: bytes, new: bytes) -> None:
    for column in ("thread_list", "layout", "auxv"):
        db.execute(f"UPDATE snapshots SET {column} = ? WHERE {column} = ?", (new, old))
    db.execute("UPDATE processes SET process = ? WHERE process = ?", (new, old))
    for table in ("snapshots", "processes"):
        for key, *row in db.execute(f"SELECT rowid, * FROM {table}").fetchall():
            with suppress(Exception):
                crc = form.row_crc(row[:-1])
                db.execute(f"UPDATE {table} SET crc = ? WHERE rowid = ?", (crc, key))


def _digits(chance: Chance, content: bytearray) -> None:
    """Replace a number, or a sign, of a JSON text."""
    places = [n for n, byte in enumerate(content) if chr(byte).isdigit()]
    if places and chance.random() < 0.7:
        start = end = chance.choice(places)
        while end < len(content) and chr(content[end]).isdigit():
            end += 1
        content[start:end] = str(number(chance, int(content[start:end]), 8)).encode()
    elif content:
        content[chance.randrange(len(content))] = chance.choice(b'[]{}",:-0e\0\x80/.')


def _table(chance: Chance, db: sqlite3.Connection) -> None:
    """Change a page table's delta, and its checksum with it."""
    rows = db.execute("SELECT * FROM page_tables").fetchall()
    if not rows:
        return
    key, keyframe, delta, _ = chance.choice(rows)
    data = bytearray(delta)
    how = chance.randrange(4)
    if how == 0:
        field(chance, data, 4 * chance.randrange(4), 4)
    elif how == 1 and len(data) >= 24:
        field(chance, data, 16 + 8 * chance.randrange((len(data) - 16) // 8), 8)
    elif how == 2 and len(data) >= 20:
        field(chance, data, 4 * chance.randrange(4, len(data) // 4), 4)
    else:
        raw(chance, data)
    if chance.random() < 0.2:
        keyframe = chance.choice([key, key - 1, key + 1, 0, -1, 1 << 40])
    crc = form.table_crc(key, keyframe, bytes(data))
    db.execute("INSERT OR REPLACE INTO page_tables VALUES (?, ?, ?, ?)", (key, keyframe, data, crc))


def _pragma(chance: Chance, db: sqlite3.Connection) -> None:
    name = chance.choice(["user_version", "application_id"])
    old = db.execute(f"PRAGMA {name}").fetchone()[0]
    db.execute(f"PRAGMA {name} = {number(chance, old, 4) - (1 << 31)}")


TAR = [(0, 100), (100, 8), (124, 12), (148, 8), (156, 1), (157, 100), (257, 8), (345, 155)]
"""(offset, size) of a tar header's fields: name, mode, size, checksum, type, link, magic, prefix
(POSIX.1, pax, "ustar Interchange Format")."""
BLOCK = 512
NAMES = [b"../../x", b"/etc/passwd", b"core", b"root/../../x", b"index.sqlite", b"a" * 99, b""]


def tar(chance: Chance, data: bytearray) -> None:
    """Damage an archive in place; header checksums are mostly made again."""
    for _ in range(chance.choice([1, 1, 2, 4])):
        found = [
            n for n in range(0, len(data) - BLOCK, BLOCK) if data[n + 257 : n + 262] == b"ustar"
        ]
        if not found or chance.random() < 0.2:
            raw(chance, data)
            continue
        at = chance.choice(found)
        offset, size = chance.choice(TAR)
        if offset in (0, 157, 345) and chance.random() < 0.7:
            data[at + offset : at + offset + size] = chance.choice(NAMES)[:size].ljust(size, b"\0")
        elif offset == 156:
            data[at + offset] = chance.choice(b"012345670LKxgS")
        elif offset == 124:
            text = chance.choice(
                [b"%011o\0" % number(chance, 4096, 4), b"\x80" + chance.randbytes(11)]
            )
            data[at + offset : at + offset + size] = text[:size]
        else:
            data[at + offset + chance.randrange(size)] = chance.randrange(256)
        if chance.random() < 0.9:
            total = sum(data[at : at + 148]) + 8 * 32 + sum(data[at + 156 : at + BLOCK])
            data[at + 148 : at + 156] = b"%06o\0 " % total
