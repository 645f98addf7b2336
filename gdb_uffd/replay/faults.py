"""Why an access of the program failed, where that is our lack and not the program's fault."""

from __future__ import annotations

from typing import Optional, Tuple

from gdb_uffd.protocol.ends import End
from gdb_uffd.protocol.model import PROT_WRITE
from gdb_uffd.replay.interface import SHOWN_BY_BT
from gdb_uffd.replay.policy import waiting
from gdb_uffd.replay.vessel import Vessel

STACK_NEAR = 1 << 16
"""Bytes around the stack pointer where an access means the stack; a frame is rarely larger."""


def explain(vessel: Vessel, address: int, pc: int, lack: str) -> Tuple[Optional[End], str]:
    """(what the user is told, page and reason for the report); nothing when it is the program's.

    `lack`: what was missing to bind the call at `pc`, "" where none was to be bound.
    """
    for at in (address, pc):
        if vessel.regions.is_beyond(at):
            return None, ""
        reason = vessel.regions.why(at)
        if reason:
            if lack and at == pc:
                reason = f"{lack}: {reason}"
            what = f"the page at {at:#x} is not in the trace"
            return _told(what, at, reason, vessel.snapshot.remedy(at))
    left_out = vessel.snapshot.left_out
    if left_out and not vessel.regions.is_mapped(address):
        return _told(f"nothing is mapped at {address:#x}", address, *left_out)
    return None, ""


def _told(what: str, at: int, reason: str, remedy: str) -> Tuple[End, str]:
    end = End(f"{what}: {reason}", remedy)
    return end, End(f"{at:#x}: {reason}", remedy).text()


def stack_used_up(vessel: Vessel, fault: int, sp: int, floor: int) -> Optional[End]:
    """Of an access just below the stack of a call, which has no room left; None where it is none.
    `floor`: the stack pointer with which the call began, 0: there is no call."""
    if not floor or fault > floor or not sp - STACK_NEAR <= fault <= sp + STACK_NEAR:
        return None
    if vessel.regions.allows(fault, PROT_WRITE) or not vessel.regions.allows(floor, PROT_WRITE):
        return None
    used = waiting.size(floor - sp)
    what = f"the stack is used up, {used} below the call, as by endless recursion"
    return End(what, SHOWN_BY_BT)
