"""Mixtures of experts: experts fused into three-dimensional weights, shared experts, latent attention."""

from typing import Final

from tests.nets.zoo.causal import GROUPED, SMALL, causal, decoder

MEMBERS: Final = (
    decoder("mixtral", "Mixtral", lambda: causal("Mixtral", **GROUPED, num_local_experts=4, num_experts_per_tok=2)),
    decoder("qwen2-moe", "Qwen2-MoE", lambda: causal(
        "Qwen2Moe", **GROUPED, num_experts=4, num_experts_per_tok=2, moe_intermediate_size=32,
        shared_expert_intermediate_size=32,
    )),
    decoder("gpt-oss", "GPT-OSS", lambda: causal("GptOss", **GROUPED, num_local_experts=4, num_experts_per_tok=2)),
    decoder("deepseek", "DeepSeek-V3", lambda: causal(
        "DeepseekV3", **SMALL, num_key_value_heads=4, q_lora_rank=16, kv_lora_rank=16, qk_rope_head_dim=4,
        qk_nope_head_dim=8, v_head_dim=8, n_routed_experts=4, num_experts_per_tok=2, n_shared_experts=1,
        moe_intermediate_size=32, n_group=1, topk_group=1, first_k_dense_replace=1,
    )),
)  # fmt: skip
