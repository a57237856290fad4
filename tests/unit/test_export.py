"""Exported graphs give the model's vectors, for every kind of model, batch and padding; and the gate notices others."""

from __future__ import annotations

import copy
import json
import math
import re
import subprocess
import sys
from pathlib import Path
from types import SimpleNamespace

import numpy as np
import pytest
import torch
from sentence_transformers import SentenceTransformer
from sentence_transformers.base.modules import Dense, Normalize, Router
from sentence_transformers.sentence_transformer.modules import BoW, Pooling

from embedlab.cli import main as cli
from embedlab.data.dataset import Dataset
from embedlab.deploy import export as exporting
from embedlab.deploy import parity
from embedlab.deploy.export import export_model
from embedlab.deploy.onnx_folder import CARD, GRAPH, TOKENIZER, ExportCard, ExportedEncoder
from embedlab.deploy.parity import Comparison
from embedlab.deploy.space import ModelEncoder
from embedlab.errors import EmbedlabError, ModelError, ParameterError
from embedlab.evaluation.significance import PairedDifference
from embedlab.models.concatenation import concat_static, concat_static_pca
from embedlab.models.encode import encode
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.onnx_graph import write_graph
from embedlab.models.onnx_int8 import Int8Linear, Int8Table, quantise
from embedlab.models.onnx_io import OPSET
from embedlab.models.packing import pack
from embedlab.models.save import save_model
from embedlab.models.sides import sides_of
from embedlab.models.static import static_model
from embedlab.models.static_ngrams import NGramStaticEmbedding
from experiments.export import tables
from tests.conftest import TEXTS, tiny_model

pytest.importorskip("onnx", reason="needs the extra export")
runtime = pytest.importorskip("onnxruntime", reason="needs the extra export")
pytest.importorskip("onnxscript", reason="needs the extra export")
schemes = pytest.importorskip("experiments.export.schemes")

ROOT = Path(__file__).resolve().parents[2]
QUESTIONS = [*TEXTS, "zzqx ☃ unheard of", "Type 2 diabetes, type 2 diabetes", "long " * 90, "", "a"]
PROMPT = "search query: "


def with_normalize():
    return SentenceTransformer(modules=[*tiny_model(), Normalize()], device="cpu")


def with_dense():
    """CLS pooling, a linear layer with an activation that changes the number of dimensions, and truncated vectors."""
    torch.manual_seed(1)
    dense = Dense(32, 20, activation_function=torch.nn.Tanh())
    modules = [*tiny_model("distilbert", pooling="cls"), dense]
    return SentenceTransformer(modules=modules, device="cpu", truncate_dim=12)


def last_token():
    return tiny_model("qwen3")  # padded on the left, causal


def static():
    torch.manual_seed(2)
    transformer = tiny_model()
    return static_model(transformer, torch.randn(len(transformer.tokenizer), 24))


def concatenation():
    return concat_static(tiny_model(), static(), 0.3)


def concatenation_projected():
    """With prompts, which the static half leaves out, and Dense and Normalize after it."""
    wide = encode(concatenation(), QUESTIONS)
    model = concat_static_pca(tiny_model(), static(), 0.3, wide, dim=8)
    model.prompts["query"] = PROMPT
    return model


def pooled_without_prompt():
    """Several poolings at once; their tokens leave out the prompt, and the padding is on the left."""
    transformer = tiny_model("llama")[0]
    pooling = Pooling(32, pooling_mode=("mean", "max", "cls"), include_prompt=False)
    return SentenceTransformer(modules=[transformer, pooling], device="cpu", prompts={"query": PROMPT})


def other_positions():
    return tiny_model("mpnet")  # positions that start after the padding token, and a relative bias


KINDS = [with_normalize, with_dense, last_token, static, concatenation, concatenation_projected]
KINDS += [pooled_without_prompt, other_positions]


def routed():
    query, document = tiny_model(seed=1), tiny_model(seed=2)
    router = Router.for_query_document(list(query), list(document))
    return SentenceTransformer(modules=[router], device="cpu", prompts={"query": PROMPT})


@pytest.fixture(scope="module")
def data():
    """Each text is found by its first words."""
    corpus = {
        f"d{number}": text for number, text in enumerate([*TEXTS, *(f"disease {n} of the {n}" for n in range(40))])
    }
    queries = {f"q{name[1:]}": " ".join(text.split()[:3]) for name, text in corpus.items()}
    return Dataset("tiny", corpus, queries, {"dev": {f"q{name[1:]}": {name: 1} for name in corpus}})


@pytest.fixture(autouse=True)
def few_texts(monkeypatch):
    """The sample of texts without a dataset is read from installed packages, which takes seconds."""
    monkeypatch.setattr(parity, "sample_texts", lambda: ([*parity.UNUSUAL, *TEXTS], QUESTIONS))


@pytest.fixture(scope="module")
def exported(tmp_path_factory, data):
    """Kind -> (model, folder), each exported once."""
    made = {}

    def export(kind):
        if kind not in made:
            model, folder = kind(), tmp_path_factory.mktemp("exported") / kind.__name__
            export_model(model, folder, comparison=Comparison(data, threads=1))
            made[kind] = model, folder
        return made[kind]

    return export


def padded(card, ids, more=0):
    """The inputs of a graph, by hand: padded to the longest text and `more` tokens."""
    left = bool(card["left"])
    longest = max(map(len, ids)) + more
    rows = [
        [card["pad"]] * (longest - len(row)) + row if left else row + [card["pad"]] * (longest - len(row))
        for row in ids
    ]
    masks = [
        [0] * (longest - len(row)) + [1] * len(row) if left else [1] * len(row) + [0] * (longest - len(row))
        for row in ids
    ]
    return {"input_ids": np.array(rows, dtype=np.int64), "attention_mask": np.array(masks, dtype=np.int64)}


class TestGraph:
    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
    def test_vectors_are_those_of_the_model(self, exported, kind):
        model, folder = exported(kind)
        encoder, sides = ExportedEncoder(folder, threads=1), sides_of(model)
        for side, theirs in ((sides.query, encoder.encode_queries), (sides.document, encoder.encode_documents)):
            np.testing.assert_allclose(theirs(QUESTIONS), encode(model, QUESTIONS, prompt=side.prompt), atol=2e-6)
        assert json.loads((folder / CARD).read_text())["parity"]["verdict"] == "pass"

    @pytest.mark.parametrize("kind", KINDS, ids=lambda kind: kind.__name__)
    def test_neither_the_batch_nor_its_padding_changes_a_vector(self, exported, kind):
        model, folder = exported(kind)
        card = json.loads((folder / CARD).read_text())
        encoder = ExportedEncoder(folder)
        encodings = encoder.tokenizer.encode_batch(TEXTS, add_special_tokens=card["special_tokens"])
        ids = [encoding.ids for encoding in encodings]
        layout = {"left": getattr(model.tokenizer, "padding_side", "right") == "left", "pad": 0}
        session = runtime.InferenceSession(str(folder / GRAPH))

        def run(rows, more=0):
            prompt = {"prompt_length": np.array(0)} if "prompt_length" in card["inputs"] else {}
            return session.run(None, padded(layout, rows, more) | prompt)[0]

        together = run(ids)
        assert np.allclose(np.linalg.norm(together, axis=1), 1, atol=1e-6)
        np.testing.assert_allclose(np.concatenate([run([row]) for row in ids]), together, atol=2e-6)
        np.testing.assert_allclose(run(ids, more=9), together, atol=2e-6)
        np.testing.assert_allclose(run(ids[::-1])[::-1], together, atol=2e-6)

    def test_the_prompt_changes_what_is_left_out(self, exported):
        """Otherwise the test above would also pass without the input."""
        model, folder = exported(concatenation_projected)
        encoder = ExportedEncoder(folder)
        assert encoder.card.query.tokens == 4  # [CLS] search query :
        wrong = encoder._run([encoding.ids for encoding in encoder.tokenizer.encode_batch([PROMPT + TEXTS[1]])], 0)
        assert not np.allclose(wrong, encode(model, TEXTS[1:2], prompt=PROMPT), atol=1e-3)

    def test_each_side_of_a_router(self, tmp_path, data):
        model = routed()
        for side in ("query", "document"):
            card = export_model(model, tmp_path / side, side=side, comparison=Comparison(data))
            assert card.parity["verdict"] == "pass" and card.parity["retrieval"]["queries_only"] is None
        query, document = ExportedEncoder(tmp_path / "query"), ExportedEncoder(tmp_path / "document")
        sides = sides_of(model)
        np.testing.assert_allclose(
            query.encode_queries(TEXTS), encode(sides.query.model, TEXTS, prompt=PROMPT), atol=2e-6
        )
        np.testing.assert_allclose(document.encode_documents(TEXTS), encode(sides.document.model, TEXTS), atol=2e-6)
        assert query.space == document.space == ModelEncoder(model).space
        with pytest.raises(ModelError, match="encodes query texts, and no document texts"):
            query.encode_documents(TEXTS)


class TestInt8:
    def test_a_table_by_hand(self):
        """The largest value of a row is 127 steps; 1 is 63.5 steps of 2/127, rounded to 64 (even)."""
        table = Int8Table(torch.tensor([[2.0, -1.0, 0.0], [0.0, 0.0, 0.0], [-0.254, 0.001, 0.1]]))
        assert table.rows.tolist() == [[127, -64, 0], [0, 0, 0], [-127, 0, 50]]
        vectors = table(torch.tensor([[0, 2], [1, 1]]))
        assert vectors[0, 0].tolist() == pytest.approx([2, -128 / 127, 0])
        assert vectors[0, 1].tolist() == pytest.approx([-0.254, 0, 0.1])
        assert not vectors[1].any()

    def test_only_large_plain_tables_and_layers_are_replaced_and_shared_ones_stay_shared(self):
        class Scaled(torch.nn.Embedding):
            pass

        network = torch.nn.ModuleDict({"large": torch.nn.Embedding(2000, 4), "small": torch.nn.Embedding(10, 4)})
        network["scaled"], network["again"] = Scaled(2000, 4), torch.nn.Embedding(2000, 4)
        network["again"].weight = network["large"].weight
        network["linear"] = torch.nn.Linear(4, 4)
        quantise(network)
        kinds = [type(network[name]).__name__ for name in network]
        assert kinds == ["Int8Table", "Embedding", "Scaled", "Int8Table", "Int8Linear"]
        assert network["large"] is network["again"]

    def test_a_linear_layer_against_numpy(self, tmp_path):
        """Rows of very different sizes, a row of zeros, and a batch of two dimensions; each rounded on its own."""
        torch.manual_seed(0)
        layer = torch.nn.Linear(16, 5)
        inputs = torch.randn(2, 3, 16) * torch.tensor([[[1e-3], [1.0], [1e3]], [[0.0], [2.0], [1e-6]]])
        shapes = {"inputs": {0: "texts", 1: "tokens"}}
        program = torch.onnx.export(
            Int8Linear(layer.weight, layer.bias).eval(),
            (inputs,),
            input_names=["inputs"],
            opset_version=OPSET,
            dynamic_shapes=shapes,
            verbose=False,
        )
        program.save(str(tmp_path / "layer.onnx"))
        session = runtime.InferenceSession(str(tmp_path / "layer.onnx"))
        weight, bias = layer.weight.detach().double().numpy(), layer.bias.detach().double().numpy()
        scales = np.abs(weight).max(axis=1) / 63
        rounded = np.round(weight / scales[:, None])
        for batch in (inputs, inputs[:1, 1:]):
            rows = batch.double().numpy()
            steps = np.maximum(np.abs(rows).max(axis=-1, keepdims=True) / 127, 1e-38)
            expected = np.round(rows / steps) @ rounded.T * steps * scales + bias
            np.testing.assert_allclose(session.run(None, {"inputs": batch.numpy()})[0], expected, rtol=1e-4, atol=1e-5)

    @pytest.mark.parametrize("kind", [static, concatenation], ids=lambda kind: kind.__name__)
    def test_smaller_and_close(self, exported, tmp_path, data, kind):
        """And a text alone has the vector that it has in a batch: one scale for the batch would change it."""
        model, plain = exported(kind)
        before = model_fingerprint(model)
        card = export_model(model, tmp_path / "int8", int8=True, comparison=Comparison(data, budget=0.05))
        assert card.precision == "int8" and card.parity["verdict"] != "fail", card.parity
        assert 0.99 < card.parity["cosine_min"] < 1
        assert (tmp_path / "int8" / GRAPH).stat().st_size < 0.4 * (plain / GRAPH).stat().st_size
        assert model_fingerprint(model) == before
        encoder = ExportedEncoder(tmp_path / "int8", threads=1)
        alone = np.concatenate([encoder.encode_documents([text]) for text in TEXTS])
        np.testing.assert_allclose(encoder.encode_documents(TEXTS), alone, atol=2e-6)


class TestFolder:
    def test_the_code_in_the_docs_needs_neither_torch_nor_this_package(self, exported, tmp_path):
        """Runs the code block of docs/deployment.md, at most 25 lines, without the packages that it does not name."""
        page = (ROOT / "docs" / "deployment.md").read_text(encoding="utf-8")
        (code,) = re.findall(r"```python\n(# Run an exported model\n.*?)```", page, re.DOTALL)
        assert len(code.strip().splitlines()) <= 25
        absent = dict.fromkeys(("torch", "transformers", "sentence_transformers", "embedlab"))
        blocked = f"import sys\nsys.modules.update({absent})\n"
        for kind in (with_dense, last_token, static, concatenation_projected):
            model, folder = exported(kind)
            # Without empty text: a batch of nothing but empty texts has no tokens for a static model.
            tail = f"import json\nnp.save('vectors.npy', embed(json.loads({json.dumps(json.dumps(TEXTS))}), 'query'))\n"
            program = blocked + code.replace('"my-model-onnx"', repr(str(folder))) + "\n" + tail
            done = subprocess.run([sys.executable, "-c", program], cwd=tmp_path, capture_output=True, text=True)
            assert done.returncode == 0, done.stderr
            expected = encode(model, TEXTS, prompt=sides_of(model).query.prompt)
            np.testing.assert_allclose(np.load(tmp_path / "vectors.npy"), expected, atol=2e-6)

    def test_the_card(self, exported):
        model, folder = exported(concatenation_projected)
        card = json.loads((folder / CARD).read_text())
        assert sorted(path.name for path in folder.iterdir()) == sorted([CARD, GRAPH, TOKENIZER])
        assert card["inputs"] == ["input_ids", "attention_mask", "prompt_length"]
        assert card["output"] == "sentence_embedding" and card["dimension"] == 8 and card["precision"] == "fp32"
        assert card["query"] == {"text": PROMPT, "tokens": 4} and card["document"] == {"text": "", "tokens": 0}
        assert card["max_seq_length"] == model.max_seq_length == 64
        assert card["space"]["fingerprint"] == ModelEncoder(model).space.fingerprint
        assert ExportedEncoder(folder).space == ModelEncoder(model).space

    def test_the_tokenizer_truncates_and_pads_as_the_model_does(self, exported):
        from tokenizers import Tokenizer

        for kind in (last_token, with_normalize):
            model, folder = exported(kind)
            encodings = Tokenizer.from_file(str(folder / TOKENIZER)).encode_batch(QUESTIONS)
            theirs = model.preprocess(QUESTIONS)
            assert [encoding.ids for encoding in encodings] == theirs["input_ids"].tolist()
            assert [encoding.attention_mask for encoding in encodings] == theirs["attention_mask"].tolist()

    @pytest.mark.parametrize(
        ("file", "content", "problem"),
        [
            (CARD, None, "not an exported model"),
            (CARD, b"{", "the card is damaged"),
            (CARD, b'{"format": 2}', r"\[format\]: the card is damaged"),
            (GRAPH, b"nothing", "differs from the card"),
            (TOKENIZER, None, "missing or differs"),
        ],
    )
    def test_a_damaged_folder(self, exported, tmp_path, file, content, problem):
        _, folder = exported(with_normalize)
        for path in folder.iterdir():
            (tmp_path / path.name).write_bytes(path.read_bytes())
        (tmp_path / file).unlink()
        if content is not None:
            (tmp_path / file).write_bytes(content)
        with pytest.raises(ModelError, match=problem) as caught:
            ExportedEncoder(tmp_path)
        assert caught.value.file == tmp_path / file

    def test_a_card_that_names_files_elsewhere(self, exported, tmp_path):
        _, folder = exported(with_normalize)
        card = json.loads((folder / CARD).read_text())
        card["files"]["../x"] = "0"
        (tmp_path / CARD).write_text(json.dumps(card))
        for name in (GRAPH, TOKENIZER):
            (tmp_path / name).write_bytes((folder / name).read_bytes())
        with pytest.raises(ModelError, match="differs from the card"):
            ExportCard.read(tmp_path)

    def test_a_failed_export_leaves_nothing(self, tmp_path, monkeypatch):
        monkeypatch.setattr(exporting, "write_graph", lambda *_, **__: (_ for _ in ()).throw(OSError(28, "disk full")))
        with pytest.raises(OSError, match="disk full"):
            export_model(tiny_model(), tmp_path / "out")
        assert list(tmp_path.iterdir()) == []


class TestGate:
    def test_cosines_by_hand(self):
        a = np.array([[3, 4], [1, 0], [0, 0], [0, 0], [1, 0], [np.nan, 0]])
        b = np.array([[4, 3], [-2, 0], [0, 0], [1, 0], [0, 5], [1, 0]])
        assert parity.cosine_of_rows(a, b).tolist() == pytest.approx([24 / 25, -1, 1, 0, 0, -1])

    @pytest.mark.parametrize(("lowest", "verdict"), [(0.99999, "pass"), (0.999989, "fail"), (-1.0, "fail")])
    def test_fp32_by_the_lowest_cosine(self, lowest, verdict):
        decided, reason = parity.decide("fp32", np.array([1.0, lowest]), None, 0.01)
        assert decided == verdict and "lowest cosine" in reason

    @pytest.mark.parametrize(
        ("mean", "low", "p", "verdict"),
        [
            (0.0, -0.01, 1.0, "pass"),
            (-0.002, -0.0101, 0.3, "unsure"),
            (-0.009, -0.02, 0.01, "unsure"),  # a significant drop, but within the budget
            (-0.02, -0.03, 0.2, "unsure"),
            (-0.02, -0.03, 0.01, "fail"),
            (0.0, math.nan, math.nan, "unsure"),
        ],
    )
    def test_int8_by_the_interval(self, mean, low, p, verdict):
        """The cosine does not matter where the ranking is measured."""
        difference = PairedDifference(mean, low, 0.01, 0.0, p, 9, 1, 7, 1)
        measured = parity.Retrieval("tiny", "dev", 9, 9, 0.5, 0.5, difference, None)
        decided, reason = parity.decide("int8", np.array([0.5]), measured, 0.01)
        assert decided == verdict and "nDCG@10 changes by" in reason and "drop 0.01" in reason

    @pytest.mark.parametrize(("mean", "verdict"), [(0.99, "pass"), (0.9899, "fail")])
    def test_int8_without_data_by_the_mean_cosine(self, mean, verdict):
        decided, reason = parity.decide("int8", np.array([mean, mean]), None, 0.01)
        assert decided == verdict and "--dataset" in reason

    @pytest.mark.parametrize(
        ("verdict", "options", "code"),
        [("pass", ["--strict"], 0), ("unsure", [], 0), ("unsure", ["--strict"], 3), ("fail", [], 3)],
    )
    def test_exit_code(self, command, monkeypatch, tmp_path, verdict, options, code):
        """Without an export: the command only reads the card."""
        values = {
            "cosine_mean": 1.0,
            "cosine_min": 1.0,
            "texts": 1,
            "retrieval": None,
            "verdict": verdict,
            "reason": "R",
        }
        card = SimpleNamespace(parity=values, precision="int8", dimension=8)

        def export(model, folder, **_):
            folder.mkdir()
            return card

        monkeypatch.setattr(exporting, "export_model", export)
        monkeypatch.setattr("embedlab.models.load.load_model", lambda *_, **__: None)
        exited, printed, _ = command("model", tmp_path / "out", *options)
        assert exited == code and f"gate: {verdict}, R" in printed

    def test_what_is_recorded_can_be_computed_again(self, exported, tmp_path, data):
        """With the vectors of half of the documents negated, so that the difference is not 0."""
        model, folder = exported(with_normalize)
        encoder = ExportedEncoder(folder)
        documents = encoder.encode_documents

        def negated(texts):
            vectors = documents(texts)
            vectors[::2] *= -1
            return vectors

        encoder.encode_documents = negated
        measured = parity.measure(model, encoder, Comparison(data))
        record = measured.record()
        retrieval = record["retrieval"]
        assert record["verdict"] == "fail" and record["cosine_min"] == pytest.approx(-1)
        assert retrieval["queries"] == len(data.queries) and retrieval["documents"] == len(data.corpus)
        assert retrieval["difference"]["mean"] == pytest.approx(retrieval["export"] - retrieval["model"])
        assert retrieval["export"] < retrieval["model"] and retrieval["difference"]["low"] < 0
        assert retrieval["queries_only"]["mean"] == pytest.approx(0, abs=1e-9)  # its queries are right
        assert record == json.loads(json.dumps(record))


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("models") / "tiny"
    save_model(concatenation(), folder)
    return folder


@pytest.fixture
def command(monkeypatch, capsys, tmp_path):
    """Calls `embedlab export`; returns exit code, standard output and standard error."""
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))

    def call(*arguments):
        monkeypatch.setattr("sys.argv", ["embedlab", "export", *map(str, arguments)])
        with pytest.raises(SystemExit) as stop:
            cli.main()
        written = capsys.readouterr()
        return stop.value.code or 0, written.out, written.err

    return call


class TestCommand:
    def test_export_of_a_saved_model(self, command, saved, tmp_path):
        code, printed, _ = command(saved, tmp_path / "out")
        assert code == 0 and "gate: pass" in printed and "fp32, 56 dimensions" in printed
        card = ExportCard.read(tmp_path / "out")
        assert card.model == "tiny" and card.parity["retrieval"] is None

    def test_the_gate_notices_a_bad_quantisation(self, command, saved, tmp_path, monkeypatch):
        """Planted: all embeddings are rounded to 0."""

        def spoil(network):
            quantise(network)
            for module in network.modules():
                if isinstance(module, Int8Table):
                    module.rows.zero_()

        monkeypatch.setattr(exporting, "quantise", spoil)
        code, printed, _ = command(saved, tmp_path / "out", "--int8", "--dataset", "icd10cm:smoke")
        assert code == 3 and "gate: fail" in printed and "nDCG@10 on icd10cm" in printed
        card = ExportCard.read(tmp_path / "out")  # it is kept for inspection, and says so
        assert card.parity["verdict"] == "fail" and card.parity["retrieval"]["split"] == "dev"

    def test_a_folder_that_exists(self, command, saved, tmp_path):
        code, _, error = command(saved, tmp_path)
        assert code == 2 and "exists and is a folder" in error

    def test_a_cross_encoder(self, command, tmp_path):
        from sentence_transformers import CrossEncoder

        tiny_model().save_pretrained(str(tmp_path / "base"))
        CrossEncoder(str(tmp_path / "base"), num_labels=1, device="cpu").save_pretrained(str(tmp_path / "cross"))
        code, _, error = command(tmp_path / "cross", tmp_path / "out")
        assert code == 2 and "this is a cross-encoder" in error


class TestRefusals:
    @pytest.mark.parametrize(
        ("model", "options", "problem"),
        [
            (routed, {}, r"modules of their own \(Router\).*--side query and --side document"),
            (routed, {"side": "both"}, "unknown side 'both'.*Choose query or document"),
            (tiny_model, {"side": "query"}, "one encoder for queries and documents.*Leave --side out"),
            (lambda: pack(tiny_model()), {}, "packed batches.*packed=False"),
            (lambda: SentenceTransformer(modules=[BoW(["a", "b"])]), {}, "BoW"),
        ],
        ids=["router", "unknown side", "one side", "packed", "bag of words"],
    )
    def test_in_words(self, tmp_path, model, options, problem):
        with pytest.raises((ModelError, ParameterError), match=problem):
            export_model(model(), tmp_path / "out", **options)
        assert not (tmp_path / "out").exists()

    @pytest.mark.parametrize("concatenated", [False, True])
    def test_static_models_with_ngrams(self, tmp_path, concatenated):
        transformer = tiny_model()
        rows = torch.randn(len(transformer.tokenizer) + 2, 8)
        tokenizer = transformer.tokenizer.backend_tokenizer
        module = NGramStaticEmbedding(type(tokenizer).from_str(tokenizer.to_str()), ["#<fr", "bone density"], rows)
        model = SentenceTransformer(modules=[module, Normalize()], device="cpu")
        if concatenated:
            model = concat_static(transformer, model, 0.5)
        with pytest.raises(ModelError, match=r"n-grams of characters in Python.*embedlab serve"):
            export_model(model, tmp_path / "out")

    def test_weighted_pooling_without_the_prompt(self, tmp_path):
        model = tiny_model()
        model[1] = Pooling(32, pooling_mode="weightedmean", include_prompt=False)
        with pytest.raises(ModelError, match="weighted mean pooling without the prompt"):
            write_graph(model, tmp_path / GRAPH)

    def test_a_tokenizer_in_python(self):
        class Slow:
            pass

        with pytest.raises(ModelError, match=r"Slow runs in Python.*fast tokenizer"):
            exporting._tokenizer(SimpleNamespace(tokenizer=Slow()))

    def test_what_the_exporter_cannot_trace(self, tmp_path):
        class Branch(torch.nn.Module):
            def forward(self, features):
                if features["sentence_embedding"].sum() > 0:  # a branch that depends on the values
                    features["sentence_embedding"] = features["sentence_embedding"] * 2
                return features

        model = tiny_model()
        model.append(Branch())
        with pytest.raises(ModelError, match="torch cannot export this model to ONNX"):
            write_graph(model, tmp_path / GRAPH)

    @pytest.mark.parametrize("package", ["onnx", "onnxscript", "onnxruntime"])
    def test_a_missing_package(self, tmp_path, monkeypatch, package):
        monkeypatch.setitem(sys.modules, package, None)
        with pytest.raises(EmbedlabError, match=rf"{package} is not installed.*pip install 'embedlab\[export\]'"):
            export_model(tiny_model(), tmp_path / "out")


def test_copies_of_the_concatenation_are_known_by_name(saved, tmp_path):
    """A saved model brings its own copy of the class, which `isinstance` would not know."""
    model = SentenceTransformer(str(saved), trust_remote_code=True, device="cpu")
    assert type(model[2]).__module__ != "embedlab.models.static_concat"
    write_graph(copy.deepcopy(model), tmp_path / GRAPH)
    inputs = model.preprocess(TEXTS)
    feed = {name: inputs[name].numpy() for name in ("input_ids", "attention_mask")} | {"prompt_length": np.array(0)}
    vectors = runtime.InferenceSession(str(tmp_path / GRAPH)).run(None, feed)[0]
    np.testing.assert_allclose(vectors, encode(model, TEXTS), atol=2e-6)


class TestStudy:
    def test_the_pages_hold_the_table_of_the_committed_results(self):
        """After new measurements, run `python -m experiments.export --tables`."""
        result = json.loads((ROOT / "results" / "export.json").read_text(encoding="utf-8"))
        for path, names in tables.pages().items():
            page = path.read_text(encoding="utf-8")
            assert tables.with_table(page, result, names or result["schemes"]) == page

    def test_a_row_by_hand(self):
        speed = {"texts_per_second": {"value": 1234.5}, "times_packed": {"value": 2.0}, "times_stock": {"value": 3.456}}
        difference = {"mean": -0.00123, "low": -0.004, "high": 0.0015}
        quality = {"bytes": 25_400_000, "cosine_mean": 0.99712, "cosine_min": 0.9, "cosine_alone": 1.0}
        result = {
            "speeds": dict.fromkeys(("stock", "packed", "int8"), speed),
            "schemes": {"int8": quality | {"difference": difference}},
        }
        rows = tables.table(result, ["int8"]).splitlines()
        assert len(rows) == 5 and rows[2].startswith("| sentence-transformers, padded |  |")
        expected = "| int8 | 25.4 | 0.9971 | 0.9000 | 1.0000 | -0.0012 [-0.0040, +0.0015] | 1,234 | 2.00 | 3.46 |"
        assert rows[-1] == expected

    def test_layers_are_found_by_the_name_of_their_module(self):
        def node(name, scope):
            return SimpleNamespace(name=name, metadata_props=[SimpleNamespace(key=schemes.SCOPES, value=scope)])

        graph = SimpleNamespace(graph=SimpleNamespace(node=[node("a", "layer.1.x"), node("b", "layer.11.x")]))
        assert schemes._named(graph, r"layer\.1\b") == ["a"]
