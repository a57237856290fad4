"""Transformer and static model concatenated: right cosine, padded and packed batches agree, loads anywhere."""

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
from embedlab.models.concatenation import (
    concat_static,
    concat_static_pca,
    concatenate,
    merge_and_concat,
)
from embedlab.models.encode import encode
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.load import load_model
from embedlab.models.merging import merge
from embedlab.models.packing import pack
from embedlab.models.save import is_own_code, save_model
from embedlab.models.static import static_model
from embedlab.models.static_concat import ConcatStaticEmbedding
from tests.conftest import TEXTS, tiny_model

QUESTIONS = [*TEXTS, "zzqx ☃ unheard of", "Type 2 diabetes, type 2 diabetes"]


@pytest.fixture(scope="module")
def parts():
    torch.manual_seed(0)
    transformer = tiny_model()
    return transformer, static_model(transformer, torch.randn(len(transformer.tokenizer), 24))


def vectors_of(parts, static_share):
    return concatenate(*(encode(model, QUESTIONS) for model in parts), static_share)


@pytest.fixture(scope="module")
def combined(parts):
    wide = vectors_of(parts, 0.3)
    return concat_static_pca(*parts, 0.3, wide, dim=len(wide[0]))


class TestConcatenate:
    def test_cosine_is_the_weighted_mean(self, parts):
        vectors, static = (encode(model, QUESTIONS) for model in parts)
        result = concatenate(vectors, static, 0.3)
        assert result @ result.T == pytest.approx(0.7 * vectors @ vectors.T + 0.3 * static @ static.T, abs=1e-6)

    def test_a_share_of_0_or_1_leaves_one_half(self):
        transformer, static = np.array([[0.6, 0.8]]), np.array([[0.0, 1.0]])
        assert concatenate(transformer, static, 0).tolist() == [[0.6, 0.8, 0, 0]]
        assert concatenate(transformer, static, 1).tolist() == [[0, 0, 0, 1]]

    def test_a_text_without_words_has_the_transformers_half_alone(self):
        """sqrt(1 - 0.36) = 0.8 and sqrt(0.36) = 0.6; the empty one has length 1 again."""
        transformer, static = np.array([[1.0, 0.0], [0.6, 0.8]]), np.array([[0.0, 1.0], [0.0, 0.0]])
        joined = concatenate(transformer, static, 0.36)
        assert joined == pytest.approx(np.array([[0.8, 0, 0, 0.6], [0.6, 0.8, 0, 0]]))
        assert concatenate(transformer[:1] * 0, static[1:], 0.36).tolist() == [[0, 0, 0, 0]]

    def test_evaluated_vectors_are_those_of_the_model(self, parts):
        np.testing.assert_allclose(encode(concat_static(*parts, 0.3), QUESTIONS), vectors_of(parts, 0.3), atol=1e-5)

    @pytest.mark.parametrize("share", [-0.1, 1.1])
    def test_rejects_a_share_outside_0_to_1(self, share):
        with pytest.raises(ParameterError, match=r"\[static_share\]: static_share must be between 0 and 1"):
            concatenate(np.eye(2), np.eye(2), share)

    def test_vectors_of_a_split(self, parts):
        corpus, queries = {"d1": TEXTS[0], "d2": TEXTS[1]}, {"q": TEXTS[2]}
        data = Dataset(name="toy", corpus=corpus, queries=queries, qrels={"test": {"q": {"d1": 1}}})
        vectors, static = (encode_split(model, data) for model in parts)
        result = vectors.concatenated(static, 0.3)
        assert result.queries @ result.corpus.T == pytest.approx(
            0.7 * vectors.queries @ vectors.corpus.T + 0.3 * static.queries @ static.corpus.T, abs=1e-6
        )
        assert result.query_ids == vectors.query_ids


class TestConcatStaticEmbedding:
    def test_all_components_keep_every_cosine(self, parts, combined):
        wide, projected = vectors_of(parts, 0.3), encode(combined, QUESTIONS)
        assert projected.shape == wide.shape and combined.get_embedding_dimension() == wide.shape[1]
        assert projected @ projected.T == pytest.approx(wide @ wide.T, abs=1e-5)

    def test_fewer_components_are_the_first_ones(self, parts, combined):
        narrow = concat_static_pca(*parts, 0.3, vectors_of(parts, 0.3), dim=8)
        first = encode(combined, QUESTIONS)[:, :8]
        assert encode(narrow, QUESTIONS) == pytest.approx(
            first / np.linalg.norm(first, axis=1, keepdims=True), abs=1e-5
        )

    def test_without_pca_the_vectors_are_the_concatenation(self, parts):
        assert encode(concat_static(*parts, 0.3), QUESTIONS) == pytest.approx(vectors_of(parts, 0.3), abs=1e-6)

    def test_merged_weights_concatenated_with_a_static_model(self, parts):
        transformer, static = parts
        other = copy.deepcopy(transformer)
        for weights in other.parameters():
            weights.data += 0.1
        pool, halves = {"base": transformer, "tuned": other}, {"base": 0.5, "tuned": 0.5}
        plain, wide = (encode(merge_and_concat(pool, halves, static, share), QUESTIONS) for share in (0.0, 0.3))
        assert plain == pytest.approx(encode(merge([transformer, other], [0.5, 0.5]), QUESTIONS))
        assert wide == pytest.approx(concatenate(plain, encode(static, QUESTIONS), 0.3), abs=1e-6)

    def test_packed_and_padded_agree(self, parts, combined):
        packed = concat_static_pca(
            pack(tiny_model()), parts[1], 0.3, vectors_of(parts, 0.3), dim=len(combined[-2].linear.weight)
        )
        packed.load_state_dict(combined.state_dict())
        stock = combined.encode(QUESTIONS, normalize_embeddings=True)
        assert encode(packed, QUESTIONS) == pytest.approx(stock, abs=1e-5)

    def test_leaves_the_transformer_as_it_is(self, parts, combined):
        assert len(combined) == len(parts[0]) + 3
        assert not any(type(module).__name__ == "ConcatStaticEmbedding" for module in parts[0])

    def test_rejects_another_vocabulary(self, parts):
        other = static_model(parts[0], torch.randn(len(parts[0].tokenizer), 24))
        other.tokenizer.add_tokens(["kneecap"])
        with pytest.raises(ModelError, match="vocabular"):
            concat_static_pca(parts[0], other, 0.3, np.eye(8), dim=4)


class TestSaving:
    def test_loads_here(self, combined, tmp_path):
        save_model(combined, tmp_path / "one")
        once = load_model(str(tmp_path / "one"))
        once.save_pretrained(str(tmp_path / "two"))  # as the Trainer would
        twice = load_model(str(tmp_path / "two"))
        assert model_fingerprint(twice) == model_fingerprint(once) == model_fingerprint(combined)
        assert encode(twice, QUESTIONS) == pytest.approx(encode(combined, QUESTIONS), abs=1e-6)

    def test_a_model_without_a_transformer_is_refused(self, parts):
        with pytest.raises(ModelError, match="the model starts with StaticEmbedding, not with a transformer") as caught:
            concat_static(parts[1], parts[1], 0.3)
        assert "Concatenate a transformer with a static model" in str(caught.value)

    def test_the_module_loads_what_it_saved(self, parts, tmp_path):
        module = concat_static(*parts, 0.3)[-1]
        (tmp_path / "2_Static").mkdir()
        module.save(str(tmp_path / "2_Static"))
        assert {file.name for file in (tmp_path / "2_Static").iterdir()} == {"config.json", "model.safetensors"}
        loaded = ConcatStaticEmbedding.load(str(tmp_path), subfolder="2_Static", local_files_only=True)
        assert loaded.get_config_dict() == module.get_config_dict()
        assert torch.equal(loaded.embedding.weight, module.embedding.weight)

    def test_loads_without_this_package(self, combined, tmp_path):
        save_model(combined, tmp_path / "model")
        script = (
            "import sys, json; sys.modules['embedlab'] = None\n"
            "from sentence_transformers import SentenceTransformer\n"
            f"model = SentenceTransformer({str(tmp_path / 'model')!r}, device='cpu', trust_remote_code=True)\n"
            f"print(json.dumps(model.encode({QUESTIONS!r}).tolist()))\n"
        )
        done = subprocess.run([sys.executable, "-c", script], capture_output=True, text=True, check=True, timeout=300)
        vectors = np.array(json.loads(done.stdout.splitlines()[-1]))
        assert vectors == pytest.approx(combined.encode(QUESTIONS), abs=1e-5)

    def test_runs_no_code_that_is_not_this_packages_own(self, combined, tmp_path):
        save_model(combined, tmp_path)
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
    def test_code_named_elsewhere_rules_trust_out(self, combined, tmp_path, file, old, new):
        save_model(combined, tmp_path)
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
