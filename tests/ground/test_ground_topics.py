"""The ground knows no topic: what is in ``core`` serves all suites, and names none."""

import re
from pathlib import Path

import wheeltap.core

TOPICS = re.compile(
    r"circuit|\blens\b|\bseal(ed|s)?\b|tamper|pictur|genome|cppn|decodable|disagreement|contaminat|ambig|relearn|rlvr"
    r"|wheeltap\.suites",
    re.IGNORECASE,
)

SHOWN = {"section.py": re.compile("picture", re.IGNORECASE)}
"""Words that are no topic there: pictures are a block of a section, as tables and charts are."""


def test_core_names_no_topic() -> None:
    files = sorted(Path(wheeltap.core.__file__).parent.glob("*.py"))
    assert len(files) > 20
    texts = {path.name: SHOWN.get(path.name, re.compile(r"\Z")).sub("", path.read_text()) for path in files}
    found = {name: [line for line in text.splitlines() if TOPICS.search(line)] for name, text in texts.items()}
    assert {name: lines for name, lines in found.items() if lines} == {}
