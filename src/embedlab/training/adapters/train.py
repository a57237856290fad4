"""Train an adapter with InfoNCE on vectors that were computed once. It takes seconds on one CPU core."""

from __future__ import annotations

import time
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import dataclass, field

import numpy as np
import torch
from torch import Tensor, nn

from embedlab import progress
from embedlab.errors import DataError, ParameterError
from embedlab.models.adapter import VectorAdapter
from embedlab.models.vector_map import VectorMap
from embedlab.search.exact import own_rows
from embedlab.search.judged import Judged
from embedlab.search.vectors import Vectors
from embedlab.training.adapters.params import KINDS, LEARNING_RATES, AdapterSettings, Kind
from embedlab.training.losses import info_nce

Pair = tuple[str, str]  # query id, document id


@dataclass(frozen=True, eq=False)
class FittedAdapter:
    """A trained adapter and how it came about.

    Attributes:
        adapter: the best on dev; it changes nothing if no step was better than the untouched model.
        step: its step; 0 is the untouched model.
        history: step -> value on dev.
        seconds: of the training, dev evaluations included.
    """

    adapter: VectorAdapter
    step: int
    history: dict[int, float]
    seconds: float


class _Map(nn.Module):
    """A map that starts as the identity; only the difference to it is trained."""

    def __init__(self, kind: Kind, dim: int, settings: AdapterSettings) -> None:
        super().__init__()
        self.kind, self.shape, self.is_query_side = kind, kind.removeprefix("query-"), kind.startswith("query-")
        width = {"linear": dim, "low-rank": settings.rank, "mlp": settings.hidden}[self.shape]
        if self.shape == "linear":
            self.inner, self.outer = torch.eye(dim), nn.Parameter(torch.zeros(dim, dim))
        else:
            self.inner = nn.Parameter(torch.randn(dim, width) / dim**0.5)
            self.outer = nn.Parameter(torch.zeros(width, dim))
        self.bias = nn.Parameter(torch.zeros(width)) if self.shape == "mlp" else None

    def forward(self, vectors: Tensor) -> Tensor:
        """Map (n, d) to (n, d)."""
        if self.shape == "linear":
            return vectors + vectors @ self.outer
        active = vectors @ self.inner
        if self.bias is not None:
            active = torch.relu(active + self.bias)
        return vectors + active @ self.outer

    def adapter(self) -> VectorAdapter:
        """Return the adapter as it is now."""
        one = self._frozen()
        return VectorAdapter(self.kind, one, None if self.is_query_side else one)

    def _frozen(self) -> VectorMap:
        eye = np.eye(self.outer.shape[1], dtype=np.float32)
        inner, outer = (tensor.detach().numpy().copy() for tensor in (self.inner, self.outer))
        offset = np.zeros(len(eye), dtype=np.float32)
        if self.bias is None:
            return VectorMap(eye + inner @ outer, offset)
        return VectorMap(eye, offset, {"inner": inner, "bias": self.bias.detach().numpy().copy(), "outer": outer})


def train_adapter(
    kind: Kind,
    train: Vectors,
    pairs: Iterable[Pair],
    score: Callable[[VectorAdapter], float],
    settings: AdapterSettings | None = None,
    *,
    hard_negatives: Mapping[Pair, Sequence[str]] | None = None,
) -> FittedAdapter:
    """Train an adapter to rank the positive of a query above other documents, and keep the best one on dev.

    The loss is InfoNCE (`losses.info_nce`). The candidates of a query are the positives of the batch, their hard
    negatives, and random documents. Documents that are judged relevant to the query, or are the query, never count as
    negatives. A query-side adapter leaves the candidates as they are.

    Args:
        kind: a key of `KINDS`.
        train: vectors (d) of the training queries and the corpus, from the model that cannot be changed.
        pairs: (query id, document id) of the positives.
        score: value of an adapter on dev; higher is better.
        settings: how to train.
        hard_negatives: (query id, positive id) -> document ids, see `mine_hard_negatives`; the first ones of a pair are
            used, and pairs with fewer get random documents. All pairs get as many as the median pair has.

    Raises:
        DataError: there are no pairs.
        ParameterError: there is no such kind.
    """
    if kind not in KINDS:
        raise ParameterError(
            f"unknown kind of adapter {kind!r}", remedy=f"Choose one of {', '.join(KINDS)}", field="kind"
        )
    settings, began = settings or AdapterSettings(), time.perf_counter()
    generator = torch.Generator().manual_seed(settings.seed)
    examples = _Examples.of(train, list(pairs), hard_negatives or {}, generator)
    with torch.random.fork_rng(devices=[]):
        torch.manual_seed(settings.seed)
        trained = _Map(kind, train.dim, settings)
    rate = settings.learning_rate or LEARNING_RATES[kind]
    optimiser = torch.optim.AdamW(trained.parameters(), lr=rate, weight_decay=settings.weight_decay)
    best = _Best(trained.adapter, score, VectorAdapter(kind, None, None))
    for step in progress.track(range(1, settings.steps + 1), f"adapter {kind}"):
        queries, documents, mask = examples.batch(settings, generator)
        candidates = documents if trained.is_query_side else trained(documents)
        loss = info_nce(trained(queries), candidates, settings.temperature, mask)
        optimiser.zero_grad()
        loss.backward()
        optimiser.step()
        if (step % settings.every == 0 or step == settings.steps) and best.has_ended(step, settings):
            break
    return FittedAdapter(best.adapter, best.step, best.history, time.perf_counter() - began)


@dataclass(eq=False)
class _Best:
    """The best adapter on dev so far; the earliest if several are equal."""

    current: Callable[[], VectorAdapter]
    score: Callable[[VectorAdapter], float]
    adapter: VectorAdapter
    step: int = 0
    history: dict[int, float] = field(default_factory=dict)

    def __post_init__(self) -> None:
        self.history[0] = self.score(self.adapter)

    def has_ended(self, step: int, settings: AdapterSettings) -> bool:
        """Evaluate the current adapter; return whether dev has not improved for too long."""
        candidate = self.current()
        value = self.score(candidate)
        if value > max(self.history.values()):
            self.adapter, self.step = candidate, step
        self.history[step] = value
        return step - self.step >= settings.patience * settings.every


@dataclass(frozen=True, eq=False)
class _Examples:
    """Training pairs as rows of the vectors.

    Attributes:
        vectors: of the queries (Q, d) and of the corpus (N, d).
        queries: int (P,) rows of the queries.
        documents: int (P, 1 + n) rows of the corpus: the positive, then hard negatives.
        judged: all relevant pairs, and the queries' own documents.
    """

    vectors: tuple[Tensor, Tensor]
    queries: Tensor
    documents: Tensor
    judged: Judged

    def batch(self, settings: AdapterSettings, generator: torch.Generator) -> tuple[Tensor, Tensor, Tensor]:
        """Draw pairs and random documents.

        Returns:
            Vectors of the queries (B, d), vectors of the candidates (C, d), the positives first, and the mask bool
            (B, C) of the candidates that are not negatives of a query, see `info_nce`.
        """
        queries, corpus = self.vectors
        count = min(settings.batch_size, len(self.queries))
        rows = torch.randint(len(self.queries), (count,), generator=generator)
        extra = torch.randint(len(corpus), (settings.random_negatives,), generator=generator)
        candidates = torch.cat([self.documents[rows].T.reshape(-1), extra])
        mask = self.judged.mask(self.queries[rows], candidates)
        mask[torch.arange(count), torch.arange(count)] = False
        return queries[self.queries[rows]], corpus[candidates], mask

    @classmethod
    def of(
        cls, train: Vectors, pairs: list[Pair], negatives: Mapping[Pair, Sequence[str]], generator: torch.Generator
    ) -> _Examples:
        if not pairs:
            raise DataError("an adapter needs training pairs, got none", remedy="Add pairs of the split train")
        query_row = {query: row for row, query in enumerate(train.query_ids)}
        document_row = {document: row for row, document in enumerate(train.corpus_ids)}
        queries = torch.tensor([query_row[query] for query, _ in pairs])
        positives = torch.tensor([document_row[document] for _, document in pairs])
        own = torch.tensor(own_rows(train.query_ids, train.corpus_ids, train.own_documents))
        has_own = (own >= 0).nonzero().squeeze(1)
        judged = Judged(torch.cat([queries, has_own]), torch.cat([positives, own[has_own]]))
        count = int(np.median([len(negatives.get(pair, ())) for pair in pairs]))
        hard = torch.randint(len(train.corpus_ids), (len(pairs), count), generator=generator)
        for row, pair in enumerate(pairs):
            known = [document_row[document] for document in negatives.get(pair, ())][:count]
            hard[row, : len(known)] = torch.tensor(known, dtype=torch.long)
        vectors = torch.from_numpy(np.array(train.queries)), torch.from_numpy(np.array(train.corpus, np.float32))
        return cls(vectors, queries, torch.cat([positives[:, None], hard], dim=1), judged)
