"""Holds the borders of the architecture, read from the sources: nothing is imported.

Each rule is one row of RULES: which modules it is about, what breaks it, and a module that does.
Folders are the units: a module that moves to another one falls under that one's rules.
"""

from __future__ import annotations

import ast
import functools
import sys
from dataclasses import dataclass
from pathlib import Path
from typing import Callable, Dict, FrozenSet, Iterator, List, Set, Tuple

import pytest
from harness import ROOT

PACKAGE = ROOT / "gdb_uffd"
COMMON = frozenset(("__version__", "arch", "dataclass", "outputs", "protocol", "terminal"))
MAY_IMPORT: Dict[str, FrozenSet[str]] = {
    "__init__": frozenset(),
    "dataclass": frozenset(),
    "arch": frozenset(("dataclass",)),
    "terminal": frozenset(),
    "outputs": frozenset(),
    "protocol": frozenset(("arch", "dataclass")),
    "native": COMMON,
    "trace": COMMON,
    "recorder": COMMON | {"native", "trace"},
    "replay": COMMON | {"native", "trace"},
    "server": COMMON | {"client", "native", "replay", "trace"},
    "client": COMMON | {"recorder"},
    "commands": COMMON | {"client"},
    "gdbinit": COMMON | {"client", "commands"},
    "cli": COMMON | {"client", "recorder", "replay", "server", "trace"},
}
"""By unit: what of ours it may import, besides itself."""
ORDERS: Dict[str, Tuple[str, ...]] = {
    "client": ("show", "session", "names", "recording", "commands", "frontends"),
    "trace": ("core files", "store"),
}
"""By unit: its folders, each of which may import itself, those before it, and what shares its
string."""
GDB_SIDE = ("client", "commands", "gdbinit")
THIRD = {"cffi", "elftools", "pexpect", "hypothesis", "numpy", "psutil"}
DATA_ONLY = {
    "__future__", "binascii", "collections", "dataclasses", "enum", "functools", "json", "operator",
    "os", "pathlib", "re", "struct", "typing",
}  # fmt: skip
PURE = {
    "arch": DATA_ONLY | {"binascii", "functools", "operator", "pathlib", "struct"},
    "protocol": DATA_ONLY | {"collections", "enum", "functools", "json", "re", "struct"},
    "terminal": {"__future__", "codecs", "re"},
}
"""By unit: what of the standard library may be used where nothing may be asked of the system."""


@dataclass
class Module:
    """A module of the package: its path in it ("client/show/text.py") and its source."""

    path: str
    text: str

    @property
    def parts(self) -> Tuple[str, ...]:
        return tuple(self.path[: -len(".py")].split("/"))

    @property
    def unit(self) -> str:
        """The folder it is under, or what a file beside the folders begins with."""
        first = self.parts[0]
        return first if len(self.parts) > 1 or first == "__init__" else first.partition("_")[0]

    @functools.cached_property
    def nodes(self) -> List[ast.AST]:
        return list(ast.walk(ast.parse(self.text)))

    @functools.cached_property
    def imports(self) -> List[str]:
        """Every module named in an import, also inside functions."""
        found: List[str] = []
        for node in self.nodes:
            if isinstance(node, ast.Import):
                found += (alias.name for alias in node.names)
            elif isinstance(node, ast.ImportFrom) and not node.level:
                found.append(str(node.module))
                found += (f"{node.module}.{alias.name}" for alias in node.names)
        return found

    def tops(self) -> Iterator[str]:
        return (name.split(".")[0] for name in self.imports)

    def ours(self) -> Iterator[Tuple[str, ...]]:
        """The modules and names of ours among its imports: ("client", "text")."""
        return (tuple(n.split(".")[1:]) for n in self.imports if n.startswith("gdb_uffd."))


def modules_of(folder: Path) -> List[Module]:
    paths = sorted(folder.rglob("*.py"))
    return [Module(str(p.relative_to(folder)), p.read_text(encoding="utf-8")) for p in paths]


MODULES = modules_of(PACKAGE)
BY_PARTS = {module.parts: module for module in MODULES}


def reached(start: List[Module]) -> List[Module]:
    """The modules of ours that `start` imports, and those that they import, and so on."""
    found: Dict[str, Module] = {}
    fringe = list(start)
    while fringe:
        for parts in fringe.pop().ours():
            module = BY_PARTS.get(parts)
            if module is not None and module.path not in found:
                found[module.path] = module
                fringe.append(module)
    return list(found.values())


@functools.cache  # nothing is parsed while tests are collected
def runs_without_gdb() -> Set[str]:
    """What runs where there is no gdb: in the shell's commands, in the server, in unit tests."""
    tested = modules_of(ROOT / "tests" / "unit")
    start = [*tested, *(module for module in MODULES if module.unit not in GDB_SIDE)]
    return {m.path for m in reached(start) if m.unit not in ("commands", "gdbinit")}


def anywhere(module: Module) -> bool:
    return True


def in_units(*units: str) -> Callable[[Module], bool]:
    return lambda module: module.unit in units


def without_gdb(module: Module) -> bool:
    shown = module.parts[:2] == ("client", "show")
    return module.unit not in GDB_SIDE or shown or module.path in runs_without_gdb()


def bases(node: ast.ClassDef) -> Set[str]:
    return {ast.unparse(base).split(".")[-1] for base in node.bases}


@functools.cache
def helped() -> Set[str]:
    """Classes that gdb's `help` shows, and what is derived from them, in up to four steps."""
    found = {"Command", "MICommand", "Parameter", "Setting"}
    nodes = (node for module in MODULES for node in module.nodes)
    classes = [node for node in nodes if isinstance(node, ast.ClassDef)]
    for _ in range(4):
        found |= {node.name for node in classes if bases(node) & found}
    return found


def helps(module: Module) -> Iterator[ast.AST]:
    """What gdb's `help` prints: docstrings and attributes of commands and settings, and what makes
    settings is called with."""
    for node in module.nodes:
        if isinstance(node, ast.ClassDef):
            if helped() & bases(node):
                yield from (part for part in node.body if not isinstance(part, ast.FunctionDef))
        elif isinstance(node, ast.Call) and ast.unparse(node.func).split(".")[-1] in helped():
            yield node


def has_helps(module: Module) -> bool:
    return any(True for _ in helps(module))


def imports_gdb(module: Module) -> Iterator[str]:
    if "gdb" in module.tops():
        yield "gdb"


def imports_what_does(module: Module) -> Iterator[str]:
    """What of gdb's side it reaches that imports gdb."""
    for one in reached([module]):
        yield from (f"{one.path}, which imports gdb" for _ in imports_gdb(one))


def crosses(module: Module) -> Iterator[str]:
    """What of ours it imports that its unit may not."""
    may = MAY_IMPORT.get(module.unit, frozenset()) | {module.unit}
    for parts in module.ours():
        if parts[0].partition("_")[0] not in may and parts[0] not in may:
            yield ".".join(parts)


def points_up(module: Module) -> Iterator[str]:
    """What it imports of its unit's later folders."""
    steps = {name: step for step, row in enumerate(ORDERS[module.unit]) for name in row.split()}
    here = steps[module.parts[1]]
    for parts in module.ours():
        if parts[0] == module.unit and len(parts) > 1 and steps.get(parts[1], here) > here:
            yield ".".join(parts)


def takes_more_than_the_wire(module: Module) -> Iterator[str]:
    for parts in module.ours():
        if parts[0] == "recorder" and parts[1:2] not in ((), ("wire",)):
            yield ".".join(parts)


def takes_more_than_what_shows(module: Module) -> Iterator[str]:
    for parts in module.ours():
        if parts[0] == "client" and parts[1:2] not in ((), ("show",)):
            yield ".".join(parts)


def imports_more_than_the_library(module: Module) -> Iterator[str]:
    for top in module.tops():
        if sys.version_info >= (3, 10) and top not in {"gdb", "gdb_uffd", *sys.stdlib_module_names}:
            yield top


def imports_either_side(module: Module) -> Iterator[str]:
    yield from {"gdb", "gdb_uffd"} & set(module.tops())


def is_relative(module: Module) -> Iterator[str]:
    for node in module.nodes:
        if isinstance(node, ast.ImportFrom) and node.level:
            yield f"line {node.lineno}"


def asks_the_system(module: Module) -> Iterator[str]:
    yield from set(module.tops()) - PURE[module.unit] - {"gdb_uffd"}


def is_unknown(module: Module) -> Iterator[str]:
    if module.unit not in MAY_IMPORT:
        yield f"{module.unit} has no row in MAY_IMPORT"


def imports_third(module: Module) -> Iterator[str]:
    yield from THIRD & set(module.tops())


def is_long(module: Module) -> Iterator[str]:
    lines = len(module.text.splitlines())
    if lines > 420:
        yield f"{lines} lines"


def excepts_all(module: Module) -> Iterator[str]:
    for node in module.nodes:
        if isinstance(node, ast.ExceptHandler) and node.type is None:
            yield f"line {node.lineno}"


def is_newer_than_3_9(module: Module) -> Iterator[str]:
    try:
        ast.parse(module.text, feature_version=(3, 9))
    except SyntaxError as error:
        yield str(error)


def is_not_ascii(module: Module) -> Iterator[str]:
    """gdb refuses a command whose help its host charset cannot show (LC_ALL=C)."""
    for part in helps(module):
        for node in ast.walk(part):
            if isinstance(node, ast.Constant) and not str(node.value).isascii():
                yield f"line {node.lineno}"


Rule = Tuple[
    str, Callable[[Module], bool], Callable[[Module], Iterator[str]], Tuple[str, str]
]  # what it says, whom it is about, what breaks it, and (path, source) of one that does
RULES: List[Rule] = [
    ("stands in a unit that is known", anywhere, is_unknown, ("odd/one.py", "")),
    ("imports down only", anywhere, crosses,
     ("trace/one.py", "from gdb_uffd.server.stub.stub import Stub")),
    ("folders import those before them", lambda m: m.unit in ORDERS and len(m.parts) > 2, points_up,
     ("client/show/one.py", "from gdb_uffd.client.session import sessions")),
    ("a trace's cores and files need no store",
     lambda m: m.unit == "trace" and len(m.parts) > 2, points_up,
     ("trace/files/one.py", "from gdb_uffd.trace.store.read import StoreTrace")),
    ("the shell's commands are nobody's", anywhere, crosses,
     ("server/one.py", "import gdb_uffd.cli.printing")),
    ("native is the server's and the recorder's", anywhere, crosses,
     ("client/one.py", "def f():\n    from gdb_uffd.native import ffi")),
    ("gdb's side needs nothing of the server", in_units(*GDB_SIDE), crosses,
     ("client/one.py", "from gdb_uffd.trace.store import describe")),
    ("of the recorder it takes the wire", in_units(*GDB_SIDE), takes_more_than_the_wire,
     ("client/one.py", "from gdb_uffd.recorder.memory import Memory")),
    ("which needs neither side", lambda m: m.parts[0] == "recorder" and m.parts[-1] == "wire",
     imports_either_side, ("recorder/wire.py", "from gdb_uffd.protocol import model")),
    ("the server says it in the words of show", in_units("server"), takes_more_than_what_shows,
     ("server/one.py", "from gdb_uffd.client.session import sessions")),
    ("runs without gdb", without_gdb, imports_gdb, ("client/show/one.py", "import gdb")),
    ("and needs nothing that does not", without_gdb, imports_what_does,
     ("client/show/one.py", "import gdb_uffd.commands")),
    ("gdb's side has the standard library only", in_units(*GDB_SIDE),
     imports_more_than_the_library, ("client/one.py", "import zstandard")),
    ("no unlisted package but in native", lambda m: m.unit != "native", imports_third,
     ("trace/one.py", "import numpy as np")),
    ("data has no side effects", in_units(*PURE), asks_the_system,
     ("protocol/one.py", "import socket")),
    ("imports by full names", anywhere, is_relative, ("trace/one.py", "from . import core")),
    ("is short", anywhere, is_long, ("trace/one.py", "\n" * 421)),
    ("has no bare except", anywhere, excepts_all, ("trace/one.py", "try: f()\nexcept: pass")),
    ("is Python 3.9", anywhere, is_newer_than_3_9, ("trace/one.py", "match f():\n case 1: pass")),
    ("has helps in ASCII", has_helps, is_not_ascii,
     ("commands_one.py", "class One(Command):\n    'pages — bytes'")),
]  # fmt: skip


@pytest.mark.parametrize("says, about, breaks, _", RULES, ids=[rule[0] for rule in RULES])
def test_holds(says, about, breaks, _):
    chosen = [module for module in MODULES if about(module)]
    assert chosen, "the rule is about no module"
    broken = [f"{module.path}: {what}" for module in chosen for what in breaks(module)]
    assert not broken, f"{says}: " + "; ".join(broken)


@pytest.mark.parametrize("says, about, breaks, broken", RULES, ids=[rule[0] for rule in RULES])
def test_is_noticed_where_it_is_broken(says, about, breaks, broken):
    module = Module(*broken)
    assert about(module), "the rule is not about it"
    assert list(breaks(module)), f"passes for one where it does not hold: {says}"
