"""After each test of this folder no server and no vessel may be left."""

from __future__ import annotations

from pathlib import Path
from typing import Any, Callable, Iterator

import pytest
from harness import gdbs, survivors, traces


@pytest.fixture(autouse=True)
def no_survivors() -> Iterator[None]:
    """Set up first, so torn down last: after the gdb of the test has been ended."""
    yield
    left = survivors.remaining(seconds=10)
    assert not left, "left running: " + "; ".join(left)


TRIP_ASKED = [
    *("print counter", "print *head", "print phase", "print text", "print mine", "print odd"),
    *("print sum()", "bt", "info registers rip rsp rbp", "print $_siginfo.si_signo"),
]
TRIP_LABELS = ["begin", "", "threads", "plugin", "", "late", "crash"]


@pytest.fixture(scope="session")
def trip(built: Path, tmp_path_factory: pytest.TempPathFactory) -> traces.Made:
    """The trace of tests/programs/trip.c: seven instants, the last one its crash."""
    if not gdbs.PYPI_GDB.exists():
        pytest.skip("no gdb 18.1 for the live process: run `make gdb`")
    command = [str(built / "trip"), str(built / "plugin.so")]
    folder = tmp_path_factory.mktemp("trip")
    return traces.of_live(folder, command, "at", TRIP_LABELS, TRIP_ASKED)


@pytest.fixture
def trip_gdb(opened: Callable[..., gdbs.Gdb], trip: traces.Made) -> gdbs.Gdb:
    """A gdb with that trace opened."""
    return opened(trip.path)


SCRIPTS = "/usr/share/gdb/auto-load"


def with_printers(
    opened: Callable[..., gdbs.Gdb], core: Path, expression: str, shown: str
) -> gdbs.Gdb:
    """gdb with libstdc++'s printers, which gdb 18.1 from PyPI does not find by itself."""
    allowed = f"add-auto-load-safe-path {SCRIPTS}"
    gdb = opened(core, [allowed, f"add-auto-load-scripts-directory {SCRIPTS}"])
    gdb.run("frame function main")
    if shown not in gdb.run(f"print {expression}"):
        pytest.skip("libstdc++'s printers are not installed for gdb")
    return gdb


@pytest.fixture
def containers(opened: Callable[..., gdbs.Gdb], all_cores: Any) -> gdbs.Gdb:
    """A gdb at the core of tests/programs/containers.cpp."""
    return with_printers(opened, all_cores.containers(), "ages", "std::map with 3 elements")


@pytest.fixture
def holders(opened: Callable[..., gdbs.Gdb], all_cores: Any) -> gdbs.Gdb:
    """A gdb at the core of tests/programs/holders.cpp."""
    return with_printers(opened, all_cores.holders(), "table", "std::map with 1 element")
