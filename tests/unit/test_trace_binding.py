"""Calls bound as the dynamic linker would: against what it has bound itself (LD_BIND_NOW)."""

from __future__ import annotations

from pathlib import Path
from typing import Dict, Iterator, List

import pytest
from harness import cores, foreign

from gdb_uffd.trace.binding import Linker, UnboundCall
from gdb_uffd.trace.core.core import CoreSnapshot, open_core
from gdb_uffd.trace.files.files import Module
from gdb_uffd.trace.symbols import read_word


@pytest.fixture(scope="module")
def program(tmp_path_factory: pytest.TempPathFactory) -> Path:
    return foreign.program(tmp_path_factory.mktemp("binding") / "built")


def opened(program: Path, folder: Path, **env: str) -> CoreSnapshot:
    try:
        return open_core(str(foreign.core(program, folder, **env)))
    except cores.NoKernelCore as why:
        pytest.skip(f"no kernel core: {why}")


def linker(snapshot: CoreSnapshot) -> Linker:
    return Linker(snapshot.modules, snapshot.main, snapshot.read, snapshot.arch)


def calls(linker: Linker, module: Module) -> Iterator[UnboundCall]:
    for index in range(100_000):
        found = linker.call(module, index)
        if found is not None:
            yield found
        elif index > 4096:
            return


def test_as_the_linker_did(program: Path, tmp_path: Path) -> None:
    """Every slot of every object, libc's own included."""
    snapshot = opened(program, tmp_path / "run", LD_BIND_NOW="1")
    with_all = linker(snapshot)
    names: Dict[bytes, List[bytes]] = {}
    for module in with_all.order:
        for call in calls(with_all, module):
            target = with_all.target(call)
            assert target is not None, call
            bound = read_word(snapshot.read, call.slot)
            if not target.indirect:
                assert target.address == bound, (call.name, hex(target.address), hex(bound))
            else:  # chosen by the function itself: within the same library
                assert target.module.holds(bound), call.name
                assert with_all.chosen(target, call.name) == bound, call.name
            names.setdefault(call.name, []).append(call.version)
    assert names[b"answer"] in ([b"V1", b"V2"], [b"V2", b"V1"])
    assert names[b"twice"] == [b"V1"] and b"GLIBC_2.2.5" in names[b"printf"]
    snapshot.close()


def test_what_is_not_here_is_not_guessed(program: Path, tmp_path: Path) -> None:
    """The file that a version names must be there; an indirect function that nobody has called yet
    was not chosen."""
    snapshot = opened(program, tmp_path / "run")
    whole = linker(snapshot)
    main = whole.order[0]
    by_name = {call.name: call for call in calls(whole, main)}
    target = whole.target(by_name[b"twice"])
    assert target is not None and target.indirect and whole.chosen(target, b"twice") == 0
    libc = foreign.mapped(Path(snapshot.path))["libc"]
    other = foreign.of_other_builds(Path(snapshot.path), tmp_path / "others", [libc])
    foreign_one = open_core(str(other))
    without = linker(foreign_one)
    assert without.target(by_name[b"printf"]) is None
    call = next(c for c in calls(without, without.order[0]) if c.name == b"answer")
    assert without.target(call) is not None
    foreign_one.close()
    snapshot.close()


def test_a_function_in_another_ones_place(program: Path, tmp_path: Path) -> None:
    """A definition without a version serves a call that asks for one; where its object is not
    here, another's call tells of it."""
    before = program.parent / "libbefore.so"
    snapshot = opened(program, tmp_path / "run", LD_PRELOAD=str(before))
    whole = linker(snapshot)
    by_name = {call.name: call for call in calls(whole, whole.order[0])}
    assert by_name[b"strlen"].version == b"GLIBC_2.2.5"
    target = whole.target(by_name[b"strlen"])
    assert target is not None and Path(target.module.path).name == "libbefore.so"
    assert not target.past
    other = foreign.of_other_builds(Path(snapshot.path), tmp_path / "other", [before])
    snapshot.close()
    foreign_one = open_core(str(other))
    without = linker(foreign_one)
    by_name = {call.name: call for call in calls(without, without.order[0])}
    found = without.target(by_name[b"strlen"])
    assert found is not None and found.address == target.address and found.past
    found = without.target(by_name[b"printf"])
    assert found is not None and Path(found.module.path).name.startswith("libc") and found.past
    foreign_one.close()
