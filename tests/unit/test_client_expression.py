"""Expressions as text that gdb reads back."""

from __future__ import annotations

import pytest

from gdb_uffd.client.names.expression import Expression, arguments, at_address, variable
from gdb_uffd.client.show.text import shortened


def test_members_and_elements():
    head = variable("head")
    assert head.member("x").element(3).text == "head.x[3]"
    node = head.target()
    assert node.member("next").target().member("value").text == "head->next->value"
    assert node.object().text == "*head"
    assert node.neighbour(0).member("x").text == "head->x"
    assert node.neighbour(2).member("x").text == "head[2].x"
    assert node.element(1).text == "(*head)[1]"
    assert node.target().member("x").text == "(*head)->x"
    assert node.target().object().text == "**head" or node.target().object().text == "*(*head)"


def test_what_needs_brackets():
    assert variable("*p").member("x").text == "(*p).x"
    assert variable("&a").target().member("x").text == "(&a)->x"
    node = at_address("struct node", 0x10)
    assert node.member("x").text == "((struct node *) 0x10)->x"
    assert at_address("char *", 0x10).object().text == "*((char **) 0x10)"
    assert variable("ns::f(int)::count").member("x").text == "ns::f(int)::count.x"
    assert Expression("a", True).object().member("x").text == "(*a).x"


@pytest.mark.parametrize(
    "text, expected",
    [
        ("f(a, b)", ["a", "b"]),
        ("f(a, g(b, c), d[1])", ["a", "g(b, c)", "d[1]"]),
        ('f("a, b)", 2)', ['"a, b)"', "2"]),
        ("f()", []),
        ("f", []),
        ("(1)", []),
        ("a + (b)", []),
        ("obj.method(x)->other(y)", ["y"]),
        ("f<int>(x)", ["x"]),
        ("table[2](x)", ["x"]),
        ("f(x", []),
        (")", []),
        ("", []),
        ('f(\',\', "\\"")', ["','", '"\\""']),
    ],
)
def test_arguments(text, expected):
    assert arguments(text) == expected


def test_long_names():
    assert shortened("push") == "push"
    long = "std::vector<int, std::allocator<int> >::_M_realloc_insert<int const&>(int, int)::x"
    assert shortened(long) == "std::vector<…>::_M_realloc_insert<…>(…)::x"
    assert len(shortened("x" * 500)) <= 120
    assert shortened("operator<" + "y" * 70).startswith("operator<")


def test_brackets_are_not_doubled():
    assert variable("(*(struct pthread *) 0x10)").member("tid").text == (
        "(*(struct pthread *) 0x10).tid"
    )
    assert variable("(a)[1] + (b)").member("x").text == "((a)[1] + (b)).x"
    assert variable("*p").member("x").text == "(*p).x" and variable("(").text == "("
