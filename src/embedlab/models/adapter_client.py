"""Use an adapter with the API model that it was trained for.

This file is saved with every adapter. It needs numpy and httpx, and tokenizers if a static model was saved as well:

    from client import AdaptedModel

    model = AdaptedModel("FOLDER")
    scores = model.encode_queries(["a query"]) @ model.encode_documents(["a document"]).T
"""

from __future__ import annotations

import json
import os
import time
from pathlib import Path
from typing import Any

import httpx
import numpy as np

SAME_COSINE = 0.99
MAX_ANSWER_BYTES, TOTAL_S = 64 << 20, 120.0
BUSY = (408, 429, 500, 502, 503, 504)


class AdaptedModel:
    """An API model with an adapter for its vectors.

    Args:
        folder: with `adapter.json` and `adapter.npz`.
        attempts: attempts per request, including the first.
    """

    def __init__(self, folder: str | Path, *, attempts: int = 5) -> None:
        self.about: dict[str, Any] = json.loads((Path(folder) / "adapter.json").read_text(encoding="utf-8"))
        with np.load(Path(folder) / "adapter.npz", allow_pickle=False) as arrays:
            self.arrays = {name: arrays[name] for name in arrays.files}
        self.attempts, self._is_checked = attempts, False
        self._tokenizer: Any = None
        if self.about.get("static"):
            from tokenizers import Tokenizer

            self._tokenizer = Tokenizer.from_file(str(Path(folder) / "tokenizer.json"))
            self._tokenizer.no_truncation()
            self._tokenizer.no_padding()

    def encode_queries(self, texts: list[str]) -> np.ndarray:
        """Return unit vectors float32 (len(texts), d)."""
        return self._encode(texts, "query")

    def encode_documents(self, texts: list[str]) -> np.ndarray:
        """Return unit vectors float32 (len(texts), d)."""
        return self._encode(texts, "document")

    def _encode(self, texts: list[str], role: str) -> np.ndarray:
        if not self._is_checked:  # an adapter fits the vectors of one model only
            control = self.about["control"]
            if float(self._vectors([control["text"]], "document")[0] @ np.array(control["vector"])) < SAME_COSINE:
                raise ValueError(
                    "the model behind the address has changed since the adapter was trained: train it again"
                )
            self._is_checked = True
        prompt = self.about["prompts"].get(role, "")
        prompted = [(prompt + text).strip() or " " for text in texts]
        most = self.about["request"]["max_texts"]
        blocks = [self._vectors(prompted[start : start + most], role) for start in range(0, len(texts), most)]
        mapped = self._mapped(np.concatenate(blocks), self.about["maps"][role])
        return mapped if self._tokenizer is None else self._concatenated(mapped, texts)

    def _concatenated(self, vectors: np.ndarray, texts: list[str]) -> np.ndarray:
        """Append the vectors of the static model; cosines become a weighted mean of both cosines."""
        share, weights = self.about["static"]["share"], self.arrays["static.weights"]
        rows = [weights[text.ids].sum(axis=0) for text in self._tokenizer.encode_batch(texts, add_special_tokens=False)]
        lengths = np.linalg.norm(rows, axis=1, keepdims=True)
        static = np.array(rows) / np.where(lengths > 0, lengths, 1)
        joined = np.hstack([np.sqrt(1 - share) * vectors, np.sqrt(share) * static])
        lengths = np.linalg.norm(joined, axis=1, keepdims=True)  # below 1 where a text has no token
        return (joined / np.where(lengths > 0, lengths, 1)).astype(np.float32)

    def _mapped(self, vectors: np.ndarray, name: str | None) -> np.ndarray:
        if name is None:
            return vectors
        arrays = {key.removeprefix(f"{name}."): a for key, a in self.arrays.items() if key.startswith(f"{name}.")}
        mapped = vectors @ arrays["matrix"] + arrays["offset"]
        if "inner" in arrays:
            mapped += np.maximum(vectors @ arrays["inner"] + arrays["bias"], 0) @ arrays["outer"]
        return (mapped / np.linalg.norm(mapped, axis=1, keepdims=True)).astype(np.float32)

    def _vectors(self, texts: list[str], role: str) -> np.ndarray:
        request = self.about["request"]
        body = {**request["body"], request["texts"]: texts}
        if kind := self.about["input_types"][role]:
            body["input_type"] = kind
        rows = self._answer(request["address"], body, os.environ.get(request["key_variable"], "").strip())
        for name in request["rows"]:
            rows = rows[name]
        if rows and isinstance(rows[0], dict):
            if sorted(row["index"] for row in rows) != list(range(len(texts))):
                raise ValueError("the server did not return one vector per text")
            rows = [row["embedding"] for row in sorted(rows, key=lambda row: row["index"])]
        vectors = np.array(rows, dtype=np.float32)
        lengths = np.linalg.norm(vectors, axis=-1, keepdims=True)
        if vectors.shape != (len(texts), self.about["dim"]) or not (np.isfinite(lengths).all() and lengths.all()):
            raise ValueError("the server did not return one vector per text, of the right length")
        return vectors / lengths

    def _answer(self, address: str, body: dict[str, Any], key: str) -> Any:
        headers = {"Authorization": f"Bearer {key}"} if key else {}
        for attempt in range(self.attempts):
            with httpx.stream("POST", address, json=body, headers=headers, timeout=60) as answer:
                content = self._read(answer)
            if answer.status_code not in BUSY or attempt + 1 == self.attempts:
                break
            wait = answer.headers.get("Retry-After", "")
            time.sleep(min(60.0, float(wait) if wait.isdigit() else 2.0**attempt))
        if not answer.is_success:
            raise ValueError(f"the server answers with HTTP {answer.status_code}")
        return json.loads(content)

    @staticmethod
    def _read(answer: httpx.Response) -> bytes:
        """Read an answer that may be endless, or come byte by byte."""
        content, end = bytearray(), time.monotonic() + TOTAL_S
        for block in answer.iter_bytes():
            content += block
            if len(content) > MAX_ANSWER_BYTES or time.monotonic() > end:
                raise ValueError("the server's answer is too long, or takes too long")
        return bytes(content)
