"""Chunks by hand and by their invariants; documents ranked by their best chunk against a slow reference."""

from __future__ import annotations

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from embedlab.data.chunks import Chunking
from embedlab.errors import ParameterError
from embedlab.evaluation.diagnose.chunking import Chunks, rank_by_best_chunk
from embedlab.search.vectors import Vectors

TEXT = "One two three. Four five? Six seven eight nine ten. Eleven"


@pytest.mark.parametrize(
    "spec, chunks",
    [
        ("20", [TEXT]),
        ("4", ["One two three. Four", "five? Six seven eight", "nine ten. Eleven"]),
        ("4+1", ["One two three. Four", "Four five? Six seven", "seven eight nine ten.", "ten. Eleven"]),
        ("5 sentences", ["One two three. Four five?", "Six seven eight nine ten.", "Eleven"]),
        ("6+2 sentences", ["One two three. Four five?", "Six seven eight nine ten. Eleven"]),
        ("7+2 sentences", ["One two three. Four five?", "Four five? Six seven eight nine ten.", "Eleven"]),
        ("3 sentences", ["One two three.", "Four five?", "Six seven eight", "nine ten. Eleven"]),
    ],
)
def test_chunks_by_hand(spec, chunks):
    assert Chunking.parse(spec).split(TEXT) == chunks
    assert str(Chunking.parse(spec)) == spec


def test_a_text_that_fits_keeps_its_white_space_and_one_without_words_stays():
    assert Chunking(3).split("  a\n b  c ") == ["  a\n b  c "]
    assert Chunking(3).split("") == [""]
    assert Chunking(2).split(" a\n b  c ") == ["a\n b", "c"]


@pytest.mark.parametrize(
    "spec, chunks",
    [
        ("4", ["水泵漏水。请打开盖", "子。「为什么？」"]),
        ("4 sentences", ["水泵漏水。", "请打开盖子。", "「为什么？」"]),
        ("5 sentences", ["水泵漏水。请打开盖子。", "「为什么？」"]),
    ],
)
def test_scripts_without_spaces(spec, chunks):
    assert Chunking.parse(spec).split("水泵漏水。请打开盖子。「为什么？」") == chunks


@given(st.text("水泵。！「」 a.b\né（่กกำ,", max_size=80), st.integers(1, 8), st.booleans())
def test_no_character_of_any_script_is_lost(text, size, sentences):
    chunks = Chunking(size, 0, sentences).split(text)
    assert "".join("".join(chunks).split()) == "".join(text.split())


@given(
    st.lists(st.sampled_from(["a", "bb.", "ccc", "d?", "e!", "f."]), max_size=40),
    st.integers(1, 8),
    st.integers(0, 7),
    st.booleans(),
)
def test_chunks_cover_the_text_in_order_and_keep_their_limits(words, size, overlap, sentences):
    words = [f"{word[0]}{place}{word[1:]}" for place, word in enumerate(words)]  # every word once
    overlap = min(overlap, size - 1)
    chunks = [chunk.split() for chunk in Chunking(size, overlap, sentences).split(" ".join(words))]
    places = [[words.index(word) for word in chunk] for chunk in chunks]
    assert all(len(chunk) <= size for chunk in chunks)
    assert sorted({place for chunk in places for place in chunk}) == list(range(len(words)))
    for before, after in zip(places, places[1:], strict=False):
        assert before[-1] - after[0] + 1 in range(overlap + 1)
        assert after[-1] > before[-1]
        if not sentences:
            assert before[-1] - after[0] + 1 == overlap


@given(st.lists(st.integers(1, 4), min_size=1, max_size=12), st.integers(4, 9))
def test_a_sentence_that_fits_is_never_cut(lengths, size):
    sentences = [" ".join(f"w{n}x{i}" for i in range(length)) + "." for n, length in enumerate(lengths)]
    chunks = Chunking(size, 0, sentences=True).split(" ".join(sentences))
    assert all(any(sentence in chunk for chunk in chunks) for sentence in sentences)


@pytest.mark.parametrize("spec", ["", "many", "128+", "0", "64+64", "64 words", "-3", "12.5"])
def test_what_is_no_way_to_chunk_is_refused(spec):
    with pytest.raises(ParameterError, match="chunkings"):
        Chunking.parse(spec)


def test_owners_follow_the_corpus():
    chunks = Chunks.of({"long": "a b c d e", "empty": "", "short": "f"}, Chunking(2))
    assert chunks.texts == ("a b", "c d", "e", "", "f")
    assert chunks.owners.tolist() == [0, 0, 0, 1, 2]


@pytest.mark.parametrize("seed", range(5))
def test_ranking_by_best_chunk_agrees_with_a_loop(seed):
    rng = np.random.default_rng(seed)
    sizes = rng.integers(1, 4, size=30)
    sizes[7] = 60  # one document could fill a shallow search alone
    owners = np.repeat(np.arange(30), sizes)
    queries, chunk_vectors = (rng.normal(size=(n, 3)).astype(np.float32) for n in (6, len(owners)))
    chunk_vectors[owners == 7] *= 10
    vectors = Vectors(tuple("abcdef"), tuple(f"d{n}" for n in range(30)), queries, np.zeros((30, 3), np.float32))
    found = rank_by_best_chunk(vectors, Chunks(tuple("x" * len(owners)), owners), chunk_vectors, 10)
    for row, query in enumerate(queries):
        best = {d: max(chunk_vectors[c] @ query for c in np.flatnonzero(owners == d)) for d in range(30)}
        expected = sorted(best, key=lambda document: -best[document])[:10]
        assert found.indices[row].tolist() == expected
        np.testing.assert_allclose(found.scores[row], [best[document] for document in expected], rtol=1e-5)


def test_fewer_documents_than_asked_for_and_ties_by_place():
    vectors = Vectors(("q",), ("a", "b", "c"), np.ones((1, 1), np.float32), np.ones((3, 1), np.float32))
    chunks = Chunks(("1", "2", "3", "4"), np.array([0, 1, 1, 2]))
    found = rank_by_best_chunk(vectors, chunks, np.array([[1], [0], [2], [1]], np.float32), 100)
    assert found.doc_ids.tolist() == [["b", "a", "c"]]
    assert found.scores.tolist() == [[2, 1, 1]]
