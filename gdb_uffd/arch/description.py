"""A target description: which registers there are, under the names that gdb knows.

Source: gdb manual, appendix "Target Descriptions" ("Target Description Format").
"""

from __future__ import annotations

from typing import List, Tuple

from gdb_uffd.dataclass import dataclass


@dataclass(frozen=True)
class Register:
    """One register of the description; its number is its place among all."""

    name: str
    bits: int
    type: str
    group: str = ""


@dataclass(frozen=True)
class Feature:
    """A named feature: the XML of its types, then its registers."""

    name: str
    types: str
    registers: Tuple[Register, ...]


def flags(identifier: str, bits: List[Tuple[str, int]]) -> str:
    """The XML of a register of 32 bits that are flags: (name, bit)."""
    fields = "".join(f'<field name="{n}" start="{b}" end="{b}"/>' for n, b in bits)
    return f'<flags id="{identifier}" size="4">{fields}</flags>'


def document(architecture: str, parts: Tuple[Feature, ...]) -> bytes:
    """The `target.xml` of `qXfer:features:read`."""
    lines = [
        '<?xml version="1.0"?>',
        '<!DOCTYPE target SYSTEM "gdb-target.dtd">',
        "<target>",
        f"<architecture>{architecture}</architecture>",
        "<osabi>GNU/Linux</osabi>",
    ]
    number = 0
    for feature in parts:
        lines.append(f'<feature name="{feature.name}">{feature.types}')
        for r in feature.registers:
            group = f' group="{r.group}"' if r.group else ""
            lines.append(
                f'<reg name="{r.name}" bitsize="{r.bits}" type="{r.type}"'
                f' regnum="{number}"{group}/>'
            )
            number += 1
        lines.append("</feature>")
    lines.append("</target>\n")
    return "\n".join(lines).encode("ascii")
