"""Drift checks are quiet on no drift as often as they promise, loud on drift, and refuse another space."""

from __future__ import annotations

from dataclasses import replace
from types import SimpleNamespace

import numpy as np
import pytest
from scipy import stats

from embedlab.deploy import drift
from embedlab.deploy.drift import (
    ADVICE,
    CHECKED_QUERIES,
    _divisions,
    _kernel_statistics,
    _table,
    check_drift,
    false_alarm_rate,
    ks_statistics,
    load_reference,
    make_reference,
    mmd_statistics,
    save_reference,
)
from embedlab.deploy.space import Space, SpaceMismatch
from embedlab.errors import DataError, ParameterError, StorageError

SPACE = Space("model", 8)
WORDS = np.array(["fracture", "of", "left", "femur", "acute", "chronic", "pain"])


def stream(rng, count, *, shift=0.0, spread=1.0):
    vectors = rng.normal(size=(count, 8)) * [spread, *[1] * 7] + shift
    texts = [" ".join(rng.choice(WORDS, 3)) for _ in range(count)]
    return (vectors / np.linalg.norm(vectors, axis=1, keepdims=True)).astype(np.float32), texts


def scores(vectors):
    """An index whose only document lies on the first axis."""
    return vectors[:, :1]


def checked(seed=0, *, new_texts=None, reference_rows=200, rows=100, alpha=0.01, permutations=999, **new):
    rng = np.random.default_rng(seed)
    vectors, texts = stream(rng, reference_rows)
    reference = make_reference(vectors, texts, SPACE, known_texts=WORDS, search=scores, seed=seed)
    vectors, texts = stream(rng, rows, **new)
    options = {"search": scores, "alpha": alpha, "permutations": permutations, "seed": seed}
    return check_drift(reference, vectors, new_texts or texts, SPACE, **options)


def test_ks_is_scipys():
    rng = np.random.default_rng(0)
    for digits in (6, 1):  # with few digits most values tie
        old, new = rng.normal(size=60).round(digits), rng.normal(0.4, size=35).round(digits)
        divisions = _divisions(60, 35, 10, rng)
        expected = stats.ks_2samp(old, new).statistic
        assert ks_statistics(np.concatenate([old, new]), divisions)[0] == pytest.approx(expected, abs=1e-6)


def test_false_alarm_rate_is_the_share_of_checks_of_one_log_that_raise_an_alarm(monkeypatch):
    """Four repeats, one alarm. Each compares two random halves of the log, of the second at most 150 queries."""
    log, parts, answers = [f"query {number}" for number in range(400)], [], np.ones((1, 1))
    encoder = SimpleNamespace(encode_queries=lambda texts: np.array([log.index(text) for text in texts]), space=SPACE)
    asked = []
    served = SimpleNamespace(search=lambda *question: asked.append(question) or (answers, None))

    def reference(vectors, texts, space, *, search, seed):
        assert search(vectors) is answers and asked[-1][0] is vectors and asked[-1][1:] == (SPACE, 1)
        assert [log[row] for row in vectors] == texts and space is SPACE
        return seed, set(texts)

    def check(reference, vectors, texts, space, *, search, alpha, permutations):
        assert search(vectors) is answers and [log[row] for row in vectors] == texts and space is SPACE
        assert (alpha, permutations) == (0.05, 199) and not reference[1] & set(texts)
        parts.append((reference[0], len(reference[1]), len(texts)))
        return SimpleNamespace(alarms=["mean"] if len(parts) == 2 else [])

    monkeypatch.setattr(drift, "make_reference", reference)
    monkeypatch.setattr(drift, "check_drift", check)
    assert false_alarm_rate(served, encoder, log, repeats=4, alpha=0.05) == 0.25
    assert parts == [(repeat, 200, CHECKED_QUERIES) for repeat in range(4)]
    assert false_alarm_rate(served, encoder, log, repeats=0) is None
    for alpha in (0, 1):
        with pytest.raises(ParameterError, match="between 0 and 1"):
            false_alarm_rate(served, encoder, log, repeats=0, alpha=alpha)


def test_equal_values_never_differ():
    divisions = _divisions(30, 20, 50, np.random.default_rng(0))
    np.testing.assert_array_equal(ks_statistics(np.ones(50), divisions), np.zeros(51))


def test_mmd_with_a_linear_kernel_is_the_distance_of_the_means():
    rng = np.random.default_rng(0)
    old, new = rng.normal(size=(30, 4)), rng.normal(1, 1, size=(20, 4))
    pooled = np.concatenate([old, new])
    expected = ((old.mean(0) - new.mean(0)) ** 2).sum()
    assert mmd_statistics(pooled @ pooled.T, _divisions(30, 20, 3, rng))[0] == pytest.approx(expected, rel=1e-5)


def test_covariance_and_mean_by_their_definition_wherever_the_vectors_lie():
    """Squared distances of the means and of the second moments about the common mean; an offset changes neither."""
    rng = np.random.default_rng(0)
    pooled = np.concatenate([rng.normal(size=(30, 4)), rng.normal(0.5, 2, size=(20, 4))])
    centred = pooled - pooled.mean(0)
    moments = [part.T @ part / len(part) for part in (centred[:30], centred[30:])]
    expected = {
        "mean": ((pooled[:30].mean(0) - pooled[30:].mean(0)) ** 2).sum(),
        "covariance": ((moments[0] - moments[1]) ** 2).sum(),
    }
    for offset in (0, 3):
        found = _kernel_statistics(pooled + offset, _divisions(30, 20, 3, rng))
        assert {name: found[name][0] for name in expected} == pytest.approx(expected, rel=1e-4)


def test_mmd_by_hand():
    """Points 0, 0 and 2, 2: of the six squared distances the median is 4, so the kernel is 1 at 0 and 1/e at 4.

    The mean kernel within each group is 1, between them 1/e.
    """
    pooled = np.array([[0.0], [0.0], [2.0], [2.0]])
    found = _kernel_statistics(pooled, _divisions(2, 2, 1, np.random.default_rng(0)))
    assert found["mmd"][0] == pytest.approx(2 - 2 / np.e, rel=1e-6)


def test_table_by_hand():
    """Of 0, 1, 2, 3, 4 the 0.75 quantile is 3; one of six values, the real one, reaches 5, and three reach 2."""
    table = _table({"far": np.array([5.0, 0, 4, 2, 1, 3]), "near": np.array([2.0, 0, 4, 1, 0, 3])}, 0.25)
    assert table["threshold"].tolist() == [3.0, 3.0]
    assert table["value"].tolist() == [5.0, 2.0]
    assert table["p_value"].tolist() == pytest.approx([1 / 6, 3 / 6])
    assert table["p_holm"].tolist() == pytest.approx([2 / 6, 3 / 6])
    assert table["alarm"].tolist() == [False, False]
    assert _table({"far": np.array([5.0, 0, 4, 2, 1])}, 0.2)["alarm"].tolist() == [True]  # p equals alpha


def test_features_by_hand():
    """Distance to the nearest text of the bank, not to an average one; length; share of unknown words; best score."""
    rng = np.random.default_rng(0)
    vectors, texts = stream(rng, 60)
    reference = make_reference(vectors, texts, SPACE, search=lambda rows: rows[:, 1:])
    for row, nearest in enumerate(reference.features["nearest"]):
        assert nearest == pytest.approx(
            min(1 - sum(reference.sample[row] * other) for other in reference.bank), abs=1e-5
        )
    np.testing.assert_array_equal(reference.features["top score"], reference.sample[:, 1])
    np.testing.assert_allclose(reference.features["length"], 1, atol=1e-5)
    assert len(reference.sample) == len(reference.bank) == 30


def test_divisions_keep_the_sizes_of_the_groups():
    divisions = _divisions(30, 20, 100, np.random.default_rng(0))
    assert ((divisions > 0).sum(axis=1) == 20).all()
    np.testing.assert_allclose(divisions.sum(axis=1), 0, atol=1e-6)
    assert (divisions[0, :30] < 0).all() and (divisions[0, 30:] > 0).all()


def test_no_drift_is_quiet_as_often_as_promised():
    """At most 10 % of the checks may cry wolf; 15 of 80 would happen by chance once in 100 times at 10 %."""
    alarms = sum(
        bool(checked(seed, alpha=0.1, permutations=99, reference_rows=120, rows=40).alarms) for seed in range(80)
    )
    assert alarms <= 15


@pytest.mark.parametrize(
    ("new", "expected"),
    [({"shift": 0.5}, {"mean", "mmd"}), ({"spread": 3.0}, {"covariance", "mmd"})],
    ids=["shift", "spread"],
)
def test_drift_is_loud(new, expected):
    report = checked(**new)
    assert expected <= set(report.alarms)
    assert report.advice == [ADVICE[name] for name in report.alarms]
    alarmed = report.table[report.table["alarm"]]
    assert (alarmed["value"] > alarmed["threshold"]).all()


def test_new_words_are_named():
    report = checked(new_texts=["quantum flux of femur"] * 60 + ["quantum pain"] * 40)
    assert report.alarms == ["unknown words"]
    assert report.new_words == [("quantum", 100), ("flux", 60)]


def test_single_unusual_texts_are_listed():
    rng = np.random.default_rng(0)
    vectors, texts = stream(rng, 400)
    vectors[:, 0] = np.abs(vectors[:, 0])  # everything known lies on one side
    reference = make_reference(vectors, texts, SPACE)
    fresh, fresh_texts = vectors[:50].copy(), texts[:50]
    fresh[7] = -np.eye(8)[0]
    fresh_texts[7] = "the odd one"
    unusual = check_drift(reference, fresh, fresh_texts, SPACE).unusual
    assert unusual["text"][0] == "the odd one" and len(unusual) <= 3
    assert unusual["p_value"][0] == pytest.approx(1 / 201)


def test_vectors_of_another_length_are_noticed():
    rng = np.random.default_rng(0)
    vectors, texts = stream(rng, 200)
    report = check_drift(make_reference(vectors, texts, SPACE), 1.01 * vectors[:50], texts[:50], SPACE)
    assert "length" in report.alarms


def test_without_an_index_there_is_no_score():
    rng = np.random.default_rng(0)
    vectors, texts = stream(rng, 100)
    report = check_drift(make_reference(vectors, texts, SPACE), vectors[:30], texts[:30], SPACE)
    assert list(report.table["statistic"]) == ["mean", "covariance", "mmd", "length", "nearest", "unknown words"]


def test_another_space_is_no_drift_but_a_mistake():
    rng = np.random.default_rng(0)
    vectors, texts = stream(rng, 100)
    with pytest.raises(SpaceMismatch, match="checking for drift refused"):
        check_drift(make_reference(vectors, texts, SPACE), vectors, texts, replace(SPACE, model="other"))


def test_too_few_texts_are_refused():
    rng = np.random.default_rng(0)
    vectors, texts = stream(rng, 100)
    with pytest.raises(DataError, match="at least 40"):
        make_reference(vectors[:39], texts[:39], SPACE)
    with pytest.raises(DataError, match="at least 20"):
        check_drift(make_reference(vectors, texts, SPACE), vectors[:19], texts[:19], SPACE)


def test_a_reference_survives_its_file(tmp_path):
    rng = np.random.default_rng(0)
    vectors, texts = stream(rng, 100)
    reference = make_reference(vectors, texts, SPACE, search=scores)
    save_reference(reference, tmp_path / "reference.npz")
    again = load_reference(tmp_path / "reference.npz")
    reports = [check_drift(found, vectors[:40], texts[:40], SPACE, search=scores) for found in (reference, again)]
    assert reports[0].table.equals(reports[1].table)
    (tmp_path / "reference.npz").write_bytes((tmp_path / "reference.npz").read_bytes()[:-100])
    with pytest.raises(StorageError, match="damaged"):
        load_reference(tmp_path / "reference.npz")
    with pytest.raises(StorageError, match="The drift reference is missing"):
        load_reference(tmp_path / "none.npz")
