"""Fixtures: built programs, cores of each dialect, gdb sessions, and a look for survivors."""

from __future__ import annotations

import re
import signal
import zlib
from pathlib import Path
from typing import Callable, Iterator, List, Optional, Sequence, Tuple

import pytest
from harness import SLOWNESS, cores, gdbs, programs, queue, survivors
from harness.pool import Pool, Shared
from hypothesis import HealthCheck, settings


@pytest.hookimpl(tryfirst=True)  # before pytest-timeout reads it
def pytest_configure(config: pytest.Config) -> None:
    limit = config.option.timeout
    limit = config.getini("timeout") if limit is None else limit
    config.option.timeout = round(SLOWNESS * float(limit))
    # hypothesis' own limits, at an example (200 ms) and at making the first ones.
    settings.register_profile(
        "here", deadline=200 * SLOWNESS, suppress_health_check=[HealthCheck.too_slow]
    )
    settings.load_profile("here")
    # A shell without job control starts what runs behind `&` with two of these ignored (POSIX,
    # "Asynchronous Lists"), nohup(1) with the third, and programs inherit that.
    for number in (signal.SIGINT, signal.SIGQUIT, signal.SIGHUP):
        if signal.getsignal(number) is signal.SIG_IGN:
            handler = signal.default_int_handler if number == signal.SIGINT else signal.SIG_DFL
            signal.signal(number, handler)
    survivors.become_subreaper()


def pytest_addoption(parser: pytest.Parser) -> None:
    parser.addoption("--queue", metavar="FOLDER", help="only what no other run with FOLDER took")
    parser.addoption("--every-gdb", action="store_true", help="each test on each gdb there is")


def _on_one_gdb(item: pytest.Item, present: List[str]) -> bool:
    """Whether its gdb is the one of `present` that its name draws, or it asks for all."""
    asked = getattr(item, "callspec", None)
    if asked is None or "gdb_path" not in asked.params or item.get_closest_marker("every_gdb"):
        return True
    mine = asked.params["gdb_path"]
    name = item.nodeid.replace(gdbs.label(mine), "")
    return bool(mine == present[zlib.crc32(name.encode()) % len(present)])


def _leave_out(config: pytest.Config, items: List[pytest.Item], kept: List[pytest.Item]) -> None:
    keys = {id(item) for item in kept}
    config.hook.pytest_deselected(items=[item for item in items if id(item) not in keys])
    items[:] = kept


@pytest.hookimpl(trylast=True)
def pytest_collection_modifyitems(config: pytest.Config, items: List[pytest.Item]) -> None:
    """Leave out what another gdb runs.  The same is chosen whoever chooses."""
    if not config.getoption("every_gdb") and not any("::" in one for one in config.args):
        present = gdbs.present()
        _leave_out(config, items, [item for item in items if _on_one_gdb(item, present)])
    for item in items:
        limit = item.get_closest_marker("timeout")
        if limit is not None:
            item.add_marker(pytest.mark.timeout(round(SLOWNESS * limit.args[0])), append=False)


@pytest.hookimpl(tryfirst=True)
def pytest_runtestloop(session: pytest.Session) -> Optional[bool]:
    """With --queue the modules that this run takes, one after the other."""
    folder = session.config.getoption("queue")
    if not folder or session.testsfailed or session.config.option.collectonly:
        return None
    shared = queue.Queue(Path(folder), session.items)
    mine = shared.items()
    item = next(mine, None)
    while item is not None:
        following = next(mine, None)  # its fixtures are kept where it has the same
        item.config.hook.pytest_runtest_protocol(item=item, nextitem=following)
        shared.note(item)
        if session.shouldfail:
            raise session.Failed(session.shouldfail)
        if session.shouldstop:
            raise session.Interrupted(session.shouldstop)
        item = following
    return True


def pytest_generate_tests(metafunc: pytest.Metafunc) -> None:
    """A test that asks for `gdb_path` (the `gdb` fixture does) has a case for each gdb there is."""
    if "gdb_path" in metafunc.fixturenames:
        found = gdbs.present()
        metafunc.parametrize("gdb_path", found, ids=[gdbs.label(g) for g in found], scope="session")


@pytest.fixture(scope="session")
def built() -> Path:
    """The folder with the programs of tests/programs, built with -g."""
    return programs.build()


class Cores:
    """Cores by what they are of, each made once a run."""

    def __init__(self, built: Path, folder: Path) -> None:
        self.built = built
        self.folder = folder
        self._made: dict[str, Path] = {}

    def _kernel(self, label: str, command: List[str]) -> Path:
        if label not in self._made:
            try:
                self._made[label] = cores.kernel_core(command, self.folder / label)
            except cores.NoKernelCore as why:
                pytest.skip(f"no kernel core: {why}")
        return self._made[label]

    def sample(self) -> Path:
        """The demo's sample, crashed by SIGSEGV, three threads."""
        return self._kernel("sample", [str(self.built / "sample")])

    def sample_static(self) -> Path:
        """The same, statically linked."""
        return self._kernel("sample-static", [str(self.built / "sample-static")])

    def zoo(self, how: str = "abort") -> Path:
        """The zoo, ended by `how`: "abort" or "segv"."""
        command = [str(self.built / "zoo"), str(self.built / "plugin.so"), how]
        return self._kernel("zoo-" + how, command)

    def shapes(self) -> Path:
        """The C++ program, aborted."""
        return self._kernel("shapes", [programs.find(self.built, "shapes"), "abort"])

    def writes(self) -> Path:
        """The program that notes its own writes, aborted."""
        return self._kernel("writes", [str(self.built / "writes"), "abort"])

    def names(self, program: str = "names", *more: str) -> Path:
        """The program that notes its writes by name, aborted; `more`: its other arguments."""
        command = [str(self.built / program), str(self.built / "namesplugin.so"), *more]
        return self._kernel("-".join([program, *more]), command)

    def heaps(self, program: str = "heaps", *arguments: str) -> Path:
        """The program that keeps accounts of its heap, aborted."""
        return self._kernel(
            "-".join([program, *arguments]), [str(self.built / program), *arguments]
        )

    def stops(self) -> Path:
        """The program of ends, watchpoints and system calls, aborted."""
        return self._kernel("stops", [str(self.built / "stops")])

    def prints(self) -> Path:
        """The program that prints control sequences, aborted."""
        return self._kernel("prints", [str(self.built / "prints")])

    def through(self, program: str) -> Path:
        """Writes through libraries and headers (through, through-o2), aborted."""
        return self._kernel(program, [str(self.built / program)])

    def unwinds(self, program: str) -> Path:
        """Writes through frames of all kinds (programs.UNWINDS), aborted."""
        return self._kernel(program, [programs.find(self.built, program)])

    def throws(self, program: str) -> Path:
        """Functions that let exceptions through (throws, throws-bare, throws-static), aborted."""
        return self._kernel(program, [str(self.built / program)])

    def arrays(self) -> Path:
        """Objects in a row, and others, behind pointers; aborted."""
        return self._kernel("arrays", [str(self.built / "arrays")])

    def moves(self) -> Path:
        """Memory that moves, aborted."""
        return self._kernel("moves", [str(self.built / "moves")])

    def marks(self) -> Path:
        """Objects with and without a size, aborted."""
        return self._kernel("marks", [programs.find(self.built, "marks")])

    def holders(self) -> Path:
        """std::optional, std::variant, vectors with room, long names; aborted."""
        return self._kernel("holders", [programs.find(self.built, "holders")])

    def containers(self) -> Path:
        """C++ containers of all kinds, aborted."""
        return self._kernel("containers", [programs.find(self.built, "containers")])

    def vector(self, kind: str) -> Path:
        """Known vector registers; `kind` is "avx" or "avx512"; skipped where the CPU has none."""
        flags = Path("/proc/cpuinfo").read_text(encoding="utf-8").split()
        if {"avx": "avx", "avx512": "avx512f"}[kind] not in flags:
            pytest.skip(f"this CPU has no {kind}")
        return self._kernel("vector-" + kind, [str(self.built / "vector"), kind])

    def gcore(self, gdb: str) -> Path:
        """The zoo stopped in checkpoint(0) under `gdb`, written by its gcore."""
        label = "gcore-" + gdbs.label(gdb)
        if label not in self._made:
            target = self.folder / label
            env = gdbs.environment(self.folder / "home")
            arguments = [str(self.built / "plugin.so"), "pause"]
            where = "checkpoint if depth_left == 0"
            self._made[label] = cores.gcore(gdb, self.built / "zoo", arguments, where, target, env)
        return self._made[label]


@pytest.fixture(scope="session")
def all_cores(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Cores:
    """Cores of the test programs, made at first use."""
    return Cores(built, tmp_path_factory.mktemp("cores"))


@pytest.fixture
def start_gdb(gdb_path: str, tmp_path: Path) -> Iterator[Callable[..., gdbs.Gdb]]:
    """Starts gdb with our init file; keywords as for `gdbs.Gdb`.  Ended after the test."""
    started: List[gdbs.Gdb] = []

    def start(**keywords: object) -> gdbs.Gdb:
        session = gdbs.Gdb(gdb_path, tmp_path / "home", **keywords)  # type: ignore[arg-type]
        started.append(session)
        return session

    yield start
    for session in started:
        session.quit()


@pytest.fixture(scope="session")
def shared_gdbs(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Pool]:
    """What tests marked `shared_gdb` take."""
    pool = Pool(tmp_path_factory.mktemp("shared"))
    yield pool
    pool.close()


def _shares(request: pytest.FixtureRequest) -> bool:
    marked = request.node.get_closest_marker
    return marked("shared_gdb") is not None and marked("own_gdb") is None


@pytest.fixture
def gdb(request: pytest.FixtureRequest, gdb_path: str, shared_gdbs: Pool) -> Iterator[gdbs.Gdb]:
    """A gdb with our commands, nothing opened: a fresh one, or where the test or its module is
    marked `shared_gdb` (and not `own_gdb`) one that others had before."""
    if not _shares(request):
        yield request.getfixturevalue("start_gdb")()
        return
    shared = shared_gdbs.take(gdb_path, None)
    yield shared.gdb
    shared_gdbs.give_back(shared)


@pytest.fixture
def opened(
    request: pytest.FixtureRequest, gdb_path: str, tmp_path: Path, shared_gdbs: Pool
) -> Iterator[Callable[..., gdbs.Gdb]]:
    """Gives a gdb that has a core or trace opened, after some commands: fresh or not, as `gdb`;
    what this test made is no other's, and neither is a gdb that opened it."""
    taken: List[Shared] = []

    def fresh(path: Path, first: Sequence[str] = ()) -> gdbs.Gdb:
        session: gdbs.Gdb = request.getfixturevalue("start_gdb")()
        for command in first:
            session.run(command)
        session.spawned = session.run(f"uffd spawn {path}")
        return session

    def shared(path: Path, first: Sequence[str] = ()) -> gdbs.Gdb:
        if tmp_path in Path(path).parents:
            return fresh(path, first)
        taken.append(shared_gdbs.take(gdb_path, path, first))
        return taken[-1].gdb

    yield shared if _shares(request) else fresh
    for one in taken:
        shared_gdbs.give_back(one)


@pytest.fixture
def sample(opened: Callable[..., gdbs.Gdb], all_cores: Cores) -> gdbs.Gdb:
    """A gdb with the sample's kernel core opened."""
    return opened(all_cores.sample())


@pytest.fixture
def zoo(opened: Callable[..., gdbs.Gdb], all_cores: Cores) -> gdbs.Gdb:
    """A gdb with the zoo's kernel core (abort) opened."""
    return opened(all_cores.zoo())


@pytest.fixture
def stops(opened: Callable[..., gdbs.Gdb], all_cores: Cores) -> gdbs.Gdb:
    """A gdb with the core of the program of ends, watchpoints and system calls opened."""
    return opened(all_cores.stops())


@pytest.fixture
def names(opened: Callable[..., gdbs.Gdb], all_cores: Cores) -> gdbs.Gdb:
    """A gdb with the core of the program that notes its writes by name opened."""
    return opened(all_cores.names())


@pytest.fixture
def shapes(opened: Callable[..., gdbs.Gdb], all_cores: Cores) -> gdbs.Gdb:
    """A gdb with the C++ program's kernel core opened."""
    return opened(all_cores.shapes())


@pytest.fixture
def writes(opened: Callable[..., gdbs.Gdb], all_cores: Cores) -> gdbs.Gdb:
    """A gdb with the core of the program that notes its own writes opened."""
    return opened(all_cores.writes())


class Oracle:
    """The same program alive under a native gdb 18.1, stopped in checkpoint(0).

    gdb 13.1 cannot finish a native call on CPUs with AMX ("Couldn't write extended state
    status"), so it is no oracle.  The core is gcore's of that very process: addresses agree.
    """

    def __init__(self, built: Path, folder: Path, program: str, where: str, args: str) -> None:
        self.built, self.folder, self.program = built, folder, program
        self.where, self.args = where, args
        self._core: Path | None = None

    def _live(self) -> gdbs.Gdb:
        session = gdbs.Gdb(
            str(gdbs.PYPI_GDB),
            self.folder / "home",
            [programs.find(self.built, self.program)],
            init=None,
        )
        session.run(f"break {self.where}")
        stopped = session.run(f"run {self.args}")
        assert "Breakpoint 1" in stopped, stopped
        session.run("delete")
        return session

    @property
    def core(self) -> Path:
        """The core of the stopped process."""
        if self._core is None:
            target = self.folder / f"{self.program}.core"
            session = self._live()
            written = session.run(f"gcore {target}")
            session.run("kill")
            session.quit()
            assert target.exists(), written
            self._core = target
        return self._core

    def watch(self, name: str, call: str) -> List[Tuple[str, str, List[str]]]:
        """What a watchpoint of a live process tells while `call` runs: (old, new, functions)."""
        session = self._live()
        found: List[Tuple[str, str, List[str]]] = []
        try:
            # A watchpoint does not stop a call that was made from the prompt, but it does
            # after a breakpoint in it.
            session.run(f"tbreak {call.partition('(')[0]}")
            session.run(f"print {call}")
            session.run(f"watch {name}")
            text = session.run("continue", timeout=60)
            while True:
                values = re.search(r"Old value = (.*?)\nNew value = (.*?)\n", text)
                if values is None:
                    return found
                frames = session.run("bt -frame-info location -frame-arguments none")
                inside = frames.split("<function called from gdb>")[0]
                functions = re.findall(r"^#\d+ +(?:0x\w+ in )?(\w+)", inside, re.M)
                found.append((values[1], values[2], functions))
                text = session.run("continue", timeout=60)
        finally:
            session.run("kill")
            session.quit()

    def values(self, expressions: List[str]) -> List[str]:
        """What `print` shows for each, in this order, in one live process of its own."""
        session = self._live()
        try:
            return [session.value(e) for e in expressions]
        finally:
            session.run("kill")
            session.quit()


def _oracle(built: Path, folder: Path, program: str, where: str, args: str) -> Oracle:
    if not gdbs.PYPI_GDB.exists():
        pytest.skip("no gdb 18.1 as oracle: run `make gdb`")
    return Oracle(built, folder, program, where, args)


@pytest.fixture(scope="session")
def live_zoo(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """The C program, alive."""
    folder = tmp_path_factory.mktemp("live-zoo")
    where = "checkpoint if depth_left == 0"
    return _oracle(built, folder, "zoo", where, f"{built / 'plugin.so'} pause")


@pytest.fixture(scope="session")
def live_writes(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """The program that notes its own writes, alive."""
    return _oracle(built, tmp_path_factory.mktemp("live-writes"), "writes", "checkpoint", "pause")


@pytest.fixture(scope="session")
def live_shapes(built: Path, tmp_path_factory: pytest.TempPathFactory) -> Oracle:
    """The C++ program, alive."""
    folder = tmp_path_factory.mktemp("live-shapes")
    return _oracle(built, folder, "shapes", "checkpoint", "pause")
