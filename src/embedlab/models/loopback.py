"""A local model behind OpenAI's protocol on this machine, to try what works with a model behind an API.

One request at a time, for notebooks and tests. It shows the protocol; do not let others use it.
"""

from __future__ import annotations

import json
import threading
from collections.abc import Iterator
from contextlib import contextmanager
from functools import partial
from http.server import BaseHTTPRequestHandler, HTTPServer
from typing import TYPE_CHECKING, Any

from embedlab.models.cache import EmbeddingCache
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.spending import estimated_tokens

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

PORT = 8461  # the address is part of the cache's key, so it should be the same the next time
MAX_REQUEST_BYTES = 16 << 20


@contextmanager
def on_loopback(model: SentenceTransformer) -> Iterator[str]:
    """Serve a model at 127.0.0.1 during the block.

    Args:
        model: any model with one encoder; its vectors are cached on disk.

    Yields:
        The name of the API model, `openai:MODEL@URL`. `MODEL` is the fingerprint of the weights.
    """
    handler = type("Handler", (_Handler,), {"encode": staticmethod(partial(EmbeddingCache().encode, model))})
    try:
        server = HTTPServer(("127.0.0.1", PORT), handler)
    except OSError:  # another run uses the port
        server = HTTPServer(("127.0.0.1", 0), handler)
    thread = threading.Thread(target=partial(server.serve_forever, poll_interval=0.05), daemon=True)
    thread.start()
    try:
        yield f"openai:{model_fingerprint(model)}@http://127.0.0.1:{server.server_port}/v1"
    finally:
        server.shutdown()
        thread.join()
        server.server_close()


class _Handler(BaseHTTPRequestHandler):
    encode: Any

    def do_POST(self) -> None:
        """Answer `POST /v1/embeddings`."""
        try:
            length = int(self.headers.get("Content-Length", 0))
            texts = json.loads(self.rfile.read(min(length, MAX_REQUEST_BYTES)))["input"]
            vectors = self.encode([str(text) for text in texts])
            data = [{"index": index, "embedding": vector.tolist()} for index, vector in enumerate(vectors)]
            self._send(200, {"data": data, "usage": {"total_tokens": estimated_tokens(map(str, texts))}})
        except (ValueError, KeyError, TypeError, RecursionError):
            self._send(400, {"error": {"message": "expected a JSON object with a list of texts under `input`"}})

    def _send(self, status: int, content: Any) -> None:
        body = json.dumps(content).encode()
        self.send_response(status)
        self.send_header("Content-Type", "application/json")
        self.send_header("Content-Length", str(len(body)))
        self.end_headers()
        self.wfile.write(body)

    def log_message(self, *_: Any) -> None:
        """Keep the notebook quiet."""
