"""An exception that a called function lets through, as the live process's last words tell it."""

from __future__ import annotations

import re
import subprocess
from pathlib import Path
from typing import Optional, Tuple

import pytest

CALLS = [
    *("out_of_range", "quoted", "derived", "worded", "several", "plain", "no_memory"),
    *(
        "system_error",
        "number",
        "text",
        "oops",
        "pointer",
        "std_string",
        "inner",
        "again",
        "carried",
    ),
    *("other", "bare_terminate"),
]

VALUES = {
    "number": "42", "text": '"out of stock"', "oops": "{code = 7, price = 2.5}", "std_string": "",
}  # fmt: skip
"""What libstdc++ does not print."""


def last_words(program: Path, name: str) -> Tuple[Optional[str], Optional[str]]:
    """The type and what() that the terminate handler of the live process prints."""
    done = subprocess.run([str(program), name], capture_output=True, check=False)
    text = done.stderr.decode()
    kind = re.match(r"terminate called after throwing an instance of '(.*)'\n", text)
    assert kind or text == "terminate called without an active exception\n", text
    what = re.search(r"\n  what\(\):  (.*)\n\Z", text, re.S)
    return kind and kind[1], what and what[1]


@pytest.fixture(params=["throws", "throws-bare", "throws-static"])
def program(request):
    return request.param


@pytest.fixture
def throws(gdb, all_cores, program):
    gdb.run(f"uffd spawn {all_cores.throws(program)}")
    return gdb


def call(program: str, name: str) -> str:
    return f"((int (*)(void)) {name})()" if program == "throws-bare" else f"{name}()"


def test_they_are_as_the_live_process_tells_them(throws, program, built):
    for name in CALLS:
        kind, what = last_words(built / program, name)
        data = throws.call(call(program, name))
        told = data["uncaught"]
        if name == "text":
            what = "out of stock"
        assert (told["type"], told["what"], told["foreign"]) == (kind, what, None), (name, data)
        last = throws.run(f"uffd call {call(program, name)}").splitlines()[-1]
        said = last.partition("did not return: ")[2]
        if kind is None:
            assert said == "std::terminate () was called without an exception; discarded"
        elif name == "quoted":
            words = r'uncaught std::runtime_error "a \"quoted\"^[]0;OWNED^G^J line"; discarded'
            assert said == words
        elif what is not None:
            assert said == f'uncaught {kind} "{what}"; discarded'
        elif name == "pointer":
            assert said.startswith("uncaught int*")
        elif program != "throws-bare":
            assert said == f"uncaught {kind} {VALUES[name]}".rstrip() + "; discarded"


def test_nothing_of_looking_is_in_the_report(throws, program):
    """what() of `worded` writes, of `endless` does not return, of `nothing` gives no text."""
    for name in ("worded", "endless", "nothing"):
        text = throws.run(f"uffd call {call(program, name)}", timeout=30)
        assert f"uncaught {name.title()}" in text.splitlines()[-1], text
        assert "its own words" not in "\n".join(text.splitlines()[:-1])
        assert throws.call(call(program, name))["uncaught"]["type"] == name.title()
    assert throws.value(call(program, "caught")) == "1"  # the next call is as ever
    data = throws.call(call(program, "caught"))
    assert data["value"] == "2" and "uncaught" not in data


@pytest.mark.parametrize("program", ["throws"], indirect=False)
def test_a_plain_print_tells_it_too(gdb, all_cores, program):
    gdb.run(f"uffd spawn {all_cores.throws(program)}")
    for name, words in (
        ("out_of_range", 'uncaught std::out_of_range "no such price"'),
        ("number", "uncaught int 42"),
        ("inner", 'uncaught std::length_error "through noexcept"'),
    ):
        text = gdb.run(f"print {name}()")
        (line,) = [line for line in text.splitlines() if line.startswith("[uffd: ")]
        assert words in line, text
        gdb.run("uffd reset")
    text = gdb.run("uffd call -keep derived()")
    assert text.splitlines()[-1].endswith(
        'uncaught Price "too dear"; kept; `uffd reset` forgets it'
    )
    gdb.run("uffd reset")
    gdb.run("set language c++")
    gdb.run("python\nclass P:\n  def __init__(self, v): pass\n  def to_string(self):\n"
            "    return gdb.parse_and_eval('out_of_range()')\n"
            "gdb.pretty_printers.append(lambda v: P(v) if v.type.name == 'shop::Oops' else None)\n"
            "end")  # fmt: skip
    text = gdb.run("uffd call *('shop::Oops' *) &counter")
    assert 'uncaught std::out_of_range "no such price"' in text, text
