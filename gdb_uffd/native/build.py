"""Builds gdb_uffd.native._native: cffi in API mode, all the */*.c here.

What Python may use is marked in the headers, and cffi's declarations are made of that: `PYTHON`
(kernel/python.h) stands before a function, a structure or an enum; of a constant that is a macro it
begins the comment.  Of a structure Python gets the fields whose types it knows.
"""

from __future__ import annotations

import os
import re
from pathlib import Path
from typing import Dict, Iterator, List, Set

from cffi import FFI

HERE = Path(__file__).resolve().parent
SOURCES = sorted(str(path.relative_to(HERE)) for path in HERE.glob("*/*.c"))
"""Those of other architectures come out empty."""

_KNOWN = {
    "void", "char", "bool", "int", "unsigned int", "long", "size_t", "ssize_t", "pid_t",
    *(f"{sign}int{bits}_t" for sign in ("", "u") for bits in (8, 16, 32, 64)),
}  # fmt: skip
_INCLUDE = re.compile(r'#include "([^"]+)"')
_CONSTANT = re.compile(r"^#define (\w+) [^\n]*?/\* PYTHON\b", re.M)
_COMMENT = re.compile(r"/\*.*?\*/", re.S)
_MARKED = re.compile(r"^PYTHON\s+([^;{]*)(;|\{)", re.M)
_FUNCTION = re.compile(r"([\w ]+?[ *]+)(\w+)\(([\w\s,*\[\]]*)\)")
_DECLARATORS = re.compile(r"((?:const |struct |unsigned )*\w+)\s+(.*)", re.S)


class Marked(ValueError):
    """A mark stands where it means nothing; says in which header."""


def _braces(text: str, start: int) -> str:
    """What stands between the brace before `start` and its partner."""
    depth, at = 1, start
    while depth:
        depth += {"{": 1, "}": -1}.get(text[at], 0)
        at += 1
    return text[start : at - 1]


def _base(type_: str) -> str:
    return re.sub(r"\bconst\b|\*", "", type_).strip()


def _statements(body: str) -> Iterator[str]:
    """The fields of a structure, a nested one in one piece."""
    depth, begun = 0, 0
    for at, letter in enumerate(body):
        depth += {"{": 1, "}": -1}.get(letter, 0)
        if letter == ";" and not depth:
            yield body[begun:at].strip()
            begun = at + 1


def _fields(body: str, structs: Set[str]) -> Iterator[str]:
    for statement in _statements(body):
        nested = re.match(r"struct \{(.*)\} (\w+)$", statement, re.S)
        if nested:
            yield f"struct {{ {' '.join(_fields(nested[1], structs))} }} {nested[2]};"
            continue
        pointer = re.match(r"([\w ]+?[ *]+)\(\*\w+\)\((.*)\)$", statement, re.S)
        if pointer:
            if all(_knows(part, structs) for part in (pointer[1], *pointer[2].split(","))):
                yield f"{statement};"
            continue
        found = _DECLARATORS.match(statement)
        if found and (_knows(found[1], structs) or _knows(statement, structs)):
            sizes = re.sub(r"\[\s*(?!\d+\s*\])[^\]]*\]", "[...]", found[2])
            yield f"{found[1]} {sizes};"


def _knows(declared: str, structs: Set[str]) -> bool:
    """Whether cffi can be told of a type, or of a parameter with its name."""
    base = _base(re.sub(r"\[[^\]]*\]", "", declared))
    for name in (base, base.rsplit(None, 1)[0] if " " in base else base):
        if name in _KNOWN or name in structs:
            return True
    return "*" in declared and base.startswith("struct ")


def declarations(header: str, text: str, structs: Set[str]) -> List[str]:
    """cffi's declarations of what is marked in a header; `structs`: those that it knows by then.

    Marked: before what is no function, structure or enum, or a function of types that Python does
    not know.
    """
    out = [f"#define {name} ..." for name in _CONSTANT.findall(text)]
    text = _COMMENT.sub("", text)
    for mark in _MARKED.finditer(text):
        what = " ".join(mark[1].split())
        if mark[2] == "{" and re.fullmatch(r"enum( \w+)?", what):
            body = _braces(text, mark.end())
            names = (entry.split("=")[0].strip() for entry in body.split(","))
            out += [f"#define {name} ..." for name in names if name]
        elif mark[2] == "{" and re.fullmatch(r"struct \w+", what):
            fields = " ".join(_fields(_braces(text, mark.end()), structs))
            out.append(f"{what} {{ {fields} ...; }};")
            structs.add(what)
        else:
            function = _FUNCTION.fullmatch(what) if mark[2] == ";" else None
            if function is None:
                raise Marked(f"{header}: PYTHON before {what!r}")
            strange = [p for p in (function[1], *function[3].split(",")) if not _knows(p, structs)]
            if strange:
                raise Marked(f"{header}: {function[2]}: Python knows no {strange[0].strip()!r}")
            out.append(f"{what};")
    marks = len(re.findall(r"\bPYTHON\b", text)) - text.count("#define PYTHON")
    if marks != len(_MARKED.findall(text)):
        raise Marked(f"{header}: a PYTHON that begins no line")
    return out


def in_order(folder: Path) -> List[str]:
    """The headers, each behind those that it includes."""
    order: Dict[str, None] = {}

    def visit(header: str) -> None:
        if header not in order:
            for other in _INCLUDE.findall((folder / header).read_text()):
                visit(other)
            order.setdefault(header)

    for path in sorted(folder.glob("*/*.h")):
        visit(str(path.relative_to(folder)))
    return list(order)


_OWN = """
typedef int... pid_t;
struct registers { ...; };
extern "Python" int own_file(void *context, const char *name);
"""
"""Beside what is marked: what differs between processors, and a function that Python has."""


def cdef_text(folder: Path) -> str:
    """cffi's cdef.  Marked."""
    structs = {"struct registers"}
    out: Dict[str, None] = {}
    for header in in_order(folder):
        out.update(dict.fromkeys(declarations(header, (folder / header).read_text(), structs)))
    return "\n".join((_OWN, *out))


ffibuilder = FFI()
ffibuilder.cdef(cdef_text(HERE))
ffibuilder.set_source(
    "gdb_uffd.native._native",
    "#ifndef _GNU_SOURCE\n#define _GNU_SOURCE\n#endif\n"
    + "".join(f'#include "{h}"\n' for h in in_order(HERE) if not h.startswith("kernel/arch_")),
    # Relative to setup.py's directory, as setuptools wants them.
    sources=[os.path.join("gdb_uffd", "native", name) for name in SOURCES],
    include_dirs=[os.path.join("gdb_uffd", "native")],
    extra_compile_args=["-std=gnu11", "-O2", "-Wall", "-Wextra", "-pthread"],
    # glibc before 2.34 has timer_create(2) in a library of its own; in others that is empty.
    extra_link_args=["-pthread", "-lrt"],
)

if __name__ == "__main__":
    os.chdir(HERE.parent.parent)
    ffibuilder.compile(verbose=True)
