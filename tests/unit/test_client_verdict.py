"""The verdict: pure, or what was written, allocated, printed, asked for."""

from __future__ import annotations

from gdb_uffd.client.show import verdict
from gdb_uffd.protocol.ends import End, Grant, PassedLock, Refusal, Unavailable
from gdb_uffd.protocol.model import CallReport, DirtyPage, DirtyRange, HeapTotals

TID = 42


def thread(tid: int) -> str:
    return {TID: "1", 43: "2"}.get(tid, "?")


def page(kind: str, *roles: str, **more: object) -> DirtyPage:
    runs = [DirtyRange(0x1000 + 8 * i, b"\0", b"\1", role=role) for i, role in enumerate(roles)]
    values = {"mapping": "/bin/x", "bytes_changed": 1, "writers": ["program"], **more}
    return DirtyPage(0x1000, 0x2000, kind, ranges=runs, **values)  # type: ignore[arg-type]


def report(*pages: DirtyPage, **more: object) -> CallReport:
    values = {"output": "", "heap": HeapTotals(), "tid": TID, **more}
    return CallReport("call", False, 1, 10, 0.0, pages=list(pages), **values)  # type: ignore[arg-type]


def test_pure():
    scratch = page("stack", thread=TID)
    same = page("data", bytes_changed=0)
    only_gdb = page("data", "", writers=["gdb"])
    for pages in ((), (scratch,), (scratch, same, only_gdb)):
        assert verdict.text(report(*pages), thread) == verdict.PURE
        assert verdict.as_json(report(*pages), thread)["pure"] is True


def test_a_call_that_did_not_return_and_wrote_nothing():
    for more in (
        {},
        {"end": End("time", limit=1)},
        {"end": End("unavailable", unavailable=Unavailable(0x1000, "truncated"))},
    ):
        made = report(page("stack", thread=TID), returned=False, **more)
        said = "wrote nothing but its own stack, and did not return"
        assert verdict.text(made, thread) == said, more
        assert verdict.as_json(made, thread)["pure"] is False


def test_what_is_not_pure():
    for more in (
        {"output": "x"},
        {"granted": [Grant("brk")]},
        {"refusals": [Refusal("fork", (), "EPERM")]},
        {"passed": [PassedLock(0x1000)]},
        {"end": End("exit", code=0)},
        {"heap": HeapTotals(1, 24)},
        {"mapped_bytes": 4096},
        {"layout_changed": True},
    ):
        assert verdict.as_json(report(**more), thread)["pure"] is False, more
    for stack in (page("stack", thread=43), page("stack", thread=TID, bytes_above=4)):
        assert verdict.as_json(report(stack), thread)["pure"] is False


def test_what_was_written():
    pages = [
        page("data", ""),
        page("heap", ""),
        page("tls", "", thread=43),
        page("stack", "", thread=43, bytes_above=4),
        page("stack", "", thread=TID, bytes_above=4),
        page("anonymous", "", mapping="[anon]"),
        page("data", "linker"),
        page("data", "malloc"),
    ]
    assert verdict.text(report(*pages), thread) == (
        "wrote globals of x, heap, TLS of thread 2, frames of its callers, the stack of thread 2, "
        "anonymous memory, the linker's slots"
    )
    kinds = [w["what"] for w in verdict.as_json(report(*pages), thread)["wrote"]]
    assert kinds == [
        "globals", "heap", "tls", "stack", "stack", "anonymous", "linker", "malloc"
    ]  # fmt: skip


def test_the_librarys_own_state():
    assert verdict.text(report(page("heap", "malloc", "freed")), thread) == (
        "wrote only malloc's own state"
    )
    both = report(page("data", "linker", "malloc"))
    assert verdict.text(both, thread) == "wrote only the linker's slots and malloc's own state"


def test_heap_mappings_output_and_requests():
    made = report(
        heap=HeapTotals(2, 3000, 0, 500),
        mapped_bytes=1 << 20,
        unmapped_bytes=4096,
        output="héllo\n",
        granted=[Grant("brk"), Grant("write", 2), Grant("openat", path="/etc/hosts")],
        refusals=[Refusal("kill", ("1", "9"), "EPERM"), Refusal("kill", ("2", "9"), "EPERM")],
    )
    assert verdict.text(made, thread) == (
        "wrote nothing · allocated 2 blocks (2.9 KiB) · freed 500 B · mapped 1.0 MiB · "
        "unmapped 4.0 KiB · printed 7 B · asked the kernel for brk, openat · was refused kill"
    )
    data = verdict.as_json(made, thread)
    assert data["net_bytes"] == 2500 and data["printed_bytes"] == 7
    assert data["asked"] == ["brk", "write (2 times)", 'openat("/etc/hosts")']


def test_a_heap_that_cannot_be_read():
    text = verdict.text(report(page("heap", ""), heap=None), thread)
    assert text == "wrote heap · malloc's heap cannot be read"
    assert verdict.as_json(report(page("heap", ""), heap=None), thread)["allocated"] is None
    assert "cannot" not in verdict.text(report(page("data", ""), heap=None), thread)
