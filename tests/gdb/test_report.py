"""`uffd report`: the file, and what a browser makes of it."""

from __future__ import annotations

import os
import re
import stat
from pathlib import Path
from typing import Iterator

import pytest
from harness import browser

pytestmark = pytest.mark.shared_gdb


@pytest.fixture(scope="module")
def chromium(tmp_path_factory: pytest.TempPathFactory) -> Iterator[browser.Browser]:
    program = browser.find()
    if program is None:
        pytest.skip(browser.why_not())
    started = browser.Browser(program, tmp_path_factory.mktemp("profile"))
    yield started
    started.close()


def write(gdb, path: Path) -> str:
    said = gdb.run(f"uffd report {path}")
    assert f"{path} (" in said and "shows the last call" in said, said
    return path.read_text(encoding="utf-8")


@pytest.mark.own_gdb
def test_the_file(writes, tmp_path):
    writes.run("uffd call members()")
    path = tmp_path / "a file.html"
    page = write_quoted(writes, path)
    assert page.startswith("<!DOCTYPE html>") and "members()" in page
    assert stat.S_IMODE(path.stat().st_mode) == 0o600  # it holds the core's memory
    assert set(os.listdir(tmp_path)) == {"a file.html", "home"}
    for word in ("table", "IDLE", "DONE", "first written by members ()", "writes.c"):
        assert word in page
    assert writes.call("count(1)")["value"] == "42"


def write_quoted(gdb, path: Path) -> str:
    said = gdb.run(f'uffd report "{path}"')
    assert "shows the last call" in said, said
    return path.read_text(encoding="utf-8")


def test_of_a_plain_print_and_of_a_crash(writes, tmp_path):
    writes.run("print count(3)")
    page = write(writes, tmp_path / "a.html")
    assert "the last command" in page and "counter" in page and "kept" in page
    writes.run("uffd call faults()")
    page = write(writes, tmp_path / "a.html")
    assert "did not return" in page and "faults ()" in page
    writes.run('uffd call say("<b>out</b>")')
    page = write(writes, tmp_path / "a.html")
    assert "&lt;b&gt;out&lt;/b&gt;" in page and "<b>out" not in page


def test_errors(writes, tmp_path):
    assert "nothing has run yet" in writes.run(f"uffd report {tmp_path}/x.html")
    writes.run("uffd call count(1)")
    assert "usage: uffd report" in writes.run("uffd report")
    assert "usage: uffd report" in writes.run("uffd report a b")
    assert "is a directory" in writes.run(f"uffd report {tmp_path}")
    assert "no such file or directory" in writes.run(f"uffd report {tmp_path}/no/x.html")
    assert "cannot read the file name" in writes.run("uffd report 'x")
    assert not list(tmp_path.glob("*.html")) and not list(tmp_path.glob(".uffd*"))
    pipe = tmp_path / "pipe"
    os.mkfifo(pipe)
    link = tmp_path / "link"
    link.symlink_to(pipe)
    for place in (pipe, link):
        assert f"{pipe}: is no regular file" in writes.run(f"uffd report {place}")
    assert pipe.is_fifo() and link.is_symlink()
    old = tmp_path / "old.html"
    old.write_text("old")
    write(writes, old)
    assert old.read_text() != "old"


def test_in_a_browser(writes, tmp_path, chromium):
    writes.run("uffd call members()")
    path = tmp_path / "report.html"
    write(writes, path)
    chromium.open(path.as_uri())
    assert chromium.evaluate("document.title") == "members()"
    # Nothing but the page itself was asked for, nothing was blocked, nothing complained.
    asked = {event["request"]["url"] for event in chromium.methods("Network.requestWillBeSent")}
    assert asked == {path.as_uri()}
    assert not chromium.methods("Log.entryAdded")
    assert not chromium.methods("Runtime.exceptionThrown")
    # The map is drawn: bars of one width, the dirtied pages above them in another colour.
    widths = chromium.evaluate(
        "[...document.querySelectorAll('svg.map rect.bar')].map(r => r.getBBox().width)"
    )
    assert widths and set(widths) == {640}
    colours = {
        kind: chromium.evaluate(f"getComputedStyle(document.querySelector('rect.{kind}')).fill")
        for kind in ("bar", "fed", "dirty")
    }
    assert len(set(colours.values())) == 3
    box = chromium.evaluate(
        "(r => [r.left, r.right])(document.querySelector('svg.map').getBoundingClientRect())"
    )
    assert 0 <= box[0] < box[1] <= 1200
    assert chromium.evaluate("document.documentElement.scrollWidth") <= 1200
    # A page folds and unfolds; its bytes are there.
    size = "document.querySelector('#pages details').getBoundingClientRect().height"
    before = chromium.evaluate(size)
    chromium.evaluate("document.querySelector('#pages details > summary').click()")
    assert chromium.evaluate(size) != before
    text = chromium.evaluate("document.querySelector('#pages').textContent")
    assert re.search(r"0x[0-9a-f]{12} .*\|", text)
    # A variable leads to its page.
    target = chromium.evaluate("document.querySelector('#variables a').getAttribute('href')")
    assert chromium.evaluate(f"document.querySelector('{target}').tagName") == "DETAILS"


def test_a_narrow_window(writes, tmp_path, chromium):
    writes.run("uffd call members()")
    path = tmp_path / "report.html"
    write(writes, path)
    chromium.open(path.as_uri(), width=500)
    assert (
        chromium.evaluate("document.querySelector('svg.map').getBoundingClientRect().right") <= 500
    )


def test_scripts_do_not_run(writes, tmp_path, chromium):
    """Even if a text got in unescaped, the page's own policy would hold."""
    writes.run("uffd call members()")
    path = tmp_path / "report.html"
    page = write(writes, path)
    attack = "<script>document.title='run'</script><img src=x onerror=\"document.title='run'\">"
    path.write_text(page.replace("<footer>", attack + "<footer>"), encoding="utf-8")
    chromium.open(path.as_uri())
    assert chromium.evaluate("document.title") == "members()"
    assert chromium.methods("Log.entryAdded")  # the policy's complaints
