"""A server of embeddings on loopback, with the protocols of OpenAI, Cohere and Voyage, that can also misbehave."""

from __future__ import annotations

import hashlib
import json
import threading
from collections.abc import Callable
from contextlib import contextmanager
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np

DIM = 32


def vector(text: str, dim: int = DIM, role: str = "", salt: str = "") -> list[float]:
    """The sum of a random vector for each word, and one for the role (the input type); `salt` is the model."""
    total = np.full(dim, 1e-3)
    for word in [*text.lower().split(), *([f"role {role}"] if role else [])]:
        seed = int.from_bytes(hashlib.sha256((salt + word).encode()).digest()[:4], "little")
        total += np.random.default_rng(seed).normal(size=dim)
    return total.tolist()


def role_of(body: dict) -> str:
    """ "q", "d" or another first letter of the input type; "" without one."""
    return (body.get("input_type") or "").removeprefix("search_")[:1]


class StubApi:
    """What the server has seen, and how it answers.

    Attributes:
        requests: path, key, and the JSON of every request.
        faults: answers that come first, one per request: (status, headers, body), or a function of the right answer.
        salt: another text makes it another model.
    """

    def __init__(self) -> None:
        self.requests: list[dict] = []
        self.faults: list[tuple[int, dict, object] | Callable[[dict], object] | None] = []
        self.salt = ""
        self.url = ""

    @property
    def texts(self) -> list[str]:
        """All texts that were sent, without the control text."""
        sent = [text for call in self.requests for text in call.get("input", call.get("texts", []))]
        return [text for text in sent if text != "embedding"]

    def answer(self, path: str, body: dict) -> dict:
        texts = body.get("input", body.get("texts"))
        dim = body.get("dimensions", body.get("output_dimension", DIM))
        rows = [vector(text, dim, role_of(body), self.salt) for text in texts]
        words = sum(len(text.split()) + 1 for text in texts)
        if path.endswith("/embed"):
            return {"embeddings": {"float": rows}, "meta": {"billed_units": {"input_tokens": words}}}
        data = [{"index": index, "embedding": row} for index, row in enumerate(rows)]
        return {"data": data[::-1], "usage": {"total_tokens": words}}

    def reply(self, request: dict) -> tuple[int, dict, object]:
        """Note a request, and answer it or fail."""
        self.requests.append(request)
        content = self.answer(request["path"], request)
        fault = self.faults.pop(0) if self.faults else None
        if fault and not callable(fault):
            return fault
        return 200, {}, fault(content) if fault else content


@contextmanager
def stub_api():
    api = StubApi()
    with json_server(api.reply) as api.url:
        yield api


@contextmanager
def json_server(reply):
    """Serve at the address that is given, until the block ends.

    `reply` gets path, key and the JSON of a request, and returns (status, headers, text or JSON).
    """

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
            status, headers, content = reply({"path": self.path, "key": self.headers.get("Authorization"), **body})
            data = (content if isinstance(content, str) else json.dumps(content)).encode()
            self.send_response(status)
            for name, value in {**headers, "Content-Length": str(len(data))}.items():
                self.send_header(name, value)
            self.end_headers()
            self.wfile.write(data)

        def log_message(self, *_):
            pass

    listener = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    thread = threading.Thread(target=listener.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.server_port}/v1"
    finally:
        listener.shutdown()
        thread.join()
        listener.server_close()
