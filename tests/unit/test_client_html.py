"""The HTML report: well formed, complete, bounded, deaf to what hostile cores put into names."""

from __future__ import annotations

import base64
import hashlib
import re
from html.parser import HTMLParser
from typing import Any, Dict, List, Optional, Tuple

import pytest
from hypothesis import given, settings
from hypothesis import strategies as st

from gdb_uffd.client.show import html_page
from gdb_uffd.protocol.messages_calls import PageImage
from gdb_uffd.protocol.model import Mapping

HOSTILE = [
    "<script>alert(1)</script>",
    '"><img src=x onerror=alert(1)>',
    "' onmouseover='alert(1)",
    "</title></style></pre></svg><iframe src=javascript:alert(1)>",
    "<!-- --><svg/onload=alert(1)>",
    "]]><![CDATA[<b>",
    "&lt;b&gt; &amp; &#39;",
    "\u202egnp.exe\u202c \x1b[31m \x00 \ud800",
    "javascript:alert(1)",
    "@import url(http://example.org/x.css); </style>",
]

VOID = {"meta", "rect", "br", "img", "link", "input", "hr"}
ALLOWED = set(
    "html head meta title style body header section footer h1 h2 p pre table thead tbody tr th td "
    "code span b a ul li details summary div svg g text rect".split()
)


class Reader(HTMLParser):
    """Every element closed where it must be; what there is, for the tests to look at."""

    def __init__(self) -> None:
        super().__init__(convert_charrefs=True)
        self.open: List[str] = []
        self.elements: List[Tuple[str, Dict[str, Optional[str]]]] = []
        self.text = ""
        self.comments = 0

    def handle_starttag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert len(dict(attrs)) == len(attrs), f"an attribute twice: {attrs}"
        if tag not in VOID:
            self.open.append(tag)

    def handle_startendtag(self, tag: str, attrs: List[Tuple[str, Optional[str]]]) -> None:
        self.elements.append((tag, dict(attrs)))
        assert tag in VOID

    def handle_endtag(self, tag: str) -> None:
        assert self.open and self.open[-1] == tag, f"</{tag}> closes {self.open[-3:]}"
        self.open.pop()

    def handle_data(self, data: str) -> None:
        if self.open[-1:] != ["style"]:
            self.text += data

    def handle_comment(self, data: str) -> None:
        self.comments += 1


def read(page: str) -> Reader:
    page.encode("utf-8", "replace")
    reader = Reader()
    reader.feed(page)
    reader.close()
    assert not reader.open and not reader.comments
    return reader


def content(word: str = "counter", pages: int = 2, **more: Any) -> html_page.Content:
    """A call that wrote `pages` pages; every text in it is `word`."""
    start = 0x555555558000
    first = {
        "pc": "0x1", "sp": "0x2", "tid": 7, "address": "0x3", "function": word, "file": word,
        "line": 3, "caller": {"function": word, "file": word, "line": 4},
    }  # fmt: skip
    change = {"name": word, "type": word, "before": word, "after": word}
    dirty = [
        {
            "start": hex(start + 4096 * i), "end": hex(start + 4096 * (i + 1)), "kind": "data",
            "mapping": word, "thread": None, "bytes_changed": 2, "changes": [change],
            "first_write": first,
        }
        for i in range(pages)
    ]  # fmt: skip
    data: Dict[str, Any] = {
        "schema": 2, "expression": word, "value": word, "type": word, "wall_ms": 1.25,
        "kept": False, "fed_pages": 3, "total_pages": 99, "page_size": 4096, "output": word,
        "dirty": dirty, "refused": [word], "ended": word, "unavailable": word,
        "gdb_dirty": [{"start": hex(start), "kind": word, "mapping": word, "writers": [word]}],
        "stopped": {"reason": word, "where": word, "backtrace": [word, word]},
    }  # fmt: skip
    images = {}
    for i in range(pages):
        after = bytearray(range(256)) * 16
        after[100], after[101] = 1, 2
        at = start + 4096 * i
        images[at] = PageImage(at, bytes(bytearray(range(256)) * 16), bytes(after))
    made = html_page.Content(
        data=data,
        verdict=[word, word],
        core=word,
        executable=word,
        mappings=[
            Mapping(start - 4096, start + 4096 * (pages + 3), 3, word, 0, word),
            Mapping(0x7FFFF0000000, 0x7FFFF0010000, 5, word),
        ],
        fed=[(start - 4096, start + 4096)],
        images=images,
        made=word,
    )
    for name, value in more.items():
        setattr(made, name, value)
    return made


def test_what_is_on_the_page():
    reader = read(html_page.document(content("head→next")))
    assert "head→next" in reader.text
    assert (
        "corehead→nextexecutablehead→nexttime1.2 mseffectsdiscardedpages2 dirtied · 3 fed of 99"
        "endedhead→nextnot recordedhead→next#0 head→next\n#1 head→next"
    ) in reader.text
    tags = [tag for tag, _ in reader.elements]
    assert set(tags) <= ALLOWED
    ids = [attributes["id"] for _, attributes in reader.elements if "id" in attributes]
    assert len(ids) == len(set(ids))
    for name in ("map", "variables", "calls", "output", "pages", "gdb"):
        assert name in ids
    links = [a["href"] for tag, a in reader.elements if tag == "a"]
    assert links and all(link and link[0] == "#" and link[1:] in ids for link in links)
    kinds = [a.get("class") for tag, a in reader.elements if tag == "rect"]
    assert kinds.count("bar") == 1 and "fed" in kinds and "dirty" in kinds
    assert "1 mapping without a page of this call" in reader.text
    # Offsets 100 and 101 lie in one line, told before and after.
    assert reader.text.count("0x555555558060") == 2 and "14 equal lines" not in reader.text
    assert "6 equal lines" in reader.text and "249 equal lines" in reader.text


@pytest.mark.parametrize("word", HOSTILE)
def test_hostile_texts_stay_texts(word):
    harmless, hostile = content("harmless"), content(word)
    plain, reader = read(html_page.document(harmless)), read(html_page.document(hostile))
    assert [tag for tag, _ in reader.elements] == [tag for tag, _ in plain.elements]
    for (tag, mine), (_, theirs) in zip(reader.elements, plain.elements):
        assert set(mine) == set(theirs), tag
        assert not [name for name in mine if name.startswith("on")]
        assert {"src", "style", "srcdoc", "action", "data"}.isdisjoint(mine)
        assert (mine.get("href") or "#").startswith("#")
    assert "\x1b" not in reader.text and "\u202e" not in reader.text


@settings(max_examples=60, deadline=None)
@given(st.text(max_size=60))
def test_any_text_stays_a_text(word):
    reader = read(html_page.document(content(word, pages=1)))
    assert {tag for tag, _ in reader.elements} <= ALLOWED


def test_nothing_can_be_loaded_or_run():
    page = html_page.document(content())
    reader = read(page)
    (policy,) = [
        a["content"] or ""
        for tag, a in reader.elements
        if tag == "meta" and a.get("http-equiv") == "Content-Security-Policy"
    ]
    rules = dict(rule.strip().split(" ", 1) for rule in policy.split(";"))
    assert rules["default-src"] == rules["base-uri"] == rules["form-action"] == "'none'"
    style = re.search(r"<style>(.*?)</style>", page, re.S)
    assert style is not None
    digest = base64.b64encode(hashlib.sha256(style[1].encode()).digest()).decode()
    assert rules["style-src"] == f"'sha256-{digest}'"
    assert not re.search(r"https?://(?!www\.w3\.org/2000/svg)", page)
    assert "url(" not in page and "<script" not in page


def test_a_long_list_is_cut(monkeypatch):
    assert len(html_page.document(content("x" * 10_000, pages=1500))) < 30_000_000
    monkeypatch.setattr(html_page, "MAX_PAGES", 20)
    monkeypatch.setattr(html_page, "MAX_IMAGES", 5)
    reader = read(html_page.document(content("x" * 100, pages=30)))
    assert "… 10 more pages" in reader.text
    assert reader.text.count("its bytes are not in this report") == 15


def changed_throughout(pages: int) -> str:
    made = content("m", pages=pages)
    for start in list(made.images):
        made.images[start] = PageImage(start, bytes(4096), b"<" * 4096)
    return html_page.document(made)


def test_pages_that_changed_throughout(monkeypatch):
    assert len(changed_throughout(300)) < 8_000_000
    monkeypatch.setattr(html_page, "MAX_LINES", 1024)
    page = changed_throughout(10)
    reader = read(page)
    assert reader.text.count("its bytes are not in this report") == 10 - 1024 // 256
    changed = [text for tag, text in re.findall(r"<(b)>(.*?)</b>", page)]
    assert " ".join(["3c"] * 8) + "  " + " ".join(["3c"] * 8) in changed  # a stretch is one mark


def test_a_call_that_wrote_nothing():
    made = content("f()", pages=0, fed=[], mappings=[])
    made.data.update(output="", refused=[], gdb_dirty=[], stopped=None, value=None, error="why")
    reader = read(html_page.document(made))
    assert "why" in reader.text and "f()" in reader.text
    assert not [tag for tag, _ in reader.elements if tag == "svg"]


def test_mappings_of_every_size():
    tib = 1 << 40
    mappings = [
        Mapping(0x1000, 0x2000, 1, "tiny"),
        Mapping(tib, 100 * tib, 3, "huge"),
        *(Mapping(200 * tib + i * 8192, 200 * tib + i * 8192 + 4096, 3) for i in range(3000)),
    ]
    fed = [(0x1000, 0x2000), (tib, tib + 4096), (50 * tib, 50 * tib + 4096)]
    fed += [(100 * tib - 4096, 100 * tib)]  # it is marked at the very end, and not behind it
    fed += [(200 * tib + i * 8192, 200 * tib + i * 8192 + 4096) for i in range(3000)]
    page = html_page.document(content("m", pages=0, fed=fed, mappings=mappings))
    reader = read(page)
    bars = page.count('<rect class="bar"')
    more = re.search(r"… and ([\d,]+) more mappings with such pages", reader.text)
    assert more and bars + int(more[1].replace(",", "")) == len(mappings) and bars <= 200
    for tag, attributes in reader.elements:
        if tag == "rect":
            left, width = int(attributes["x"] or 0), int(attributes["width"] or 0)
            assert width >= 1 and left >= 330 and left + width <= 330 + 640
