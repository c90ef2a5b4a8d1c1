"""First passes: models that rewrite themselves, uses of weights that no module shows."""

import time
from collections.abc import Callable
from pathlib import Path

import pytest
import torch
from engine_nets import numbers, seeded, taught
from torch import Tensor, nn
from torch.nn import functional
from twins import Wired

import wheeltap as wt
from wheeltap.core.errors import ModelError
from wheeltap.engine.clean import settle


def inputs(count: int = 200) -> Tensor:
    return numbers(count, 8, seed=5)


def labelled(model: nn.Module) -> wt.Task:
    return taught(model, inputs())


class Net(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        with torch.random.fork_rng(devices=[]):
            torch.manual_seed(0)
            self.a, self.b = nn.Linear(8, 16), nn.Linear(16, 2)

    def forward(self, rows: Tensor) -> Tensor:
        return self.b(torch.relu(self.a(rows)))


LITTLE = wt.Effort(draws=4, control_draws=4, block_draws=0)


def told(report: wt.Report) -> float | None:
    return report.findings[0].estimates[0].value


# What a model's own passes change.


class Rescaling(Net):
    """Halves its weights in its first pass and doubles the outputs from then on, as RWKV does in eval mode."""

    def __init__(self) -> None:
        super().__init__()
        self.rescaled = False

    def forward(self, rows: Tensor) -> Tensor:
        if not self.rescaled:
            self.b.weight.data.div_(2.0)
            self.b.bias.data.div_(2.0)
            self.rescaled = True
        return 2.0 * super().forward(rows)


class Remembering(Net):
    """Keeps what the last call was given, and counts."""

    def __init__(self) -> None:
        super().__init__()
        self.calls, self.seen = 0, {}

    def forward(self, rows: Tensor) -> Tensor:
        self.calls += 1
        self.seen["last"] = rows.mean()
        return super().forward(rows)


class Tabled(Net):
    """Fills a buffer when it is first needed."""

    table: Tensor

    def __init__(self) -> None:
        super().__init__()
        self.register_buffer("table", torch.zeros(2))
        self.ready = False

    def forward(self, rows: Tensor) -> Tensor:
        if not self.ready:
            self.table.copy_(torch.tensor([1.0, -1.0]))
            self.ready = True
        return super().forward(rows) * self.table


@pytest.mark.parametrize("kind", [Rescaling, Remembering, Tabled])
def test_a_model_that_changes_in_its_first_passes_is_audited_and_known_again(
    kind: Callable[[], nn.Module], tmp_path: Path
) -> None:
    task, store = labelled(kind().eval()), tmp_path / "s.wheeltap"
    how = {"audits": ["score", "quantization"], "store": store}
    first = wt.audit(wt.Subject(kind().eval(), name="net"), task, **how)
    assert told(first) == 1.0 and first.cost.trials
    used = kind().eval()
    used(inputs(7))  # it has a history of its own
    for model in (kind().eval(), used):
        again = wt.audit(wt.Subject(model, name="net"), task, **how)
        assert (again.cost.trials, told(again)) == (0, 1.0)
        assert again.findings == first.findings


def test_a_model_that_learns_in_every_pass_or_reads_the_clock_is_refused() -> None:
    class Learning(Net):
        def forward(self, rows: Tensor) -> Tensor:
            self.b.bias.data.add_(0.1)
            return super().forward(rows)

    class Clocked(Net):
        def forward(self, rows: Tensor) -> Tensor:
            return super().forward(rows) + torch.tensor([time.perf_counter_ns() % 1000 / 1000, 0.0])

    task = labelled(Net().eval())
    with pytest.raises(ModelError, match=r"changes its own weights in every forward pass") as caught:
        wt.audit(wt.Subject(Learning().eval(), name="net"), task)
    assert "net: b.bias" in str(caught.value)
    with pytest.raises(ModelError, match="not deterministic"):
        wt.audit(wt.Subject(Clocked().eval(), name="net"), task, audits=["score"])


# Uses of weights.


def autoencoder() -> nn.Module:
    parts = {"enc": nn.Linear(8, 6), "more": nn.Linear(6, 6)}
    return Wired(lambda net, x: functional.linear(torch.relu(net.more(net.enc(x))), net.enc.weight.t()), **parts)


def tied(model: nn.Module, rows: Tensor) -> set[str]:
    targets = torch.zeros(len(rows), dtype=torch.long)
    subject = wt.Subject(model.eval(), name="net")
    settle(subject, wt.Task(rows, targets))
    return {layer.name for layer in subject.layers if layer.tied}


def test_weights_that_functions_use_again_count_as_tied_and_those_that_one_place_uses_do_not() -> None:
    assert tied(autoencoder(), inputs()) == {"enc"}
    parts = {"embed": nn.Embedding(5, 4), "mid": nn.Linear(4, 4)}  # a head by a function: no module shares the table
    head = Wired(lambda net, ids: functional.linear(net.mid(net.embed(ids).mean(1)), net.embed.weight), **parts)
    assert tied(head, torch.randint(0, 5, (30, 3))) == {"embed"}
    again = nn.Linear(8, 8)
    assert not tied(nn.Sequential(again, nn.ReLU(), again, nn.Linear(8, 2)), inputs())
    layer = nn.TransformerEncoderLayer(8, 2, 16, batch_first=True)
    model = nn.Sequential(layer, nn.Flatten(), nn.Linear(24, 2))
    assert not tied(model, numbers(20, 3, 8))


def test_experts_that_get_few_rows_or_none_are_left_out_with_a_word() -> None:
    class Mixture(nn.Module):
        """Rows go to an expert by their first number: two to the third, none to the last."""

        def __init__(self) -> None:
            super().__init__()
            self.experts = nn.ModuleList(nn.Linear(8, 8) for _ in range(4))
            self.head = nn.Linear(8, 4)

        def forward(self, rows: Tensor) -> Tensor:
            place = (rows[:, 0] > rows[:, 0].median()).long()
            place[rows[:, 0].topk(2).indices] = 2
            out = torch.zeros_like(rows)
            for at, expert in enumerate(self.experts):
                out[place == at] = expert(rows[place == at])
            return self.head(out)

    model = seeded(Mixture, 2, scale=1.0)
    audits = ["score", "function-noise", "single-point"]
    report = wt.audit(wt.Subject(model, name="moe"), labelled(model), audits=audits, effort=LITTLE)
    (noise,), (single,) = report["WT102"], report["WT105"]
    assert noise.estimates and "experts.2" in noise.because and "experts.3" in noise.because
    assert single.estimates and single.status != "error"
