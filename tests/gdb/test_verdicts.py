"""What is said of a call is said of that call: not of one before it, and not before its end."""

from __future__ import annotations

import json
import subprocess

import pytest
from harness import ROOT
from harness.cores import kernel_core

pytestmark = pytest.mark.shared_gdb


def dirty(session, options="-json"):
    text = session.run(f"uffd dirty {options}")
    return json.loads(text[text.index("{") :])


def changed(data):
    return {c["name"]: (c["before"], c["after"]) for d in data["dirty"] for c in d["changes"]}


def test_a_call_that_has_not_returned_is_not_pure(zoo):
    zoo.run("break half")
    zoo.run("print half(3.0)")
    data = dirty(zoo)
    assert not data["verdict"]["pure"] and "did not return" in data["verdict"]["text"], data
    assert not dirty(zoo, "-json -all")["verdict"]["pure"]
    zoo.run("next")
    assert not dirty(zoo)["verdict"]["pure"]
    zoo.run("delete")
    zoo.run("finish")
    assert dirty(zoo, "-json -all")["verdict"]["pure"]
    zoo.run("set unwindonsignal on")
    zoo.run("print crash(0)")
    assert not dirty(zoo)["verdict"]["pure"]
    zoo.run("set uffd call-timeout 1")
    zoo.run("print forever()")
    assert not dirty(zoo)["verdict"]["pure"]
    zoo.run("print half(3.0)")
    data = dirty(zoo)
    assert data["verdict"]["pure"] and data["ended"] is None, data
    zoo.run("break half")
    zoo.run("print half(4.0)")
    zoo.run("delete")  # it stands there still, and says nothing of another call
    data = zoo.call("half(3.0)")
    assert data["verdict"]["pure"] and "did not" not in data["verdict"]["text"], data


def test_only_what_was_called_can_fail_to_return(sample):
    assert sample.run("uffd call *0").strip().startswith("Cannot access memory at address 0x0")
    data = sample.call("*0")
    assert data["verdict"]["text"] == "nothing was called" and not data["verdict"]["pure"]
    assert "nothing was called" in sample.run("uffd dirty")
    for expression in ("push(3)->nosuch", "/q push(3)", "sum()->nosuch"):
        text = sample.run(f"uffd call {expression}")
        assert "did not return" not in text, text
        assert ("counter 1041 → 1042" in text) == ("push" in expression), text
    assert sample.call("sum()->nosuch")["verdict"]["pure"]


def test_an_assignment_is_what_the_expression_wrote(sample):
    data = sample.call("counter = 3")
    assert data["verdict"]["text"] == "wrote globals of sample" and not data["verdict"]["pure"]
    assert changed(data) == {"counter": ("1041", "3")}
    assert changed(dirty(sample)) == {"counter": ("1041", "3")}
    why = sample.run("uffd why counter")
    assert "1 write in the last command" in why and "counter 1041 → 3" in why, why
    assert "not written" in sample.run("uffd why head")
    data = sample.call("push(counter = 5)")
    assert changed(data)["counter"] == ("1041", "6"), data
    assert not data["verdict"]["registers"]
    register = "$rbx" if "rbx" in sample.run("info registers") else "$x19"
    kept = sample.value(register)
    data = sample.call(f"{register} = 5")
    assert data["verdict"]["text"] == f"wrote register {register[1:]}" and not data["dirty"]
    assert sample.value(register) == kept
    assert "· kept" in sample.run(f"uffd call -keep {register} = 5")
    assert sample.value(register) == "5"
    # What was set before a call is not the call's.
    sample.run("set var counter = 70")
    assert changed(dirty(sample)) == {"counter": ("1041", "70")}
    sample.run("set var counter = 71")
    sample.run("print sum()")
    assert dirty(sample)["verdict"]["pure"]
    assert changed(dirty(sample, "-json -all")) == {"counter": ("1041", "71")}


def test_an_end_is_told_of_its_own_call(zoo):
    zoo.run("set unwindonsignal on")
    for failing in ("kill_parent()", "leave(7)", "split()"):
        zoo.run(f'python\ntry:\n  gdb.execute("call {failing}")\nexcept gdb.error: pass\nend')
        text = zoo.run("print half(3.0)")
        assert "SIG" not in text and "exit" not in text and "refused" not in text, text
        data = dirty(zoo)
        assert data["verdict"]["pure"] and not data["refused"] and data["ended"] is None, data
    # `checkpoint` calls fork, which is refused; in a script no prompt comes between.
    text = zoo.run('python for c in ("checkpoint", "print half(3.0)"): gdb.execute(c)')
    told = [line for line in text.splitlines() if "refused fork" in line]
    assert all("the command before" in line for line in told), text
    assert dirty(zoo)["verdict"]["pure"]


def test_the_time_is_that_of_the_call_that_is_told(sample):
    sample.run("uffd call push(3)")
    assert " ms · discarded" in sample.run("uffd dirty").splitlines()[1]
    sample.run("set var counter = 9")
    line = sample.run("uffd dirty").splitlines()[1]
    assert line == "1 page dirtied · kept", line


@pytest.mark.parametrize("how", [(), ("coroutine",)], ids=["handler", "coroutine"])
@pytest.mark.parametrize("where", ["static", "heap", "fields"])
def test_a_stack_inside_of_something(gdb, tmp_path, where, how):
    """Scratch of a call's own frames is no write to the variable or block that the stack is in."""
    program = tmp_path / "inner_stack"
    source = ROOT / "tests" / "programs" / "inner_stack.c"
    subprocess.run(["cc", "-g", "-O0", "-o", program, source], check=True)
    gdb.run(f"uffd spawn {kernel_core([str(program), where, *how], tmp_path / 'run')}")
    for call, value in (("square(5)", "25"), ("deep(9)", "45"), ("deep(0)", "0")):
        data = gdb.call(call)
        assert data["value"] == value and data["verdict"]["pure"], data["verdict"]
    data = gdb.call("use(3)")
    assert data["value"] == "9" and not data["verdict"]["pure"]
    assert [each["what"] for each in data["verdict"]["wrote"]] == ["globals"]
    text = gdb.run("uffd call use(3)")
    assert "fiber.used 0" in text and "3" in text and "room" not in text, text
