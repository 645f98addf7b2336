"""What a called function waits for, by the program's names: the lock, and who holds it."""

from __future__ import annotations

import contextlib
import re
from typing import Any, Dict, List
from weakref import WeakKeyDictionary

import gdb

from gdb_uffd.client.names import waited_object
from gdb_uffd.client.names.shapes import Shapes
from gdb_uffd.client.session import code, interrupts, sessions
from gdb_uffd.client.session.asking import FAILURES, decoded, quiet
from gdb_uffd.client.session.frames import frame_text
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.threads import in_thread
from gdb_uffd.protocol.ends import PassedLock, Wait
from gdb_uffd.protocol.messages_calls import AskBlocked
from gdb_uffd.protocol.model import UffdError
from gdb_uffd.terminal import one_line

MAX_FRAMES = 64
MAX_NAME = 80

_LOOP_BYTES = 1 << 16
"""A function that is larger is not looked through for a loop."""

_blocked: "WeakKeyDictionary[Session, Dict[str, Any]]" = WeakKeyDictionary()
"""What `note` found, for the report of the call."""


def install() -> None:
    """Look at each stop that may be a wait."""
    gdb.events.stop.connect(_on_stop)


def _on_stop(event: object) -> None:
    # A wait is told as a SIGTRAP that no breakpoint caused, for which gdb has no class.
    session = sessions.selected()
    other = isinstance(event, gdb.BreakpointEvent) or (
        isinstance(event, gdb.SignalEvent) and event.stop_signal != "SIGTRAP"
    )
    if session is not None and not other:
        interrupts.finish(lambda: note(session))


def forget(session: Session) -> None:
    """Another call begins."""
    _blocked.pop(session, None)


def note_selected() -> None:
    """As `note`, where gdb has no stop event (gdb 18, for a call that it unwinds itself)."""
    session = sessions.selected()
    if session is not None and session not in _blocked:
        note(session)


def note(session: Session) -> None:
    """Ask the server what is waited for, and put names to it while the frames are there."""
    _blocked.pop(session, None)
    with contextlib.suppress(*FAILURES, UffdError):
        found = session.request(AskBlocked())
        if found is not None:
            _blocked[session] = _named(session, found, _frames())


def described(session: Session, found: Wait) -> Dict[str, Any]:
    """The wait that the last call ended at, as docs/json.md has it; without the program's names
    where its frames could not be looked at in time."""
    noted = _blocked.get(session)
    return noted if noted is not None else _named(session, found, [])


def text(session: Session) -> str:
    """ "would block: pthread_mutex_lock(&q->lock), held by thread 3 (worker, in pause)"; "" when
    the last call did not end that way."""
    found = _blocked.get(session)
    return str(found["text"]) if found is not None else ""


def place(address: int) -> str:
    """ "main () at x.c:7": the function, file and line of an instruction; the address where nothing
    tells."""
    name, where = code.function_name(address), code.line_at(address).short()
    return f"{name} ()" + (f" at {where}" if where else "") if name else hex(address)


def passed(session: Session, lock: PassedLock) -> str:
    """A lock that was gone through, and its holder, by name."""
    name = waited_object.by_symbol(lock.address) or f"at {lock.address:#x}"
    if not lock.owner:
        return f"went through the lock {name}, which was held"
    return f"went through the lock {name}, held by {_holder(_thread(session, lock.owner))}"


def _holder(owner: Dict[str, Any]) -> str:
    """ "thread 3 (worker, in pause)"; a thread that had ended keeps what it held locked."""
    if owner["thread"] is None:
        return f"LWP {owner['tid']}, none of the recorded threads"
    known = [owner["name"] or "", f"in {owner['function']}" if owner["function"] else ""]
    inside = ", ".join(part for part in known if part)
    return f"thread {owner['thread']}" + (f" ({inside})" if inside else "")


def _named(session: Session, found: Wait, frames: List[gdb.Frame]) -> Dict[str, Any]:
    if found.kind == "spin":
        return _spinning(frames, found)
    address = found.address or 0
    call = _library_call(frames) or found.call
    argument = _argument(session, frames, found.kind, call, address)
    owner = found.owner or (found.stranger if call.startswith("pthread_mutex_") else 0)
    out: Dict[str, Any] = {
        "call": call,
        "system_call": found.call,
        "kind": found.kind,
        "address": hex(address) if address else None,
        "lock": argument or None,
        "owner": _thread(session, owner) if owner else None,
    }
    return {**out, "text": _told(out, found.itself)}


def _spinning(frames: List[gdb.Frame], found: Wait) -> Dict[str, Any]:
    """A call that goes in a circle: in which function of the program, and on what."""
    at = hex(found.address or 0)
    where, name = f"at {at}", ""
    for frame in frames:
        with contextlib.suppress(*FAILURES):
            if _is_program(frame):
                where, name = f"at {frame_text(frame).replace(' at ', ' ', 1)}", _read_there(frame)
                break
    waits = "which only another thread writes" if name else "which only another thread could end"
    text = f"spins {where}{f' on {name}' if name else ''}, {waits}"
    return {
        "call": "spins", "system_call": None, "kind": "spin", "address": at,
        "lock": name or None, "owner": None, "text": text,
    }  # fmt: skip


def _read_there(frame: gdb.Frame) -> str:
    """The variable that the innermost loop around the frame's instruction reads, as the code has
    it; "" for none or for several."""
    at, block = code.code_address(frame), frame.block()
    while block.function is None and block.superblock is not None:
        block = block.superblock
    if block.end - block.start > _LOOP_BYTES:
        return ""
    listing = [
        (int(one["addr"]), str(one["asm"]))
        for one in frame.architecture().disassemble(block.start, block.end - 1)
    ]
    loops = [
        (address - int(jump[1], 16), int(jump[1], 16), address)
        for address, text in listing
        for jump in [re.match(r"j\w+\s+0x([0-9a-f]+)", text)]
        if jump and int(jump[1], 16) <= at <= address
    ]
    if not loops:
        return ""
    _, low, high = min(loops)
    found = {
        name[1]
        for address, text in listing
        for name in [re.search(r"#\s*0x[0-9a-f]+\s*<([\w.$:]+)>", text)]
        if name and low <= address <= high and not text.startswith(("call", "j", "lea"))
    }
    return found.pop() if len(found) == 1 else ""


def _told(found: Dict[str, Any], is_self: bool) -> str:
    what = f"would block: {found['call']}({found['lock'] or found['address'] or ''})"
    owner = found["owner"]
    if found["kind"] == "lock" and is_self:
        return f"{what}, held by this thread itself"
    if owner is None:
        held = ", which is held" if found["kind"] == "lock" else ""
        return f"{what}{held}, and no other thread runs"
    who = _holder(owner)
    if found["kind"] == "join":
        return f"{what}, which waits for {who} to end; it does not run"
    return f"{what}, held by {who}"


def _frames() -> List[gdb.Frame]:
    """The selected thread's frames, innermost first, up to gdb's dummy frame."""
    return list(code.frames(MAX_FRAMES))


def _is_program(frame: gdb.Frame) -> bool:
    """Whether the frame has source lines, and is not of a system library that has them, too;
    templates of the C++ library are compiled into the program, but are the library's."""
    if re.match(r"(?:[\w:]+(?:<.*>)? )?(?:std|__gnu_cxx)::", frame.name() or ""):
        return False
    symtab = code.line_of(frame).symtab
    if symtab is None:
        return False
    objfile = symtab.objfile.owner or symtab.objfile  # debug information may lie beside it
    place = decoded(lambda: objfile.filename or "")
    return not re.search(r"/(ld|lib(c|pthread|m|rt|dl))[-.][^/]*$", place)


def _plain(name: str) -> str:
    """ "___pthread_mutex_lock" and "__GI___libc_read" as the program calls them."""
    name = re.sub(r"^__GI_", "", name.split("@")[0])
    return re.sub(r"^_+(libc_|new_(?=sem_))?", "", name)


def _without_arguments(name: str) -> str:
    """ "std::future<int>::get" of "std::future<int>::get()", cut where that is long."""
    depth = 0
    for at, letter in enumerate(name):
        if letter == "(" and not depth and at:
            name = name[:at]
            break
        depth += (letter == "<") - (letter == ">" and name[at - 1] != "-")
    short = re.sub(r"<.*>", "<...>", name) if len(name) > MAX_NAME else name
    return short[:MAX_NAME]


def _called(frame: gdb.Frame) -> str:
    """The function that the instruction before the frame's pc calls, as the linker names it: the
    innermost frames of the library may be of functions that it had jumped to.  "" where that
    instruction does not tell."""
    for length in (5, 6):  # call rel32; call *disp32(%rip), as -fno-plt makes it
        if frame.pc() < length:
            return ""
        with contextlib.suppress(*FAILURES):
            text = quiet(f"x/i {frame.pc() - length:#x}")
            match = re.search(r"\bcallq?\s.*<([\w$.]+)(?:@(?:got\.)?plt|@got\S*)?>\s*$", text)
            if match and match[1].startswith("_Z"):
                return quiet(f"demangle -l c++ -- {match[1]}").strip()
            if match:
                return match[1]
    return ""


def _library_call(frames: List[gdb.Frame]) -> str:
    """The library function that the program called."""
    for index, frame in enumerate(frames):
        with contextlib.suppress(*FAILURES):
            if not _is_program(frame):
                continue
            name = frames[index - 1].name() if index else None
            if not name:
                return ""
            if "::" not in name:
                name = _called(frame) or name
            return _without_arguments(name) if "::" in name else _plain(name)
    return _plain(next((n for n in reversed([frame.name() for frame in frames]) if n), ""))


def _argument(session: Session, frames: List[gdb.Frame], kind: str, call: str, at: int) -> str:
    """What the call waits for, as the program's own code names it."""
    if not frames:
        return ""
    own = [frame for frame in frames if _is_program(frame)]
    if kind == "join":
        return waited_object.thread_joined(at, own)
    if not at:
        return ""
    kind_of, _, _ = call.rpartition("::")
    if kind_of:
        return waited_object.of_class(kind_of, at, own, session.kept(Shapes))
    return waited_object.pointer_to(at, own, session.kept(Shapes))


def _thread(session: Session, tid: int) -> Dict[str, Any]:
    """The recorded thread `tid`: gdb's number, its name, the function it is in."""
    number = session.position.thread_numbers.get(tid)
    out: Dict[str, Any] = {"tid": tid, "thread": number, "name": None, "function": None}
    if out["thread"] is None:
        return out
    with contextlib.suppress(*FAILURES), in_thread(tid):
        thread = gdb.selected_thread()
        frames = _frames()
        out["function"] = one_line(_library_call(frames)) or None
        name = thread.name if thread is not None else None
        out["name"] = one_line(name or _start_routine(frames)) or None
    return out


def _start_routine(frames: List[gdb.Frame]) -> str:
    """The outermost function of the program: what the thread was started with."""
    for frame in reversed(frames):
        with contextlib.suppress(*FAILURES):
            if _is_program(frame) and frame.name():
                return str(frame.name())
    return ""
