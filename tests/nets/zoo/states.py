"""Language models with a state in the place of attention: Mamba, Mamba-2, RWKV."""

from typing import Final

from tests.nets.zoo.causal import TOKENS, causal, decoder
from tests.nets.zoo.member import VOCABULARY

_SIZES = {"hidden_size": 32, "num_hidden_layers": 2}

MEMBERS: Final = (
    decoder("mamba", "Mamba", lambda: causal("Mamba", **TOKENS, **_SIZES, state_size=8), epochs=3, rate=1e-2, batch=64),
    decoder("mamba2", "Mamba-2", lambda: causal(
        "Mamba2", **TOKENS, **_SIZES, state_size=8, num_heads=4, head_dim=16, n_groups=1, chunk_size=8,
    ), epochs=5),
    decoder("rwkv", "RWKV", lambda: causal(
        "Rwkv", vocab_size=VOCABULARY, **_SIZES, attention_hidden_size=32, intermediate_size=64, context_length=16,
        bos_token_id=0, eos_token_id=1,
    )),
)  # fmt: skip
