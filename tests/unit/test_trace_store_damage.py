"""Damaged and hostile traces: one clear line each, never a crash, never wrong bytes."""

from __future__ import annotations

import os
import random
import shutil
import sqlite3
import struct
import zlib
from contextlib import closing
from pathlib import Path
from typing import Any, Callable, Iterator, List

import pytest
from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st
from trace_stores import BASE, PAGE, Recorded, read_page, record, thread

import gdb_uffd.trace
from gdb_uffd.protocol.model import MemoryUnavailable, UffdError
from gdb_uffd.trace.store import format as form
from gdb_uffd.trace.store.index import check_version
from gdb_uffd.trace.store.page_table import Delta
from gdb_uffd.trace.store.read import StoreTrace
from gdb_uffd.trace.store.verify import verify

SNAPSHOTS, SIZE = 10, 12
FILES = ("index.sqlite", "pages", "sums")
FUZZ = settings(
    max_examples=150,
    deadline=None,
    suppress_health_check=[HealthCheck.too_slow, HealthCheck.function_scoped_fixture],
)


@pytest.fixture(scope="module")
def made(tmp_path_factory: pytest.TempPathFactory) -> Recorded:
    threads = [thread(77, 5), thread(78, 6, "other")]
    return record(tmp_path_factory.mktemp("made"), SNAPSHOTS, SIZE, 2, threads=threads)


@pytest.fixture
def copied(made: Recorded, tmp_path: Path) -> Iterator[Callable[[], Path]]:
    """Makes a fresh copy of the trace, at the same place each time."""

    def copy() -> Path:
        target = tmp_path / "copy.uffd"
        shutil.rmtree(target, ignore_errors=True)
        shutil.copytree(made.path, target)
        return target

    yield copy


def one_line(error: BaseException) -> str:
    text = str(error)
    assert text and "\n" not in text and len(text) < 600, text
    return text


def right_or_refused(made: Recorded, path: Path) -> bool:
    """Whether all of it was right; what was not was refused in words."""
    try:
        trace = gdb_uffd.trace.open(str(path))
    except UffdError as error:
        one_line(error)
        return False
    assert isinstance(trace, StoreTrace)
    good = len(trace.snapshots) == SNAPSHOTS and not trace.warnings
    original = gdb_uffd.trace.open(made.path)
    for number, info in enumerate(trace.snapshots):
        try:
            snapshot = trace.snapshot(number)
        except UffdError as error:
            one_line(error)
            good = False
            continue
        assert number < SNAPSHOTS
        expected = original.snapshot(number)
        assert info == original.snapshots[number]
        assert snapshot.threads == expected.threads
        assert snapshot.mappings == expected.mappings
        assert snapshot.told in (None, expected.told)
        for page in range(SIZE):
            try:
                assert read_page(snapshot, page) == made.memories[number].at(page)
            except MemoryUnavailable as error:
                one_line(error)
                good = False
        snapshot.classify(BASE)
        snapshot.symbol("malloc")
        snapshot.close()
    try:
        trace.changed_pages(0, SNAPSHOTS - 1)
    except UffdError as error:
        one_line(error)
    verdict = verify(trace)
    assert verdict.whole == good or not verdict.whole
    trace.close()
    original.close()
    return good


@FUZZ
@given(data=st.data())
def test_flipped_bytes(made: Recorded, copied: Callable[[], Path], data: st.DataObject) -> None:
    path = copied()
    for name in data.draw(st.lists(st.sampled_from(FILES), min_size=1, max_size=3)):
        raw = bytearray((path / name).read_bytes())
        for _ in range(data.draw(st.integers(1, 4))):
            at = data.draw(st.integers(0, len(raw) - 1))
            raw[at] ^= data.draw(st.integers(1, 255))
        (path / name).write_bytes(raw)
    right_or_refused(made, path)


@FUZZ
@given(data=st.data())
def test_cut_short(made: Recorded, copied: Callable[[], Path], data: st.DataObject) -> None:
    path = copied()
    name = data.draw(st.sampled_from(FILES))
    size = (path / name).stat().st_size
    keep = data.draw(st.one_of(st.integers(0, size - 1), st.sampled_from([0, size - 1])))
    os.truncate(path / name, keep)
    assert not right_or_refused(made, path)


VALUES = st.one_of(
    st.none(),
    st.integers(-(1 << 63), (1 << 63) - 1),
    st.sampled_from([0, 1, 255, 1 << 31, 1 << 32]),
    st.floats(),
    st.text(max_size=20),
    st.binary(max_size=40),
)


@FUZZ
@given(data=st.data())
def test_changed_rows(made: Recorded, copied: Callable[[], Path], data: st.DataObject) -> None:
    path = copied()
    with closing(sqlite3.connect(path / "index.sqlite")) as db:
        table = data.draw(st.sampled_from(sorted(form.SCHEMA)))
        columns = [row[1] for row in db.execute(f"PRAGMA table_info({table})")]
        rowids = [row[0] for row in db.execute(f"SELECT rowid FROM {table}")]
        rowid = data.draw(st.sampled_from(rowids))
        if data.draw(st.booleans()):
            column, value = data.draw(st.sampled_from(columns)), data.draw(VALUES)
            try:
                db.execute(f"UPDATE {table} SET {column} = ? WHERE rowid = ?", (value, rowid))
            except sqlite3.Error:
                return  # NOT NULL, PRIMARY KEY
        else:
            db.execute(f"DELETE FROM {table} WHERE rowid = ?", (rowid,))
        db.commit()
    right_or_refused(made, path)


def edited(path: Path, edit: Callable[[sqlite3.Connection], Any]) -> Path:
    with closing(sqlite3.connect(path / "index.sqlite")) as db:
        edit(db)
        db.commit()
    return path


def delta_with(change: Callable[[Delta], None], number: int = 1) -> Callable[[Any], None]:
    """Another page table for a snapshot, its checksum right: not damage, but malice."""

    def edit(db: sqlite3.Connection) -> None:
        keyframe, blob = db.execute(
            "SELECT keyframe, delta FROM page_tables WHERE number = ?", (number,)
        ).fetchone()
        delta = Delta.decode(blob)
        change(delta)
        blob = delta.encode()
        db.execute(
            "UPDATE page_tables SET delta = ?, crc = ? WHERE number = ?",
            (blob, form.table_crc(number, keyframe, blob), number),
        )

    return edit


def test_slots_beyond_the_file(copied: Callable[[], Path]) -> None:
    def change(delta: Delta) -> None:
        delta.slots[0] = 4_000_000_000

    trace = gdb_uffd.trace.open(str(edited(copied(), delta_with(change))))
    snapshot = trace.snapshot(1)
    found = [a for a in range(BASE, BASE + SIZE * PAGE, PAGE) if _bad(snapshot, a)]
    assert len(found) == 1
    assert "ends before slot 4000000000" in _bad(snapshot, found[0])
    (bad,) = verify(trace).bad  # type: ignore[arg-type]
    assert bad.slot == 4_000_000_000 and list(bad.places) == found


def _bad(snapshot: Any, address: int) -> str:
    try:
        snapshot.read(address, 1)
        return ""
    except MemoryUnavailable as error:
        return error.reason


def _row_of(db: sqlite3.Connection, number: int) -> form.SnapshotRow:
    return form.SnapshotRow.check(
        db.execute("SELECT * FROM snapshots WHERE number = ?", (number,)).fetchone()
    )


def _put_row(db: sqlite3.Connection, columns: List[Any]) -> None:
    values = [*columns, form.row_crc(columns)]
    db.execute(f"REPLACE INTO snapshots VALUES ({', '.join('?' * 17)})", values)


def _object(db: sqlite3.Connection, kind: str, content: bytes) -> bytes:
    name = form.digest(kind, content)
    db.execute(
        "INSERT OR REPLACE INTO objects VALUES (?, ?, ?)", (name, kind, form.pack_object(content))
    )
    return name


def _with_object(column: int, kind: str, content: bytes) -> Callable[[sqlite3.Connection], None]:
    def edit(db: sqlite3.Connection) -> None:
        columns = list(_row_of(db, 2).values()[:-1])
        columns[column] = _object(db, kind, content)
        _put_row(db, columns)

    return edit


def _with_threads(raw: bytes) -> Callable[[sqlite3.Connection], None]:
    def edit(db: sqlite3.Connection) -> None:
        name = _object(db, form.THREAD, raw)
        _with_object(13, form.THREADS, name)(db)

    return edit


def _keyframe(value: int) -> Callable[[sqlite3.Connection], None]:
    def edit(db: sqlite3.Connection) -> None:
        blob = db.execute("SELECT delta FROM page_tables WHERE number = 2").fetchone()[0]
        crc = form.table_crc(2, value, blob)
        db.execute("UPDATE page_tables SET keyframe = ?, crc = ? WHERE number = 2", (value, crc))

    return edit


def _blob(blob: bytes) -> Callable[[sqlite3.Connection], None]:
    def edit(db: sqlite3.Connection) -> None:
        crc = form.table_crc(2, 0, blob)
        db.execute("UPDATE page_tables SET delta = ?, crc = ? WHERE number = 2", (blob, crc))

    return edit


def _layout(text: str) -> Callable[[sqlite3.Connection], None]:
    return _with_object(14, form.LAYOUT, text.encode())


def _column(index: int, value: Any) -> Callable[[sqlite3.Connection], None]:
    def edit(db: sqlite3.Connection) -> None:
        columns = list(_row_of(db, 2).values()[:-1])
        columns[index] = value
        _put_row(db, columns)

    return edit


def _twins(db: sqlite3.Connection) -> None:
    name = _object(db, form.THREAD, form.encode_thread(thread(5)))
    _with_object(13, form.THREADS, name * 2)(db)


def _bomb(db: sqlite3.Connection) -> None:
    packed = zlib.compress(bytes(form.MAX_OBJECT[form.LAYOUT] + 100))
    name = form.digest(form.LAYOUT, b"bomb")
    db.execute("INSERT INTO objects VALUES (?, 'layout', ?)", (name, packed))
    _column(14, name)(db)


HOSTILE = {
    "no threads": (_with_object(13, form.THREADS, b""), "list of threads of 0 bytes"),
    "odd threads": (_with_object(13, form.THREADS, b"x" * 17), "list of threads of 17 bytes"),
    "unknown thread": (_with_object(13, form.THREADS, b"x" * 16), "thread record is missing"),
    "short thread": (_with_threads(b"x" * 50), "thread record is too short"),
    "long thread": (_with_threads(form.encode_thread(thread()) + b"x"), "thread record of"),
    "negative TID": (_with_threads(b"\xff" * 4 + form.encode_thread(thread())[4:]), "TID -1"),
    "twins": (_twins, "two of its threads have the same TID"),
    "auxv": (_with_object(15, form.AUXV, b"x" * 17), "auxiliary vector of 17 bytes"),
    "huge auxv": (_with_object(15, form.AUXV, bytes(8192)), "auxiliary vector of 8192 bytes"),
    "no JSON": (_layout("{"), "layout record is malformed"),
    "deep JSON": (_layout("[" * 200_000), "layout record is malformed"),
    "other JSON": (_layout("[]"), "layout record is malformed"),
    "huge number": (_layout('{"mappings":[[' + "9" * 5000 + ',1,1]],"files":{}}'), "malformed"),
    "NaN": (_layout('{"mappings":[[NaN,1,1]],"files":{}}'), "malformed"),
    "overlap": (_layout('{"mappings":[[4096,12288,3],[8192,16384,3]],"files":{}}'), "malformed"),
    "backwards": (_layout('{"mappings":[[8192,4096,3]],"files":{}}'), "malformed"),
    "offset": (_layout(f'{{"mappings":[[4096,8192,3,"/x",{1 << 63}]],"files":{{}}}}'), "malformed"),
    "unaligned": (_layout('{"mappings":[[4097,8192,3]],"files":{}}'), "malformed"),
    "kernel": (_layout(f'{{"mappings":[[4096,{1 << 60},3]],"files":{{}}}}'), "malformed"),
    "no name": (_layout('{"mappings":[[4096,8192,3,[]]],"files":{}}'), "malformed"),
    "files": (_layout('{"mappings":[],"files":{"/x":["zz",1,1,""]}}'), "malformed"),
    "bomb": (_bomb, "layout record is damaged"),
    "no table": (lambda db: db.execute("DELETE FROM page_tables WHERE number = 2"), "is missing"),
    "future keyframe": (_keyframe(3), "page table of snapshot 2 is damaged"),
    "own keyframe": (_keyframe(2), "lies in no area"),
    "negative keyframe": (_keyframe(-1), "page table of snapshot 2 is damaged"),
    "empty table": (_blob(b""), "without its header"),
    "huge counts": (_blob(b"\xff" * 16), "shorter than its header says"),
    "too many words": (_blob(struct.pack("<4I2QI", 0, 1, 0, 0, 4096, 8192, 1)), "size is not what"),
    "odd": (_blob(struct.pack("<4I", 0, 0, 0, 0) + b"x"), "size is not what"),
    "range": (_blob(struct.pack("<4I2Q", 1, 0, 0, 0, 8192, 4096)), "impossible range"),
    "slots": (_blob(struct.pack("<4I2Q", 0, 0, 1, 0, 4096, 1 << 40)), "size is not what"),
    "overlapping": (
        _blob(struct.pack("<4I4Q", 0, 2, 0, 0, 4096, 12288, 8192, 16384)),
        "overlapping areas",
    ),
    "disorder": (
        _blob(struct.pack("<4I2Q2I", 0, 0, 0, 2, BASE + PAGE, BASE, 1, 1)),
        "out of order",
    ),
    "nowhere": (_blob(struct.pack("<4IQI", 0, 0, 0, 1, 4096, 1)), "lies in no area"),
    "a text for a number": (_column(1, "x"), "a number in its row is none"),
    "a negative number": (_column(1, -1), "a number in its row is none"),
    "a blob for a text": (_column(3, b"x"), "a text in its row is none"),
    "a long text": (_column(3, "x" * 5000), "a text in its row is none"),
    "a short digest": (_column(14, b"x"), "a reference in its row is none"),
    "too many slots": (_column(12, 1 << 40), "speaks of 1099511627776 pages"),
}


@pytest.mark.parametrize("name", HOSTILE)
def test_hostile_records(made: Recorded, copied: Callable[[], Path], name: str) -> None:
    """Snapshot 2 is made up; it is refused in a line that says why, and others still show."""
    edit, expected = HOSTILE[name]
    path = edited(copied(), edit)
    trace = gdb_uffd.trace.open(str(path))
    with pytest.raises(UffdError, match=expected) as caught:
        trace.snapshot(2)
    text = one_line(caught.value)
    assert text.startswith(f"{path}: snapshot 2 cannot be shown: ")
    assert text.endswith("; others are not affected")
    assert read_page(trace.snapshot(1), 3) == made.memories[1].at(3)
    assert not verify(trace).whole  # type: ignore[arg-type]


def test_a_missing_row(copied: Callable[[], Path]) -> None:
    path = edited(copied(), lambda db: db.execute("DELETE FROM snapshots WHERE number = 4"))
    trace = gdb_uffd.trace.open(str(path))
    assert len(trace.snapshots) == SNAPSHOTS and trace.snapshots[4].label == ""
    with pytest.raises(UffdError, match="snapshot 4 cannot be shown: its row is missing"):
        trace.snapshot(4)
    trace.snapshot(5).close()


def test_numbers_that_lead_nowhere(copied: Callable[[], Path]) -> None:
    path = copied()
    edited(path, lambda db: _put_row(db, [1 << 62, *_row_of(db, 2).values()[1:-1]]))
    trace = gdb_uffd.trace.open(str(path))
    assert len(trace.snapshots) == SNAPSHOTS
    assert "damaged row behind snapshot 9" in trace.warnings[0]


SCHEMAS = {
    "a view": "CREATE VIEW snapshots AS WITH RECURSIVE r(x) AS (SELECT 1 UNION ALL SELECT x + 1 "
    "FROM r) SELECT x FROM r",
    "more columns": form.SCHEMA["snapshots"].replace("number", "odd, number", 1),
    "nothing": "",
}


@pytest.mark.parametrize("name", SCHEMAS)
def test_another_schema(copied: Callable[[], Path], name: str) -> None:
    def edit(db: sqlite3.Connection) -> None:
        db.execute("DROP TABLE snapshots")
        db.execute(SCHEMAS[name])

    with pytest.raises(
        UffdError,
        match=r"its table 'snapshots' is not as every trace has it|a view that no trace has",
    ):
        gdb_uffd.trace.open(str(edited(copied(), edit)))


def test_a_newer_minor_version_opens(made: Recorded, copied: Callable[[], Path]) -> None:
    def edit(db: sqlite3.Connection) -> None:
        db.execute("CREATE TABLE extra (x)")
        db.execute("PRAGMA user_version = 1999")

    assert right_or_refused(made, edited(copied(), edit))


def test_a_newer_major_version_is_refused(copied: Callable[[], Path]) -> None:
    path = edited(copied(), lambda db: db.execute("PRAGMA user_version = 2000"))
    with pytest.raises(UffdError, match=r"format 2\.0, newer than 1\.x.*a newer gdb-uffd") as error:
        gdb_uffd.trace.open(str(path))
    one_line(error.value)
    with pytest.raises(UffdError, match=r"damaged \(format 0\.7\)"):
        check_version("x", 7)


def _replaced(name: str, make: Callable[[Path], None]) -> Callable[[Path], None]:
    def change(path: Path) -> None:
        (path / name).unlink()
        make(path / name)

    return change


def _nothing(db: sqlite3.Connection) -> None:
    db.execute("DELETE FROM snapshots")
    db.execute("DELETE FROM page_tables")


SHAPES = {
    "a database of something else": (
        lambda p: edited(p, lambda db: db.execute("PRAGMA application_id = 5")),
        "a database of something else",
    ),
    "no database": (lambda p: (p / "index.sqlite").write_bytes(b"x" * 999), "no trace index"),
    "empty": (lambda p: (p / "index.sqlite").write_bytes(b""), "no trace index"),
    "no pages": (lambda p: (p / "pages").unlink(), "pages: missing"),
    "no sums": (lambda p: (p / "sums").unlink(), "sums: missing"),
    "a device": (_replaced("pages", lambda p: p.symlink_to("/dev/zero")), "not a regular file"),
    "a pipe": (_replaced("index.sqlite", lambda p: os.mkfifo(p)), "not a regular file"),
    "a folder": (_replaced("sums", lambda p: p.mkdir()), "not a regular file"),
    "a log that is a pipe": (
        lambda p: os.mkfifo(p / "index.sqlite-wal"),
        "wal: not a regular file",
    ),
    "a log that is a device": (
        lambda p: (p / "index.sqlite-journal").symlink_to("/dev/zero"),
        "journal: not a regular file",
    ),
    "nothing recorded": (
        lambda p: edited(p, _nothing),
        "no snapshot was completed",
    ),
    "nothing left": (
        lambda p: edited(p, lambda db: db.execute("DELETE FROM snapshots")),
        "no snapshot in it is whole",
    ),
}


@pytest.mark.parametrize("name", SHAPES)
def test_directories_that_are_no_trace(copied: Callable[[], Path], name: str) -> None:
    path = copied()
    change, expected = SHAPES[name]
    change(path)
    with pytest.raises(UffdError, match=expected) as caught:
        gdb_uffd.trace.open(str(path))
    assert one_line(caught.value).startswith(str(path))


def test_not_traces_at_all(tmp_path: Path) -> None:
    (tmp_path / "x.uffd").mkdir()
    with pytest.raises(UffdError, match=r"x\.uffd: has no index\.sqlite; the trace is not whole"):
        gdb_uffd.trace.open(str(tmp_path / "x.uffd"))
    with pytest.raises(UffdError, match="is a directory; give the core file in it"):
        gdb_uffd.trace.open(str(tmp_path))
    with pytest.raises(UffdError, match="null"):
        gdb_uffd.trace.open("a\0b")


def test_pages_of_another_trace(made: Recorded, tmp_path: Path) -> None:
    other = record(tmp_path, 2, SIZE, seed=9, name="other")
    for name in ("pages", "sums"):
        shutil.copy(f"{made.path}/{name}", f"{other.path}/{name}")
    with pytest.raises(UffdError, match="are of different traces"):
        gdb_uffd.trace.open(other.path)


def test_a_damaged_header_of_the_page_file(made: Recorded, copied: Callable[[], Path]) -> None:
    path = copied()
    raw = bytearray((path / "pages").read_bytes())
    raw[20] ^= 1
    (path / "pages").write_bytes(raw)
    trace = gdb_uffd.trace.open(str(path))
    assert "its header is damaged" in trace.warnings[0]
    assert read_page(trace.snapshot(3), 2) == made.memories[3].at(2)


def test_a_journal_cannot_delete_a_file(copied: Callable[[], Path], tmp_path: Path) -> None:
    """SQLite deletes the super-journal that a journal names when it is rolled back."""
    path, victim = copied(), tmp_path / "victim"
    victim.write_text("precious")
    index = path / "index.sqlite"
    (size,) = struct.unpack_from(">H", index.read_bytes(), 16)
    magic, name = bytes.fromhex("d9d505f920a163d7"), os.fsencode(victim)
    journal = magic + struct.pack(">IIIII", 0, 0, index.stat().st_size // size, 512, size)
    journal = journal.ljust(512, b"\0") + struct.pack(">I", 0x40000000 // size + 1) + name
    journal += struct.pack(">II", len(name), sum(name)) + magic
    (path / "index.sqlite-journal").write_bytes(journal)
    with pytest.raises(UffdError) as caught:
        gdb_uffd.trace.open(str(path)).close()
    assert "journal" in one_line(caught.value)
    assert victim.exists()


@pytest.mark.parametrize(
    "program",
    [
        "CREATE TRIGGER t AFTER UPDATE ON snapshots BEGIN DELETE FROM objects; END",
        "CREATE VIEW v AS SELECT * FROM objects",
        "CREATE VIRTUAL TABLE w USING fts4(x)",
    ],
)
def test_an_index_brings_no_program(copied: Callable[[], Path], program: str) -> None:
    path = edited(copied(), lambda db: db.execute(program))
    with pytest.raises(UffdError) as caught:
        gdb_uffd.trace.open(str(path)).close()
    assert "no trace has" in one_line(caught.value)


def test_a_layout_of_nothing_but_lists_is_not_unpacked() -> None:
    with pytest.raises(form.FormatError, match="lists of nothing"):
        form.decode_layout(b'{"files":{},"mappings":[' + b"[]," * (1 << 20) + b"[]]}")
    odd = '{"mappings":[[65536,69632,3,"/' + "[{" * 500 + '",0,""]],"files":{}}'
    assert len(form.decode_layout(odd.encode()).mappings) == 1


def test_a_log_of_garbage(made: Recorded, copied: Callable[[], Path]) -> None:
    path = copied()
    random_ = random.Random(4)
    for name in ("index.sqlite-wal", "index.sqlite-journal"):
        (path / name).write_bytes(random_.randbytes(5000))
        right_or_refused(made, path)


def test_every_bad_page_is_listed(made: Recorded, copied: Callable[[], Path]) -> None:
    path = copied()
    raw = bytearray((path / "pages").read_bytes())
    raw[3 * PAGE + 17] ^= 0x40
    raw[-1] ^= 1
    (path / "pages").write_bytes(raw)
    trace = gdb_uffd.trace.open(str(path))
    verdict = verify(trace)  # type: ignore[arg-type]
    assert not verdict.whole and not verdict.problems
    assert [b.slot for b in verdict.bad] == [3, len(raw) // PAGE - 1]
    for bad in verdict.bad:
        assert f"checksum mismatch in {path}/pages at slot {bad.slot}" in bad.reason
        for address, numbers in bad.places.items():
            for number in range(SNAPSHOTS):
                reason = _bad(trace.snapshot(number), address)
                assert bool(reason) == (number in numbers)
                assert not reason or (bad.reason in reason and "gdb-uffd verify" in reason)
    right = [
        (n, p)
        for n in range(SNAPSHOTS)
        for p in range(SIZE)
        if not any(n in b.places.get(BASE + p * PAGE, []) for b in verdict.bad)
    ]
    for number, page in right:
        assert read_page(trace.snapshot(number), page) == made.memories[number].at(page)


def test_a_file_cut_short_while_it_is_open(made: Recorded, copied: Callable[[], Path]) -> None:
    path = copied()
    trace = gdb_uffd.trace.open(str(path))
    snapshot = trace.snapshot(0)
    os.truncate(path / "pages", 5 * PAGE)
    os.truncate(path / "sums", 0)
    outcomes = {bool(_bad(snapshot, BASE + p * PAGE)) for p in range(SIZE)}
    assert outcomes == {True, False}
