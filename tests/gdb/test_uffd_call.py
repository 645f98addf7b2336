"""`uffd call`: what the function printed, the value, the dirty pages; and then it never was."""

from __future__ import annotations

import re

import pytest

pytestmark = pytest.mark.shared_gdb


def page(data, kind):
    return [p for p in data["dirty"] if p["kind"] == kind]


@pytest.mark.own_gdb
def test_text_of_a_call(sample):
    text = sample.run("uffd call push(7)")
    lines = text.strip().split("\n")
    assert re.fullmatch(r"\$1 = 1042", lines[0])
    assert lines[1] == "wrote globals of sample, heap, TLS of thread 1 · allocated 1 block (24 B)"
    counts = r"[456] pages dirtied · \d+ fed of [\d,]+ · [\d.]+ m?s · discarded"
    assert re.search(counts, lines[2]), text
    body = "\n".join(lines[3:])
    assert re.search(r"0x[0-9a-f]+000 .*sample.*counter 1041 → 1042", body), text
    assert re.search(r"head 0x[0-9a-f]+ → 0x[0-9a-f]+", body), text
    assert "tls_hits 1007 → 1008" in body
    assert "heap" in body and "stack" in body and "TLS" in body
    assert re.search(r"push \(\) at .*sample\.c:\d+", body)


def test_the_call_is_forgotten(sample):
    sample.run("uffd call push(7)")
    assert sample.value("counter") == "1041"
    assert sample.value("head->value") == "6"
    assert sample.value("tls_hits") == "1007"
    for _ in range(3):
        assert sample.call("push(7)")["value"] == "1042"


@pytest.mark.own_gdb
def test_value_enters_the_history(sample):
    sample.run("uffd call push(7)")
    assert sample.value("$") == "1042"
    assert sample.value("$1 + 1") == "1043"


def test_keep(sample):
    assert "kept" in sample.run("uffd call -keep push(7)")
    assert sample.value("counter") == "1042"
    assert sample.call("push(8)")["value"] == "1043"
    assert sample.value("counter") == "1042"
    sample.run("uffd reset")
    assert sample.value("counter") == "1041"


def test_json(sample, built):
    data = sample.call("push(7)")
    assert data["value"] == "1042"
    assert data["type"] == "int"
    assert data["kept"] is False
    assert data["output"] == ""
    assert 0 < data["fed_pages"] < data["total_pages"]
    assert 0 < data["wall_ms"] < 60000
    assert isinstance(data["schema"], int)
    for entry in data["dirty"]:
        start, end = int(entry["start"], 16), int(entry["end"], 16)
        assert end - start == 4096 and start % 4096 == 0
        assert entry["bytes_changed"] > 0
        assert set(entry["first_write"]) >= {"pc", "sp", "tid", "function", "file", "line"}
    (image,) = [p for p in page(data, "data") if p["mapping"] == str(built / "sample")]
    names = {c["name"]: c for c in image["changes"]}
    assert names["counter"]["before"] == "1041" and names["counter"]["after"] == "1042"
    assert names["counter"]["type"] == "int"
    assert image["first_write"]["function"] == "push"
    assert image["first_write"]["file"].endswith("sample.c")
    (tls,) = page(data, "tls")
    assert tls["changes"][0]["name"] == "tls_hits"
    assert (tls["changes"][0]["before"], tls["changes"][0]["after"]) == ("1007", "1008")
    assert page(data, "heap")[0]["mapping"] == "[heap]"
    assert page(data, "stack")[0]["mapping"] == "[stack]"


def test_first_write_names_the_line(sample):
    data = sample.call("push(7)")
    listing = sample.run("list push,+12")
    found = re.search(r"^(\d+)\t.*head = fresh", listing, re.M)
    (image,) = [p for p in page(data, "data") if "sample" in p["mapping"]]
    assert found and image["first_write"]["line"] == int(found[1])


@pytest.mark.own_gdb
def test_output_is_shown_and_in_json(zoo):
    text = zoo.run('uffd call mix(1, 2.5, "text")')
    assert text.index("mix 1 2.50 text") < text.index("$1 = 5") and text.count("mix 1") == 1, text
    assert zoo.call('mix(1, 2.5, "text")')["output"] == "mix 1 2.50 text\n"


def test_output_that_stdio_still_holds(zoo):
    assert "in the buffer" in zoo.run('uffd call buffered("in the buffer\\n")')
    assert "in the buffer" in zoo.call('buffered("in the buffer\\n")')["output"]


def test_stderr_of_the_call(zoo):
    assert "oh dear" in zoo.run('uffd call complain("oh dear\\n")')


def test_output_with_protocol_bytes(zoo):
    assert "a$b#c}d*e" in zoo.call('shout("a$b#c}d*e\\n")')["output"]


def test_pages_of_gdb_are_told_apart(zoo):
    text = zoo.run('uffd call mix(1, 2.5, "text")')
    assert re.search(r"^  and \d pages? only gdb wrote \(string arguments[),]", text, re.M), text


def test_pages_of_gdb_in_json(sample):
    data = sample.call("push(7)")
    assert data["gdb_dirty"], data
    starts = {p["start"] for p in data["dirty"]}
    assert not starts & {p["start"] for p in data["gdb_dirty"]}


def test_argument_through_malloc_is_gdbs(zoo):
    zoo.run("uffd call -keep (long)malloc(8)")  # whatever a first allocation sets up
    data = zoo.call('shout("text\\n")')
    assert data["output"] == "text\n"
    assert not page(data, "heap"), data["dirty"]
    assert [p for p in data["gdb_dirty"] if p["kind"] == "heap"]


def test_bss_pages_are_data(zoo, built):
    data = zoo.call("dirty_bss(20)")
    image = [p for p in page(data, "data") if p["mapping"] == str(built / "zoo")]
    assert len(image) >= 20
    assert all(c["name"].startswith("big_bss") for p in image[:1] for c in p["changes"])


def test_dirty_of_a_library(zoo, built):
    data = zoo.call("set_grid(0, 1, 55)")
    (image,) = page(data, "data")
    assert {c["name"] for c in image["changes"]} >= {"hidden"}
    assert any(c["name"].startswith("grid") for c in image["changes"])


def test_struct_value(zoo):
    assert zoo.call("mirror(triangle.corner[0])")["value"] == "{x = 2, y = 1}"
    assert "area = 5.5" in zoo.call("grow(triangle, 3)")["value"]


def test_pointer_to_fresh_memory_is_readable_in_the_value(zoo):
    data = zoo.call("((char *)map_pages(5))[4096*2]")
    assert data["value"].startswith("3")


def test_expression_without_a_call(sample):
    text = sample.run("uffd call counter + 1")
    assert "= 1042" in text and "no pages" in text


def test_void(zoo):
    assert zoo.call("(void)half(3.0)")["value"] == "void"


def test_wrong_expression_is_one_line(zoo):
    text = zoo.run("uffd call no_such_thing(1)").strip()
    assert text == 'No symbol "no_such_thing" in current context.'
    assert zoo.value("half(1.0)") == "0.5"


def test_no_expression(zoo):
    text = zoo.run("uffd call").strip()
    assert "\n" not in text and "EXPRESSION" in text.upper()


def test_call_that_breaks_the_middle_changes_nothing(zoo):
    zoo.run("uffd call crash_after_dirt()")
    assert zoo.value("grid[2][3]") == "11"
    assert "crash" not in zoo.run("bt")
    assert "main" in zoo.run("bt")


def test_calls_after_calls_start_from_the_same_state(zoo):
    first = zoo.call("churn(500)")
    for _ in range(5):
        again = zoo.call("churn(500)")
        assert again["value"] == first["value"]
        assert len(again["dirty"]) == len(first["dirty"])


def test_discard_after_kept_calls_returns_to_them(sample):
    sample.value("push(1)")
    sample.run("uffd call -keep push(2)")
    sample.run("uffd call push(3)")
    assert sample.value("counter") == "1043"
    assert sample.value("head->value") == "2"


def test_discard_of_new_mappings(zoo):
    before = zoo.run("info proc mappings")
    zoo.call("map_pages(5)")
    zoo.call("big(200000000)")
    assert zoo.run("info proc mappings") == before
    assert zoo.value("half(3.0)") == "1.5"


def test_discard_of_heap_growth(zoo):
    for _ in range(3):
        assert zoo.call("churn(5000)")["value"] == "5000"
    assert zoo.value("churn(10)") == "10"


def test_other_thread(zoo):
    zoo.run("thread 2")
    before = zoo.value("tls_here")
    data = zoo.call("bump_tls()")
    assert [p for p in data["dirty"] if p["kind"] == "tls"]
    assert zoo.value("tls_here") == before
    assert "* 2" in zoo.run("info threads")


def test_frame_stays_selected(zoo):
    zoo.run("frame function main")
    zoo.run("uffd call half(3.0)")
    assert zoo.value("argc") == "3"


def test_gcore_core(opened, gdb_path, all_cores):
    gdb = opened(all_cores.gcore(gdb_path))
    data = gdb.call("set_grid(1, 1, 500)")
    assert data["value"] == "5"
    assert any(c["after"] == "500" for p in data["dirty"] for c in p["changes"]), data


def test_breakpoint_of_the_user(zoo):
    zoo.run("break set_grid")
    text = zoo.run("uffd call set_grid(1, 1, 5)")
    assert "set_grid (row=1, column=1, value=5)" in text, text
    assert "uffd reset" in text
    zoo.run("uffd reset")
    zoo.run("delete")
    assert zoo.call("set_grid(1, 1, 5)")["value"] == "5"
