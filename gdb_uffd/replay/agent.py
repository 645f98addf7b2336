"""Expressions that gdb compiled for the target: conditions of breakpoints, and agent dprintf.

Bytecode of gdb's agent: gdb manual, appendix "The GDB Agent Expression Mechanism"; the numbers
are those of gdb's gdbsupport/ax.def.  It comes from outside, so everything is bounded: steps, the
stack, what is read and what is printed.  Nothing is written, and no tracing is done.
"""

from __future__ import annotations

import re
from typing import Callable, Dict, List, Match, Protocol, Sequence, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.model import MemoryUnavailable, UffdError

STEPS_MAX = 10_000
STACK_MAX = 100
"""As gdbserver's (STACK_MAX in ax.cc)."""
TEXT_MAX = 4096
"""Bytes of a string that `%s` shows, and of a width."""
EXPRESSION_MAX = 1 << 16
"""Bytes of one expression: its jumps have 16 bits."""

_MASK = (1 << 64) - 1


class AgentError(UffdError):
    """An expression that cannot be evaluated: damaged, too long, or of memory that is not there."""


@dataclass(frozen=True)
class Orders:
    """What a breakpoint is to do by itself: stop only if one of `conditions` is not zero (none: in
    any case), and then carry out `commands` and go on, if there are any."""

    conditions: Tuple[bytes, ...] = ()
    commands: Tuple[bytes, ...] = ()


class AgentTarget(Protocol):
    """Where the program stands."""

    def register(self, number: int) -> int:
        """A general register by the target description's number; AgentError for others."""
        ...

    def read(self, address: int, length: int) -> bytes:
        """Memory; MemoryUnavailable."""
        ...


def _signed(value: int, bits: int = 64) -> int:
    value &= (1 << bits) - 1
    return value - (1 << bits) if value >> (bits - 1) else value


def _quotient(a: int, b: int) -> int:
    """As C divides: towards zero."""
    if not b:
        raise AgentError("division by zero")
    return abs(a) // abs(b) * (1 if (a < 0) == (b < 0) else -1)


def _shift(b: int) -> int:
    """A shift by 64 or more leaves nothing; Python would make the number as long as asked."""
    return min(b, 64)


_BINARY: Dict[int, Callable[[int, int], int]] = {
    0x02: lambda a, b: a + b,
    0x03: lambda a, b: a - b,
    0x04: lambda a, b: a * b,
    0x05: lambda a, b: _quotient(_signed(a), _signed(b)),
    0x06: _quotient,
    0x07: lambda a, b: _signed(a) - _quotient(_signed(a), _signed(b)) * _signed(b),
    0x08: lambda a, b: a - _quotient(a, b) * b,
    0x09: lambda a, b: a << _shift(b),
    0x0A: lambda a, b: _signed(a) >> _shift(b),
    0x0B: lambda a, b: a >> _shift(b),
    0x0F: lambda a, b: a & b,
    0x10: lambda a, b: a | b,
    0x11: lambda a, b: a ^ b,
    0x13: lambda a, b: int(a == b),
    0x14: lambda a, b: int(_signed(a) < _signed(b)),
    0x15: lambda a, b: int(a < b),
}
_REFERENCES = {0x17: 1, 0x18: 2, 0x19: 4, 0x1A: 8}
_CONSTANTS = {0x22: 1, 0x23: 2, 0x24: 4, 0x25: 8}
_LOG_NOT, _BIT_NOT, _EXTEND, _IF_GOTO, _GOTO, _REGISTER = 0x0E, 0x12, 0x16, 0x20, 0x21, 0x26
_END, _DUP, _POP, _ZERO_EXTEND, _SWAP, _PICK, _ROT, _PRINTF = (
    0x27, 0x28, 0x29, 0x2A, 0x2B, 0x32, 0x33, 0x34,
)  # fmt: skip


class _Run:
    def __init__(self, code: bytes, place: AgentTarget, show: Callable[[bytes], None]) -> None:
        self.code, self.place, self.show = code, place, show
        self.at = 0
        self.stack: List[int] = []

    def operand(self, size: int) -> int:
        value = self.code[self.at : self.at + size]
        if len(value) != size:
            raise AgentError("the expression is cut short")
        self.at += size
        return int.from_bytes(value, "big")

    def pop(self) -> int:
        if not self.stack:
            raise AgentError("stack underflow")
        return self.stack.pop()

    def push(self, value: int) -> None:
        if len(self.stack) >= STACK_MAX:
            raise AgentError("stack overflow")
        self.stack.append(value & _MASK)

    def run(self) -> int:
        for _ in range(STEPS_MAX):
            op = self.operand(1)
            if op == _END:
                return self.stack[-1] if self.stack else 0
            self.step(op)
        raise AgentError(f"no end within {STEPS_MAX:,} steps")

    def step(self, op: int) -> None:
        if op in _BINARY:
            b, a = self.pop(), self.pop()
            self.push(_BINARY[op](a, b))
        elif op in _CONSTANTS:
            self.push(self.operand(_CONSTANTS[op]))
        elif op in _REFERENCES:
            self.push(self.load(self.pop(), _REFERENCES[op]))
        elif op == _REGISTER:
            self.push(self.place.register(self.operand(2)))
        elif op in (_EXTEND, _ZERO_EXTEND):
            self.extend(self.operand(1), op == _EXTEND)
        elif op in (_IF_GOTO, _GOTO):
            target = self.operand(2)
            if op == _GOTO or self.pop():
                self.at = target
        elif op == _PRINTF:
            self.printf()
        else:
            self.shuffle(op)

    def shuffle(self, op: int) -> None:
        stack = self.stack
        if op == _LOG_NOT:
            self.push(int(not self.pop()))
        elif op == _BIT_NOT:
            self.push(~self.pop())
        elif op == _POP:
            self.pop()
        elif op in (_DUP, _PICK):
            deep = self.operand(1) if op == _PICK else 0
            if deep >= len(stack):
                raise AgentError("stack underflow")
            self.push(stack[-1 - deep])
        elif op == _SWAP:
            b, a = self.pop(), self.pop()
            stack += [b, a]
        elif op == _ROT:  # a b c => c a b
            c, b, a = self.pop(), self.pop(), self.pop()
            stack += [c, a, b]
        else:
            raise AgentError(f"operation {op:#04x} is not for this target")

    def extend(self, bits: int, signed: bool) -> None:
        value = self.pop()
        if 0 < bits < 64:
            value = _signed(value, bits) if signed else value & ((1 << bits) - 1)
        elif not bits:
            raise AgentError("extension of no bits")
        self.push(value)

    def load(self, address: int, size: int) -> int:
        try:
            return int.from_bytes(self.place.read(address, size), "little")
        except MemoryUnavailable as error:
            raise AgentError(f"memory at {error.address:#x} cannot be read") from error

    def printf(self) -> None:
        count, length = self.operand(1), self.operand(2)
        text = self.code[self.at : self.at + length]
        if len(text) != length or not text.endswith(b"\0"):
            raise AgentError("a format without its end")
        self.at += length
        self.pop(), self.pop()  # a function and its channel: gdb's settings, not the agent's
        self.show(_format(text[:-1], [self.pop() for _ in range(count)], self.place))


_DIRECTIVE = re.compile(
    rb"%(?P<flags>[-+ #0]*)(?P<width>\d{0,4})(?P<precision>\.\d{0,4})?"
    rb"(?P<length>hh|h|ll|l|j|z|t)?(?P<kind>[diouxXcsp%])|%"
)
_ESCAPE = re.compile(rb"\\([0-7]{1,3}|.)", re.DOTALL)
_ESCAPES = {
    b"a": b"\a", b"b": b"\b", b"e": b"\x1b", b"f": b"\f", b"n": b"\n", b"r": b"\r", b"t": b"\t",
    b"v": b"\v",
}  # fmt: skip
_BITS = {b"hh": 8, b"h": 16, b"": 32}


def _unescaped(match: "Match[bytes]") -> bytes:
    letter = match[1]
    if letter.isdigit():
        return bytes((int(letter, 8) & 0xFF,))
    return _ESCAPES.get(letter, letter)


def _format(text: bytes, values: Sequence[int], place: AgentTarget) -> bytes:
    """printf(3) of whole numbers, characters, strings and pointers, as gdb's own dprintf does."""
    waiting = list(values)

    def shown(match: "Match[bytes]") -> bytes:
        kind = match["kind"]
        if kind is None:
            raise AgentError("a format that is not for this target")
        if kind == b"%":
            return b"%"
        if not waiting:
            raise AgentError("a format with too few values")
        value, bits = waiting.pop(0), _BITS.get(match["length"] or b"", 64)
        form = b"%" + match["flags"] + match["width"] + (match["precision"] or b"")
        if kind == b"s":
            return (form + b"s") % (_string(value, place) if value else b"(null)")
        if kind == b"p":
            return b"%#x" % value if value else b"(nil)"
        if kind == b"c":
            return (form + b"c") % (value & 0xFF)
        if kind in b"di":
            return (form + b"d") % _signed(value, bits)
        value &= (1 << bits) - 1
        if kind == b"o":  # Python's alternate form is another
            return (form.replace(b"#", b"") + b"o") % value
        return (form + kind.replace(b"u", b"d")) % value

    return _DIRECTIVE.sub(shown, _ESCAPE.sub(_unescaped, text))


def _string(address: int, place: AgentTarget) -> bytes:
    """The bytes up to a NUL, or as many as can be read."""
    out = b""
    while len(out) < TEXT_MAX:
        # Pieces that never reach over the end of a page that is there.
        size = min(64 - (address + len(out)) % 64, TEXT_MAX - len(out))
        try:
            piece = place.read(address + len(out), size)
        except MemoryUnavailable as error:
            if out:
                break
            raise AgentError(f"memory at {error.address:#x} cannot be read") from error
        text, end, _ = piece.partition(b"\0")
        out += text
        if end:
            break
    return out


def _nothing(_text: bytes) -> None:
    """A condition prints nothing."""


def evaluate(code: bytes, place: AgentTarget, show: Callable[[bytes], None] = _nothing) -> int:
    """The value at the end, unsigned; `show` gets what it prints.  AgentError."""
    return _Run(code, place, show).run()


def holds(orders: Orders, place: AgentTarget) -> bool:
    """Whether one of the conditions does.  gdb looks at one that cannot be evaluated itself, and
    tells what is wrong with it."""
    try:
        return not orders.conditions or any(evaluate(c, place) for c in orders.conditions)
    except AgentError:
        return True
