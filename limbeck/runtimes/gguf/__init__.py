"""GGUF files: a checkpoint as llama.cpp reads it, tokenizer and chat template inside.

Why and how: docs/decisions/0034-gguf.md. Reading a bundle loads neither torch nor transformers.
"""
