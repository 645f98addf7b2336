"""The messages of docs/protocol.md: each survives the wire, and nothing else is taken for one."""

from __future__ import annotations

import dataclasses
import json
import runpy
import typing
from typing import Any, Dict, List, Literal, Sequence, Union

import pytest
from harness import ROOT
from hypothesis import given, settings
from hypothesis import strategies as st

from gdb_uffd.protocol import codec
from gdb_uffd.protocol.fields import Absolute, AtMost, Hex, Within
from gdb_uffd.protocol.heap import HeapReport
from gdb_uffd.protocol.messages import Ready, every
from gdb_uffd.protocol.messages_calls import Reach
from gdb_uffd.protocol.messages_rerun import Why
from gdb_uffd.protocol.messages_travel import SnapshotList
from gdb_uffd.protocol.model import CallReport, DirtyRange, UffdError
from gdb_uffd.server.requests.answer import REQUESTS

KINDS: List[Any] = [*every(), *(kind.REPLY for kind in every()), Ready]

PLAIN: Dict[Any, st.SearchStrategy[Any]] = {
    bool: st.booleans(),
    int: st.integers(codec.WORD.low, codec.WORD.high),
    float: st.floats(-1e15, 1e15),
    str: st.text(max_size=9) | st.sampled_from(["#$*}", "a\udcffb", '"}"\\}', "\x1b[2J"]),
    bytes: st.binary(max_size=9),
}


def values(hint: Any) -> st.SearchStrategy[Any]:
    """Any value of that type."""
    origin, inner = typing.get_origin(hint), typing.get_args(hint)
    if origin is typing.Annotated:
        return marked(inner[0], inner[1])
    if origin is Union:
        return st.one_of(*(st.none() if kind is type(None) else values(kind) for kind in inner))
    if origin is Literal:
        return st.sampled_from(inner)
    if origin is tuple and inner[-1] is not Ellipsis:
        return st.tuples(*map(values, inner))
    if origin is not None:
        lists = st.lists(values(inner[0]), max_size=3)
        return lists.map(tuple) if origin is tuple else lists
    if dataclasses.is_dataclass(hint):
        fields = {field.name: values(field.hint) for field in codec.fields_of(hint)}
        return st.fixed_dictionaries(fields).map(lambda given: whole(hint, given))
    return PLAIN[hint]


def marked(hint: Any, mark: Any) -> st.SearchStrategy[Any]:
    if isinstance(mark, Hex):
        return st.integers(0, (1 << 64) - 1)
    if isinstance(mark, Absolute):
        return st.text(st.characters(codec="utf-8", exclude_characters="\0")).map("/".__add__)
    if isinstance(mark, Within):
        return st.integers(mark.low, mark.high)
    assert isinstance(mark, AtMost)
    return st.lists(values(typing.get_args(hint)[0]), max_size=3)


def whole(kind: Any, fields: Dict[str, Any]) -> Any:
    """The message, with fields that go together."""
    if isinstance(fields.get("before"), bytes):
        length = len(fields["before"])
        fields["after"] = fields["after"][:length].ljust(length, b"\1")
    if kind is SnapshotList:
        found = fields["snapshots"] or [whole_info()]
        infos = [dataclasses.replace(info, number=n) for n, info in enumerate(found)]
        fields["snapshots"] = infos
    return kind(**fields)


def whole_info() -> Any:
    (field,) = [f for f in codec.fields_of(SnapshotList) if f.name == "snapshots"]
    return typing.get_args(field.hint)[0](0)


messages = st.sampled_from(KINDS).flatmap(lambda kind: st.tuples(st.just(kind), values(kind)))
json_values = st.recursive(
    st.none() | st.booleans() | st.integers() | st.floats() | st.text(),
    lambda inner: st.lists(inner) | st.dictionaries(st.text(), inner),
    max_leaves=10,
)


@pytest.mark.slow
@settings(max_examples=400)
@given(messages)
def test_every_message_survives_the_wire(message: Any) -> None:
    kind, value = message
    text = codec.to_text(codec.to_json(value))
    assert not set("#$*") & set(text) and text.isascii()
    assert codec.from_json(kind, codec.from_text(text.encode())) == value


def refused(kind: Any, data: Any) -> str:
    """The one line that tells what is wrong; "" where nothing is."""
    try:
        codec.from_json(kind, data, "somebody's word")
    except codec.CodecError as error:
        line = str(error)
        assert line.startswith("somebody's word") and "\n" not in line
        return line
    return ""


@pytest.mark.slow
@settings(max_examples=400)
@given(messages, json_values, st.randoms(use_true_random=False))
def test_a_message_with_something_else_in_it(message: Any, odd: Any, chance: Any) -> None:
    kind, value = message
    data: Any = [json.loads(json.dumps(codec.to_json(value)))]
    place, key = data, 0
    while isinstance(place[key], (list, dict)) and place[key] and chance.random() < 0.8:
        place = place[key]
        key = chance.choice(list(place) if isinstance(place, dict) else range(len(place)))
    place[key] = odd
    refused(kind, data[0])


@given(st.sampled_from(KINDS), json_values)
def test_what_is_no_message(kind: Any, data: Any) -> None:
    refused(kind, data)


@given(st.binary() | st.just(b"[" * 100_000) | st.just(b"9" * 9_000))
def test_what_is_no_json(text: bytes) -> None:
    try:
        codec.from_text(text)
    except codec.CodecError as error:
        assert isinstance(error, UffdError) and str(error) == "not JSON"


RUN = {"address": "0x10", "before": "00", "after": "01"}
ROW = ["0x1", 2]


@pytest.mark.parametrize(
    ("kind", "data", "words"),
    [
        (
            DirtyRange,
            {**RUN, "address": "0x" + "f" * 17},
            'address is not a hex string such as "0x1000"',
        ),
        (DirtyRange, {**RUN, "address": "-0x1"}, 'address is not a hex string such as "0x1000"'),
        (DirtyRange, {**RUN, "address": 16}, 'address is not a hex string such as "0x1000"'),
        (DirtyRange, {**RUN, "before": "0"}, "before is not hex digits, two for each byte"),
        (DirtyRange, {**RUN, "before": "00 11"}, "before is not hex digits, two for each byte"),
        (DirtyRange, {**RUN, "thread": True}, "thread is not a whole number"),
        (DirtyRange, {**RUN, "thread": 1 << 64}, "thread is not a whole number"),
        (
            DirtyRange,
            {"address": "0x10", "before": "00"},
            "after is not hex digits, two for each byte",
        ),
        (DirtyRange, [RUN], "is not an object"),
        (Reach, {"roots": [ROW] * 8193}, "roots is not a list of at most 8,192"),
        (Reach, {"roots": [ROW, ["0x1"]]}, "roots[1] is not a list of 2"),
        (Reach, {"roots": [ROW, ["0x1", None]]}, "roots[1][1] is not a whole number"),
        (Reach, {"types": [[8, [[0]], [], 1, []]]}, "types[0][1][0] is not a list of 2 to 3"),
        (Reach, {"types": [[8, [[-1, 0]], [], 1, []]]}, "types[0][1][0][0] is not a number from 0"),
        (Why, {"limit": 1_000_001}, "limit is not a number from 0 to 1,000,000"),
        (REQUESTS["view"].kind, {}, 'which is not "now", "before" or "after"'),
        (REQUESTS["export"].kind, {"path": "a"}, "path is not an absolute path"),
        (REQUESTS["export"].kind, {"path": "/a\0"}, "path is not an absolute path"),
        (REQUESTS["end"].kind, {"keep": 1}, "keep is not true or false"),
        (REQUESTS["why-next"].kind.REPLY, {"event": "x"}, "has no event that is known"),
        (REQUESTS["snapshots"].kind.REPLY, {"snapshots": [], "current": 0}, "not numbered from 0"),
        (HeapReport, {"allocator": {"name": 1}}, "allocator.name is not a text"),
        (CallReport, {"kind": "call", "kept": 0}, "kept is not true or false"),
    ],
)
def test_what_is_wrong_is_named(kind: Any, data: Any, words: str) -> None:
    said = refused(kind, data)
    assert said.startswith("somebody's word") and words in said


def test_a_number_that_is_none() -> None:
    data = {"touched": [], "missed": 0}
    assert not refused(REQUESTS["trace-end"].kind.REPLY, data)
    for none in (float("nan"), float("inf"), 1e300):
        assert "is not a number" in refused(Ready, {**ready(), "open_ms": none})


def ready(**changes: Any) -> Dict[str, Any]:
    made: Dict[str, Any] = codec.to_json(Ready("/s", "/c", "/e", [], 1, 2, 3, 0, 1.5, server="0.1"))
    return {**made, **changes}


def test_an_older_and_a_newer_side() -> None:
    """What is not known is passed over, what is missing has its default."""
    data = ready(tomorrow={"a": [1]})
    del data["snapshots"], data["unasked"]
    assert codec.from_json(Ready, data).snapshots == 1


def test_a_message_that_is_too_long(monkeypatch: pytest.MonkeyPatch) -> None:
    monkeypatch.setattr(codec, "MAX_MESSAGE", 10)
    assert codec.from_text(b"1234567890") == 1234567890
    with pytest.raises(codec.CodecError):
        codec.from_text(b"12345678901")


def test_every_request_has_its_handler_and_its_row() -> None:
    kinds: Sequence[Any] = every()
    assert {kind.NAME: kind for kind in kinds} == {n: r.kind for n, r in REQUESTS.items()}
    for name, found in REQUESTS.items():
        hints = typing.get_type_hints(found.handler)
        assert hints.pop("return") == found.kind.REPLY, name
        assert found.kind in hints.values(), name
    table = runpy.run_path(str(ROOT / "tools" / "protocol-table"))
    page = table["PAGE"].read_text()
    assert table["tables"]() in page, "run tools/protocol-table"
    assert all(f"| `quffd.{name}` |" in page for name in REQUESTS)
