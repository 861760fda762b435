"""Mixture-of-experts models: layers, fusion of expert outputs, kernels, conversion to Qwen3-MoE."""
