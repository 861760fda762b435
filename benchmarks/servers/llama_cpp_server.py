"""llama.cpp's own server, from the package xllamacpp, with 64 slots and continuous batching.

python benchmarks/servers/llama_cpp_server.py FILE.gguf PORT
"""

import signal
import sys

import xllamacpp

NUM_SLOTS = 64
SLOT_TOKENS = 256


def main() -> None:
    """Serve until SIGTERM."""
    params = xllamacpp.CommonParams()  # pyright: ignore[reportAttributeAccessIssue]
    params.model.path = sys.argv[1]
    params.hostnames = ["127.0.0.1"]
    params.port = int(sys.argv[2])
    params.n_parallel = NUM_SLOTS
    params.n_ctx = NUM_SLOTS * SLOT_TOKENS
    params.cont_batching = True
    server = xllamacpp.Server(params)  # pyright: ignore[reportAttributeAccessIssue]
    print(server.listening_address, flush=True)
    signal.pause()


if __name__ == "__main__":
    main()
