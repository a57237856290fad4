"""Codes and signs: size, round trip, scores against decoded vectors, files; enlarged corpora and timing."""

from __future__ import annotations

import numpy as np
import pytest

from embedlab.errors import ParameterError
from embedlab.search.exact import search
from embedlab.search.quantised import FORMS, FORTY_EIGHT_BYTES, Codes, Signs
from embedlab.search.rescore import rescored
from embedlab.search.scaling import compare_speed, enlarge, exact
from embedlab.search.vectors import truncate
from tests.unit.test_funnel import unit

VECTORS, QUERIES = unit(300, 384), unit(20, 384, seed=1)


@pytest.mark.parametrize(("form", "bits"), [("float32", 32), ("float16", 16), ("int8", 8), ("int4", 4), ("bit", 1)])
def test_bytes_by_hand(form, bits):
    assert Codes.of(VECTORS, form, 64).bytes_per_document == 64 * bits // 8
    assert set(FORMS) == {"float32", "float16", "int8", "int4", "bit"}


def test_forty_eight_bytes_are_that():
    assert [Codes.of(VECTORS, form, dim).bytes_per_document for form, dim in FORTY_EIGHT_BYTES] == [48] * 4


@pytest.mark.parametrize(("form", "levels"), [("int8", 256), ("int4", 16)])
@pytest.mark.parametrize("dim", [384, 40])
def test_round_trip_is_off_by_half_a_step_at_most(form, levels, dim):
    """Each dimension's range is divided evenly; the truncated vectors are what comes back."""
    kept = truncate(VECTORS, dim)
    decoded = Codes.of(VECTORS, form, dim)[np.arange(300)]
    step = np.ptp(kept, axis=0) / (levels - 1)
    error = np.abs(decoded - kept)
    assert (error <= 1.01 * step).all()
    assert (error.mean(0) <= 0.55 * step).all() and error.max() > 0


def test_float32_comes_back_as_it_was():
    np.testing.assert_array_equal(Codes.of(VECTORS, "float32", 32)[np.array([[3, 1]])], truncate(VECTORS, 32)[[[3, 1]]])


@pytest.mark.parametrize("form", FORMS)
def test_searching_codes_is_exact_search_over_decoded_vectors(form):
    codes = Codes.of(VECTORS, form, 96)
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

    found = [recall(Codes.of(VECTORS, form)) for form in ("float32", "int8", "int4", "bit")]
    assert found[0] == 1 and found[1] > 0.95 and sorted(found, reverse=True) == found
    signs = Signs(VECTORS)
    assert recall(signs) <= recall(rescored(signs, signs, 100)) <= recall(rescored(signs, VECTORS, 100))
    assert recall(rescored(signs, VECTORS, 300)) == 1


def test_codes_on_disk_are_the_same_codes(tmp_path):
    codes = Codes.of(VECTORS, "int8")
    codes.save(tmp_path / "codes.faiss")
    stored = Codes.from_file(tmp_path / "codes.faiss")
    assert (stored.dim, len(stored), stored.bytes_per_document) == (384, 300, 384)
    rows = np.array([[0, 299], [7, 7]])
    np.testing.assert_array_equal(stored[rows], codes[rows])
    assert stored[rows].shape == (2, 2, 384)


def test_unknown_forms_and_dimensions_are_refused():
    with pytest.raises(ParameterError, match="there is no form 'int3'"):
        Codes.of(VECTORS, "int3")
    with pytest.raises(ParameterError, match="Cannot truncate"):
        Codes.of(VECTORS, "int8", 385)
    for dim in (12, 392, 0):
        with pytest.raises(ParameterError, match="cannot be kept as whole bytes"):
            Signs(VECTORS, dim)


def test_signs_by_hand():
    corpus = np.array([[1, 1, 1, 1, -1, -1, -1, -1], [1, -1, 1, -1, 1, -1, 1, -1]], np.float32) * 0.3
    signs = Signs(corpus)
    assert signs.bits.tolist() == [[0b11110000], [0b10101010]] and signs.bytes_per_document == 1
    scores, found = signs(np.array([[1, 1, 1, 1, -1, -1, -1, 1]], np.float32), 2)
    assert found.tolist() == [[0, 1]] and scores.tolist() == [[-1, -5]]
    np.testing.assert_array_equal(signs[np.array([1])], np.sign(corpus[1:]))


def test_signs_agree_with_the_bit_code():
    """A float query orders decoded signs as faiss's one-bit code does."""
    signs = Signs(VECTORS)
    _, everything = rescored(signs, signs, 300)(QUERIES, 10)
    np.testing.assert_array_equal(everything, Codes.of(VECTORS, "bit")(QUERIES, 10)[1])


class TestScaling:
    def test_real_vectors_come_first_and_copies_are_near_one(self):
        grown = enlarge(VECTORS, 1000, likeness=0.8)
        np.testing.assert_array_equal(grown[:300], VECTORS)
        np.testing.assert_allclose(np.linalg.norm(grown, axis=1), 1, atol=1e-5)
        nearest = (grown[300:] @ VECTORS.T).max(1)
        assert 0.75 < nearest.mean() < 0.9

    def test_early_dimensions_stay_heavy(self):
        """The variance of every dimension is that of the real vectors, in noise alone as in copies."""
        for likeness in (0.0, 0.8):
            grown = enlarge(VECTORS, 20_000, likeness=likeness)[300:]
            np.testing.assert_allclose(grown.var(0), VECTORS.var(0), rtol=0.35)
            assert grown[:, :32].var() > 2 * grown[:, -32:].var()

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
