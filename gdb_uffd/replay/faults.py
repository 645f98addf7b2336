"""Why an access of the program failed, where that is our lack and not the program's fault."""

from __future__ import annotations

from typing import Tuple

from gdb_uffd.protocol.model import PROT_WRITE
from gdb_uffd.replay.interface import SHOWN_BY_BT
from gdb_uffd.replay.policy import waiting
from gdb_uffd.replay.vessel import Vessel

STACK_NEAR = 1 << 16
"""Bytes around the stack pointer where an access means the stack; a frame is rarely larger."""


def explain(vessel: Vessel, address: int, pc: int, lack: str) -> Tuple[str, str]:
    """(sentence for the user, page and reason for the report); both "" when it is the program's.

    `lack`: what was missing to bind the call at `pc`, "" where none was to be bound.
    """
    for at in (address, pc):
        if vessel.regions.is_beyond(at):
            return "", ""
        reason = vessel.regions.why(at)
        if reason:
            remedy = vessel.snapshot.remedy(at)
            reason = f"{reason}; {remedy}" if remedy else reason
            if lack and at == pc:
                reason = f"{lack}: {reason}"
            return f"the page at {at:#x} is not in the trace: {reason}", f"{at:#x}: {reason}"
    left_out = vessel.snapshot.left_out
    if left_out and not vessel.regions.is_mapped(address):
        return f"nothing is mapped at {address:#x}: {left_out}", f"{address:#x}: {left_out}"
    return "", ""


def stack_used_up(vessel: Vessel, fault: int, sp: int, floor: int) -> str:
    """A word on an access just below the stack of a call, which has no room left; "" where it is
    none.  `floor`: the stack pointer with which the call began, 0: there is no call."""
    if not floor or fault > floor or not sp - STACK_NEAR <= fault <= sp + STACK_NEAR:
        return ""
    if vessel.regions.allows(fault, PROT_WRITE) or not vessel.regions.allows(floor, PROT_WRITE):
        return ""
    used = waiting.size(floor - sp)
    text = f"the stack is used up, {used} below the call, as by endless recursion"
    return f"{text}; {SHOWN_BY_BT}"
