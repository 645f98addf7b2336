"""Which of the tracking engines (native/pager/tracker.h) is used: what works here, tried out.

Nothing is told from the kernel's version.  What userfaultfd offers is asked with a throw-away
descriptor, bit by bit; whether an engine works is found out by a trial (native/effects/trial.h).
"""

from __future__ import annotations

import functools
from dataclasses import field
from typing import Any, Callable, Dict, List, Tuple

from gdb_uffd.dataclass import dataclass
from gdb_uffd.native import ffi, lib
from gdb_uffd.protocol.model import ENGINE_AUTO, ENGINES, UffdError
from gdb_uffd.replay.interface import Choice


@dataclass(frozen=True)
class Tracker:
    """What a user is told of an engine; how it works is C (`struct tracker_kind`)."""

    strength: str
    """Why it is chosen where it is the first that works."""
    lost: str
    """What is lost where it does not work."""


TRACKERS: Dict[str, Tracker] = {
    "wp-sync": Tracker(
        strength="it alone tells who wrote each page first",
        lost="who wrote a page first will not be known",
    ),
    "wp-async": Tracker(
        strength="a write costs least with it",
        lost="a call made many times costs about 3 µs more a written page",
    ),
    "soft-dirty": Tracker(
        strength="nothing else works",
        lost="nothing is lost: it is there to compare with",
    ),
    "compare": Tracker(
        strength="it needs nothing of the kernel but missing pages",
        lost="nothing is left where the others fail",
    ),
}
"""By the name that C and model.ENGINES have, too."""

FOR_CALLS = ("wp-sync", "wp-async", "compare", "soft-dirty")
"""What `auto` tries for calls that a user looks at: who wrote first is worth 3 µs a page.
soft-dirty last: comparing finds the same bytes for a thousandth of its price."""

FOR_MASSES = ("wp-async", "wp-sync", "compare", "soft-dirty")
"""What `auto` tries where a call is made many times and nobody asks who wrote."""

NEEDED = {
    1 << 0: "write-protection",
    1 << 8: "faulting thread's id",
    1 << 15: "asynchronous write-protection",
}
"""UFFD_FEATURE_* bits (<linux/userfaultfd.h>) that some engine cannot do without."""

FORBIDDEN = (
    "as root: sysctl vm.unprivileged_userfaultfd=1, or give this user access to /dev/userfaultfd"
)
"""The remedy where userfaultfd(2) gives EPERM."""

_WAYS: Dict[int, str] = {
    lib.UFFD_DEVICE: "/dev/userfaultfd",
    lib.UFFD_SYSCALL: "the system call",
    lib.UFFD_USER_MODE: "the system call, user mode only",
}
WAYS = tuple(_WAYS[way] for way in sorted(_WAYS))
"""To a userfaultfd, in a user's words, in the order in which they are tried."""


def choose(setting: str, mass: bool, failure: Callable[[str], str]) -> Choice:
    """The engine for a new vessel.

    `failure`: "" when an engine works here, else what is wrong.  `mass`: many calls are to come
    whose reports nobody sees.  UffdError when the one that was asked for, or every one, fails.
    """
    if setting != ENGINE_AUTO:
        wrong = failure(setting)
        if wrong:
            raise UffdError(
                f"the engine {setting} does not work here: {wrong}; `set uffd engine auto` "
                "takes the best that does"
            )
        return Choice(setting)
    failed: List[Tuple[str, str]] = []
    for name in FOR_MASSES if mass else FOR_CALLS:
        wrong = failure(name)
        if not wrong:
            said = [f"{other}: {why}" for other, why in failed]
            return Choice(name, "; ".join([TRACKERS[name].strength, *said]))
        failed.append((name, wrong))
    # None works, so it is not for what one of them needs.
    raise UffdError(failed[0][1])


class Kernel:
    """What this kernel offers this process."""

    def __init__(self) -> None:
        self.offer = ffi.new("struct uffd_offer *")
        self.offer_rc = int(lib.uffd_negotiate(self.offer))
        self._works: Dict[str, bool] = {}

    @property
    def ways(self) -> Tuple[int, ...]:
        """0 or -errno of each way to a userfaultfd, as WAYS names them."""
        return tuple(self.offer.rc)

    def failure(self, name: str) -> str:
        """ "" when the engine works here, else what is wrong.

        Only success is remembered: a setting of the machine may change.
        """
        if not self._works.get(name):
            error = ffi.new("struct error *")
            if self.offer_rc < 0:
                self.offer_rc = int(lib.uffd_negotiate(self.offer))
            lacking = self.offer_rc == 0 and self._lacking(name)
            if lacking:
                return f"this kernel's userfaultfd has no {lacking}"
            if lib.trial_run(_kind(name), self.offer, error) < 0:
                return ffi.string(error.text).decode("utf-8", "replace") or "the trial failed"
            self._works[name] = True
        return ""

    def _lacking(self, name: str) -> str:
        """The features that the engine cannot do without and that are not offered, in words."""
        lacking = ffi.new("uint64_t *")
        lib.tracker_features(_kind(name), self.offer.features, lacking)
        return ", ".join(text for bit, text in NEEDED.items() if lacking[0] & bit)


def _kind(name: str) -> Any:
    """Its `struct tracker_kind`."""
    found = lib.tracker_named(name.encode("ascii"))
    if not found:
        raise KeyError(name)
    return found


@functools.lru_cache(maxsize=1)
def kernel() -> Kernel:
    """Asked once a process."""
    return Kernel()


@dataclass
class TrackerChoice:
    """What is asked for, and what the present (or last) vessel got."""

    setting: str = ENGINE_AUTO
    mass: bool = False
    choice: Choice = field(default_factory=lambda: Choice("", ""))

    def prefer(self, setting: str, mass: bool) -> None:
        """Ask for another one, unchecked, from the next vessel on."""
        self.setting, self.mass = setting, mass

    def prepare(self, tracker: Any) -> None:
        """Fill a `struct tracker` for a new vessel.  UffdError as `choose`."""
        self.choice = choose(self.setting, self.mass, kernel().failure)
        tracker.kind = _kind(self.choice.name)
        tracker.offer = kernel().offer[0]

    def set(self, name: str) -> Choice:
        """Ask for another one.  UffdError when it is none, or does not work here."""
        if name != ENGINE_AUTO and name not in ENGINES:
            known = ", ".join((ENGINE_AUTO, *ENGINES))
            raise UffdError(f"no engine {name!r}: there are {known}")
        chosen = choose(name, self.mass, kernel().failure)
        self.setting = name
        return chosen
