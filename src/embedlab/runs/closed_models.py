"""Compare what can be done with a model whose weights cannot be changed: quality, forgetting, bytes and cost."""

from __future__ import annotations

from collections.abc import Mapping, Sequence
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.data.load import load_dataset
from embedlab.evaluation.metrics import evaluate
from embedlab.evaluation.probes import shrunk
from embedlab.evaluation.significance import PairedDifference, paired_difference
from embedlab.evaluation.static_share import best_share, score_static_shares
from embedlab.models.adapter import VectorAdapter
from embedlab.models.cache import EmbeddingCache
from embedlab.models.spending import MILLION, estimated_tokens
from embedlab.search.vectors import Vectors, encode_split

if TYPE_CHECKING:
    import pandas as pd

    from embedlab.runs.leaderboard import Leaderboard

METRIC = "ndcg@10"
PROBE_QUERIES = 250
NUMBER_BYTES = 4  # of a float32
PER_QUERIES = 1_000


class ClosedModels:
    """The systems of notebook 14_closed_models, each measured on test and on a probe of another domain.

    Args:
        board: where quality is recorded.
        model: the closed model, from `open_model`.
        price: of a million tokens.
        probe: dataset of another domain, to measure forgetting; "" for none.
        probe_queries: the most queries of the probe, among twice as many documents: every text costs a call.

    Attributes:
        vectors: split, or "probe" -> vectors under the closed model.
    """

    def __init__(
        self, board: Leaderboard, model: Any, *, price: float, probe: str = "", probe_queries: int = PROBE_QUERIES
    ) -> None:
        self.board, self.model, self.price = board, model, price
        self._encode = EmbeddingCache().encode
        train = board.vectors(model, "train")
        splits = {split: self._split(model, board.data, split, train.corpus) for split in ("dev", "test")}
        self.vectors: dict[str, Vectors] = {"train": train, **splits}
        self._probe = shrunk(load_dataset(probe, training=False), probe_queries) if probe else None
        if self._probe:
            self.vectors["probe"] = self._split(model, self._probe, "test")
        self._rows: dict[str, dict[str, Any]] = {}

    def _split(self, model: Any, data: Any, split: str, corpus: np.ndarray | None = None) -> Vectors:
        return encode_split(model, data, split, corpus_vectors=corpus, encode=self._encode)

    def own_vectors(self, model: Any) -> dict[str, Vectors]:
        """Return dev, test and probe under another model, such as a static one: split -> vectors."""
        dev = self._split(model, self.board.data, "dev")
        vectors = {"dev": dev, "test": self._split(model, self.board.data, "test", dev.corpus)}
        return vectors | ({"probe": self._split(model, self._probe, "test")} if self._probe else {})

    def score(self, vectors: Vectors, split: str = "dev") -> float:
        """Return the mean nDCG@10 of vectors on a split."""
        return evaluate(vectors.rank(10), self.board.data.qrels[split], [10]).mean(METRIC)

    def score_adapter(self, adapter: VectorAdapter) -> float:
        """Return the mean nDCG@10 of an adapter on dev."""
        return self.score(self.vectors["dev"].adapted(adapter))

    def add_adapter(self, system: str, adapter: VectorAdapter, seconds: float, *, condition: str = "") -> None:
        """Measure an adapter of the closed model; see `add`."""
        vectors = {split: vectors.adapted(adapter) for split, vectors in self.vectors.items()}
        rewritten = len(self.board.data.corpus) if adapter.changes_documents else 0
        self.add(system, vectors, seconds, rewritten=rewritten, condition=condition)

    def add(
        self,
        system: str,
        vectors: dict[str, Vectors],
        seconds: float = 0.0,
        *,
        rewritten: int = 0,
        calls: bool = True,
        condition: str = "",
    ) -> None:
        """Measure a system and record it: metrics on test, gain over the closed model, forgetting, bytes and cost.

        Args:
            system: a declared name; the first one is "base".
            vectors: "test" and "probe" -> vectors.
            seconds: of the training.
            rewritten: documents whose stored vectors change.
            calls: whether queries and documents need the API.
            condition: for people.
        """
        self.board.add_vectors(system, vectors["test"], condition=condition)
        gain = None if system == "base" else self.board.compare(system, "base")
        forgotten = self._forgetting(system, vectors)
        tokens = {"queries": self._tokens_per_query() * PER_QUERIES, "documents": self._corpus_tokens()}
        numbers = {
            "bytes per document": float(NUMBER_BYTES * vectors["test"].dim),
            "training seconds": seconds,
            "documents rewritten": float(rewritten),
            f"cost of {PER_QUERIES:,} queries": tokens["queries"] * self.price / MILLION * calls,
            "cost of a model change": tokens["documents"] * self.price / MILLION * calls,
        }
        for name, value in numbers.items():
            self.board.run.value(name, value, system=system, stage="footprint", condition=condition)
        self._rows[system] = {
            METRIC: self.board.evaluations[system].mean(METRIC),
            **_bounds("gain", gain),
            **_bounds("probe", forgotten),
            **numbers,
        }

    def _forgetting(self, system: str, vectors: dict[str, Vectors]) -> PairedDifference | None:
        """Record the paired difference to the closed model on the probe."""
        if self._probe is None or system == "base":
            return None
        qrels = self._probe.qrels["test"]
        values = [evaluate(each["probe"].rank(10), qrels, [10]).of(METRIC) for each in (vectors, self.vectors)]
        difference = paired_difference(*values)
        labels: dict[str, Any] = {"split": "test", "task": self._probe.name, "stage": "forgetting"}
        self.board.run.difference(difference, metric=METRIC, system=system, against="base", **labels)
        return difference

    def _tokens_per_query(self) -> float:
        queries = list(self.board.data.split_queries("test").values())
        return estimated_tokens(queries) / len(queries)

    def _corpus_tokens(self) -> int:
        return estimated_tokens(self.board.data.corpus.values())

    def share(self, static: dict[str, Vectors], shares: Sequence[float]) -> float:
        """Return the static model's share that `static_share.best_share` chooses by nDCG@10 on dev."""
        judged = self.board.data.qrels["dev"]
        return best_share(score_static_shares(self.vectors["dev"], static["dev"], judged, metric=METRIC, shares=shares))

    def concatenated(self, static: dict[str, Vectors], share: float) -> dict[str, Vectors]:
        """Return the closed model's vectors with those of a static model: split -> vectors."""
        return {split: self.vectors[split].concatenated(vectors, share) for split, vectors in static.items()}

    def replaced(
        self, model: Any, adapters: Mapping[str, VectorAdapter], static: Vectors, share: float
    ) -> pd.DataFrame:
        """Measure and record what is left of each system when another model takes the place of the closed one.

        Queries and documents get vectors of the new model; nothing is trained again. An adapter needs vectors with as
        many dimensions as it was trained on; it is left out if the new model has others.

        Args:
            model: the new model, from `open_model`.
            adapters: system -> its adapter, trained on vectors of the old model.
            static: vectors of the static model on test.
            share: of the static model in the concatenation with the old model.

        Returns:
            Columns system, ndcg@10, and the gain over the new model alone with gain_low and gain_high.
        """
        import pandas as pd

        new = self._split(model, self.board.data, "test")
        same_size = new.dim == self.vectors["test"].dim
        systems = {"base": new}
        systems |= {system: new.adapted(adapter) for system, adapter in adapters.items() if same_size}
        systems["base+static"] = new.concatenated(static, share)
        labels: dict[str, Any] = {"split": "test", "stage": "model change", "condition": "another model, not retrained"}
        evaluations, rows = {}, []
        for system, vectors in systems.items():
            evaluations[system] = evaluate(vectors.rank(10), self.board.data.qrels["test"], [10])
            self.board.run.metrics(evaluations[system], system=system, dim=vectors.dim, **labels)
            gain = None
            if system != "base":
                gain = paired_difference(evaluations[system].of(METRIC), evaluations["base"].of(METRIC))
                difference: dict[str, Any] = {"metric": METRIC, "system": system, "against": "base"}
                self.board.run.difference(gain, dim=vectors.dim, **difference, **labels)
            rows.append({"system": system, METRIC: evaluations[system].mean(METRIC), **_bounds("gain", gain)})
        return pd.DataFrame(rows)

    def table(self) -> pd.DataFrame:
        """Return one row per system: quality, gain and forgetting with intervals, bytes and costs."""
        import pandas as pd

        return pd.DataFrame.from_dict(self._rows, orient="index").rename_axis("system").reset_index()


def _bounds(name: str, difference: PairedDifference | None) -> dict[str, float | None]:
    numbers = (difference.mean, difference.low, difference.high) if difference else (None, None, None)
    return dict(zip((name, f"{name}_low", f"{name}_high"), numbers, strict=True))
