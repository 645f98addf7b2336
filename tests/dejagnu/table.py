"""What the three boards say of the same tests, as docs/dejagnu.md.

A difference is a test that passes through gdbserver and not through our stub.  known.txt gives
the reasons of those that are by design; what matches none of its lines is a fault.
"""

import fnmatch
import json
import re
from collections import Counter
from dataclasses import dataclass, field
from pathlib import Path

BOARDS = ("native", "gdbserver", "ours")
KINDS = "PASS|FAIL|XPASS|XFAIL|KPASS|KFAIL|UNRESOLVED|UNTESTED|UNSUPPORTED|DUPLICATE|PATH"
OUTCOME = re.compile(rf"({KINDS}): (\S+?\.exp): (.*)")
# What differs in a test's name from run to run: the process's numbers, the board's folder.
VARIABLE = re.compile(r"0x[0-9a-f]+|/work/(?:native|gdbserver|ours)/|(?<=process )\d+|(?<=pid )\d+")
REMARK = re.compile(r" \([^()]*\)$")


@dataclass
class Result:
    """One script under one board: how often each test passed, and each test's outcome in order."""

    ended: bool
    passes: Counter[str] = field(default_factory=Counter)
    order: list[tuple[str, str]] = field(default_factory=list)  # (test, outcome)
    said: dict[str, str] = field(
        default_factory=dict
    )  # test → the log before its outcome, where it did not pass
    earlier: dict[str, str] = field(default_factory=dict)  # … all of it from the script's start on
    ours: bool = False  # the log names our server


@dataclass
class Difference:
    script: str
    test: str
    outcome: str
    reason: str = ""


@dataclass
class Known:
    """One line of known.txt: its reason, which scripts, tests, output here and there."""

    reason: str
    script: str
    test: re.Pattern[str]
    log: re.Pattern[str]
    judge: re.Pattern[str]
    anywhere: bool = False  # the judge's log is looked at from the script's start on

    def fits(self, script: str, test: str, log: str, judge: Result, judged: str) -> bool:
        there = (judge.earlier if self.anywhere else judge.said)[judged]
        return fnmatch.fnmatch(script, self.script) and bool(
            self.test.search(test) and self.log.search(log) and self.judge.search(there)
        )


def short(script: str) -> str:
    """A script's name as a file's."""
    return script.replace("/", "__")[: -len(".exp")]


def plain(test: str) -> str:
    return VARIABLE.sub("N", REMARK.sub("", test.strip()))


def read_result(folder: Path, script: str) -> "Result | None":
    """The result of `script` in a board's folder; None where it was not run."""
    facts = folder / f"{short(script)}.json"
    if not facts.exists():
        return None
    result = Result(bool(json.loads(facts.read_text())["ended"]))
    log = folder / f"{short(script)}.log"
    text = log.read_bytes().decode("utf-8", "replace") if log.exists() else ""
    result.ours = "uffd: " in text and " is served on " in text
    said: list[str] = []
    so_far = ""
    for line in text.split("\n"):
        found = OUTCOME.search(line)
        if found is None or found[1] in ("DUPLICATE", "PATH"):
            said.append(line)
            continue
        said.append(line[: found.start()])
        so_far += "\n".join(said) + "\n"
        test = plain(found[3])
        result.order.append((test, found[1]))
        if found[1] == "PASS":
            result.passes[test] += 1
        if found[1] != "PASS" or test not in result.said:
            result.said[test] = "\n".join(said)
            result.earlier[test] = so_far
        said = []
    return result


def read_known(path: Path) -> "tuple[dict[str, str], list[Known]]":
    """Reasons by key, and the lines below them (see the head of known.txt)."""
    reasons: dict[str, str] = {}
    lines: list[Known] = []
    key = ""
    for line in path.read_text().split("\n"):
        if line.startswith("["):
            key, _, text = line[1:].partition("]")
            reasons[key] = text.strip()
        elif line.strip() and not line.startswith("#"):
            script, *patterns = (part.strip() for part in line.split("|"))
            test, log, judge = (*patterns, "", "", "")[:3]
            anywhere = judge.startswith("...")
            made = [re.compile(part) for part in (test, log, judge.removeprefix("...").strip())]
            lines.append(Known(key, script, *made, anywhere))
    return reasons, lines


def differences(
    script: str, judge: Result, ours: Result, known: "list[Known]"
) -> "list[Difference]":
    """The tests of `script` that pass through gdbserver and not here.

    A test that did not run at all here stands behind one that failed: it has that one's reason.
    """
    missing = judge.passes - ours.passes
    failed = [pair for pair in ours.order if pair[1] != "PASS"]
    outcomes = dict(reversed(failed))
    last = failed[-1][0] if failed else ""  # where a script that was left early ended
    found = []
    reason = ""
    for test in dict.fromkeys(name for name, _ in judge.order):
        for _ in range(missing[test]):
            outcome = outcomes.get(test, "not run")
            said = ours.said.get(test, "")
            fitting = [k.reason for k in known if k.fits(script, test, said, judge, test)]
            if not fitting and outcome == "not run" and not reason:
                said = ours.said.get(last, "")
                fitting = [k.reason for k in known if k.fits(script, last, said, judge, test)]
            if fitting:
                reason = fitting[0]
            elif outcome != "not run":
                reason = ""
            found.append(Difference(script, test, outcome, reason))
    return found


def write(results: Path, scripts: "list[str]", known_path: Path, page: Path) -> int:
    """Write the page; 1 where a difference has no known reason."""
    reasons, known = read_known(known_path)
    rows, found, unfinished = [], [], []
    sums: Counter[str] = Counter()
    for script in scripts:
        by_board = {board: read_result(results / board, script) for board in BOARDS}
        judge, ours = by_board["gdbserver"], by_board["ours"]
        if judge is None or ours is None:
            continue
        if not (judge.ended and ours.ended):
            unfinished.append(f"{script} ({'ours' if judge.ended else 'gdbserver'})")
            continue
        if not ours.ours or not sum(judge.passes.values()):
            continue  # nothing ran through a stub here
        here = differences(script, judge, ours, known)
        found += here
        counts = {
            board: sum(one.passes.values()) for board, one in by_board.items() if one is not None
        }
        sums.update(counts)
        faults = sum(1 for one in here if not one.reason)
        native = str(counts.get("native", "–"))
        rows.append(
            (script, native, counts["gdbserver"], counts["ours"], len(here) - faults, faults)
        )
    page.write_text(render(rows, sums, found, reasons, unfinished))
    faults = [one for one in found if not one.reason]
    print(f"{len(rows)} scripts: " + ", ".join(f"{board} {sums[board]}" for board in BOARDS))
    designed = len(found) - len(faults)
    print(f"{designed} by design, {len(faults)} faults, {len(unfinished)} unfinished: {page}")
    for one in faults:
        print(f"  {one.outcome}: {one.script}: {one.test}")
    return 1 if faults else 0


Row = "tuple[str, str, int, int, int, int]"


def render(
    rows: "list[tuple[str, str, int, int, int, int]]",
    sums: "Counter[str]",
    found: "list[Difference]",
    reasons: "dict[str, str]",
    unfinished: "list[str]",
) -> str:
    by_reason = Counter(one.reason for one in found)
    faults = by_reason.pop("", 0)
    counts = f"{len(found)} | {len(found) - faults} | {faults}"
    totals = [f"{sums[board]:,}" for board in BOARDS]
    alone = sum(1 for row in rows if row[1] != "–")
    if alone < len(rows):
        totals[0] += f" (of {alone} scripts)"
    lines = [
        "# gdb's own test-suite",
        "",
        "`make dejagnu` runs scripts of gdb's test-suite (Debian's source package `gdb`) under",
        "gdb 18.1 three times: natively, through gdbserver, and through our stub on a core",
        "taken at the program's entry. `tests/dejagnu/known.txt` holds the reasons of the",
        "differences that are by design. Counted are scripts that ended on both stubs.",
        "",
        "| scripts | native | gdbserver | ours | only on gdbserver | by design | faults |",
        "| --- | --- | --- | --- | --- | --- | --- |",
        f"| {len(rows)} | " + " | ".join(totals) + f" | {counts} |",
        "",
        "## By design",
        "",
        "| tests | why |",
        "| --- | --- |",
        *(f"| {count} | {reasons[key]} |" for key, count in by_reason.most_common()),
    ]
    if faults:
        lines += ["", "## Faults", "", "| script | test | here |", "| --- | --- | --- |"]
        lines += [f"| {d.script} | {cell(d.test)} | {d.outcome} |" for d in found if not d.reason]
    lines += ["", "## By script", ""]
    lines += [
        "| script | native | gdbserver | ours | by design | faults |",
        "| --- | --- | --- | --- | --- | --- |",
    ]
    lines += ["| " + " | ".join(str(part) for part in row) + " |" for row in rows]
    if unfinished:
        lines += [
            "",
            "Not ended in the time limit, and not counted (board): " + ", ".join(unfinished) + ".",
        ]
    return "\n".join(lines) + "\n"


def cell(text: str) -> str:
    return text.replace("|", "\\|").replace("<", "&lt;")
