"""GGUF files of published models: read, unpacked to floats, held against llama.cpp."""
