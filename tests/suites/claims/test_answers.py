"""docs/results/answers.md: every number on it is put in from a run or a source; it is what its records give."""

import re
from pathlib import Path

from benchmarks.answers import DOCS, Page, merged, records_in
from wheeltap.suites.claims.ledger import read

PUT = "∎"
NAMES = re.compile(r"\bC\d+\b|#run-[\w-]+|id=\"run-[\w-]+\"")
"""Names of claims, and of what links lead to."""


def test_the_page_is_what_its_records_give() -> None:
    again = "run: python -m benchmarks.answers --record"
    assert (DOCS / "answers.md").read_text() == Page(read(), records_in()).text(), again
    pictures = (DOCS / "answers-effects.svg", DOCS / "answers-scope.svg")
    ids = [claim.id for claim in merged(read(), records_in())]
    assert all(f">{name}<" in pictures[1].read_text() for name in ids) and f">{ids[0]}: " in pictures[0].read_text()


def test_no_number_is_written_by_hand() -> None:
    rest = NAMES.sub("", Page(read(), records_in(), put=lambda text: PUT).text())
    assert re.findall(r".*\d.*", rest) == []
    assert rest.count(PUT) > 100


def test_every_number_of_a_run_links_to_it() -> None:
    page = (DOCS / "answers.md").read_text()
    links = set(re.findall(r"\(#(run-[\w-]+)\)", page))
    assert links and links <= set(re.findall(r'<a id="(run-[\w-]+)"></a>', page))
    assert all(Path(DOCS / name).is_file() for name in re.findall(r"\]\(([\w-]+\.(?:svg|md))\)", page))
