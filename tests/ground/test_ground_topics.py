"""The ground knows no topic: what is in ``core`` serves all suites, and names none."""

import re
from pathlib import Path

import wheeltap.core

TOPICS = re.compile(
    r"circuit|\blens\b|\bseal(ed|s)?\b|tamper|pictur|genome|cppn|decodable|disagreement|contaminat|ambig|relearn|rlvr"
    r"|wheeltap\.suites",
    re.IGNORECASE,
)

LEFT = {"study.py", "records.py"}
"""Files that still name one; none may be added."""


def test_core_names_no_topic() -> None:
    files = sorted(Path(wheeltap.core.__file__).parent.glob("*.py"))
    assert len(files) > 20
    found = {path.name: [line for line in path.read_text().splitlines() if TOPICS.search(line)] for path in files}
    assert {name: lines for name, lines in found.items() if lines and name not in LEFT} == {}
