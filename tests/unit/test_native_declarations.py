"""What build.py makes of the marks in the headers, and what it says of those that mean nothing."""

from __future__ import annotations

from typing import Set

import pytest

from gdb_uffd.native.build import Marked, declarations


def test_what_is_marked_and_nothing_else() -> None:
    text = """
#define ROOM 4 /* PYTHON; of each */
#define OTHER 5 /* not PYTHON */
PYTHON enum { FIRST = 1, /* one */ SECOND };
enum kind { THIRD };
PYTHON struct box {
\tuint8_t bytes[ROOM], *more; /* all */
\tpthread_mutex_t lock;
\tstruct { uint64_t low, high; } area;
\tint (*open)(void *context, const char *name);
\tvoid (*handle)(siginfo_t *info);
\tstruct opaque *next;
\tstruct opaque inside;
};
PYTHON int box_open(struct box *box,
\t\t    const uint8_t *from, size_t len);
void box_close(struct box *box);
"""
    known: Set[str] = set()
    assert declarations("box.h", text, known) == [
        "#define ROOM ...",
        "#define FIRST ...",
        "#define SECOND ...",
        "struct box { uint8_t bytes[...], *more; struct { uint64_t low, high; } area; "
        "int (*open)(void *context, const char *name); struct opaque *next; ...; };",
        "int box_open(struct box *box, const uint8_t *from, size_t len);",
    ]
    assert known == {"struct box"}


@pytest.mark.parametrize(
    ("text", "said"),
    [
        ("PYTHON static int x;\n", "box.h: PYTHON before 'static int x'"),
        ("PYTHON union u {\n\tint x;\n};\n", "box.h: PYTHON before 'union u'"),
        ("PYTHON int f(siginfo_t *to);\n", "box.h: f: Python knows no 'siginfo_t *to'"),
        ("PYTHON struct box f(int x);\n", "box.h: f: Python knows no 'struct box'"),
        ("int PYTHON f(int x);\n", "box.h: a PYTHON that begins no line"),
    ],
)
def test_a_mark_that_means_nothing_is_told(text: str, said: str) -> None:
    with pytest.raises(Marked) as told:
        declarations("box.h", text, set())
    assert str(told.value) == said
