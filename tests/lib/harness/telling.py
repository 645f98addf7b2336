"""What a stop and a report tell, in the words that a user reads."""

from __future__ import annotations

from typing import List

from gdb_uffd.client.show import ends
from gdb_uffd.protocol.model import CallReport
from gdb_uffd.replay.interface import Stop


def message(stop: Stop) -> str:
    """ "" where it tells nothing."""
    return ends.end_text(stop.end)


def ended(report: CallReport) -> str:
    """The same of a report."""
    return ends.end_text(report.end)


def refused(report: CallReport) -> List[str]:
    """A line for each system call."""
    return ends.refusal_texts(report.refusals, report.more_refused)


def asked(report: CallReport) -> List[str]:
    """What was granted, the same way."""
    return [ends.grant_text(grant) for grant in report.granted]


def passed(report: CallReport) -> List[str]:
    """Of each lock that it went through."""
    return ends.passed_texts(report)
