"""Quantised and binary vectors: size, round trip, scores, files; ready-made searches; enlarged corpora and timing."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.errors import ParameterError, StorageError
from embedlab.search.exact import search
from embedlab.search.quantised import PRECISIONS, BinaryVectors, QuantisedVectors
from embedlab.search.recall import recall_at_k
from embedlab.search.rescore import rescored
from embedlab.search.scaling import compare_speed, enlarge, exact, recall_of_first
from embedlab.search.strategies import FORTY_EIGHT_BYTES, funnels, precision_grid, stored_searches
from embedlab.search.vectors import truncate
from tests.unit.test_funnel import unit

encode = QuantisedVectors.encode
VECTORS, QUERIES = unit(300, 384), unit(20, 384, seed=1)


@pytest.mark.parametrize(
    ("precision", "bits"), [("float32", 32), ("float16", 16), ("int8", 8), ("int4", 4), ("bit", 1)]
)
def test_bytes_by_hand(precision, bits):
    assert encode(VECTORS, precision, 64).bytes_per_document == 64 * bits // 8
    assert set(PRECISIONS) == {"float32", "float16", "int8", "int4", "bit"}


def test_forty_eight_bytes_are_that():
    assert [encode(VECTORS, precision, dim).bytes_per_document for precision, dim in FORTY_EIGHT_BYTES] == [48] * 4


@pytest.mark.parametrize(("precision", "levels"), [("int8", 256), ("int4", 16)])
@pytest.mark.parametrize("dim", [384, 40])
def test_round_trip_is_off_by_half_a_step_at_most(precision, levels, dim):
    """Each dimension's range is divided evenly; the truncated vectors are what comes back."""
    kept = truncate(VECTORS, dim)
    decoded = encode(VECTORS, precision, dim)[np.arange(300)]
    step = np.ptp(kept, axis=0) / (levels - 1)
    error = np.abs(decoded - kept)
    assert (error <= 1.01 * step).all()
    assert (error.mean(0) <= 0.55 * step).all() and error.max() > 0


def test_float32_comes_back_as_it_was():
    np.testing.assert_array_equal(encode(VECTORS, "float32", 32)[np.array([[3, 1]])], truncate(VECTORS, 32)[[[3, 1]]])


@pytest.mark.parametrize("precision", PRECISIONS)
def test_searching_codes_is_exact_search_over_decoded_vectors(precision):
    codes = encode(VECTORS, precision, 96)
    scores, found = codes(QUERIES, 10)
    expected_scores, _ = search(truncate(QUERIES, 96), codes[np.arange(300)], 10)
    np.testing.assert_allclose(scores, expected_scores, rtol=1e-4, atol=1e-5)
    again = np.einsum("qd,qkd->qk", truncate(QUERIES, 96), codes[found])
    np.testing.assert_allclose(scores, again, rtol=1e-4, atol=1e-5)


def test_more_bits_find_more():
    """Recall of the exact ten falls with the bits, and rescoring with whole vectors brings it back."""
    _, wanted = search(QUERIES, VECTORS, 10)

    def recall(searcher):
        return np.mean([np.isin(a, b).mean() for a, b in zip(wanted, searcher(QUERIES, 10)[1], strict=True)])

    found = [recall(encode(VECTORS, precision)) for precision in ("float32", "int8", "int4", "bit")]
    assert found[0] == 1 and found[1] > 0.95 and sorted(found, reverse=True) == found
    signs = BinaryVectors(VECTORS)
    assert recall(signs) <= recall(rescored(signs, signs, 100)) <= recall(rescored(signs, VECTORS, 100))
    assert recall(rescored(signs, VECTORS, 300)) == 1


def test_codes_on_disk_are_the_same_codes(tmp_path):
    codes = encode(VECTORS, "int8")
    codes.save(tmp_path / "codes.faiss")
    stored = QuantisedVectors.from_file(tmp_path / "codes.faiss")
    assert (stored.dim, len(stored), stored.bytes_per_document) == (384, 300, 384)
    rows = np.array([[0, 299], [7, 7]])
    np.testing.assert_array_equal(stored[rows], codes[rows])
    assert stored[rows].shape == (2, 2, 384)


def test_unknown_forms_and_dimensions_are_refused():
    with pytest.raises(ParameterError, match=r"\[precision\]"):
        encode(VECTORS, "int3")
    with pytest.raises(ParameterError, match="dim must be between 1 and 384"):
        encode(VECTORS, "int8", 385)
    for dim in (12, 392, 0):
        with pytest.raises(ParameterError, match="multiple of 8"):
            BinaryVectors(VECTORS, dim)


def test_signs_by_hand():
    corpus = np.array([[1, 1, 1, 1, -1, -1, -1, -1], [1, -1, 1, -1, 1, -1, 1, -1]], np.float32) * 0.3
    signs = BinaryVectors(corpus)
    assert signs.bits.tolist() == [[0b11110000], [0b10101010]] and signs.bytes_per_document == 1
    scores, found = signs(np.array([[1, 1, 1, 1, -1, -1, -1, 1]], np.float32), 2)
    assert found.tolist() == [[0, 1]] and scores.tolist() == [[-1, -5]]
    np.testing.assert_array_equal(signs[np.array([1])], np.sign(corpus[1:]))


def test_signs_of_the_first_dimensions_are_kept():
    vectors = np.array([[1] * 8 + [-1] * 8, [0, -1, 0, -1] + [1] * 12], np.float32)  # 0 counts as no bit
    signs = BinaryVectors(vectors, 8)
    assert signs.bits.tolist() == [[0b11111111], [0b00001111]] and signs.dim == 8
    scores, found = signs(vectors[1:], 2)
    assert found.tolist() == [[1, 0]] and scores.tolist() == [[0, -4]]


def test_signs_agree_with_the_bit_code():
    """A float query orders decoded signs as faiss's one-bit code does."""
    signs = BinaryVectors(VECTORS)
    _, everything = rescored(signs, signs, 300)(QUERIES, 10)
    np.testing.assert_array_equal(everything, encode(VECTORS, "bit")(QUERIES, 10)[1])


class TestScaling:
    def test_real_vectors_come_first_and_copies_are_near_one(self):
        grown = enlarge(VECTORS, 1000, similarity=0.8)
        np.testing.assert_array_equal(grown[:300], VECTORS)
        np.testing.assert_allclose(np.linalg.norm(grown, axis=1), 1, atol=1e-5)
        nearest = (grown[300:] @ VECTORS.T).max(1)
        assert 0.75 < nearest.mean() < 0.9

    def test_early_dimensions_stay_heavy(self):
        """The variance of every dimension is that of the real vectors, in noise alone as in copies."""
        for similarity in (0.0, 0.8):
            grown = enlarge(VECTORS, 20_000, similarity=similarity)[300:]
            np.testing.assert_allclose(grown.var(0), VECTORS.var(0), rtol=0.35)
            assert grown[:, :32].var() > 2 * grown[:, -32:].var()

    def test_recall_of_the_first_search_by_hand(self):
        """Of 12 documents with scores 12 to 1 the ten best score 3 or more; the other search misses three of them."""
        corpus = np.arange(12, 0, -1, dtype=np.float32)[:, None]
        queries, asked = np.ones((2, 1), np.float32), []

        def search_for(rows):
            rows = np.array([rows, [*range(10)]])
            return lambda questions, k: asked.append((questions is queries, k)) or (corpus[rows, 0], rows)

        searchers = {"exact": search_for([*range(10)]), "other": search_for([0, 1, 2, 3, 4, 5, 6, 10, 11, -1])}
        assert recall_of_first(searchers, queries, corpus) == {"exact": 1.0, "other": pytest.approx((0.7 + 1) / 2)}
        assert asked == [(True, 10)] * 2

    def test_recall_at_three_by_hand(self):
        """The third best score is 3. Row 3 ties with row 2 and counts; row 4 does not; -1 is nothing."""
        vectors = np.array([[5], [4], [3], [3], [2]], np.float32)
        retrieved = np.array([[0, 1, 3], [0, 4, 2], [4, -1, -1], [2, -1, 1]])
        exact_scores = np.array([[5, 4, 3]] * 4, np.float32)
        found = recall_at_k(retrieved, np.ones((4, 1), np.float32), vectors, exact_scores)
        assert found.dtype == float and found.tolist() == pytest.approx([1, 2 / 3, 0, 2 / 3])

    def test_seeded_and_cut(self):
        assert np.array_equal(enlarge(VECTORS, 500, seed=3), enlarge(VECTORS, 500, seed=3))
        assert not np.array_equal(enlarge(VECTORS, 500, seed=3), enlarge(VECTORS, 500, seed=4))
        np.testing.assert_array_equal(enlarge(VECTORS, 10), VECTORS[:10])

    def test_exact_is_exact(self):
        np.testing.assert_array_equal(exact(VECTORS)(QUERIES, 10)[1], search(QUERIES, VECTORS, 10)[1])

    def test_searches_take_turns_and_the_first_is_the_measure(self, monkeypatch):
        """A clock that the searches advance, the first more slowly than the other, and at first far more slowly."""
        clock, order = [0.0], []

        def searcher(name, cost):
            def run(queries, k):
                clock[0] += cost * len(queries) * (1 if order else 100)
                order.append((name, len(queries)))

            return run

        monkeypatch.setattr("embedlab.search.scaling.time.perf_counter", lambda: clock[0])
        slow, quick = searcher("slow", 0.002), searcher("quick", 0.001)
        table = compare_speed({"slow": slow, "quick": quick}, QUERIES, batch=16, rounds=2)
        assert order == [("slow", 16), ("slow", 4), ("quick", 16), ("quick", 4)] * 3
        assert table["ms_per_query"].tolist() == pytest.approx([2.0, 1.0])
        for column in ("speed", "speed_low", "speed_high"):
            assert table[column].tolist() == pytest.approx([1.0, 2.0])


class TestStrategies:
    def test_stored_searches_name_their_bytes(self, tmp_path):
        searches = stored_searches(VECTORS, 50, tmp_path / "int8.faiss")
        sizes = {name: search[1:] for name, search in searches.items()}
        assert sizes["float32 384, alone"] == (1536, 0) and sizes["signs 384, alone"] == (48, 0)
        assert {sizes[f"{name}, rescored"] for name in ("float32 12", "int8 48", "int4 96", "bit 384")} == {(48, 384)}
        assert "float32 384, rescored" not in searches and "int8 384, rescored" not in searches
        _, exact_indices = search(QUERIES, VECTORS, 10)
        _, rescored_indices = searches["signs 384, rescored"].searcher(QUERIES, 10)
        assert np.mean([np.isin(a, b).mean() for a, b in zip(exact_indices, rescored_indices, strict=True)]) > 0.5

    def test_every_precision_at_every_width(self):
        grid = precision_grid(VECTORS, [384, 16])
        assert {key: vectors.bytes_per_document for key, vectors in grid.items() if key[1] == 16} == {
            ("float32", 16): 64,
            ("int8", 16): 16,
            ("int4", 16): 8,
            ("bit", 16): 2,
        }
        assert len(grid) == 8

    def test_funnels_end_at_the_full_width(self):
        plans = {name: (funnel.dims, funnel.shortlists) for name, funnel in funnels(VECTORS, 50).items()}
        assert plans == {
            "full": ((384,), ()),
            "64 → 384": ((64, 384), (50,)),
            "32 → 384": ((32, 384), (50,)),
            "16 → 384": ((16, 384), (50,)),
            "32 → 64 → 128 → 384": ((32, 64, 128, 384), (200, 100, 50)),
        }
        assert funnels(unit(40, 48), 5)["32 → 48"].shortlists == (5,)


def test_a_damaged_file_is_named(tmp_path):
    (tmp_path / "vectors.faiss").write_bytes(b"garbage" * 10)
    for path in (tmp_path / "vectors.faiss", tmp_path / "missing.faiss"):
        with pytest.raises(StorageError, match=f"{path.name}: .*cannot be read.*save them again"):
            QuantisedVectors.from_file(path)


def test_a_search_for_no_documents_is_refused():
    vectors = np.eye(16, dtype=np.float32)
    for searcher in (QuantisedVectors.encode(vectors, "float32"), BinaryVectors(vectors)):
        with pytest.raises(ParameterError, match="k must be at least 1, got 0"):
            searcher(vectors[:1], 0)


def test_bits_read_back_as_float32_signs():
    bits = BinaryVectors(np.array([[0.5, -0.5] * 4], np.float32))
    assert bits[np.array([0])].dtype == np.float32
    assert bits[np.array([0])].tolist() == [[1, -1] * 4]
