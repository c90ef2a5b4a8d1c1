"""Pages of reports made by hand, and a real report: each is made once."""

from pathlib import Path

import pytest
import torch
from torch import nn

import wheeltap as wt
from tests.report.page_cases import PAGE_CASES
from tests.report.report_cases import CASES
from tests.report.study_cases import STUDIES


@pytest.fixture(scope="session")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    """Every case as a file, written when a test asks for it."""
    folder = tmp_path_factory.mktemp("pages")

    class Pages(dict[str, Path]):
        def __missing__(self, name: str) -> Path:
            made = {**CASES, **PAGE_CASES, **STUDIES}[name]()
            self[name] = wt.Report(made).html(folder / f"{name}.html")
            return self[name]

    return Pages()


@pytest.fixture(scope="session")
def real() -> wt.Report:
    """Of a net that survives 8 bits and does not survive 2."""
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(0)
        net = nn.Sequential(nn.Linear(6, 24), nn.ReLU(), nn.Linear(24, 4)).eval()
        inputs = torch.randn(400, 6)
    with torch.no_grad():
        targets = net(inputs).argmax(1)
    report = wt.audit(net, (inputs, targets), name="small net", schemes="int8,int2", margin=0.03, partial=True)
    assert {"costs", "safe"} <= {finding.verdict for finding in report.findings}
    return report
