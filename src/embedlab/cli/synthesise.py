"""`embedlab synthesise DATASET OUT`: queries that a language model writes for your documents."""

from __future__ import annotations

import math
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedlab.cli.options import number
from embedlab.errors import ParameterError

if TYPE_CHECKING:
    from embedlab.data.synthetic_llm import LanguageModel
    from embedlab.evaluation.data_sources.synthesis import Score

JUDGE = "self"  # the language model judges its own queries


def synthesise(
    dataset: Annotated[str, typer.Argument(help="docs:FOLDER, or any dataset, of which the documents are used")],
    out: Annotated[Path, typer.Argument(help="a new .jsonl file of pairs; without a suffix, a BEIR folder")],
    model: Annotated[str, typer.Option(help="the model's name at --url; else a folder, hub name or .gguf file")],
    url: Annotated[str, typer.Option(help="OpenAI-compatible address, such as http://localhost:8000/v1")] = "",
    template: Annotated[
        list[str] | None, typer.Option(help="question, keywords, persona, difficulty or two-hop; repeat for more")
    ] = None,
    per_document: Annotated[int, typer.Option(help="queries per document", callback=number(at_least=1))] = 3,
    documents: Annotated[int, typer.Option(help="most documents; 0: all", callback=number(at_least=0))] = 0,
    examples: Annotated[Path | None, typer.Option(help="table of real queries whose style is followed")] = None,
    judge: Annotated[str, typer.Option(help="'self', or a cross-encoder: a folder or hub name")] = "",
    threshold: Annotated[float | None, typer.Option(help="lowest score of the judge; self: 2 of 3, else 0.5")] = None,
    round_trip: Annotated[bool, typer.Option(help="remove queries that BM25 does not lead to their document")] = True,
    budget: Annotated[float | None, typer.Option(help="most dollars; needs --price", callback=number(above=0))] = None,
    price: Annotated[str, typer.Option(help="dollars per million tokens, IN,OUT, such as 0.15,0.60")] = "",
    workers: Annotated[int, typer.Option(help="concurrent requests", callback=number(at_least=1))] = 1,
    seed: Annotated[int, typer.Option(help="random seed", callback=number(at_least=0, below=2**32))] = 0,
) -> None:
    """Write queries for documents, filter them, and keep them with their provenance. Run again to go on."""
    from embedlab.data.load import load_dataset
    from embedlab.evaluation.data_sources import synthesis

    prices = _prices(price, needed=budget is not None and bool(url))
    data = load_dataset(dataset, training=False, queries=False)
    writer = _open_model(model, url, prices, per_document, seed)
    plan = synthesis.Plan(
        templates=tuple(template or synthesis.Plan.templates),
        per_document=per_document,
        documents=documents,
        shots=synthesis.read_shots(examples) if examples else (),
        workers=workers if url else 1,
        budget=budget,
        round_trip=round_trip,
        judge=_open_judge(judge, writer, budget),
        threshold=threshold if threshold is not None else (2.0 if judge == JUDGE else 0.5),
        seed=seed,
        fields=data.fields,
    )
    typer.echo(synthesis.write_pairs(data.corpus, writer, out, plan).summary())
    typer.echo(f"train on them with: -p dataset={'pairs' if out.suffix else 'beir'}:{out}")


def _prices(text: str, needed: bool) -> tuple[float, float] | None:
    if not text and needed:
        remedy = "Add --price IN,OUT, or remove --budget"
        raise ParameterError("a budget needs prices", remedy=remedy, field="--budget")
    if not text:
        return None
    try:
        before, after = (float(price) for price in text.split(","))
        if not (0 <= before < math.inf and 0 <= after < math.inf):
            raise ValueError
    except ValueError:
        problem = f"expected two prices of 0 or more, got {text!r}"
        raise ParameterError(problem, remedy="Write 0.15,0.60, for example", field="--price") from None
    return before, after


def _open_model(name: str, url: str, prices: tuple[float, float] | None, per_document: int, seed: int) -> LanguageModel:
    """A model behind an address, or one in this process."""
    from embedlab.data.chat import Chat
    from embedlab.models.causal import CausalModel

    if url:
        return Chat(name, url, price_per_million=prices)
    return CausalModel(name, sequences=per_document, max_tokens=48 + 40 * per_document, seed=seed)


def _open_judge(name: str, writer: LanguageModel, budget: float | None) -> Score | None:
    from embedlab.evaluation.data_sources.synthesis import language_judge
    from embedlab.models.reranker import load_reranker

    if not name:
        return None
    if name != JUDGE:
        return load_reranker(name)
    if not getattr(writer, "follows_instructions", True):
        remedy = "Name a cross-encoder, or use a model with a chat template"
        raise ParameterError("this language model follows no instructions", remedy=remedy, field="--judge")
    return language_judge(writer, budget)
