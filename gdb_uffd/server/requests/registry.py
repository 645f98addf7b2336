"""What stands at each handler of a request: which one it is, and when it may come."""

from __future__ import annotations

from typing import Any, Callable, Dict, Type, TypeVar

from gdb_uffd.dataclass import dataclass
from gdb_uffd.protocol.messages import Request
from gdb_uffd.server.session import StubSession

Q = TypeVar("Q", bound=Request[Any])
R = TypeVar("R")
Handler = Callable[[StubSession, Any], Any]


@dataclass(frozen=True)
class Registered:
    """A request and who answers it."""

    kind: Type[Request[Any]]
    handler: Handler
    looking: bool
    rerun: bool


REQUESTS: Dict[str, Registered] = {}
"""All of them by name, once `answer` is imported."""


def request(
    kind: Type[Q], looking: bool = False, rerun: bool = False
) -> Callable[[Callable[[StubSession, Q], R]], Callable[[StubSession, Q], R]]:
    """The function below answers that request, with a value of its REPLY; what it raises as
    UffdError is told.  `looking`: it leaves the view as it is (quffd.view), all others end it;
    `rerun`: it leaves alone what is run again (quffd.why), all others stop the process that
    runs."""

    def register(handler: Callable[[StubSession, Q], R]) -> Callable[[StubSession, Q], R]:
        assert kind.NAME not in REQUESTS, kind.NAME
        REQUESTS[kind.NAME] = Registered(kind, handler, looking, rerun)
        return handler

    return register
