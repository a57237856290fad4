"""An exported model: a folder with an ONNX graph, its tokenizer and a card, and the encoder that runs it.

The encoder needs onnxruntime and tokenizers, and neither torch nor transformers. It is an `Encoder` as in
`deploy.space`, in the space of the model that was exported.
"""

from __future__ import annotations

import json
from collections.abc import Iterator, Sequence
from dataclasses import asdict
from functools import cached_property
from pathlib import Path
from typing import Any, Literal

import numpy as np
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embedlab import progress
from embedlab.deploy.space import Space
from embedlab.errors import ModelError
from embedlab.io import sha256_of
from embedlab.models.onnx_io import IDS, MASK, OUTPUT, PROMPT, needs

CARD, GRAPH, TOKENIZER = "export.json", "model.onnx", "tokenizer.json"
REMEDY = "Export the model again with `embedlab export`"
CHUNK = 4096  # texts that are tokenised and sorted by length together
BATCH_TOKENS = 512  # of a batch, padding included; 4096 no longer fit the cache and take twice as long on a CPU


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid")


class Prompt(_Part):
    """What is put before every text of a kind.

    Attributes:
        text: the prompt, empty for none.
        tokens: its number of tokens, special tokens included; the input `prompt_length` where the graph has it.
    """

    text: str = ""
    tokens: int = Field(default=0, ge=0)


class SpaceOfModel(_Part):
    """`deploy.space.Space` of the model that was exported, with its fingerprint."""

    fingerprint: str
    model: str
    dimension: int
    document_prompt: str
    query_prompt: str
    quantisation: str


class ExportCard(_Part):
    """What a program needs to run the graph.

    Attributes:
        format: version of this file.
        model: name of the model that was exported.
        precision: "fp32" or "int8".
        side: "query" or "document" if this is one side of a model with two encoders, else None.
        inputs: names of the graph's inputs.
        output: name of its output, float32 (texts, dimension) unit vectors.
        dimension: of a vector.
        max_seq_length: tokens after which tokenizer.json truncates a text; None for no limit.
        special_tokens: whether the tokenizer must add special tokens.
        query, document: the prompts.
        space: vector space of the model that was exported.
        files: name of every other file -> its SHA-256.
        versions: package -> version at the time of the export.
        parity: how close the vectors are to the model's, see `deploy.parity`.
    """

    format: Literal[1] = 1
    model: str
    precision: Literal["fp32", "int8"]
    side: Literal["query", "document"] | None
    inputs: tuple[str, ...]
    output: Literal["sentence_embedding"] = OUTPUT  # type: ignore[assignment]
    dimension: int
    max_seq_length: int | None
    special_tokens: bool
    query: Prompt
    document: Prompt
    space: SpaceOfModel
    files: dict[str, str]
    versions: dict[str, str]
    parity: dict[str, Any]

    @classmethod
    def read(cls, folder: Path) -> ExportCard:
        """Read and check the card of an exported folder, and the checksums of its files.

        Raises:
            ModelError: the folder has no card, the card is damaged, or a file differs from it.
        """
        file = folder / CARD
        if not file.is_file():
            raise ModelError("this is not an exported model, the file is missing", remedy=REMEDY, file=file)
        try:
            card = cls.model_validate_json(file.read_bytes())
        except ValidationError as error:
            first = error.errors()[0]
            field = ".".join(map(str, first["loc"])) or None
            raise ModelError(f"the card is damaged ({first['msg']})", remedy=REMEDY, file=file, field=field) from None
        if not {GRAPH, TOKENIZER} <= card.files.keys() or not {IDS, MASK} <= set(card.inputs) <= {IDS, MASK, PROMPT}:
            raise ModelError("the card names other files or inputs", remedy=REMEDY, file=file)
        for name, checksum in card.files.items():
            path = folder / name
            if Path(name).name != name or not path.is_file() or sha256_of(path) != checksum:
                raise ModelError("the file is missing or differs from the card", remedy=REMEDY, file=path)
        return card


def space_of_model(space: Space) -> SpaceOfModel:
    """Return the entry of the card for a vector space."""
    return SpaceOfModel(fingerprint=space.fingerprint, **asdict(space))


class ExportedEncoder:
    """Encodes texts with an exported model.

    Args:
        folder: from `embedlab export`.
        threads: of onnxruntime; 0 for one per core.

    Raises:
        ModelError: the folder is not an exported model, or is damaged.
        EmbedlabError: onnxruntime is not installed.
    """

    def __init__(self, folder: Path, *, threads: int = 0) -> None:
        from tokenizers import Tokenizer

        self.folder, self.card, self.threads = folder, ExportCard.read(folder), threads
        try:
            self.tokenizer = Tokenizer.from_file(str(folder / TOKENIZER))
        except Exception as error:  # of tokenizers, which has no class for it
            raise ModelError(f"the tokenizer is damaged ({error})", remedy=REMEDY, file=folder / TOKENIZER) from error
        self._padding = self.tokenizer.padding or {"pad_id": 0, "direction": "right"}
        self.tokenizer.no_padding()  # batches are sorted by length first

    @property
    def space(self) -> Space:
        """The space of the model that was exported."""
        return Space(**self.card.space.model_dump(exclude={"fingerprint"}))

    @cached_property
    def _session(self) -> Any:
        runtime = needs("onnxruntime")
        options = runtime.SessionOptions()
        options.intra_op_num_threads, options.log_severity_level = self.threads, 3
        try:
            return runtime.InferenceSession(str(self.folder / GRAPH), options, providers=["CPUExecutionProvider"])
        except Exception as error:  # onnxruntime has an exception of its own for every fault
            problem = f"onnxruntime cannot load the graph ({str(error).strip().splitlines()[0][:200]})"
            raise ModelError(problem, remedy=REMEDY, file=self.folder / GRAPH) from error

    def encode_documents(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (len(texts), d), rows of unit length."""
        self._require("document")
        return self._encode(texts, self.card.document, "encode documents")

    def encode_queries(self, texts: Sequence[str]) -> np.ndarray:
        """float32 (len(texts), d), rows of unit length."""
        self._require("query")
        return self._encode(texts, self.card.query, "encode queries")

    def _require(self, side: str) -> None:
        if self.card.side not in (None, side):
            problem = f"this export encodes {self.card.side} texts, and no {side} texts"
            raise ModelError(problem, remedy=f"Export the model with --side {side}", file=self.folder / CARD)

    def _encode(self, texts: Sequence[str], prompt: Prompt, stage: str) -> np.ndarray:
        vectors = np.zeros((len(texts), self.card.dimension), dtype=np.float32)
        with progress.counted(stage, len(texts)) as advance:
            for start in range(0, len(texts), CHUNK):
                chunk = [prompt.text + text for text in texts[start : start + CHUNK]]
                encoded = self.tokenizer.encode_batch(chunk, add_special_tokens=self.card.special_tokens)
                ids = [text.ids for text in encoded]
                for rows in _batches([len(row) for row in ids]):
                    vectors[[start + row for row in rows]] = self._run([ids[row] for row in rows], prompt.tokens)
                    advance(len(rows))
        return vectors

    def _run(self, ids: Sequence[Sequence[int]], prompt_tokens: int) -> np.ndarray:
        """Encode one batch of token ids: float32 (len(ids), d)."""
        longest = max(map(len, ids))
        padded = np.full((len(ids), longest), self._padding["pad_id"], dtype=np.int64)
        mask = np.zeros_like(padded)
        for row, tokens in enumerate(ids):
            columns = (
                slice(longest - len(tokens), longest) if self._padding["direction"] == "left" else slice(len(tokens))
            )
            padded[row, columns], mask[row, columns] = tokens, 1
        inputs = {IDS: padded, MASK: mask}
        if PROMPT in self.card.inputs:
            inputs[PROMPT] = np.array(prompt_tokens, dtype=np.int64)
        vectors: np.ndarray = self._session.run([self.card.output], inputs)[0]
        return vectors


def _batches(lengths: Sequence[int]) -> Iterator[list[int]]:
    """Yield row numbers in batches of similar length, longest texts first; texts without tokens are left out."""
    batch: list[int] = []
    for row in sorted((row for row, length in enumerate(lengths) if length), key=lambda row: -lengths[row]):
        if batch and (len(batch) + 1) * lengths[batch[0]] > BATCH_TOKENS:
            yield batch
            batch = []
        batch.append(row)
    if batch:
        yield batch


def card_json(card: ExportCard) -> str:
    """Return the text of the card's file."""
    return json.dumps(card.model_dump(mode="json"), indent=2, ensure_ascii=False) + "\n"
