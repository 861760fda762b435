"""A real OpenAI-compatible server on this machine, which can be told to misbehave."""

import json
import threading
import time
from collections import Counter
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import torch

KEY = "sk-test-0123456789"
MODEL = "teacher-large"


class State:
    """What the server was asked, and how it answers."""

    def __init__(self, answer, fault):
        self.answer = answer
        self.fault = fault
        self.asked = []
        self.keys = set()
        self.most_at_once = self._at_once = 0
        self.lock = threading.Lock()
        self.url = ""

    @property
    def questions(self):
        """How often each question was asked."""
        return Counter(body["messages"][-1]["content"] for body in self.asked)

    @contextmanager
    def count(self, body):
        with self.lock:
            self.asked.append(body)
            tries = self.questions[body["messages"][-1]["content"]]
            self._at_once += 1
            self.most_at_once = max(self.most_at_once, self._at_once)
        yield tries
        with self.lock:
            self._at_once -= 1


def completion(text, *, finish="stop", logprobs=None, usage=(10, 5), model=MODEL):
    choice = {
        "index": 0,
        "message": {"role": "assistant", "content": text},
        "finish_reason": finish,
        "logprobs": logprobs,
    }
    usage = {"prompt_tokens": usage[0], "completion_tokens": usage[1], "total_tokens": sum(usage)}
    return {"object": "chat.completion", "model": model, "choices": [choice], "usage": usage}


class Handler(BaseHTTPRequestHandler):
    """`fault` gives a status, or a word, or nothing for a good answer."""

    protocol_version = "HTTP/1.1"

    def do_POST(self):
        state = self.server.state
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        state.keys.add(self.headers.get("Authorization"))
        with state.count(body) as tries:
            fault = state.fault(body, tries)
            if isinstance(fault, tuple):
                status, headers = fault
                self.send(json.dumps({"error": {"message": "busy"}}), status, headers)
            elif fault == "truncated":
                self.send(json.dumps(completion("half"))[:40], announced=4000)
                self.close_connection = True
            elif isinstance(fault, float):
                time.sleep(fault)
                self.send(json.dumps(state.answer(body)))
            elif fault is not None:
                self.send(fault)
            else:
                self.send(json.dumps(state.answer(body)))

    def send(self, text, status=200, headers=(), announced=None):
        data = text.encode()
        try:
            self.send_response(status)
            for name, value in dict(headers).items():
                self.send_header(name, value)
            self.send_header("Content-Length", str(announced or len(data)))
            self.end_headers()
            self.wfile.write(data)
        except OSError:  # the client was killed or lost its patience
            self.close_connection = True

    def log_message(self, *_):
        pass


@contextmanager
def serving(answer, fault=lambda body, tries: None, port=0):
    """A server while the block runs; port 0 is any free one."""
    server = ThreadingHTTPServer(("127.0.0.1", port), Handler)
    server.daemon_threads = True
    server.state = state = State(answer, fault)
    state.url = f"http://127.0.0.1:{server.server_port}/v1"
    thread = threading.Thread(target=server.serve_forever, args=(0.02,))
    thread.start()
    try:
        yield state
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class Speaker:
    """Answers as a tiny model does; tells the model's own log-probabilities."""

    def __init__(self, model, tokenizer, *, num_tokens):
        self.model, self.tokenizer, self.num_tokens = model.eval(), tokenizer, num_tokens
        self.lock, self.times = threading.Lock(), Counter()
        # Halves of characters and special tokens are never said, so that every answer is text.
        ids = range(len(tokenizer))
        self.said = torch.tensor(
            [
                id_ not in tokenizer.all_special_ids
                and "\ufffd" not in tokenizer.decode([id_])
                and bool(tokenizer.decode([id_]).strip())
                for id_ in ids
            ]
        )

    @torch.no_grad()
    def __call__(self, body):
        with self.lock:
            # Of every four samples three are the same, so that some agree.
            asked = json.dumps(body, sort_keys=True)
            self.times[asked] += 1
            torch.manual_seed(len(asked) + self.times[asked] // 4)
            ids = self.tokenizer.apply_chat_template(
                body["messages"], add_generation_prompt=True, return_dict=False
            )
            num_prompt, told = len(ids), []
            for _ in range(min(self.num_tokens, body["max_tokens"])):
                logits = self.model(torch.tensor([ids])).logits[0, -1, : len(self.said)]
                logs = logits.log_softmax(-1)
                allowed = logs.masked_fill(~self.said, -torch.inf)
                if body["temperature"] > 0:
                    weights = (allowed / body["temperature"]).softmax(-1)
                    ids.append(int(torch.multinomial(weights, 1)))
                else:
                    ids.append(int(allowed.argmax()))
                told.append(self.tell(ids[-1], logs, body.get("top_logprobs", 0)))
        text = self.tokenizer.decode(ids[num_prompt:])
        logprobs = {"content": told} if body.get("logprobs") else None
        return completion(text, logprobs=logprobs, usage=(num_prompt, len(told)))

    def tell(self, chosen, logs, top):
        values, ids = logs.topk(max(1, top))
        entries = list(zip(ids.tolist(), values.tolist(), strict=True))
        return {
            **self.entry(chosen, float(logs[chosen])),
            "top_logprobs": [self.entry(*item) for item in entries],
        }

    def entry(self, id_, log):
        text = self.tokenizer.decode([id_])
        data = None if "\ufffd" in text else list(text.encode())
        return {"token": text, "logprob": log, "bytes": data}


def ended(calls):
    lines = map(json.loads, calls.read_text(encoding="utf-8").splitlines())
    return [line for line in lines if line["event"] == "ended"]


def answer(body):
    return completion("答" + body["messages"][-1]["content"][:4])
