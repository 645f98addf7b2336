"""Why an access of the program failed, where that is our lack and not the program's fault."""

from __future__ import annotations

from typing import Optional

from gdb_uffd.protocol.ends import End, Unavailable
from gdb_uffd.protocol.model import PROT_WRITE
from gdb_uffd.replay.vessel import Vessel

STACK_NEAR = 1 << 16
"""Bytes around the stack pointer where an access means the stack; a frame is rarely larger."""


def explain(vessel: Vessel, address: int, pc: int, lack: str) -> Optional[End]:
    """What was touched that the trace does not hold; None when the fault is the program's.

    `lack`: what was missing to bind the call at `pc`, "" where none was to be bound.
    """
    for at in (address, pc):
        if vessel.regions.is_beyond(at):
            return None
        reason = vessel.regions.why(at)
        if reason:
            remedy = vessel.snapshot.remedy(at)
            missing = Unavailable(at, reason, remedy, lack=lack if at == pc else "")
            return End("unavailable", address=at, unavailable=missing)
    left_out = vessel.snapshot.left_out
    if left_out and not vessel.regions.is_mapped(address):
        missing = Unavailable(address, *left_out, mapped=False)
        return End("unavailable", address=address, unavailable=missing)
    return None


def stack_used_up(vessel: Vessel, fault: int, sp: int, floor: int) -> Optional[End]:
    """Of an access just below the stack of a call, which has no room left; None where it is none.
    `floor`: the stack pointer with which the call began, 0: there is no call."""
    if not floor or fault > floor or not sp - STACK_NEAR <= fault <= sp + STACK_NEAR:
        return None
    if vessel.regions.allows(fault, PROT_WRITE) or not vessel.regions.allows(floor, PROT_WRITE):
        return None
    return End("stack", limit=floor - sp)
