"""What all recipes of a tuning run share: data, base model, dev queries, time, and the candidates so far."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable
from dataclasses import replace
from functools import cached_property
from typing import TYPE_CHECKING, Any, Literal

import torch

from embedlab.data.dataset import Dataset
from embedlab.data.load import load_dataset
from embedlab.data.splits import evenly_spread, seeded_order
from embedlab.errors import ModelError, ParameterError
from embedlab.evaluation.diagnose.probe import Probe, fit_probe
from embedlab.evaluation.metrics import Evaluation, evaluate
from embedlab.evaluation.probes import shrunk
from embedlab.evaluation.retrieval import DevEvaluator, sample_corpus
from embedlab.models.cache import EmbeddingCache
from embedlab.models.concatenation import ROWS_PER_DIMENSION
from embedlab.models.layers import project
from embedlab.models.sides import is_static
from embedlab.search.vectors import Vectors, encode_split
from embedlab.training.fit import FitSettings
from embedlab.tuning.candidate import BYTES_PER_DIMENSION, METRIC, Candidate
from embedlab.tuning.clock import Clock
from embedlab.tuning.params import TuneParams

if TYPE_CHECKING:
    import pandas as pd
    from sentence_transformers import SentenceTransformer

DEV_SHARE = 0.004  # of the budget, for one evaluation on dev
DEV_DOCS, DEV_QUERIES = 3000, (200, 1000)  # most documents; fewest and most queries
DOCS_PER_QUERY = 3  # on dev at least; with fewer documents, a model looks better than it is
TRAIN_SHARE = 0.15  # of the budget, for the vectors that mining and the linear map use
TRAIN_TEXTS = 1000  # at least so many queries and documents, whatever they cost
PROJECTION_SHARE = 0.03  # of the budget, for each projection
TEST_SHARE = 0.6  # of the budget; above it, too little is left for training
TIMED_TEXTS, TIMED_FIRST = 256, 32
TIMED_SECONDS = 1.0  # a sample of long texts is not timed as a whole
LATER_EVALUATIONS = 3  # on dev, after the trainings
PROBE, PROBE_QUERIES = "pydocs", (20, 100)  # of forgetting: fewest and most queries, each with two long documents
PROBE_SHARE = 0.1  # of the budget, for the probe of all models
PROBED_MODELS = 2  # the base model and the winner
TIMED_PROBE_TEXTS = 16
SPEED_TEXTS, SPEED_PASSES = 64, 8  # four passes of two models
MARGIN = 1.2  # for what was measured too short
DEPTH = 10


class Workbench:
    """Data, base model, time and candidates of one tuning run.

    Args:
        data: all splits.
        base: the base model; it is not changed.
        params: budget and settings.
        scratch: folder for temporary files.
        clock: the time budget, counting since the run began.
        with_test: keep time to measure what the winner costs and to test it; False if the run ends with the choice.

    Attributes:
        candidates: name -> candidate, simple ones first.
        skipped: recipe -> why it added no candidate.

    Raises:
        ModelError: the base model is static.
        ParameterError: the test alone would take most of the time, or `max_bytes` allows no dimension.
    """

    def __init__(
        self,
        data: Dataset,
        base: SentenceTransformer,
        params: TuneParams,
        scratch: str,
        clock: Clock,
        *,
        with_test: bool = True,
    ) -> None:
        if is_static(base):
            remedy = "Start from a transformer, or train this model with notebook 03_contrastive"
            raise ModelError("tuning starts from a transformer, and this model is static", remedy=remedy)
        self.data, self.base, self.params, self.scratch, self.clock = data, base, params, scratch, clock
        self.with_test = with_test
        self.candidates: dict[str, Candidate] = {}
        self.skipped: dict[str, str] = {}
        self._check_limits()
        self.text_seconds = _seconds_per_text(base, evenly_spread(data.corpus.values(), TIMED_TEXTS), clock)
        self._check_budget()
        affordable = round(DEV_SHARE * clock.seconds / self.text_seconds)
        fewest, most = DEV_QUERIES
        queries = min(most, max(fewest, affordable // DOCS_PER_QUERY))
        fewest_docs = DOCS_PER_QUERY * min(queries, len(data.qrels["dev"]))
        self.evaluator = DevEvaluator(data, max_docs=min(DEV_DOCS, max(fewest_docs, affordable)), max_queries=queries)
        self.dev_data: Dataset = self.evaluator.dataset

    @property
    def test_seconds(self) -> float:
        """Seconds that the test of the winner will take, and that of the base model if it is not encoded yet."""
        if not self.with_test:
            return 0.0
        texts = len(self.data.corpus) + len(self.data.qrels.get("test", {}))
        return self.text_seconds * texts * (1 if "training_vectors" in self.__dict__ and self.is_whole else 2)

    @property
    def left(self) -> float:
        """Seconds left for training, without those of the choice and the test."""
        later = LATER_EVALUATIONS * self.dev_seconds + self.test_seconds
        if self.measures("max_forgetting"):
            later += PROBED_MODELS * self._probe[1]
        if self.measures("min_speed"):
            later += SPEED_TEXTS * SPEED_PASSES * self.text_seconds
        return max(0.0, self.clock.left - MARGIN * later)

    @property
    def probe_data(self) -> Dataset:
        """A small dataset of another domain, for forgetting."""
        return self._probe[0]

    @cached_property
    def _probe(self) -> tuple[Dataset, float]:
        """The probe of forgetting, as large as the time allows, and the seconds that it takes for one model."""
        probe = load_dataset(PROBE, training=False)
        per_text = _seconds_per_text(self.base, evenly_spread(probe.corpus.values(), TIMED_PROBE_TEXTS), self.clock)
        fewest, most = PROBE_QUERIES
        affordable = round(PROBE_SHARE * self.clock.seconds / (PROBED_MODELS * 2 * per_text))
        data = shrunk(probe, min(most, max(fewest, affordable)))
        return data, per_text * len(data.corpus)

    def measures(self, limit: Literal["max_forgetting", "min_speed"]) -> bool:
        """Whether a candidate's cost is measured: for its limit, or for the report that follows the test."""
        return self.with_test or getattr(self.params, limit) != TuneParams.model_fields[limit].default

    @property
    def dev_seconds(self) -> float:
        """Seconds of one evaluation on dev."""
        return self.text_seconds * (len(self.dev_data.corpus) + len(self.dev_data.qrels["dev"]))

    @cached_property
    def vocabulary_seconds(self) -> float:
        """Seconds to encode every token of the base model's vocabulary, with which a static model starts."""
        tokens = sorted(self.base.tokenizer.get_vocab())
        return len(tokens) * _seconds_per_text(self.base, evenly_spread(tokens, TIMED_TEXTS), self.clock)

    @property
    def is_whole(self) -> bool:
        """Whether training uses every document and query, not a sample that the time allows."""
        return self.training_data is self.data

    @cached_property
    def training_data(self) -> Dataset:
        """The data for mining and training: all, or as many queries and documents as the time allows."""
        affordable = max(TRAIN_TEXTS, round(TRAIN_SHARE * self.clock.seconds / self.text_seconds))
        if len(self.data.corpus) + len(self.data.qrels["train"]) <= affordable:
            return self.data
        kept = set(seeded_order(self.data.qrels["train"])[: affordable // 2])
        judged = {query: grades for query, grades in self.data.qrels["train"].items() if query in kept}
        fewer = replace(self.data, qrels={**self.data.qrels, "train": judged})
        return sample_corpus(fewer, "train", affordable - len(kept), seed=self.params.seed)

    def projection_texts(self, dim: int) -> list[str]:
        """Return training documents and queries to compute principal components on, twice as many as dimensions.

        Fewer texts than that keep only what these few need. Then, or if it takes too long to encode them, the list is
        empty.

        Args:
            dim: dimensions of the projected vectors.
        """
        texts = [*self.training_data.corpus.values(), *self.training_data.split_queries("train").values()]
        count = ROWS_PER_DIMENSION * dim
        is_affordable = count * self.text_seconds <= PROJECTION_SHARE * self.clock.seconds
        return evenly_spread(texts, count) if len(texts) >= count and is_affordable else []

    @cached_property
    def training_vectors(self) -> Vectors:
        """Training queries and documents under the base model."""
        return encode_split(self.base, self.training_data, "train", encode=EmbeddingCache().encode)

    @cached_property
    def linear_map(self) -> Probe:
        """The linear map on the vectors of the base model that is best on dev; see `fit_probe`."""
        dev, pairs = self.candidates["base"].vectors, self.training_data.pairs("train")
        return fit_probe(self.training_vectors, pairs, dev, self.dev_data.qrels["dev"], seed=self.params.seed)

    def encode_base_dev(self) -> Vectors:
        """Encode the dev queries and documents with the base model; see `encode_split`.

        If the whole corpus is encoded for training, the documents are taken from there.
        """
        documents = self.training_vectors.corpus_of(self.dev_data.corpus) if self.is_whole else None
        return encode_split(self.base, self.dev_data, "dev", corpus_vectors=documents)

    def mapped_base(self, share: float) -> SentenceTransformer:
        """Return a copy of the base model with a share of the linear map appended: 0 is the identity, 1 the map."""
        return project(copy.deepcopy(self.base), torch.from_numpy(self.linear_map.blended(share)))

    def encode_dev(self, model: SentenceTransformer, static: SentenceTransformer | None = None) -> Vectors:
        """Encode the dev queries and documents; see `encode_split`."""
        return encode_split(model, self.dev_data, "dev", static=static)

    def evaluate_dev(self, vectors: Vectors) -> Evaluation:
        """Search and score on dev."""
        return evaluate(vectors.rank(DEPTH), self.dev_data.qrels["dev"], [DEPTH])

    def add(
        self,
        name: str,
        system: str,
        detail: str,
        vectors: Vectors,
        build: Callable[[], SentenceTransformer],
        *,
        parts: tuple[str, ...] = (),
        seconds: float = 0.0,
    ) -> Candidate:
        """Score a model on dev and keep it as a candidate; see `Candidate`."""
        made = Candidate(name, system, detail, vectors, self.evaluate_dev(vectors), build, parts, seconds)
        self.candidates[name] = made
        return made

    def minutes_for(self, seconds: float) -> str:
        """Say that a recipe needs so many seconds now, and with how many minutes in all they would be left."""
        missing = max(0.0, seconds - self.left)
        minutes = math.ceil((self.clock.seconds + MARGIN * missing) / 6) / 10
        return f"it takes about {seconds:.0f} s, and {self.left:.0f} s were left: set minutes to {minutes:g} or more"

    def capped(self, steps: int) -> int:
        """Return so many steps, or `max_steps` if that is less."""
        return min(steps, self.params.max_steps or steps)

    def settings(self, steps: int, **values: Any) -> FitSettings:
        """Return the settings of a training, with the seed and the engine of the run; see `FitSettings`."""
        params = self.params
        return FitSettings(steps=steps, max_steps=params.max_steps, seed=params.seed, engine=params.engine, **values)

    def table(self) -> pd.DataFrame:
        """Return the candidates so far: name, settings, dimensions, nDCG@10 on dev, gain over base, seconds."""
        import pandas as pd

        base = next(iter(self.candidates.values()))
        rows = [
            {
                "candidate": candidate.name,
                "settings": candidate.detail,
                "dimensions": candidate.vectors.dim,
                f"{METRIC} on dev": candidate.score,
                "gain": candidate.score - base.score,
                "seconds": round(candidate.seconds),
            }
            for candidate in self.candidates.values()
        ]
        return pd.DataFrame(rows)

    def _check_limits(self) -> None:
        if 0 < self.params.max_bytes < BYTES_PER_DIMENSION:
            problem = f"one dimension takes {BYTES_PER_DIMENSION} bytes, max_bytes is {self.params.max_bytes}"
            raise ParameterError(problem, remedy=f"Set it to {BYTES_PER_DIMENSION} or more", field="max_bytes")

    def _check_budget(self) -> None:
        needed = self.test_seconds / TEST_SHARE / 60
        if needed > self.params.minutes:
            problem = f"the test alone takes about {TEST_SHARE * needed:.1f} minutes on this machine"
            raise ParameterError(problem, remedy=f"Set minutes to at least {needed:.1f}", field="minutes")


def _seconds_per_text(model: SentenceTransformer, sample: list[str], clock: Clock) -> float:
    """Measure how long a text takes to encode, on a sample, or on a part of it if that takes long."""
    from embedlab.models.encode import encode

    encode(model, sample[:8], stage="warm up")
    per_text = 0.0
    for texts in (evenly_spread(sample, TIMED_FIRST), sample):
        with clock.timed() as seconds:
            encode(model, texts, stage="measure speed")
            per_text = max(1e-6, seconds() / len(texts))
        if per_text * len(sample) > TIMED_SECONDS:
            break
    return per_text
