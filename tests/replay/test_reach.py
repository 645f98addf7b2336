"""The search for pointers that lead to a block: bounded, and not to be led astray."""

from __future__ import annotations

import struct
from typing import Any, Dict, List, Optional, Tuple

import pytest

from gdb_uffd.protocol.codec import from_json
from gdb_uffd.protocol.messages_calls import TYPES_MAX, TypeShape
from gdb_uffd.protocol.model import MemoryUnavailable, UffdError
from gdb_uffd.replay.attribute import reach
from gdb_uffd.replay.attribute.reach import BlockSearch, Graph

BASE = 0x100000


class Words:
    """Memory of 64-bit words; all else is not there."""

    def __init__(self, words: Dict[int, int]) -> None:
        self.words = words

    def read(self, address: int, length: int) -> bytes:
        out = b""
        for at in range(address & -8, address + length, 8):
            if at not in self.words:
                raise MemoryUnavailable(at, "not there")
            out += struct.pack("<Q", self.words[at])
        return out[address % 8 :][:length]

    def word(self, address: int) -> Optional[int]:
        return self.words.get(address)


def extend(graph: Graph, rows: List[Any]) -> None:
    """Types as a request has them."""
    graph.extend(from_json(List[TypeShape], rows))


def node_graph() -> Graph:
    """Type 0: a pointer to type 1, which is {value, next}."""
    graph = Graph()
    extend(graph, [[8, [[0, 1]], [], 1, []], [16, [[8, 1]], [], 1, []]])
    return graph


def chain(count: int) -> Tuple[Dict[int, int], List[int]]:
    """A root at BASE and `count` nodes behind it, in blocks of 24 bytes."""
    words, nodes = {}, [BASE + 0x1010 + 32 * i for i in range(count)]
    words[BASE] = nodes[0]
    for at, following in zip(nodes, [*nodes[1:], 0]):
        words[at - 16], words[at - 8] = 0, 0x21
        words[at], words[at + 8] = 7, following
    words[nodes[-1] + 16], words[nodes[-1] + 24] = 0, 0x21
    return words, nodes


@pytest.mark.parametrize("engaged", [0, 1])
def test_a_dead_member_leads_nowhere(engaged: int) -> None:
    words, nodes = chain(2)
    words[BASE + 8] = engaged
    alive = [[8, 1, 1]]
    for pointers, arrays in (([[0, 1, alive]], []), ([], [[0, 2, 1, alive]])):
        graph = Graph()
        extend(graph, [[16, pointers, arrays, 0, []], [16, [[8, 1]], [], 1, []]])
        extend(graph, [[8, [[0, 1]], [], 0, []]])
        found = BlockSearch(graph, Words(words), [(nodes[1], 24)], True).run([(BASE, 0)])
        assert (nodes[1] in found) == bool(engaged)


def test_a_list() -> None:
    words, nodes = chain(5)
    found = BlockSearch(node_graph(), Words(words), [(nodes[2], 24)], True).run([(BASE, 0)])
    path = found[nodes[2]]
    assert (path.root, path.at, path.type, path.after) == (0, nodes[2], 1, True)
    assert path.steps == ((BASE, 0, 0), (nodes[0], 0, 0), (nodes[1], 0, 0))


def test_a_long_list_gives_the_type_only() -> None:
    words, nodes = chain(100)
    found = BlockSearch(node_graph(), Words(words), [(nodes[90], 24)], True).run([(BASE, 0)])
    assert (found[nodes[90]].root, found[nodes[90]].type) == (-1, 1)


def test_cycles_and_wild_pointers_end() -> None:
    words, nodes = chain(50)
    words[nodes[-1] + 8] = nodes[0]
    words[nodes[3] + 8] = 0xDEAD0000DEAD
    search = BlockSearch(node_graph(), Words(words), [(nodes[40], 24)], True)
    assert search.run([(BASE, 0), (0xBAD0000, 0), (BASE, 99)]) == {}
    words[nodes[3] + 8] = nodes[4]
    search = BlockSearch(node_graph(), Words(words), [(0x7000, 24)], True)
    assert search.run([(BASE, 0)]) == {}


def test_it_is_bounded() -> None:
    words, nodes = chain(reach.NODES_MAX + 100)
    search = BlockSearch(node_graph(), Words(words), [(nodes[-1], 24)], True)
    assert search.run([(BASE, 0)]) == {}


def test_the_better_fit_wins() -> None:
    """A void pointer and a smaller type lead there, too, and sooner."""
    graph = Graph()
    shapes = [
        [24, [[0, -1], [8, 2], [16, 1]], [], 1, []],
        [40, [], [], 1, []],
        [8, [], [], 1, []],
    ]
    extend(graph, shapes)
    block = BASE + 0x2010
    words = {BASE: block, BASE + 8: block, BASE + 16: block, block - 8: 0x31}
    found = BlockSearch(graph, Words(words), [(block, 40)], False).run([(BASE, 0)])
    assert (found[block].type, found[block].after) == (1, False)


def test_arrays_in_blocks_and_in_objects() -> None:
    graph = Graph()
    # 0: struct {x; pointer table[3]}; 1: pointer to 2; 2: {value}; 3: pointer to pointers
    shapes = [[32, [], [[8, 1, 3]], 1, []], [8, [[0, 2]], [], 1, []], [8, [], [], 1, []]]
    extend(graph, [*shapes, [8, [[0, 1]], [], 1, []]])
    target, grown = BASE + 0x3010, BASE + 0x4010
    words = {BASE + 8 * i: 0 for i in range(4)}
    words[BASE + 24] = target
    found = BlockSearch(graph, Words(words), [(target, 24)], True).run([(BASE, 0)])
    assert found[target].steps == ((BASE, 0, -1), (BASE + 8, 2, 0))
    words = {BASE: grown, grown - 8: 0x31, grown + 0x28: 0x21}
    words.update({grown + 8 * i: 0 for i in range(5)})
    words[grown + 32] = target
    found = BlockSearch(graph, Words(words), [(target, 24)], True).run([(BASE, 3)])
    assert found[target].steps == ((BASE, 0, 0), (grown, 4, 0))


def test_a_root_that_lies_in_the_block_itself() -> None:
    block = BASE + 0x5010
    found = BlockSearch(node_graph(), Words({}), [(block, 24)], True).run([(block, 1)])
    assert found[block].steps == () and found[block].type == 1


@pytest.mark.parametrize(
    "types",
    [[[8]], [["x", [], [], 1, []]], [[8, [[0]], [], 1, []]], [None], [[8, 5, [], 1, []]]],
)
def test_types_that_are_none(types: List[object]) -> None:
    with pytest.raises(UffdError):
        extend(Graph(), types)


def test_too_many_types() -> None:
    with pytest.raises(UffdError):
        extend(Graph(), [[8, [], [], 1, []]] * (TYPES_MAX + 1))


class Wild:
    """Memory in which every word is a pointer, each to another place; counts what is looked at."""

    def __init__(self) -> None:
        self.bytes = 0

    def read(self, address: int, length: int) -> bytes:
        self.bytes += length
        words = range(address >> 3, (address + length + 7) >> 3)
        return struct.pack(f"<{len(words)}Q", *(0x10000 + at * 0x10000 for at in words))[:length]

    def word(self, address: int) -> Optional[int]:
        return 0


def test_pointers_that_are_followed_are_counted(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(reach, "POINTERS_FOLLOWED_MAX", 5000)
    graph = Graph()
    pointers = [[8 * i, 0] for i in range(1000)]
    extend(graph, [[8000, pointers, [], 1, []]])
    memory = Wild()
    search = BlockSearch(graph, memory, [(0x10, 8)], True)
    assert search.run([(BASE, 0)]) == {}
    assert memory.bytes <= 6 * 8000


def row(holder: List[int], nodes: int) -> Tuple[Dict[int, int], int]:
    """A holder at BASE, {first, number, end} (type 0), and a block behind it with `nodes` nodes of
    two words (type 1), whose second points to a block of its own (type 2)."""
    first = BASE + 0x1010
    words = {BASE: first}
    words.update((BASE + 8 + 8 * i, word) for i, word in enumerate(holder))
    words[first - 16], words[first - 8] = 0, 16 * nodes + 16 | 1
    for index in range(nodes):
        words[first + 16 * index], words[first + 16 * index + 8] = 7, BASE + 0x3010 + 32 * index
    words[first + 16 * nodes], words[first + 16 * nodes + 8] = 0, 0x21
    return words, first


@pytest.mark.parametrize(
    ("holder", "count"),
    [
        ([0, 0], 1), ([9, 0], 1), ([4, 0], 4), ([8, 0], 8), ([3, 0], 1), ([4 << 32 | 1, 0], 4),
        ([0, BASE + 0x1010 + 16 * 5], 5), ([0, BASE + 0x1010 + 16 * 9], 1), ([0, BASE + 0x1018], 1),
        ([0, BASE + 0x1010], 1), ([5, BASE + 0x1010 + 16 * 8], 8), ([0, 4], 1), ([0, 8], 1),
    ],
)  # fmt: skip
def test_how_many_there_are_stands_beside_the_pointer(holder: List[int], count: int) -> None:
    words, first = row(holder, 8)
    graph = Graph()
    numbers = [[8, 4], [12, 4]]  # the last word is named otherwise
    extend(graph, [[24, [[0, 1]], [], 1, numbers], [16, [[8, 2]], [], 2, []], [8, [], [], 1, []]])
    last = BASE + 0x3010 + 32 * (count - 1)
    wanted = [(first, 16 * 8), (last, 24), (BASE + 0x3010 + 32 * count, 24)]
    found = BlockSearch(graph, Words(words), wanted, True).run([(BASE, 0)])
    assert found[first].count == count
    assert found[last].steps == ((BASE, 0, 0), (first, count - 1, 0))
    assert wanted[2][0] not in found
