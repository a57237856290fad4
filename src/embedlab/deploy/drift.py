"""Has what comes in changed? Permutation tests against a reference, with a false-alarm rate that is known.

Under "nothing changed" the new vectors and the reference sample are exchangeable: every way to deal their rows into two
groups is equally likely. The share of dealings that differ at least as much as the real one is therefore an exact
p-value, for any statistic. The smallest of them, corrected by Holm for the number of statistics, decides: the chance of
any false alarm in a check is at most `alpha`.

The kernel statistics are one formula (maximum mean discrepancy, Gretton et al., JMLR 2012) with three kernels: linear
(distance of the means), squared (distance of the covariances), Gaussian (any difference).
"""

from __future__ import annotations

import json
from collections import Counter
from collections.abc import Callable, Iterable, Sequence
from dataclasses import asdict, dataclass
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np

from embedlab.data.overlap import words
from embedlab.deploy.files import storage_errors
from embedlab.deploy.space import Space, require_same
from embedlab.errors import DataError, StorageError
from embedlab.evaluation.significance import holm
from embedlab.io import write_atomic

if TYPE_CHECKING:
    import pandas as pd

MAX_ROWS = 500  # rows of either side that enter the tests: their cost grows with the square
MAX_BANK = 20_000  # rows that distances are measured to: 30 MB at d = 384
MIN_ROWS = 20
DECIMALS = 4  # lengths are rounded so, for rounding noise is no drift
Search = Callable[[np.ndarray], np.ndarray]  # vectors (n, d) -> scores (n, k) of the index's best answers

ADVICE = {
    "mean": "the centre has moved: look at what is new, then collect judgements for it and tune again",
    "covariance": "the spread has changed: a kind of text has come or gone; slice the log before tuning",
    "mmd": "the texts are of another kind: collect judgements for them and tune again",
    "length": "vectors are not of the reference's length: check normalisation and the model before anything else",
    "nearest": "texts lie far from any known one: judge the listed ones, they are the best training data to ask for",
    "top score": "best answers score lower: the corpus may lack what is asked for; add documents before tuning",
    "unknown words": "words nobody used before: continue pretraining or add terms to the training data",
}


@dataclass(frozen=True, eq=False)
class Reference:
    """What was normal.

    Attributes:
        space: of the vectors.
        bank: (b, d), to measure distances to; never tested itself.
        sample: (m, d), what new vectors are compared with.
        features: name -> (m,) numbers of the sample, one per row.
        vocabulary: every word of the bank's texts and the corpus.
    """

    space: Space
    bank: np.ndarray
    sample: np.ndarray
    features: dict[str, np.ndarray]
    vocabulary: frozenset[str]


@dataclass(frozen=True, eq=False)
class DriftReport:
    """What a check found.

    Attributes:
        table: statistic, value, threshold (of that statistic alone), p_value, p_holm, alarm.
        unusual: text, nearest (distance), p_value of single texts outside the reference, least usual first.
        new_words: (word, how many texts use it), most frequent first.
        alpha: chance of any false alarm.
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
    """Reference statistics of texts that count as normal.

    Args:
        vectors: (n, d), of `texts`; half becomes the bank (up to 20,000), up to 500 others the sample.
        texts: queries or documents.
        space: of the vectors.
        known_texts: further texts whose words are known, usually the corpus.
        search: scores of an index's best answers; leave it out for documents, which would find themselves.
        seed: of the division.

    Raises:
        DataError: fewer than 40 texts.
    """
    if len(texts) < 2 * MIN_ROWS:
        raise DataError(f"{len(texts)} texts are too few for a reference", remedy=f"Give at least {2 * MIN_ROWS}")
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
        reference: what was normal.
        vectors: (n, d), of `texts`; a random 500 are tested when there are more.
        texts: what came in.
        space: of the vectors; must be the reference's.
        search: as for the reference, on the same index.
        alpha: chance of any false alarm.
        permutations: random dealings; p-values cannot be smaller than 1 / (permutations + 1).
        seed: of the dealings.

    Raises:
        SpaceMismatch: the vectors are of another space: a changed model is no drift of the data.
        DataError: fewer than 20 texts.
    """
    require_same(reference.space, space, what="checking for drift")
    if len(texts) < MIN_ROWS:
        raise DataError(f"{len(texts)} texts are too few for a check", remedy=f"Give at least {MIN_ROWS}")
    rng = np.random.default_rng(seed)
    rows = rng.permutation(len(texts))[:MAX_ROWS]
    new, new_texts = np.asarray(vectors[rows], dtype=np.float32), [texts[row] for row in rows]
    features = _features(new, new_texts, reference.bank, reference.vocabulary, search)
    dealt = _dealings(len(reference.sample), len(new), permutations, rng)
    pooled = {name: np.concatenate([reference.features[name], values]) for name, values in features.items()}
    statistics = _kernel_statistics(np.concatenate([reference.sample, new]), dealt)
    statistics |= {name: ks_statistics(values, dealt) for name, values in pooled.items()}
    unusual = _unusual(reference.features["nearest"], features["nearest"], new_texts, alpha)
    return DriftReport(_table(statistics, alpha), unusual, _new_words(new_texts, reference.vocabulary), alpha)


def mmd_statistics(kernel: np.ndarray, dealt: np.ndarray) -> np.ndarray:
    """Squared maximum mean discrepancy, w'Kw, of every dealing: kernel (n, n), dealt (B, n) -> (B,)."""
    return np.einsum("bn,bn->b", dealt @ kernel, dealt)


def ks_statistics(values: np.ndarray, dealt: np.ndarray) -> np.ndarray:
    """Largest distance of the two distribution functions (Kolmogorov-Smirnov) of every dealing.

    Args:
        values: (n,), of both groups together.
        dealt: (B, n), 1 / size for one group and -1 / size for the other.
    """
    order = np.argsort(values, kind="stable")
    ends = np.flatnonzero(np.diff(values[order]) > 0)  # equal values step together, and all together reach 0
    return np.abs(np.cumsum(dealt[:, order], axis=1)[:, ends]).max(axis=1, initial=0)


def save_reference(reference: Reference, path: Path) -> None:
    """Write a reference to one .npz file, in one step."""
    import io

    buffer = io.BytesIO()
    notes = json.dumps({"space": asdict(reference.space), "words": sorted(reference.vocabulary)})
    features = {f"feature {name}": values for name, values in reference.features.items()}
    np.savez_compressed(buffer, bank=reference.bank, sample=reference.sample, notes=np.array(notes), **features)
    with storage_errors(path):
        path.parent.mkdir(parents=True, exist_ok=True)
        write_atomic(path, buffer.getvalue())


def load_reference(path: Path) -> Reference:
    """Read what `save_reference` wrote.

    Raises:
        StorageError: there is none, or it is damaged.
    """
    try:
        with np.load(path, allow_pickle=False) as file:
            notes = json.loads(str(file["notes"]))
            features = {name.removeprefix("feature "): file[name] for name in file.files if name.startswith("feature ")}
            return Reference(Space(**notes["space"]), file["bank"], file["sample"], features, frozenset(notes["words"]))
    except FileNotFoundError:
        remedy = "Make one: embedlab deploy drift reference"
        raise StorageError("there is no reference", remedy=remedy, file=path) from None
    except Exception as error:  # noqa: BLE001 - a damaged archive fails in many ways
        raise StorageError(f"damaged ({type(error).__name__})", remedy="Make the reference again", file=path) from error


def _vocabulary(texts: Iterable[str]) -> frozenset[str]:
    return frozenset(word for text in texts for word in words(text))


def _features(
    vectors: np.ndarray, texts: Sequence[str], bank: np.ndarray, vocabulary: frozenset[str], search: Search | None
) -> dict[str, np.ndarray]:
    """Numbers per row, each computed from that row and fixed things alone, so that rows stay exchangeable."""
    features = {
        "length": np.round(np.linalg.norm(vectors, axis=1), DECIMALS),
        "nearest": 1 - (vectors @ bank.T).max(axis=1),
        "unknown words": np.array([_unknown_share(text, vocabulary) for text in texts]),
    }
    return features | ({"top score": search(vectors)[:, 0]} if search else {})


def _unknown_share(text: str, vocabulary: frozenset[str]) -> float:
    found = words(text)
    return sum(word not in vocabulary for word in found) / max(1, len(found))


def _dealings(old: int, new: int, count: int, rng: np.random.Generator) -> np.ndarray:
    """The real division in row 0 and `count` random ones: float32 (count + 1, old + new)."""
    real = np.concatenate([np.full(old, -1 / old), np.full(new, 1 / new)]).astype(np.float32)
    return np.concatenate([real[None], rng.permuted(np.tile(real, (count, 1)), axis=1)])


def _kernel_statistics(pooled: np.ndarray, dealt: np.ndarray) -> dict[str, np.ndarray]:
    centred = pooled - pooled.mean(axis=0)
    products = centred @ centred.T
    squares = np.diag(products)
    distances = np.maximum(squares[:, None] + squares[None] - 2 * products, 0)
    width = np.median(distances[np.triu_indices(len(pooled), 1)]) or 1.0
    kernels = {"mean": products, "covariance": products**2, "mmd": np.exp(-distances / width)}
    return {name: mmd_statistics(kernel, dealt) for name, kernel in kernels.items()}


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
    """Texts outside the reference, one by one, by conformal p-value: a normal text has one <= alpha that rarely.

    A sample too small for such a p-value lists what is farther off than all of it.
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
