"""Where MLPs read is found whatever the norms are: planted blocks, whose edges are proven to be all there is."""

import math

import pytest
import torch
from torch import Tensor, nn

from wheeltap.core.errors import ModelError
from wheeltap.core.subject import Subject
from wheeltap.suites.circuits.engine.edges import proven
from wheeltap.suites.circuits.pairs import PairBatch

WIDTH, HEADS, WORDS, PLACES = 12, 2, 9, 5
SIZE = WIDTH // HEADS


class Copying(nn.Module):
    def forward(self, x: Tensor) -> Tensor:
        return x * 1.0


def norm(kind: str) -> nn.Module:
    return {"identity": nn.Identity, "copying": Copying, "layer": lambda: nn.LayerNorm(WIDTH)}[kind]()


class Heads(nn.Module):
    def __init__(self) -> None:
        super().__init__()
        self.num_heads = HEADS
        self.q_proj, self.k_proj, self.v_proj, self.o_proj = (nn.Linear(WIDTH, WIDTH) for _ in range(4))

    def forward(self, x: Tensor) -> Tensor:
        query, key, value = (
            part(x).unflatten(2, (HEADS, SIZE)).transpose(1, 2) for part in (self.q_proj, self.k_proj, self.v_proj)
        )
        scores = query @ key.mT / math.sqrt(SIZE)
        scores = scores.masked_fill(torch.ones(scores.shape[-2:]).triu(1).bool(), -torch.inf)
        return self.o_proj((scores.softmax(-1) @ value).transpose(1, 2).flatten(2))


class Planted(nn.Module):
    """A block; ``how`` it works: serial, parallel (two norms), shared (one norm), in place, first (the MLP is)."""

    def __init__(self, how: str, kind: str) -> None:
        super().__init__()
        self.how, self.n1, self.n2, self.attn = how, norm(kind), norm(kind), Heads()
        self.mlp = nn.Sequential(nn.Linear(WIDTH, 20), nn.Tanh(), nn.Linear(20, WIDTH))

    def forward(self, x: Tensor) -> Tensor:
        if self.how == "parallel":
            return x + self.attn(self.n1(x)) + self.mlp(self.n2(x))
        if self.how == "shared":
            normed = self.n1(x)
            return x + self.attn(normed) + self.mlp(normed)
        if self.how == "serial":
            x = x + self.attn(self.n1(x))
            return x + self.mlp(self.n2(x))
        first, second = ((self.n1, self.attn), (self.n2, self.mlp))[:: -1 if self.how == "first" else 1]
        x += first[1](first[0](x))
        x += second[1](second[0](x))
        return x


class Decoder(nn.Module):
    def __init__(self, how: str, kind: str) -> None:
        super().__init__()
        torch.manual_seed(0)
        self.embed, self.place = nn.Embedding(WORDS, WIDTH), nn.Embedding(PLACES, WIDTH)
        self.blocks, self.end = nn.ModuleList([Planted(how, kind) for _ in range(2)]), norm(kind)
        self.head = nn.Linear(WIDTH, WORDS)

    def forward(self, tokens: Tensor) -> Tensor:
        x = self.embed(tokens) + self.place(torch.arange(tokens.shape[1]))
        for block in self.blocks:
            x = block(x)
        return self.head(self.end(x))


def pairs() -> PairBatch:
    random = torch.Generator().manual_seed(1)
    clean = torch.randint(0, WORDS, (3, PLACES), generator=random)
    corrupted = clean.clone()
    corrupted[:, 1] = (clean[:, 1] + 1) % WORDS
    return PairBatch(clean, corrupted, clean[:, 0], (clean[:, 0] + 1) % WORDS)


@pytest.mark.parametrize("kind", ["copying", "layer"])
@pytest.mark.parametrize("how", ["serial", "parallel", "shared", "in place"])
@torch.no_grad()
def test_what_an_mlp_reads_is_told_whatever_the_norms_are(how: str, kind: str) -> None:
    net = Decoder(how, kind).double().eval()
    wired = proven(Subject(net, name="net"), pairs())
    assert wired.graph.parallel == (how in ("parallel", "shared"))
    assert ("a0.h0->m0" in wired.graph.edges) != wired.graph.parallel


class Loose(nn.Module):
    """A serial block that holds the layers of its MLP itself."""

    def __init__(self) -> None:
        super().__init__()
        self.n1, self.n2, self.attn = nn.Identity(), nn.Identity(), Heads()
        self.up, self.down = nn.Linear(WIDTH, 20), nn.Linear(20, WIDTH)

    def forward(self, x: Tensor) -> Tensor:
        x = x + self.attn(self.n1(x))
        return x + self.down(self.up(self.n2(x)).relu())


def test_an_mlp_that_reads_nothing_is_refused_where_what_it_is_given_cannot_be_told() -> None:
    net = Decoder("serial", "identity")
    net.blocks = nn.ModuleList([Loose(), Loose()])
    assert not proven(Subject(net.eval(), name="net"), pairs()).graph.parallel
    net.blocks[1].up.weight.data.zero_()
    with pytest.raises(ModelError, match=r"blocks\.1"):
        proven(Subject(net, name="net"), pairs())


def test_an_mlp_before_the_heads_is_refused() -> None:
    with pytest.raises(ModelError):
        proven(Subject(Decoder("first", "layer").eval(), name="net"), pairs())
