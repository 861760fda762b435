"""Other names of configuration fields: what other tools and older recipes call them.

An unknown key is answered with the field that it probably means; none of these is accepted.
"""

import difflib

SYNONYMS = {
    "hidden": "hidden_size",
    "d_model": "hidden_size",
    "num_layers": "num_hidden_layers",
    "n_layer": "num_hidden_layers",
    "num_heads": "num_attention_heads",
    "n_head": "num_attention_heads",
    "head_width": "head_dim",
    "feed_forward": "intermediate_size",
    "d_ff": "intermediate_size",
    "expert_width": "moe_intermediate_size",
    "experts_per_token": "num_experts_per_tok",
    "top_k": "num_experts_per_tok",
    "num_shared_experts": "n_shared_experts",
    "scoring": "scoring_func",
    "normalize_gate": "norm_topk_prob",
    "routed_scale": "routed_scaling_factor",
    "num_groups": "n_group",
    "groups_per_token": "topk_group",
    "image_pixels": "image_size",
    "patch_pixels": "patch_size",
    "channels": "num_channels",
    "merge": "spatial_merge_size",
    "lr": "learning_rate",
    "steps": "max_steps",
    "num_steps": "max_steps",
    "final_lr_ratio": "min_lr_rate",
    "beta1": "adam_beta1",
    "beta2": "adam_beta2",
    "clip_norm": "max_grad_norm",
    "grad_clip": "max_grad_norm",
    "log_interval_steps": "logging_steps",
    "accumulation_steps": "gradient_accumulation_steps",
    "batch_records": "per_device_train_batch_size",
    "micro_batch_size": "per_device_train_batch_size",
    "group": "num_generations",
    "updates": "num_iterations",
    "clip_low": "epsilon",
    "clip_high": "epsilon_high",
    "kl_weight": "beta",
    "scale": "scale_rewards",
    "normalize": "loss_type",
    "parallel_answers": "generation_batch_size",
    "inherit": "initialize_from",
    "inherit_experts": "initialize_experts",
    "teacher_experts": "router_sampling",
    "draws": "num_samples",
    "detectors": "diagnostics",
    "batch_questions": "batch_size",
    "top": "targets",
    "temperatures": "targets",
    "least_aligned_ratio": "min_aligned_ratio",
    "most_cost": "max_cost",
    "longest_wait_seconds": "max_wait_seconds",
    "most_failed_ratio": "max_failed_ratio",
}
"""Their name to ours. Two of ours for one of theirs stand in `ALTERNATIVES`."""

ALTERNATIVES = {
    "max_tokens": ("max_length", "max_position_embeddings"),
    "max_new_tokens": ("max_completion_length",),
    "batch_size": ("per_device_train_batch_size",),
    "batch_records": ("batch_size",),
}


MOVED = {
    "normalize_light": "set `normalization: light` on each source instead",
    "normalize_zh": "set `normalization: zh` on each source instead",
}
"""What older recipes name in a table that has it no more, and what to write in its place."""


def find_field(name: str, fields: tuple[str, ...]) -> str:
    """The field that an unknown key probably means; empty where nothing is near."""
    candidates = (SYNONYMS.get(name, ""), *ALTERNATIVES.get(name, ()))
    for candidate in candidates:
        if candidate in fields:
            return candidate
    near = difflib.get_close_matches(name, fields, n=1)
    return near[0] if near else ""
