"""Detect distribution shift: permutation tests against a reference, with a known false-alarm rate.

If nothing has changed, the new vectors and the reference sample are exchangeable: every way to divide their rows into
two groups is equally likely. The share of random divisions that differ at least as much as the real one is therefore an
exact p-value, for any statistic. The p-values are corrected by Holm for the number of statistics, so the probability of
any false alarm in a check is at most `alpha`.

The kernel statistics are one formula (maximum mean discrepancy, Gretton et al., JMLR 2012) with three kernels: linear
(distance of the means), squared (distance of the covariances) and Gaussian (any difference).
"""

from __future__ import annotations

import io
import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.data.text_analysis import words
from embedlab.deploy.files import storage_errors
from embedlab.deploy.serve import Served
from embedlab.deploy.space import Encoder, Space, require_same
from embedlab.errors import DataError, ParameterError, StorageError
from embedlab.evaluation.significance import holm
from embedlab.io import write_atomic
from embedlab.progress import track

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 500  # rows of either side that are tested: the cost grows with the square
MAX_BANK = 20_000  # rows that distances are measured to: 30 MB at 384 dimensions
MIN_ROWS = 20
CHECKED_QUERIES = 150  # per check that measures the false-alarm rate
DECIMALS = 4  # vector lengths are rounded, because rounding noise is not drift
Search = Callable[[np.ndarray], np.ndarray]  # vectors (n, d) -> scores (n, k) of the index's best answers

ADVICE = {
    "mean": "the centre has moved: look at the new texts, then collect judgements for them and fine-tune again",
    "covariance": "the spread has changed: a kind of text has appeared or gone; slice the log before you fine-tune",
    "mmd": "the texts are of another kind: collect judgements for them and fine-tune again",
    "length": "vector lengths differ from the reference: check normalisation and the model first",
    "nearest": "some texts are far from all known ones: judge those listed, they are the best new training data",
    "top score": "best answers score lower: the corpus may lack the answers; add documents before you fine-tune",
    "unknown words": "words occur that nobody used before: continue pre-training or add the terms to the training data",
}


@dataclass(frozen=True, eq=False)
class Reference:
    """What normal texts look like.

    Attributes:
        space: of the vectors.
        bank: (b, d), vectors to measure distances to; they are not tested themselves.
        sample: (m, d), vectors that new ones are compared with.
        features: name -> (m,) one number per row of the sample.
        vocabulary: all words of the bank's texts and of the corpus.
    """

    space: Space
    bank: np.ndarray
    sample: np.ndarray
    features: dict[str, np.ndarray]
    vocabulary: frozenset[str]


@dataclass(frozen=True, eq=False)
class DriftReport:
    """The result of a check.

    Attributes:
        table: statistic, value, threshold (of that statistic alone), p_value, p_holm, alarm.
        unusual: text, nearest (distance), p_value of single texts outside the reference, most unusual first.
        new_words: (word, number of texts with it), most frequent first.
        alpha: probability of any false alarm.
    """

    table: pd.DataFrame
    unusual: pd.DataFrame
    new_words: list[tuple[str, int]]
    alpha: float

    @property
    def alarms(self) -> list[str]:
        """Statistics that raise an alarm."""
        return self.table.loc[self.table["alarm"], "statistic"].tolist()

    @property
    def advice(self) -> list[str]:
        """What to do, one sentence per alarm."""
        return [ADVICE[name] for name in self.alarms]


def make_reference(
    vectors: np.ndarray,
    texts: Sequence[str],
    space: Space,
    *,
    known_texts: Iterable[str] = (),
    search: Search | None = None,
    seed: int = 0,
) -> Reference:
    """Compute reference statistics of texts that count as normal.

    Args:
        vectors: (n, d), of `texts`; half becomes the bank (up to 20,000 rows), up to 500 others the sample.
        texts: queries or documents.
        space: of the vectors.
        known_texts: further texts whose words are known, usually the corpus.
        search: scores of an index's best answers; leave it out for documents, which would find themselves.
        seed: of the division.

    Raises:
        DataError: there are fewer than 40 texts.
    """
    if len(texts) < 2 * MIN_ROWS:
        problem = f"A reference needs at least {2 * MIN_ROWS} texts, got {len(texts)}"
        raise DataError(problem, remedy="Give a longer log")
    order = np.random.default_rng(seed).permutation(len(texts))
    in_bank, in_sample = np.split(order, [len(order) // 2])
    in_bank, in_sample = in_bank[:MAX_BANK], in_sample[:MAX_ROWS]
    vocabulary = _vocabulary([*(texts[row] for row in in_bank), *known_texts])
    bank, sample = (np.asarray(vectors[rows], dtype=np.float32) for rows in (in_bank, in_sample))
    features = _features(sample, [texts[row] for row in in_sample], bank, vocabulary, search)
    return Reference(space, bank, sample, features, vocabulary)


def check_drift(
    reference: Reference,
    vectors: np.ndarray,
    texts: Sequence[str],
    space: Space,
    *,
    search: Search | None = None,
    alpha: float = 0.01,
    permutations: int = 1999,
    seed: int = 0,
) -> DriftReport:
    """Compare new texts with the reference.

    Args:
        reference: of normal texts.
        vectors: (n, d), of `texts`; a random 500 are tested if there are more.
        texts: the new texts.
        space: of the vectors; must be the reference's.
        search: as for the reference, on the same index.
        alpha: probability of any false alarm.
        permutations: random divisions; no p-value is smaller than 1 / (permutations + 1).
        seed: of the divisions.

    Raises:
        SpaceMismatch: the vectors are of another space; a changed model is not drift of the data.
        ParameterError: alpha is not between 0 and 1.
        DataError: there are fewer than 20 texts.
    """
    require_alpha(alpha)
    require_same(reference.space, space, action="checking for drift")
    if len(texts) < MIN_ROWS:
        problem = f"A drift check needs at least {MIN_ROWS} texts, got {len(texts)}"
        raise DataError(problem, remedy="Collect more texts first")
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(texts))[:MAX_ROWS]
    new, new_texts = np.asarray(vectors[rows], dtype=np.float32), [texts[row] for row in rows]
    features = _features(new, new_texts, reference.bank, reference.vocabulary, search)
    divisions = _divisions(len(reference.sample), len(new), permutations, rng)
    pooled = {name: np.concatenate([reference.features[name], values]) for name, values in features.items()}
    statistics = _kernel_statistics(np.concatenate([reference.sample, new]), divisions)
    statistics |= {name: ks_statistics(values, divisions) for name, values in pooled.items()}
    unusual = _unusual(reference.features["nearest"], features["nearest"], new_texts, alpha)
    return DriftReport(_table(statistics, alpha), unusual, _new_words(new_texts, reference.vocabulary), alpha)


class QueryMonitor:
    """Watch the queries of a served version for drift.

    Args:
        served: the version; its best scores are one of the statistics.
        encoder: the model of its space.
        normal: queries that count as normal, e.g. last month's log.
        known_texts: further texts whose words are known, usually the corpus.
        alpha: probability of any false alarm in a check.
        seed: of the reference and the divisions.

    Raises:
        ParameterError: alpha is not between 0 and 1.
        DataError: there are fewer than 40 normal queries.
    """

    def __init__(
        self,
        served: Served,
        encoder: Encoder,
        normal: Sequence[str],
        *,
        known_texts: Iterable[str] = (),
        alpha: float = 0.01,
        seed: int = 0,
    ) -> None:
        require_alpha(alpha)
        self.served, self.encoder, self.alpha, self.seed = served, encoder, alpha, seed
        vectors = encoder.encode_queries(normal)
        self.reference = make_reference(
            vectors, normal, encoder.space, known_texts=known_texts, search=self._top_scores, seed=seed
        )

    def check(self, queries: Sequence[str]) -> DriftReport:
        """Compare new queries with the normal ones."""
        vectors, space = self.encoder.encode_queries(queries), self.encoder.space
        return check_drift(
            self.reference, vectors, queries, space, search=self._top_scores, alpha=self.alpha, seed=self.seed
        )

    def _top_scores(self, vectors: np.ndarray) -> np.ndarray:
        return self.served.search(vectors, self.encoder.space, 1)[0]


def false_alarm_rate(
    served: Served, encoder: Encoder, queries: Sequence[str], *, repeats: int, alpha: float = 0.1
) -> float | None:
    """Measure the false-alarm rate: check random parts of one log, in which nothing has changed.

    Args:
        served: the version that is searched.
        encoder: the model of its space.
        queries: one log; half of it is the reference in every repeat.
        repeats: number of checks.
        alpha: level of each check; the rate should not exceed it.

    Returns:
        Share of checks that raised an alarm; None without repeats.

    Raises:
        ParameterError: alpha is not between 0 and 1.
    """
    require_alpha(alpha)
    vectors, space = encoder.encode_queries(queries), encoder.space

    def top_scores(rows: np.ndarray) -> np.ndarray:
        return served.search(rows, space, 1)[0]

    alarms = []
    for repeat in track(list(range(repeats)), "false-alarm rate"):
        order = np.random.default_rng(repeat).permutation(len(queries))
        normal, fresh = order[: len(order) // 2], order[len(order) // 2 :][:CHECKED_QUERIES]
        normal_texts, fresh_texts = [queries[row] for row in normal], [queries[row] for row in fresh]
        reference = make_reference(vectors[normal], normal_texts, space, search=top_scores, seed=repeat)
        report = check_drift(
            reference, vectors[fresh], fresh_texts, space, search=top_scores, alpha=alpha, permutations=199
        )
        alarms.append(bool(report.alarms))
    return float(np.mean(alarms)) if alarms else None


def require_alpha(alpha: float) -> None:
    """Raise a ParameterError unless 0 < alpha < 1; with 0 there would never be an alarm."""
    if not 0 < alpha < 1:
        problem = f"alpha must be between 0 and 1, got {alpha}"
        raise ParameterError(problem, remedy="Set alpha=0.01, for example", field="alpha")


def mmd_statistics(kernel: np.ndarray, divisions: np.ndarray) -> np.ndarray:
    """Compute the squared maximum mean discrepancy, w'Kw, of every division.

    Args:
        kernel: (n, n).
        divisions: (B, n), -1 / size for one group and 1 / size for the other.

    Returns:
        (B,).
    """
    return np.einsum("bn,bn->b", divisions @ kernel, divisions)


def ks_statistics(values: np.ndarray, divisions: np.ndarray) -> np.ndarray:
    """Compute the largest distance of the two distribution functions (Kolmogorov-Smirnov) of every division.

    Args:
        values: (n,), of both groups together.
        divisions: (B, n), -1 / size for one group and 1 / size for the other.

    Returns:
        (B,).
    """
    order = np.argsort(values, kind="stable")
    ends = np.flatnonzero(np.diff(values[order]) > 0)  # equal values step together, and all together reach 0
    return np.abs(np.cumsum(divisions[:, order], axis=1)[:, ends]).max(axis=1, initial=0)


def save_reference(reference: Reference, path: Path) -> None:
    """Write a reference to one .npz file, atomically.

    Raises:
        StorageError: the file cannot be written.
    """
    buffer = io.BytesIO()
    notes = json.dumps({"space": asdict(reference.space), "words": sorted(reference.vocabulary)})
    features: dict[str, Any] = {f"feature {name}": values for name, values in reference.features.items()}
    np.savez_compressed(buffer, bank=reference.bank, sample=reference.sample, notes=np.array(notes), **features)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())


def load_reference(path: Path) -> Reference:
    """Read what `save_reference` wrote.

    Raises:
        StorageError: the file is missing or damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            notes = json.loads(str(file["notes"]))
            features = {name.removeprefix("feature "): file[name] for name in file.files if name.startswith("feature ")}
            return Reference(Space(**notes["space"]), file["bank"], file["sample"], features, frozenset(notes["words"]))
    except FileNotFoundError:
        remedy = "Make one: embedlab deploy drift reference"
        raise StorageError("The drift reference is missing", remedy=remedy, file=path) from None
    except Exception as error:
        problem = f"The drift reference is damaged ({type(error).__name__})"
        raise StorageError(problem, remedy="Make the reference again", file=path) from error


def _vocabulary(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(word for text in texts for word in words(text))


def _features(
    vectors: np.ndarray, texts: Sequence[str], bank: np.ndarray, vocabulary: frozenset[str], search: Search | None
) -> dict[str, np.ndarray]:
    """One number per row, computed from that row and fixed data only, so rows stay exchangeable."""
    features = {
        "length": np.round(np.linalg.norm(vectors, axis=1), DECIMALS),
        "nearest": 1 - (vectors @ bank.T).max(axis=1),
        "unknown words": np.array([_unknown_share(text, vocabulary) for text in texts]),
    }
    return features | ({"top score": search(vectors)[:, 0]} if search else {})


def _unknown_share(text: str, vocabulary: frozenset[str]) -> float:
    tokens = words(text)
    return sum(word not in vocabulary for word in tokens) / max(1, len(tokens))


def _divisions(old: int, new: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """The real division in row 0 and `count` random ones: float32 (count + 1, old + new)."""
    real = np.concatenate([np.full(old, -1 / old), np.full(new, 1 / new)]).astype(np.float32)
    return np.concatenate([real[None], rng.permuted(np.tile(real, (count, 1)), axis=1)])


def _kernel_statistics(pooled: np.ndarray, divisions: np.ndarray) -> dict[str, np.ndarray]:
    centred = pooled - pooled.mean(axis=0)
    products = centred @ centred.T
    squares = np.diag(products)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * products, 0)
    width = np.median(distances[np.triu_indices(len(pooled), 1)]) or 1.0
    kernels = {"mean": products, "covariance": products**2, "mmd": np.exp(-distances / width)}
    return {name: mmd_statistics(kernel, divisions) for name, kernel in kernels.items()}


def _table(statistics: dict[str, np.ndarray], alpha: float) -> pd.DataFrame:
    import pandas as pd

    rows = [
        {
            "statistic": name,
            "value": float(values[0]),
            "threshold": float(np.quantile(values[1:], 1 - alpha)),
            "p_value": float((values >= values[0] - 1e-9 * abs(values[0])).mean()),  # row 0 counts: never below 1/(B+1)
        }
        for name, values in statistics.items()
    ]
    table = pd.DataFrame(rows)
    table["p_holm"] = holm(table["p_value"].to_numpy())
    return table.assign(alarm=table["p_holm"] <= alpha)


def _unusual(reference: np.ndarray, distances: np.ndarray, texts: Sequence[str], alpha: float) -> pd.DataFrame:
    """List the texts outside the reference by conformal p-value: a normal text has one <= alpha with that probability.

    If the sample is too small for such a p-value, list the texts that are farther away than all of the sample.
    """
    import pandas as pd

    p_values = (1 + (reference[None] >= distances[:, None]).sum(axis=1)) / (1 + len(reference))
    table = pd.DataFrame({"text": list(texts), "nearest": distances, "p_value": p_values})
    return table[table["p_value"] <= max(alpha, 1 / (1 + len(reference)))].sort_values(
        "nearest", ascending=False, ignore_index=True
    )


def _new_words(texts: Sequence[str], vocabulary: frozenset[str]) -> list[tuple[str, int]]:
    counted = Counter(word for text in texts for word in set(words(text)) - vocabulary)
    return counted.most_common()
