"""A transformer and a table as one model: the right cosine, the same on padded and packed batches, and it travels."""

from __future__ import annotations

import copy
import json
import subprocess
import sys

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer

from embedlab.data.dataset import Dataset
from embedlab.errors import ModelError, ParameterError
from embedlab.evaluation.retrieval import encode_split
from embedlab.models.concatenation import mixture, side_by_side, table_beside, with_table
from embedlab.models.encode import encode
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.load import load_model
from embedlab.models.merging import merge
from embedlab.models.packing import pack
from embedlab.models.save import is_own_code, save_model
from embedlab.models.static import static_model
from tests.conftest import TEXTS, tiny_model

QUESTIONS = [*TEXTS, "zzqx ☃ unheard of", "Type 2 diabetes, type 2 diabetes"]


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    transformer = tiny_model()
    return transformer, static_model(transformer, torch.randn(len(transformer.tokenizer), 24))


def vectors_of(parts, share):
    return side_by_side(*(encode(model, QUESTIONS) for model in parts), share)


@pytest.fixture(scope="module")
def both(parts):
    wide = vectors_of(parts, 0.3)
    return table_beside(*parts, 0.3, wide, dim=len(wide[0]))


class TestSideBySide:
    def test_cosine_is_the_weighted_mean(self, parts):
        one, other = (encode(model, QUESTIONS) for model in parts)
        together = side_by_side(one, other, 0.3)
        assert together @ together.T == pytest.approx(0.7 * one @ one.T + 0.3 * other @ other.T, abs=1e-6)

    @pytest.mark.parametrize("share", [-0.1, 1.1])
    def test_refuses_a_share_that_is_none(self, share):
        with pytest.raises(ParameterError, match="share"):
            side_by_side(np.eye(2), np.eye(2), share)

    def test_vectors_of_a_split(self, parts):
        corpus, queries = {"d1": TEXTS[0], "d2": TEXTS[1]}, {"q": TEXTS[2]}
        data = Dataset(name="toy", corpus=corpus, queries=queries, qrels={"test": {"q": {"d1": 1}}})
        one, other = (encode_split(model, data) for model in parts)
        joined = one.beside(other, 0.3)
        assert joined.queries @ joined.corpus.T == pytest.approx(
            0.7 * one.queries @ one.corpus.T + 0.3 * other.queries @ other.corpus.T, abs=1e-6
        )
        assert joined.query_ids == one.query_ids


class TestConcatStaticEmbedding:
    def test_all_directions_keep_every_cosine(self, parts, both):
        wide, found = vectors_of(parts, 0.3), encode(both, QUESTIONS)
        assert found.shape == wide.shape and both.get_embedding_dimension() == wide.shape[1]
        assert found @ found.T == pytest.approx(wide @ wide.T, abs=1e-5)

    def test_fewer_directions_are_the_first_ones(self, parts, both):
        narrow = table_beside(*parts, 0.3, vectors_of(parts, 0.3), dim=8)
        found, first = encode(narrow, QUESTIONS), encode(both, QUESTIONS)[:, :8]
        assert found == pytest.approx(first / np.linalg.norm(first, axis=1, keepdims=True), abs=1e-5)

    def test_unturned_vectors_are_those_of_both_end_to_end(self, parts):
        assert encode(with_table(*parts, 0.3), QUESTIONS) == pytest.approx(vectors_of(parts, 0.3), abs=1e-6)

    def test_mixture_is_the_mean_with_the_table_beside_it(self, parts):
        transformer, static = parts
        other = copy.deepcopy(transformer)
        for weights in other.parameters():
            weights.data += 0.1
        pool, halves = {"base": transformer, "tuned": other}, {"base": 0.5, "tuned": 0.5}
        plain, beside = (encode(mixture(pool, halves, static, share), QUESTIONS) for share in (0.0, 0.3))
        assert plain == pytest.approx(encode(merge([transformer, other], [0.5, 0.5]), QUESTIONS))
        assert beside == pytest.approx(side_by_side(plain, encode(static, QUESTIONS), 0.3), abs=1e-6)

    def test_packed_and_padded_agree(self, parts, both):
        packed = table_beside(
            pack(tiny_model()), parts[1], 0.3, vectors_of(parts, 0.3), dim=len(both[-2].linear.weight)
        )
        packed.load_state_dict(both.state_dict())
        stock = both.encode(QUESTIONS, normalize_embeddings=True)
        assert encode(packed, QUESTIONS) == pytest.approx(stock, abs=1e-5)

    def test_leaves_the_transformer_as_it_is(self, parts, both):
        assert len(both) == len(parts[0]) + 3
        assert not any(type(module).__name__ == "ConcatStaticEmbedding" for module in parts[0])

    def test_refuses_another_vocabulary(self, parts):
        other = static_model(parts[0], torch.randn(len(parts[0].tokenizer), 24))
        other.tokenizer.add_tokens(["kneecap"])
        with pytest.raises(ModelError, match="vocabular"):
            table_beside(parts[0], other, 0.3, np.eye(8), dim=4)


class TestTravelling:
    def test_loads_here(self, both, tmp_path):
        save_model(both, tmp_path / "one")
        once = load_model(str(tmp_path / "one"))
        once.save_pretrained(str(tmp_path / "two"))  # as the Trainer would
        twice = load_model(str(tmp_path / "two"))
        assert model_fingerprint(twice) == model_fingerprint(once) == model_fingerprint(both)
        assert encode(twice, QUESTIONS) == pytest.approx(encode(both, QUESTIONS), abs=1e-6)

    def test_loads_without_this_package(self, both, tmp_path):
        save_model(both, tmp_path / "model")
        script = (
            "import sys, json; sys.modules['embedlab'] = None\n"
            "from sentence_transformers import SentenceTransformer\n"
            f"model = SentenceTransformer({str(tmp_path / 'model')!r}, device='cpu', trust_remote_code=True)\n"
            f"print(json.dumps(model.encode({QUESTIONS!r}).tolist()))\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
        vectors = np.array(json.loads(done.stdout.splitlines()[-1]))
        assert vectors == pytest.approx(both.encode(QUESTIONS), abs=1e-5)

    def test_runs_no_code_that_is_not_this_packages_own(self, both, tmp_path):
        save_model(both, tmp_path)
        assert is_own_code(tmp_path)
        with (tmp_path / "static_concat.py").open("a") as file:
            file.write("\nprint('mine')\n")
        assert not is_own_code(tmp_path)
        with pytest.raises(ModelError, match="third-party code|trust_remote_code|not part of"):
            load_model(str(tmp_path))

    @pytest.mark.parametrize(
        ("file", "old", "new"),
        [
            ("modules.json", "static_concat.ConcatStaticEmbedding", "someone/else--code.Thing"),
            ("config.json", "{", '{"auto_map": {"AutoModel": "someone/else--code.Thing"},'),
            ("config.json", "{", '{"auto\\u005fmap": {"AutoModel": "someone/else--code.Thing"},'),
        ],
    )
    def test_code_named_elsewhere_rules_trust_out(self, both, tmp_path, file, old, new):
        save_model(both, tmp_path)
        text = (tmp_path / file).read_text()
        assert old in text
        (tmp_path / file).write_text(text.replace(old, new, 1))
        assert not is_own_code(tmp_path)

    def test_a_stock_model_stays_one(self, parts, tmp_path):
        save_model(parts[0], tmp_path)
        assert not is_own_code(tmp_path) and "embedlab" not in (tmp_path / "modules.json").read_text()
        assert SentenceTransformer(str(tmp_path), device="cpu").encode(TEXTS) == pytest.approx(
            parts[0].encode(TEXTS), abs=1e-6
        )
