"""What a `Z0` packet orders a breakpoint to do by itself.

gdb manual, "Packets", `Z0,addr,kind[;cond_list...][;cmds:persist,cmd_list...]`: a list is `X`, the
length of an expression in hex, a comma and its bytes in hex, one after the other.
"""

from __future__ import annotations

import errno
from typing import List, Optional, Tuple

from gdb_uffd.replay.agent import EXPRESSION_MAX, Orders
from gdb_uffd.server.session import PacketError, parse_hex

_COMMANDS = b"cmds:"


def parse(text: bytes) -> Optional[Orders]:
    """The orders behind the packet's third field; None where there are none.  PacketError."""
    conditions: List[bytes] = []
    commands: List[bytes] = []
    for part in text.split(b";"):
        if part.startswith(b"X"):
            conditions += _expressions(part)
        elif part.startswith(_COMMANDS):
            # `persist` is of what goes on when gdb has left: here nothing does.
            commands += _expressions(part[len(_COMMANDS) :].partition(b",")[2])
        # gdbserver passes over what it does not know, too.
    if not conditions and not commands:
        return None
    return Orders(tuple(conditions), tuple(commands))


def _expressions(text: bytes) -> List[bytes]:
    out = []
    while text:
        expression, text = _first(text)
        out.append(expression)
    return out


def _first(text: bytes) -> Tuple[bytes, bytes]:
    size, separator, rest = text[1:].partition(b",")
    length = parse_hex(size) if separator and text[:1] == b"X" else 0
    if not 0 < length <= EXPRESSION_MAX or len(rest) < 2 * length:
        raise PacketError(errno.EINVAL)
    try:
        return bytes.fromhex(rest[: 2 * length].decode("ascii")), rest[2 * length :]
    except ValueError:
        raise PacketError(errno.EINVAL) from None
