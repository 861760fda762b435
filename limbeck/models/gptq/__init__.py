"""Codes of a model's linear layers chosen by GPTQ, block after block of the model."""
