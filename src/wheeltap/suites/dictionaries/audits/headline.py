"""The answer on a dictionary in one line: is it better than dictionaries that know nothing, and at what?"""

from collections.abc import Sequence
from typing import Final

from wheeltap.core.records import Finding, SubjectRecord
from wheeltap.core.section import Section

SUFFICIENT, CONTROLS = "Dictionary is sufficient", "Dictionary controls the attributes"
INTERPRETABLE = "Features stand for values"

_FOR: Final = {SUFFICIENT: "keeping the task", CONTROLS: "edits", INTERPRETABLE: "features that stand for values"}
"""What each claim beside nulls is about."""


def no_better(findings: Sequence[Finding]) -> list[Finding]:
    """Claims by which a dictionary is no better than a null."""
    return [one for one in findings if one.title in _FOR and one.status == "excluded"]


def lines(subjects: Sequence[SubjectRecord], findings: Sequence[Finding], sections: Sequence[Section]) -> list[str]:
    """A line for each model whose dictionary was judged."""
    del sections
    each = ((one.name, [row for row in findings if row.subject == one.name]) for one in subjects)
    return [line for name, rows in each if (line := of_dictionary(name, rows))]


def of_dictionary(subject: str, findings: Sequence[Finding]) -> str:
    """The answer on one model's dictionary: first in capitals, then what it rests on; empty where none was judged."""
    asked = [one for one in findings if one.title in _FOR]
    worse, found = no_better(asked), [one for one in asked if one.status == "found"]
    opened = [one for one in asked if one.status == "inconclusive"]
    rest = [one for one in asked if one not in (*worse, *found, *opened)]
    if len(rest) == len(asked):
        return f"NO ANSWER on the dictionary of {subject}: {asked[0].because}" if asked else ""
    start = "NO BETTER THAN A RANDOM DICTIONARY" if worse else "CANNOT TELL" if opened else "BETTER THAN EVERY NULL"
    words = (("no better than a null for", worse), ("better than every null for", found), ("undecided for", opened),
             ("without an answer for", rest))  # fmt: skip
    parts = [f"{verb} {', '.join(_FOR[one.title] for one in some)}" for verb, some in words if some]
    briefs = " ".join(one.brief for one in asked if one.brief)
    more = " More seeds of nulls (--seeds) may tell." if start == "CANNOT TELL" else ""
    return f"{start}: the dictionary of {subject} is {'; '.join(parts)}. {briefs}{more}".rstrip()
