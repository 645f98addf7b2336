"""The `quffd` packets of the policy (docs/protocol.md): what the program may do, why it waits
or ended."""

from __future__ import annotations

from dataclasses import asdict
from typing import Any, Callable, Dict

from gdb_uffd.server.session import StubSession

Arguments = Dict[str, Any]


def _policy(session: StubSession, arguments: Arguments) -> Any:
    """Sets what the arguments name; all that holds now comes back."""
    from gdb_uffd.replay.policy.policy import Policy  # needs the native module

    diversion = session.diversion
    if arguments:
        diversion.policy = Policy.parse({**asdict(diversion.policy), **arguments})
        session.forget_registers()
    return asdict(diversion.policy)


def _blocked(session: StubSession, _arguments: Arguments) -> Any:
    return session.diversion.blocked


def _uncaught(session: StubSession, _arguments: Arguments) -> Any:
    return session.diversion.thrown.last


VERBS: Dict[str, Callable[[StubSession, Arguments], Any]] = {
    "policy": _policy,
    "blocked": _blocked,
    "uncaught": _uncaught,
}
