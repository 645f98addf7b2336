"""Run inside gdb, alive or on our core of the same instant: make the calls, note what is seen.

DIFF_FOLDER holds the program `p`; DIFF_MODE is `live` or `ours`.  The live session makes the core
and chooses the calls (calls.json), unless calls.txt gives them; ours makes the same ones.
"""

import hashlib
import json
import os
import random
import re

import gdb

FOLDER = os.environ["DIFF_FOLDER"]
LIVE = os.environ["DIFF_MODE"] == "live"
CALLS = 5
SECONDS = 4  # a call that is not done by then is left out
SCALARS = (
    gdb.TYPE_CODE_INT,
    gdb.TYPE_CODE_CHAR,
    gdb.TYPE_CODE_BOOL,
    gdb.TYPE_CODE_ENUM,
    gdb.TYPE_CODE_FLT,
)
WHOLE = {"max_elements": 0, "repeat_threshold": 0}


def path(name):
    return os.path.join(FOLDER, name)


def read(name):
    with open(path(name)) as file:
        return file.read()


def load(name):
    return json.loads(read(name))


def symbols():
    """(functions, variables) of the program's own file, by name."""
    frame = gdb.selected_frame()
    table = frame.find_sal().symtab
    functions, variables = {}, {}
    for block in (table.static_block(), table.global_block()):
        for symbol in block:
            if symbol.symtab != table:
                continue
            if symbol.is_function:
                functions[symbol.name] = symbol
            elif symbol.is_variable:
                variables[symbol.name] = symbol
    return functions, variables


def argument(wanted, variables, choose):
    """A C expression for one parameter; None where there is none."""
    stripped = wanted.strip_typedefs().unqualified()
    if stripped.code in SCALARS:
        return str(choose.choice((0, 1, -1, 2, 7, 100, -128, 65535, choose.randrange(1 << 31))))
    if stripped.code == gdb.TYPE_CODE_PTR:
        target = stripped.target().strip_typedefs().unqualified()
        fitting = [
            name
            for name, symbol in sorted(variables.items())
            if str(symbol.type.strip_typedefs().unqualified()) == str(target)
        ]
        return "&" + choose.choice(fitting) if fitting else None
    return None


def choose_calls(functions, variables):
    choose = random.Random(os.path.basename(FOLDER))
    found = []
    names = [name for name in sorted(functions) if name.startswith("func_")]
    for _ in range(40):
        if not names or len(found) == CALLS:
            break
        name = choose.choice(names)
        fields = functions[name].type.fields()
        given = [argument(field.type, variables, choose) for field in fields]
        if None not in given:
            found.append(f"{name}({', '.join(given)})")
    return found


def value_of(expression):
    try:
        return gdb.parse_and_eval(expression).format_string(**WHOLE)
    except gdb.error as error:
        return "error: " + str(error).split("\n")[0]


def state(variables):
    """{name: (bytes, text)} of the globals: a pointer's text changes with what it points to."""
    found = {}
    for name in variables:
        try:
            value = gdb.parse_and_eval(name)
            raw = gdb.selected_inferior().read_memory(int(value.address), value.type.sizeof)
            found[name] = (bytes(raw).hex(), value.format_string(**WHOLE))
        except (gdb.error, TypeError) as error:
            found[name] = ("", f"error: {error}")
    return found


def registers():
    frame = gdb.newest_frame()
    found = {}
    for register in frame.architecture().registers():
        if register.name == "orig_rax" or re.match(
            r"k\d|.*mm1[6-9]|.*mm[23]\d|pl\d_ssp", register.name
        ):
            continue
        try:
            found[register.name] = frame.read_register(register).format_string(format="x")
        except gdb.error as error:
            found[register.name] = f"error: {error}"
    return found


def ranges():
    """The program's own writable memory and the heap, as they are before the calls."""
    if LIVE:
        found = []
        for line in read(f"/proc/{gdb.selected_inferior().pid}/maps").split("\n"):
            fields = line.split()
            if (
                len(fields) > 5
                and fields[1].startswith("rw")
                and fields[5] in (path("p"), "[heap]")
            ):
                start, end = (int(part, 16) for part in fields[0].split("-"))
                found.append([start, end - start])
        with open(path("ranges.json"), "w") as out:
            json.dump(found, out)
    return load("ranges.json")


def digests(where):
    inferior = gdb.selected_inferior()
    return {hex(a): hashlib.sha256(inferior.read_memory(a, n)).hexdigest() for a, n in where}


def root(name):
    """The variable that a name of a report begins with."""
    found = re.search(r"[A-Za-z_]\w*", name)
    return found[0] if found else ""


def told(expression, variables):
    """The value that `uffd call` gives, and what it says of the program's own variables."""
    text = gdb.execute(f"uffd call -json {expression}", to_string=True)
    report = json.loads(next(line for line in text.split("\n") if line.startswith("{")))
    names, heap = {}, {}
    for page in report["dirty"]:
        for change in page["changes"]:
            pair = [change["before"], change["after"]]
            if page["kind"] == "heap":
                if not (change["raw"] or change["role"] or change["note"] or change["union"]):
                    heap[change["name"]] = pair
            elif page["kind"] in ("data", "tls") and root(change["name"]) in variables:
                names[change["name"]] = pair
    return report["value"] if report["value"] is not None else "error", names, heap


def plain(text):
    """Without the type that `print` puts before a pointer."""
    return re.sub(r"^\((?:[^()]|\([^()]*\))*\) (?=0x)", "", text or "")


def same(told, printed):
    """Whether the told text, which may be cut, is that of gdb."""
    told, printed = plain(told), plain(printed)
    return printed.startswith(told[:-1]) if told.endswith("…") else told == printed


def wrong(heap, before):
    """What was told of the heap and is not what gdb prints before and after; a path may lead to
    another object afterwards, which the address then tells."""
    found = []
    for name, (old, new) in heap.items():
        was, now = before[name], shown(name)
        if "error: Could not find operator" in was[0]:
            continue  # the compiler has made none; the report reads what the object holds
        if not same(old, was[0]) or (where_is(name) == was[1] and not same(new, now)):
            found.append(f"{name}: {was[0]} → {now}, told {old} → {new}"[:300])
    return found


def shown(expression):
    """As `value_of`, what a reference refers to."""
    try:
        value = gdb.parse_and_eval(expression)
        if value.type.code in (gdb.TYPE_CODE_REF, gdb.TYPE_CODE_RVALUE_REF):
            value = value.referenced_value()
        return value.format_string(**WHOLE)
    except gdb.error as error:
        return "error: " + str(error).split("\n")[0]


def where_is(expression):
    try:
        return int(gdb.parse_and_eval(expression).address or 0)
    except (gdb.error, TypeError):
        return 0


def main():
    # csmith's programs need not end.
    gdb.execute(f"set direct-call-timeout {SECONDS}")
    gdb.execute("set unwind-on-timeout on")
    gdb.execute("set print repeats unlimited")
    gdb.execute("set unwind-on-signal on")
    if LIVE:
        where = "stop" if gdb.lookup_global_symbol("stop") else "main"
        gdb.execute(f"break {where}", to_string=True)
        gdb.execute("run > /dev/null", to_string=True)
        gdb.execute("delete", to_string=True)
        gdb.execute(f"gcore {path('core')}", to_string=True)
    functions, variables = symbols()
    if LIVE:
        if os.path.exists(path("calls.txt")):
            calls = read("calls.txt").split("\n")[:CALLS]
        else:
            calls = choose_calls(functions, variables)
    else:
        calls = load("calls.json")
    where = ranges()
    seen = []
    before = state(variables)
    for expression in calls:
        entry = {"call": expression}
        if not LIVE:
            entry["uffd_call"], entry["told"], heap = told(expression, variables)
            started = {name: (shown(name), where_is(name)) for name in heap}
        entry["value"] = value_of(expression)
        if LIVE and "timed out" in entry["value"]:
            break
        after = state(variables)
        changed = [n for n in after if before[n][0] != after[n][0]]
        entry["changed"] = {n: [before[n][1], after[n][1]] for n in changed}
        entry["memory"] = digests(where)
        entry["registers"] = registers()
        if not LIVE:
            entry["heap"] = wrong(heap, started)
        before = after
        seen.append(entry)
    with open(path(f"{os.environ['DIFF_MODE']}.json"), "w") as out:
        json.dump(seen, out, indent=1)
    if LIVE:
        with open(path("calls.json"), "w") as out:
            json.dump([entry["call"] for entry in seen], out)
    gdb.execute("kill", to_string=True)


main()
