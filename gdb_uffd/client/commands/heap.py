"""`uffd heap`: malloc's heap, all of it or one block."""

from __future__ import annotations

import os
import time
from typing import Any, Dict, List

import gdb

from gdb_uffd.client.commands.command import Command
from gdb_uffd.client.names import addresses
from gdb_uffd.client.names.heap_damage import damage_notes
from gdb_uffd.client.names.heap_names import HeapNames, Named, frame_pcs
from gdb_uffd.client.names.symbols import ReportSymbols
from gdb_uffd.client.session import sessions
from gdb_uffd.client.session.options import Parsed
from gdb_uffd.client.session.printing import look, say, say_json
from gdb_uffd.client.session.sessions import Session
from gdb_uffd.client.show import heap_block, heap_words
from gdb_uffd.protocol.codec import to_json
from gdb_uffd.protocol.heap import BlockReport, Reference
from gdb_uffd.protocol.messages_heap import BLOCKS_MAX, Heap, HeapBlockAt
from gdb_uffd.protocol.model import SCHEMA_VERSION, UffdError


class HeapCommand(Command):
    """Show malloc's heap, or who holds a block of it.

    Usage: uffd heap [-blocks] [-free] [-full] [-json] [--] [ADDRESS|EXPRESSION]

      -blocks   list the blocks
      -free     list those that are free
      -full     do not cut a long list
      -json     print one line, one JSON object

    Alone: arenas, blocks and bytes in use and free, the lists of free blocks, and
    what is damaged.  With a pointer: the block that it points into, its
    neighbours, who holds it, and what in it points to freed memory; of a freed
    block, who still points to it.

    Example:
        uffd heap
        uffd heap head->name"""

    name, usage = "heap", "uffd heap [-blocks] [-free] [-full] [-json] [ADDRESS|EXPRESSION]"
    options, completer = ("blocks", "free", "full", "json"), gdb.COMPLETE_EXPRESSION

    def run(self, parsed: Parsed) -> None:
        """The heap, or a block."""
        session = sessions.current()
        listed = parsed.has("blocks") or parsed.has("free")
        if parsed.rest and listed:
            raise UffdError(f"a list is of the whole heap; usage: {self.usage}")
        if parsed.rest:
            block(session, parsed.rest, parsed.has("json"))
            return
        heap(
            session,
            parsed.has("blocks"),
            parsed.has("free"),
            parsed.has("full"),
            parsed.has("json"),
        )


NOTES_SECONDS = 5.0
"""How long names are looked for that go with faults."""

BLOCKS_SHOWN, BLOCKS_FULL = 64, BLOCKS_MAX
"""Blocks that a list shows, and that -full and -json show."""


def heap(session: Session, blocks: bool, free: bool, full: bool, as_json: bool) -> None:
    """The overview, or a list of blocks."""
    most = 0 if not (blocks or free) else BLOCKS_FULL if full or as_json else BLOCKS_SHOWN
    told = session.request(Heap(most, free))
    thread, looks = ReportSymbols(session).thread, look()
    notes: List[List[str]] = []
    deadline = time.monotonic() + NOTES_SECONDS
    for each in told.damage[: heap_words.DAMAGE_SHOWN]:
        notes.append(damage_notes(session, each) if time.monotonic() < deadline else [])
    if as_json:
        made = to_json(told)
        for each, data, more in zip(told.damage, made["damage"], [*notes, *[[]] * 64]):
            data["text"], data["notes"] = heap_words.damage_text(each, thread), more
        say_json({"schema": SCHEMA_VERSION, **made})
    elif most and told.allocator.name == "glibc":
        say(*(looks.plain(line) for line in heap_words.blocks(told, thread)))
    else:
        say(*heap_words.overview(told, notes, thread, looks))


def block(session: Session, expression: str, as_json: bool) -> None:
    """The block around an address."""
    address = _address(expression)
    told = session.request(HeapBlockAt(address))
    thread, names = ReportSymbols(session).thread, HeapNames(session)
    named = Named()
    before, after = Named(), Named()
    if told.block is not None:
        named = names.of(told.block, told.chain)
        if told.before is not None:
            before = names.of(told.before, told.chain_before)
        if told.after is not None:
            after = names.of(told.after, told.chain_after)
    words = [names.word(ref) for ref in told.references]
    freed = [names.word(_as_word(told, ref)) for ref in told.freed]
    notes = [damage_notes(session, each) for each in told.damage]
    place = ""
    if told.block is None and told.kind == "data":
        place = _place(told)
    if as_json:
        made = to_json(told)
        made["place"] = place
        for key, each in (("block", named), ("before", before), ("after", after)):
            if made[key] is not None:
                made[key].update(_json(each))
        for key, each_of in (("references", words), ("freed", freed)):
            for data, each in zip(made[key], each_of):
                data["expression"] = each.full()
        for each_, data, more in zip(told.damage, made["damage"], notes):
            data["text"], data["notes"] = heap_words.damage_text(each_, thread), more
        say_json({"schema": SCHEMA_VERSION, **made})
        return
    text = heap_block.Text(told, named, before, after, words, freed, notes, place)
    say(*heap_block.lines(text, thread, look()))


def _place(told: BlockReport) -> str:
    """ "code of sample: push, in .text": what lies there of a file, "" where nothing tells."""
    section = addresses.section(told.address)
    file = os.path.basename(told.mapping)
    known = addresses.variable(told.address, frame_pcs())
    function = addresses.function(told.address) if section.startswith(CODE) else ""
    name = function or (known.at(told.address) if known is not None else "")
    what = "code" if section.startswith(CODE) else "constants" if section in CONSTANT else "data"
    parts = [part for part in (name, f"in {section}" if section else "") if part]
    return f"{what} of {file}" + (f": {', '.join(parts)}" if parts else "")


CODE, CONSTANT = (".text", ".plt", ".init", ".fini"), (".rodata", ".eh_frame", ".data.rel.ro")
"""Sections by what they hold: how the names of those begin, the whole names of these."""


def _json(named: Named) -> Dict[str, Any]:
    return {"expression": named.full(), "type": named.type}


def _as_word(told: BlockReport, ref: Reference) -> Reference:
    """A word of the block itself, for its name: `block` of a freed word is where it points to."""
    return Reference(ref.address, ref.value, "heap", ref.mapping, 0, "", told.block)


def _address(expression: str) -> int:
    """What an expression points to, or where an array or a structure lies."""
    value = gdb.parse_and_eval(expression)
    plain = value.type.strip_typedefs()
    if plain.code in (gdb.TYPE_CODE_PTR, gdb.TYPE_CODE_INT, gdb.TYPE_CODE_ENUM):
        return int(value) & (1 << 64) - 1
    # What is in memory has not been read yet; anything else gdb would put there to have an address.
    if not value.is_lazy or value.address is None:
        raise UffdError(f"{expression} is neither an address nor in memory")
    return int(value.address)
