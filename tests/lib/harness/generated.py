"""C programs made by hypothesis: globals of nested structures, arrays, unions and bit fields, and
functions that each write one scalar of them."""

from __future__ import annotations

from dataclasses import dataclass
from typing import Any, List, Tuple

from hypothesis import strategies as st

PRELUDE = """#include <stdlib.h>
enum shade { DARK, MIDDLE = 7, LIGHT };
int target[4];
"""

SCALARS = {
    "signed char": ("-5", "65"),
    "short": ("-300", "12345"),
    "int": ("-70000", "2000000000"),
    "unsigned int": ("3000000000u", "1u"),
    "long": ("-5000000000", "1234567890123"),
    "float": ("1.5f", "-0.25f"),
    "double": ("1e100", "-3.75"),
    "_Bool": ("1",),
    "enum shade": ("MIDDLE", "LIGHT"),
    "int *": ("&target[2]", "target"),
}
"""Type -> C constants, none of them zero: all globals begin as zeros."""


@dataclass(frozen=True)
class Type:
    """A type: `kind` is scalar, bits, struct, union or array."""

    kind: str
    name: str = ""
    width: int = 0
    members: Tuple["Type", ...] = ()
    count: int = 0

    def declare(self, name: str) -> str:
        """The declaration of `name`, without its semicolon."""
        if self.kind == "array":
            return self.members[0].declare(f"{name}[{self.count}]")
        if self.kind == "bits":
            return f"{self.name} {name} : {self.width}"
        if self.kind == "scalar":
            return f"{self.name} {name}"
        inner = " ".join(f"{m.declare(f'm{i}')};" for i, m in enumerate(self.members))
        return f"{self.kind} {{ {inner} }} {name}"

    def leaves(self, path: str) -> List[Tuple[str, "Type", bool]]:
        """(expression, type, whether a union is on the way) of every scalar inside."""
        if self.kind in ("scalar", "bits"):
            return [(path, self, False)]
        if self.kind == "array":
            inner = self.members[0]
            return [leaf for i in range(self.count) for leaf in inner.leaves(f"{path}[{i}]")]
        found = []
        for i, member in enumerate(self.members):
            for name, leaf, union in member.leaves(f"{path}.m{i}"):
                found.append((name, leaf, union or self.kind == "union"))
        return found


scalars = st.sampled_from(sorted(SCALARS)).map(lambda name: Type("scalar", name))
bits = st.builds(
    lambda name, width: Type("bits", name, width),
    st.sampled_from(["int", "unsigned int", "signed char", "unsigned long"]),
    st.integers(2, 8),
)


def _grown(inner: st.SearchStrategy[Type]) -> st.SearchStrategy[Type]:
    several = st.lists(inner, min_size=1, max_size=4).map(tuple)
    with_bits = st.lists(st.one_of(inner, bits), min_size=1, max_size=6).map(tuple)
    return st.one_of(
        with_bits.map(lambda members: Type("struct", members=members)),
        several.map(lambda members: Type("union", members=members)),
        st.builds(lambda t, n: Type("array", members=(t,), count=n), inner, st.integers(1, 4)),
    )


types = st.recursive(scalars, _grown, max_leaves=12)


@dataclass(frozen=True)
class Program:
    """`writes`: (expression written, whether it lies in a union), by the number of the function."""

    source: str
    writes: Tuple[Tuple[str, bool], ...]


@st.composite
def programs(draw: Any) -> Program:
    """A program that aborts; function `w0`, `w1` ... each write one scalar."""
    globals_ = draw(st.lists(types, min_size=2, max_size=4))
    leaves = [leaf for i, t in enumerate(globals_) for leaf in t.leaves(f"g{i}")]
    chosen = draw(
        st.lists(st.sampled_from(leaves), min_size=1, max_size=8, unique_by=lambda leaf: leaf[0])
    )
    lines = [f"{t.declare(f'g{i}')};" for i, t in enumerate(globals_)]
    for number, (path, leaf, _) in enumerate(chosen):
        if leaf.kind == "bits":
            value = str(draw(st.integers(1, 2 ** (leaf.width - 1) - 1)))
        else:
            value = draw(st.sampled_from(SCALARS[leaf.name]))
        lines.append(f"void w{number}(void) {{ {path} = {value}; }}")
    calls = " ".join(f"if (argc > 9) w{i}();" for i in range(len(chosen)))
    lines.append(f"int main(int argc, char **argv) {{ (void)argv; {calls} abort(); }}")
    return Program(
        PRELUDE + "\n".join(lines) + "\n", tuple((path, union) for path, _, union in chosen)
    )
