"""LitServe before a bundle in our runtime, with its batching on, or before no model at all.

    PEER_PYTHON benchmarks/servers/litserve_server.py BUNDLE|none PORT TOKENS

The runtime answers a batch as a whole: LitServe has no way in between two tokens for a runtime that
is not its own.
"""

import sys
from pathlib import Path

import litserve  # pyright: ignore[reportMissingImports]

MAX_BATCH = 64
BATCH_SECONDS = 0.005
TEXT = "常见的有头痛、头晕、心悸和耳鸣。"


class Answers(litserve.LitAPI):
    """OpenAI's chat completions without a stream."""

    def setup(self, device: str) -> None:
        """Open the model."""
        self.answerer = None
        if sys.argv[1] != "none":
            from limbeck.runtimes import open_chat_model  # noqa: PLC0415

            self.answerer = open_chat_model(
                Path(sys.argv[1]), num_threads="auto", num_rows=MAX_BATCH
            )

    def decode_request(self, request: dict) -> str:
        """The question."""
        return request["messages"][-1]["content"]

    def predict(self, questions: list[str]) -> list[dict]:
        """An answer to each question."""
        if self.answerer is None:
            return [{"text": TEXT, "tokens": len(TEXT)} for _ in questions]
        found = self.answerer.answer(questions, max_new_tokens=int(sys.argv[3]))
        return [{"text": item.text, "tokens": item.num_tokens} for item in found]

    def encode_response(self, output: dict) -> dict:
        """The completion."""
        choice = {"index": 0, "finish_reason": "stop"}
        message = {"role": "assistant", "content": output["text"]}
        usage = {"completion_tokens": output["tokens"]}
        return {"choices": [{**choice, "message": message}], "usage": usage}


if __name__ == "__main__":
    api = Answers(
        max_batch_size=MAX_BATCH, batch_timeout=BATCH_SECONDS, api_path="/v1/chat/completions"
    )
    server = litserve.LitServer(api, accelerator="cpu", timeout=600, track_requests=False)
    server.run(host="127.0.0.1", port=int(sys.argv[2]), generate_client_file=False)
