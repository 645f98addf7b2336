"""An exception that a called function lets through, as the live process's last words tell it."""

from __future__ import annotations

import html
import json
import re
import subprocess
from pathlib import Path
from typing import Optional, Tuple

import pytest

pytestmark = pytest.mark.shared_gdb

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
    "number": "42", "text": '"out of stock"', "oops": "{code = 7, price = 2.5}",
}  # fmt: skip
"""What libstdc++ does not print."""

TEXTS = {"text": "out of stock", "std_string": "text in a string"}
"""Texts that were thrown themselves: told whether or not gdb knows their type."""


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
def throws(opened, all_cores, program):
    return opened(all_cores.throws(program))


def call(program: str, name: str) -> str:
    return f"((int (*)(void)) {name})()" if program == "throws-bare" else f"{name}()"


def test_they_are_as_the_live_process_tells_them(throws, program, built):
    for name in CALLS:
        kind, what = last_words(built / program, name)
        data = throws.call(call(program, name))
        told = data["uncaught"]
        what = TEXTS.get(name, what)
        assert (told["type"], told["what"], told["foreign"]) == (kind, what, None), (name, data)
        last = throws.run(f"uffd call {call(program, name)}").splitlines()[-1]
        said = last.partition("did not return: ")[2]
        if kind is None:
            assert said == "std::terminate () was called without an exception; discarded"
        elif name == "quoted":
            words = r'uncaught std::runtime_error "a \"quoted\"^[]0;OWNED^G^J line"; discarded'
            assert said == words
        elif name == "std_string":
            assert said == 'uncaught std::string "text in a string"; discarded'
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
def test_a_plain_print_tells_it_too(opened, all_cores, program):
    gdb = opened(all_cores.throws(program))
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
        'uncaught Price "too dear"; gdb left its frames, what it wrote is kept; '
        "`uffd reset` forgets it"
    )
    gdb.run("uffd reset")
    gdb.run("set language c++")
    gdb.run("python\nclass P:\n  def __init__(self, v): pass\n  def to_string(self):\n"
            "    return gdb.parse_and_eval('out_of_range()')\n"
            "gdb.pretty_printers.append(lambda v: P(v) if v.type.name == 'shop::Oops' else None)\n"
            "end")  # fmt: skip
    text = gdb.run("uffd call *('shop::Oops' *) &counter")
    assert 'uncaught std::out_of_range "no such price"' in text, text


REFUSED = ["{code = 7, why = 0x", '"not today", who = ', '"a customer"', "{0 <repeats 300 times>}}"]
"""What `print` shows of it, with libstdc++'s printers or without."""


def whole(text: str) -> str:
    """The lines as one: where they are broken is not looked at."""
    return " ".join(text.split())


def assert_refused(text: str) -> None:
    assert "uncaught shop::Refused " in whole(text), text
    missing = [part for part in REFUSED if part not in whole(text)]
    assert not missing, text


@pytest.fixture
def thrown(opened, all_cores):
    return opened(all_cores.throws("throws"))


def test_a_struct_is_told_as_print_shows_it(thrown):
    """With the text that it points to: its memory is undone when the line is made."""
    text = thrown.run("uffd call refused()")
    assert_refused(text)
    data = thrown.call("refused()")
    told = data["uncaught"]
    assert (told["type"], told["what"]) == ("shop::Refused", None)
    assert_refused(f"uncaught shop::Refused {told['value']}")
    assert_refused(data["stopped"]["reason"])
    assert_refused(thrown.run("print refused()"))
    thrown.run("set print elements 4")
    assert '"not "...' in thrown.run("uffd call refused()")


def test_a_text_is_cut_as_print_cuts_one(thrown):
    for name, letter in (("wordy", "w"), ("long_string", "s")):
        last = thrown.run(f"uffd call {name}()").splitlines()[-1]
        assert f'"{letter * 200}"...; discarded' in last, last
        assert thrown.call(f"{name}()")["uncaught"]["what"] == letter * 4096
        thrown.run("set print elements 10")
        assert f'"{letter * 10}"...;' in thrown.run(f"uffd call {name}()")
        thrown.run("set print elements unlimited")
        assert f'"{letter * 4096}"...;' in thrown.run(f"uffd call {name}()")
        thrown.run("set print elements 200")


def test_every_command_that_calls_tells_it(thrown, tmp_path):
    words = 'uncaught std::out_of_range "no such price"'
    told = {
        "type": "std::out_of_range", "what": "no such price", "value": None, "foreign": None,
    }  # fmt: skip
    assert f"<{words}>" in thrown.run("uffd map out_of_range()")
    (point,) = json.loads(thrown.run("uffd map -json out_of_range()"))["points"]
    assert (point["error"], point["uncaught"]) == (words, told)
    assert_refused(thrown.run("uffd map refused()"))
    assert words in thrown.run("uffd when out_of_range()")
    assert words in thrown.run("uffd trace out_of_range()")
    assert json.loads(thrown.run("uffd trace -json out_of_range()"))["uncaught"] == told
    thrown.run("uffd call out_of_range()")
    assert words in thrown.run("uffd dirty")
    assert json.loads(thrown.run("uffd dirty -json"))["uncaught"] == told
    for command in ("print refused()", "uffd call refused()"):
        thrown.run(command)
        assert_refused(thrown.run("uffd dirty"))
        thrown.run(f"uffd report {tmp_path}/page.html")
        page = html.unescape((tmp_path / "page.html").read_text())
        assert page.count("uncaught shop::Refused {code = 7, why = 0x") == 1


def test_it_is_told_where_the_user_lets_it_run(thrown):
    words = 'uncaught std::length_error "through noexcept"'
    thrown.run("break length")
    assert "is not finished" in thrown.run("uffd call -keep inner()")
    text = thrown.run("continue")
    assert "SIGABRT" in text and text.count(words) == 1, text
    assert text.index("SIGABRT") < text.index(words), text
    thrown.run("uffd reset")
    assert "uncaught" not in thrown.run("print inner()")
    assert thrown.run("continue").count(words) == 1


def test_what_a_kept_one_left(thrown):
    """gdb takes the registers back, the memory stays written."""
    before = thrown.run("frame")
    text = whole(thrown.run("uffd call -keep refused()"))
    end = "; gdb left its frames, what it wrote is kept; `uffd reset` forgets it"
    assert text.endswith(end), text
    assert thrown.run("frame") == before
    assert thrown.value("counter") == "1"
    thrown.run("uffd reset")
    thrown.run("set unwind-on-terminating-exception off")
    text = whole(thrown.run("uffd call -keep refused()"))
    assert_refused(text)
    assert text.endswith("}; kept; `uffd reset` forgets it"), text
    assert "refused" in thrown.run("bt")
