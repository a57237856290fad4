"""Write queries for documents with a language model, filter them, and keep them as a file of pairs with provenance.

The file is a dataset: `dataset=pairs:FILE`. What was written is kept after each document, so an interrupted call goes
on where it stopped.
"""

from __future__ import annotations

import itertools
import json
import math
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import numpy as np

from embedlab.data import textio
from embedlab.data.chat import BudgetUsedUpError, UnusableAnswerError
from embedlab.data.formats.base import Example, Export, Judged, check_new, json_lines
from embedlab.data.formats.beir_folder import FORMAT as BEIR
from embedlab.data.splits import seeded_order
from embedlab.data.synthetic_llm import LanguageModel, generate_queries, keep_to_budget
from embedlab.data.synthetic_templates import SHOTS, Shot, Template
from embedlab.data.text_analysis import normalise
from embedlab.errors import DataError
from embedlab.io import append_line, sha256_of_json, write_atomic
from embedlab.search.bm25 import bm25_ranking

DEPTH = 10  # the round trip looks at this many results
JUDGE_PROMPT = """Does the document answer the query? Answer with one digit and nothing else:
0 = it does not, 1 = partly, 2 = it does, 3 = it does, and the query is one that a user would type.

Query: {query}

Document:
{document}"""

NOT_JUDGED = "not judged, as the budget was used up"

Score = Callable[[Sequence[tuple[str, str]]], np.ndarray]  # (query, document), n pairs -> n scores; NaN: no score


@dataclass(frozen=True)
class Written:
    """What was written.

    Attributes:
        records: the queries that were kept, with their documents and provenance.
        rejected: reason -> number of queries that a filter removed.
        failed: document id -> why it has no queries.
        cost: dollars; None if unknown.
        complete: False if the budget was used up first.
    """

    records: list[dict[str, Any]]
    rejected: dict[str, int]
    failed: dict[str, str]
    cost: float | None
    complete: bool

    def summary(self) -> str:
        """Say in one line how many queries were kept and why the others were not."""
        filters = [f"{count:,} removed: {reason}" for reason, count in self.rejected.items() if count]
        failures = [f"{len(self.failed):,} documents failed"] if self.failed else []
        cost = [] if not self.cost else [f"${self.cost:.2f}"]
        rest = [] if self.complete else ["the budget was used up before the last document: run again to go on"]
        return ", ".join([f"{len(self.records):,} queries", *filters, *failures, *cost, *rest])


@dataclass(frozen=True)
class Plan:
    """How many queries to write, of which kinds, and how to filter them.

    Attributes:
        templates: names of `synthetic_templates.TASKS`; every document gets queries of each.
        per_document: queries per document and template.
        documents: maximum number of documents, a seeded sample; 0 for all.
        shots: real queries whose style is to be followed.
        workers: concurrent requests.
        budget: dollars to spend at most.
        round_trip: remove queries that do not find their document among the first 10 results of BM25.
        judge: scores pairs, such as `load_reranker`'s result or `language_judge`'s; None for no judge.
        threshold: lowest score of the judge that is kept.
        seed: of the sample, personas and examples.
        fields: document id -> metadata; `source` and `place` go into the file.
    """

    templates: tuple[str, ...] = ("question", "keywords")
    per_document: int = 3
    documents: int = 0
    shots: tuple[Shot, ...] = ()
    workers: int = 1
    budget: float | None = None
    round_trip: bool = True
    judge: Score | None = None
    threshold: float = 0.0
    seed: int = 0
    fields: Mapping[str, Mapping[str, str]] = field(default_factory=dict)


def write_pairs(corpus: Mapping[str, str], model: LanguageModel, path: Path, plan: Plan) -> Written:
    """Write queries for documents and keep them.

    Args:
        corpus: document id -> text; all of it is searched in the round trip.
        model: writes the queries.
        path: a new `.jsonl` file; without a suffix, a BEIR folder with the whole corpus. Until it is finished, a file
            with the ending `.partial` holds what is there, and a further call replaces `path`.
        plan: see its attributes.

    Raises:
        DataError: `path` exists, or no query is left.
        ChatError: see `generate_queries`.
        ParameterError: a template is unknown, or a budget is set but prices are unknown.
    """
    partial = path.with_name(f"{path.name}.partial")
    if not partial.is_file():
        check_new(path)
    if path.suffix not in ("", ".jsonl"):
        remedy = "Write a name that ends in .jsonl, or one without a suffix for a BEIR folder."
        raise DataError(f"queries are not written as '{path.suffix}'", remedy=remedy, file=path)
    path.parent.mkdir(parents=True, exist_ok=True)
    job = _Job(corpus, model, plan, partial)
    templates = [Template(name, plan.seed, plan.shots) for name in plan.templates]
    complete = all(job.write(template) for template in templates)
    records, rejected = filtered(job.records(), corpus, plan)
    complete &= not rejected[NOT_JUDGED]
    if not records and not complete:
        remedy = "Run the same command again to go on."
        raise DataError("the budget was used up before a query passed the filters", remedy=remedy, file=path)
    if not records:
        reason = f"; {len(job.failed):,} documents failed: {next(iter(job.failed.values()))}" if job.failed else ""
        remedy = "Use another model or fewer filters."
        raise DataError(f"no query is left after the filters{reason}", remedy=remedy, file=path)
    _save(records, corpus, path)
    if complete:
        partial.unlink(missing_ok=True)
    return Written(records, rejected, job.failed, model.cost, complete)


class _Job:
    """What has been written so far.

    Args:
        corpus, model, plan: see `write_pairs`.
        partial: the file that keeps the queries of each document as soon as they are there.
    """

    def __init__(self, corpus: Mapping[str, str], model: LanguageModel, plan: Plan, partial: Path) -> None:
        self.corpus, self.model, self.plan, self.partial = corpus, model, plan, partial
        self.sample = seeded_order(corpus, plan.seed)[: plan.documents or None]
        self.failed: dict[str, str] = {}
        self.answers = _earlier(partial, corpus, model, plan)  # (document, template) -> record

    def write(self, template: Template) -> bool:
        """Ask for the queries of one template; False if the budget was used up first."""
        waiting = {key: self.corpus[key] for key in self.sample if (key, template.name) not in self.answers}
        partners = _partners(waiting, self.corpus) if template.name == "two-hop" else {}
        origin = {"template": template.name, "model": self.model.model, "seed": self.plan.seed}

        def keep(document: str, queries: list[str]) -> None:
            second = partners.get(document, "")
            question = _question(self.corpus, self.plan, document, second)
            record = {**origin, "question": question, "document": document, "second": second, "queries": queries}
            self.answers[document, template.name] = record
            append_line(self.partial, json.dumps(record, ensure_ascii=False))

        generation = generate_queries(
            waiting,
            self.model,
            count=self.plan.per_document,
            prompt=_prompt(template, self.model, self.plan.per_document, self.corpus, partners),
            kind=template.name,
            workers=self.plan.workers,
            budget=self.plan.budget,
            keep=keep,
            exact=_follows_instructions(self.model),
        )
        self.failed |= generation.failed
        return generation.complete

    def records(self) -> list[dict[str, Any]]:
        """Return one record per query; `documents` and `texts` are what answers it."""
        records = []
        for template, key in itertools.product(self.plan.templates, self.sample):
            answer = self.answers.get((key, template), {})
            documents = [document for document in (key, str(answer.get("second"))) if document in self.corpus]
            origin = {"template": template, "model": self.model.model, "seed": self.plan.seed}
            fields = self.plan.fields.get(key, {})
            origin |= {name: fields[name] for name in ("source", "place") if name in fields}
            origin |= {"documents": documents, "texts": [self.corpus[document] for document in documents]}
            records += [{"query": query, **origin} for query in answer.get("queries", ())]
        return records


def _prompt(
    template: Template, model: LanguageModel, count: int, corpus: Mapping[str, str], partners: Mapping[str, str]
) -> Callable[[str, str], str]:
    """The prompt of a document; a model that only continues texts gets examples instead of an instruction."""
    if not _follows_instructions(model):
        return template.continuation
    return lambda key, text: template.instruction(key, text, count, corpus.get(partners.get(key, ""), ""))


def _follows_instructions(model: LanguageModel) -> bool:
    """Whether a model answers instructions; one that does not continues examples."""
    return bool(getattr(model, "follows_instructions", True))


def _question(corpus: Mapping[str, str], plan: Plan, document: str, second: str) -> str:
    """A digest of what the prompts for a document depend on besides model, template and seed."""
    return sha256_of_json([corpus[document], corpus.get(second, ""), plan.per_document, plan.shots])


def _earlier(
    partial: Path, corpus: Mapping[str, str], model: LanguageModel, plan: Plan
) -> dict[tuple[str, str], dict[str, Any]]:
    """(document, template) -> record of an interrupted call that had the same model and asked the same."""
    records: dict[tuple[str, str], dict[str, Any]] = {}
    if not partial.is_file():
        return records
    for line in partial.read_text(encoding="utf-8").splitlines():
        try:
            record = json.loads(line)
            question = _question(corpus, plan, record["document"], record["second"])
            if (record["model"], record["seed"], record["question"]) == (model.model, plan.seed, question):
                records[record["document"], record["template"]] = record
        except (ValueError, LookupError, TypeError):  # cut off in the middle, or the document is gone
            continue
    return records


def _partners(texts: Mapping[str, str], corpus: Mapping[str, str]) -> dict[str, str]:
    """Document -> the most similar other document by BM25, for questions about two of them."""
    if not texts:
        return {}
    ranking = bm25_ranking(corpus, texts, k=3).as_candidates()
    similar = {
        key: next((other for other, _ in candidates if corpus[other] != texts[key]), "")
        for key, candidates in ranking.items()
    }
    return {key: other for key, other in similar.items() if other}


def filtered(
    records: list[dict[str, Any]], corpus: Mapping[str, str], plan: Plan
) -> tuple[list[dict[str, Any]], dict[str, int]]:
    """Return the records that pass every filter, with their scores, and how many each filter removed.

    Args:
        records: queries with the `documents` that answer them and their `texts`.
        corpus: document id -> text, which the round trip searches.
        plan: its filters and examples are used.
    """
    examples = {normalise(query) for query in (*(shot.query for shot in plan.shots), *(query for _, query in SHOTS))}
    original = [record for record in records if normalise(record["query"]) not in examples]
    first: dict[str, dict[str, Any]] = {}
    for record in original:
        first.setdefault(normalise(record["query"]), record)
    distinct = list(first.values())
    consistent = _consistent(distinct, corpus) if plan.round_trip and distinct else distinct
    judged = _judged(consistent, plan.judge) if plan.judge and consistent else consistent
    good = [record for record in judged if record.get("judge", plan.threshold) >= plan.threshold]
    rejected = {
        "copies of an example": len(records) - len(original),
        "repeats": len(original) - len(distinct),
        "the round trip does not find the document": len(distinct) - len(consistent),
        NOT_JUDGED: len(consistent) - len(judged),
        "the judge's score is too low": len(judged) - len(good),
    }
    return good, rejected


def _consistent(records: list[dict[str, Any]], corpus: Mapping[str, str]) -> list[dict[str, Any]]:
    """Records whose documents BM25 finds, with the rank of the lowest (Alberti et al., ACL 2019)."""
    queries = {str(number): record["query"] for number, record in enumerate(records)}
    ranking = bm25_ranking(corpus, queries, k=DEPTH).as_candidates()
    consistent = []
    for number, record in enumerate(records):
        texts = [corpus[document] for document, _ in ranking.get(str(number), ())]
        if all(text in texts for text in record["texts"]):
            consistent.append({**record, "round_trip_rank": 1 + max(map(texts.index, record["texts"]))})
    return consistent


def _judged(records: list[dict[str, Any]], judge: Score) -> list[dict[str, Any]]:
    """Records with the judge's score; those without one are left out."""
    scores = judge([(record["query"], "\n".join(record["texts"])) for record in records])
    scored = zip(records, map(float, scores), strict=True)
    return [{**record, "judge": round(score, 4)} for record, score in scored if not math.isnan(score)]


def language_judge(model: LanguageModel, budget: float | None = None) -> Score:
    """Return a judge that asks a language model for a grade from 0 to 3; -1 if it gives none.

    Args:
        model: a model that follows instructions.
        budget: dollars that the model may spend in all; pairs that are left then have no score.
    """

    keep_to_budget(model, budget)

    def grade(answer: str) -> float:
        text = answer.strip()
        if text[:1] not in ("0", "1", "2", "3") or text[1:2].isdigit():
            raise UnusableAnswerError(f"expected a digit from 0 to 3, got {text[:40]!r}")
        return float(text[0])

    def score(pairs: Sequence[tuple[str, str]]) -> np.ndarray:
        grades = []
        for query, document in pairs:
            if budget is not None and (model.cost or 0.0) >= budget:
                grades.append(math.nan)
                continue
            try:
                prompt = JUDGE_PROMPT.replace("{query}", query, 1).replace("{document}", document, 1)
                grades.append(model.ask(prompt, grade))
            except BudgetUsedUpError:
                grades.append(math.nan)
            except UnusableAnswerError:
                grades.append(-1.0)
        return np.array(grades)

    return score


def read_shots(path: Path) -> tuple[Shot, ...]:
    """Read real queries from a table with the column `query`, and perhaps `positive`.

    Raises:
        DataError: the file is malformed.
    """
    shots = []
    for record in textio.read_rows(path):
        row = textio.rename_columns(record, {"question": "query", "answer": "positive"}, path)
        has_document = isinstance(row.values.get("positive"), str)
        document = textio.text_of(row, "positive", path) if has_document else ""
        shots.append(Shot(textio.text_of(row, "query", path), document))
    return tuple(shots)


def _save(records: list[dict[str, Any]], corpus: Mapping[str, str], path: Path) -> None:
    if path.suffix:
        write_atomic(path, json_lines([_line(record) for record in records]))
        return
    examples = []
    for number, record in enumerate(records):
        fields = {name: str(value) for name, value in record.items() if name not in ("query", "documents", "texts")}
        positives = tuple(Judged(key, corpus[key]) for key in record["documents"])
        examples.append(Example(f"s{number}", record["query"], positives, fields=fields))
    BEIR.write(Export(tuple(examples), corpus), path)


def _line(record: Mapping[str, Any]) -> dict[str, Any]:
    """A line of the file of pairs."""
    texts = record["texts"]
    start = {"query": record["query"], "positive": texts if len(texts) > 1 else texts[0]}
    start["document_id"] = " ".join(record["documents"])
    return {**start, **{name: value for name, value in record.items() if name not in ("query", "documents", "texts")}}
