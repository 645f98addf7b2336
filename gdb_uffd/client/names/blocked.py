"""What a called function waits for, by the program's names: the lock, and who holds it."""

from __future__ import annotations

import contextlib
import os
import re
from typing import Any, Dict, List, Optional, Tuple
from weakref import WeakKeyDictionary

import gdb

from gdb_uffd.client.names import addresses
from gdb_uffd.client.session import interrupts, sessions
from gdb_uffd.client.session.asking import code_address, decoded, file_of, quiet
from gdb_uffd.client.session.frames import frame_text
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.session.threads import in_thread
from gdb_uffd.client.session.wire import one_line
from gdb_uffd.protocol.ends import End, PassedLock, Wait
from gdb_uffd.protocol.messages_calls import AskBlocked
from gdb_uffd.protocol.model import UffdError

MAX_FRAMES = 64
LOCK_BYTES = 64
"""The futex lies within so many bytes of the lock's beginning (pthread_rwlock_t has 56)."""

MAX_NAME = 80

_LOOP_BYTES = 1 << 16
"""A function that is larger is not looked through for a loop."""

MAX_LINES = 8
"""Source lines that a call with its arguments may take."""

Named = Tuple[Dict[str, Any], End]
"""A wait as docs/json.md has it, and in words."""

_blocked: "WeakKeyDictionary[Session, Named]" = WeakKeyDictionary()
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
    with contextlib.suppress(UffdError, gdb.error):
        found = session.request(AskBlocked())
        if found is not None:
            _blocked[session] = _named(session, found)


def described(session: Session) -> Optional[Dict[str, Any]]:
    """The wait that the last call ended at, as docs/json.md has it; None when it did not."""
    found = _blocked.get(session)
    return found[0] if found is not None else None


def end(session: Session) -> Optional[End]:
    """ "would block: pthread_mutex_lock(&q->lock), held by thread 3 (worker, in pause)"; None when
    the last call did not end that way."""
    found = _blocked.get(session)
    return found[1] if found is not None else None


def place(address: int) -> str:
    """ "main () at x.c:7": the function, file and line of an instruction; the address where nothing
    tells."""
    with contextlib.suppress(gdb.error, RuntimeError):
        block, sal = gdb.block_for_pc(address), gdb.find_pc_line(address)
        while block is not None and block.function is None:
            block = block.superblock
        if block is not None and block.function is not None:
            where = f" at {os.path.basename(file_of(sal.symtab))}:{sal.line}" if sal.symtab else ""
            return f"{block.function.print_name} (){where}"
    return hex(address)


def passed(session: Session, lock: PassedLock) -> str:
    """A lock that was gone through, and its holder, by name."""
    name = _symbol(lock.address) or f"at {lock.address:#x}"
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


def _named(session: Session, found: Wait) -> Named:
    frames = _frames()
    if found.kind == "spin":
        return _spinning(frames, found)
    address = int(found.address or "0", 16) if found.kind == "lock" else 0
    call, argument = _library_call(frames, address)
    call = call or found.call
    owner = found.owner or (found.stranger if call.startswith("pthread_mutex_") else 0)
    out: Dict[str, Any] = {
        "call": call,
        "system_call": found.call,
        "kind": found.kind,
        "address": found.address or None,
        "lock": argument or None,
        "owner": _thread(session, owner) if owner else None,
    }
    told = _told(out, found.itself)
    return {**out, "text": told.text()}, told


def _spinning(frames: List[gdb.Frame], found: Wait) -> Named:
    """A call that goes in a circle: in which function of the program, and on what."""
    where, name = f"at {found.address}", ""
    for frame in frames:
        with contextlib.suppress(gdb.error, RuntimeError, OverflowError):
            if _is_program(frame):
                where, name = f"at {frame_text(frame).replace(' at ', ' ', 1)}", _read_there(frame)
                break
    waits = "which only another thread writes" if name else "which only another thread could end"
    text = f"spins {where}{f' on {name}' if name else ''}, {waits}"
    out = {
        "call": "spins", "system_call": None, "kind": "spin", "address": found.address,
        "lock": name or None, "owner": None, "text": text,
    }  # fmt: skip
    return out, End(text)


def _read_there(frame: gdb.Frame) -> str:
    """The variable that the innermost loop around the frame's instruction reads, as the code has
    it; "" for none or for several."""
    at, block = code_address(frame), frame.block()
    while block.function is None and block.superblock is not None:
        block = block.superblock
    if block.end - block.start > _LOOP_BYTES:
        return ""
    code = [
        (int(one["addr"]), str(one["asm"]))
        for one in frame.architecture().disassemble(block.start, block.end - 1)
    ]
    loops = [
        (address - int(jump[1], 16), int(jump[1], 16), address)
        for address, text in code
        for jump in [re.match(r"j\w+\s+0x([0-9a-f]+)", text)]
        if jump and int(jump[1], 16) <= at <= address
    ]
    if not loops:
        return ""
    _, low, high = min(loops)
    found = {
        name[1]
        for address, text in code
        for name in [re.search(r"#\s*0x[0-9a-f]+\s*<([\w.$:]+)>", text)]
        if name and low <= address <= high and not text.startswith(("call", "j", "lea"))
    }
    return found.pop() if len(found) == 1 else ""


def _told(found: Dict[str, Any], is_self: bool) -> End:
    what = f"would block: {found['call']}({found['lock'] or found['address'] or ''})"
    owner = found["owner"]
    if found["kind"] == "lock" and is_self:
        return End(f"{what}, held by this thread itself")
    if owner is None:
        held = ", which is held" if found["kind"] == "lock" else ""
        return End(f"{what}{held}, and no other thread runs")
    who = _holder(owner)
    if found["kind"] == "join":
        return End(f"{what}, which waits for {who} to end", "it does not run")
    return End(f"{what}, held by {who}")


def _frames() -> List[gdb.Frame]:
    """The selected thread's frames, innermost first, up to gdb's dummy frame."""
    frames: List[gdb.Frame] = []
    with contextlib.suppress(gdb.error):
        frame: Optional[gdb.Frame] = gdb.newest_frame()
        while frame is not None and frame.type() != gdb.DUMMY_FRAME and len(frames) < MAX_FRAMES:
            frames.append(frame)
            frame = frame.older()
    return frames


def _is_program(frame: gdb.Frame) -> bool:
    """Whether the frame has source lines, and is not of a system library that has them, too;
    templates of the C++ library are compiled into the program, but are the library's."""
    if re.match(r"(?:[\w:]+(?:<.*>)? )?(?:std|__gnu_cxx)::", frame.name() or ""):
        return False
    symtab = frame.find_sal().symtab
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


def _object(frame: gdb.Frame, function: str) -> str:
    """ "changed" where the source has "changed.wait (...)": what a member function is called on."""
    member = re.escape(function.rsplit("::", 1)[-1])
    match = re.search(r"([\w.:\[\]>-]*[\w\]])\s*(?:\.|->)\s*" + member + r"\s*\(", _source(frame))
    return match[1] if match is not None and len(match[1]) <= MAX_NAME else ""


def _called(frame: gdb.Frame) -> str:
    """The function that the instruction before the frame's pc calls, as the linker names it: the
    innermost frames of the library may be of functions that it had jumped to.  "" where that
    instruction does not tell."""
    for length in (5, 6):  # call rel32; call *disp32(%rip), as -fno-plt makes it
        if frame.pc() < length:
            return ""
        with contextlib.suppress(gdb.error):
            text = quiet(f"x/i {frame.pc() - length:#x}")
            match = re.search(r"\bcallq?\s.*<([\w$.]+)(?:@(?:got\.)?plt|@got\S*)?>\s*$", text)
            if match and match[1].startswith("_Z"):
                return quiet(f"demangle -l c++ -- {match[1]}").strip()
            if match:
                return match[1]
    return ""


def _library_call(frames: List[gdb.Frame], address: int) -> "tuple[str, str]":
    """The library function that the program called, and its first argument's text where the
    source has it and it is the object that holds `address` (0: any)."""
    for index, frame in enumerate(frames):
        with contextlib.suppress(gdb.error):
            if not _is_program(frame):
                continue
            name = frames[index - 1].name() if index else None
            if not name:
                return "", _symbol(address)
            if "::" not in name:
                name = _called(frame) or name
            if "::" in name:
                plain = _without_arguments(name)
                return plain, _object(frame, plain) or _symbol(address)
            plain = _plain(name)
            return plain, _argument(frame, plain, address) or _symbol(address)
    names = [frame.name() for frame in frames]
    return _plain(next((n for n in reversed(names) if n), "")), _symbol(address)


def _source(frame: gdb.Frame) -> str:
    """The frame's source lines from the current one on."""
    sal = frame.find_sal()
    if sal.symtab is None:
        return ""
    symtab = sal.symtab
    path = decoded(lambda: symtab.fullname())
    try:
        with open(path, encoding="utf-8", errors="replace") as file:
            lines = file.read(4 << 20).split("\n")
    except (OSError, ValueError):
        return ""
    return "\n".join(lines[max(0, sal.line - 1) : sal.line - 1 + MAX_LINES])


def first_argument(source: str, function: str) -> str:
    """The text of the first argument in the first call of `function`; "" when there is none."""
    match = re.search(r"\b" + re.escape(function) + r"\s*\(", source)
    if match is None:
        return ""
    depth, start = 0, match.end()
    for at in range(start, len(source)):
        letter = source[at]
        if letter in "([{":
            depth += 1
        elif (letter in ")]}" and depth == 0) or (letter == "," and depth == 0):
            return " ".join(source[start:at].split())
        elif letter in ")]}":
            depth -= 1
    return ""


def _argument(frame: gdb.Frame, function: str, address: int) -> str:
    text = first_argument(_source(frame), function)
    if not text or len(text) > 200 or re.search(r"[;\"'{}=]|\+\+|--|\w\s*\(", text):
        return ""  # evaluating it must neither call nor change anything
    if not address:
        return text
    before = gdb.selected_frame()
    try:
        frame.select()
        value = gdb.parse_and_eval(text)
        return text if 0 <= address - int(value) < LOCK_BYTES else ""
    except (gdb.error, OverflowError, ValueError):
        return ""
    finally:
        before.select()


def _symbol(address: int) -> str:
    """ "&queue.lock": by the symbol that holds the address; "" when none does."""
    known = addresses.variable(address) if address else None
    if known is None:
        return ""
    distance = address - known.address
    return f"{address:#x} <{known.name}+{distance}>" if distance else f"&{known.name}"


def _thread(session: Session, tid: int) -> Dict[str, Any]:
    """The recorded thread `tid`: gdb's number, its name, the function it is in."""
    out: Dict[str, Any] = {
        "tid": tid, "thread": session.thread_numbers.get(tid), "name": None, "function": None,
    }  # fmt: skip
    if out["thread"] is None:
        return out
    with contextlib.suppress(gdb.error), in_thread(tid):
        thread = gdb.selected_thread()
        frames = _frames()
        call, _ = _library_call(frames, 0)
        out["function"] = one_line(call) or None
        name = thread.name if thread is not None else None
        out["name"] = one_line(name or _start_routine(frames)) or None
    return out


def _start_routine(frames: List[gdb.Frame]) -> str:
    """The outermost function of the program: what the thread was started with."""
    for frame in reversed(frames):
        with contextlib.suppress(gdb.error):
            if _is_program(frame) and frame.name():
                return str(frame.name())
    return ""
