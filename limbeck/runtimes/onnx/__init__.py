"""ONNX Runtime: a decoder graph written node by node, and the session that answers with it.

Why this runtime and these kernels: docs/decisions/0001-onnx-runtime.md. Reading a bundle loads
neither torch nor transformers.
"""
