"""Choose the pairs that are worth judging next, and add the judgements to the data."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedlab.cli.console import name_value_pairs
from embedlab.cli.options import new_output, number
from embedlab.errors import ParameterError
from embedlab.models.load import BASE_MODEL

if TYPE_CHECKING:
    from embedlab.data.dataset import Dataset
    from embedlab.data.formats.base import Export
    from embedlab.data.review import Judgements
    from embedlab.evaluation.labelling.budget import ExpectedGain
    from embedlab.search.exact import Ranking

app = typer.Typer(no_args_is_help=True, help=__doc__)

DatasetSpec = Annotated[str, typer.Argument(help="pairs:FILE, beir:FOLDER, icd10cm:small, …")]
Queries = Annotated[Path | None, typer.Option(help="table with a column query: more queries, without judgements")]
Split = Annotated[str, typer.Option(help="split of the queries: dev or test")]
METRIC = "ndcg@10"


@app.command("next")
def next_pairs(
    dataset: DatasetSpec,
    model: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", help="folder, hub name or openai:MODEL@URL; repeat for more; BM25 is added"),
    ] = None,
    count: Annotated[int, typer.Option(help="rows of the sheet", callback=number(at_least=1))] = 100,
    out: Annotated[Path, typer.Option("-o", "--out", help="new CSV file for the judges")] = Path("label.csv"),
    queries: Queries = None,
    split: Split = "test",
    gain: Annotated[float, typer.Option(help="the smallest gain that matters", callback=number(above=0))] = 0.02,
    curve: Annotated[
        list[str] | None, typer.Option(help="PAIRS=NDCG of a training with so many pairs; repeat for more")
    ] = None,
    more_pairs: Annotated[
        int, typer.Option(help="with --curve: training pairs to add", callback=number(at_least=1))
    ] = 1000,
) -> None:
    """Write the pairs whose judgement says most about which system is better, and how many would show a gain."""
    from embedlab.data.relabel import rejected_documents
    from embedlab.evaluation.labelling.budget import expected_gain
    from embedlab.evaluation.labelling.priority import CUTOFF, prioritise
    from embedlab.evaluation.labelling.sheet import write_label_sheet
    from embedlab.evaluation.labelling.systems import rank_systems

    new_output(out, "--out")
    expected = expected_gain(_curve(curve), more_pairs) if curve else None
    data = _load(dataset, queries, split)
    rankings = rank_systems(data, model or [BASE_MODEL], split, CUTOFF)
    rejected = rejected_documents(dataset, data)
    candidates = prioritise(list(rankings.values()), data.qrels[split], rejected=rejected)
    rows = write_label_sheet(out, data, candidates[:count])
    typer.echo(f"{out}: {rows:,} of {len(candidates):,} pairs that nobody has judged, by {', '.join(rankings)}")
    negatives = sum(len(rejected.get(query, ())) for query, grades in data.qrels[split].items() if grades)
    for line in (*_budget(data, split, rankings, negatives, gain), *([_expected(expected)] if expected else [])):
        typer.echo(line)


@app.command()
def add(
    dataset: DatasetSpec,
    sheets: Annotated[list[Path], typer.Argument(help="filled-in sheets of `label next`, one per judge")],
    out: Annotated[
        Path, typer.Option("-o", "--out", help="a new .jsonl or .csv file of pairs; without a suffix, a BEIR folder")
    ],
    queries: Queries = None,
    split: Split = "test",
) -> None:
    """Check filled-in sheets, compare the judges, and write the data with the new judgements."""
    from embedlab.data.relabel import rejected_documents, with_grades, write_dataset
    from embedlab.evaluation.labelling.sheet import read_label_sheets

    new_output(out, "--out")
    data = _load(dataset, queries, split)
    judgements, agreements = read_label_sheets(sheets, data)
    export = with_grades(data, judgements.grades, rejected_documents(dataset, data))
    lost = write_dataset(data, export, out)
    grades = [grade for judged in judgements.grades.values() for grade in judged.values()]
    positives = sum(grade > 0 for grade in grades)
    typer.echo(f"{len(grades):,} judgements: {positives:,} relevant, {len(grades) - positives:,} not relevant")
    for line in (*agreements, *_left_out(data, export, judgements), *judgements.conflicts):
        typer.echo(f"  {line}")
    typer.echo(f"wrote {out}" + (f"; not kept: {', '.join(lost)}" if lost else ""))
    typer.echo(_how_to_load(out, data))


def _load(spec: str, queries: Path | None, split: str) -> Dataset:
    """Load a dataset, with more queries if there are some."""
    from embedlab.data.load import load_dataset
    from embedlab.data.relabel import with_queries

    data = load_dataset(spec, training=False, queries=queries is None)
    return with_queries(data, queries, split) if queries else data


def _left_out(data: Dataset, export: Export, judgements: Judgements) -> list[str]:
    """What is not in the written data, one line each."""
    queries = sum(map(len, data.qrels.values())) - len(export.examples)
    lines = {
        f"rows without a judgement: {judgements.open:,}": judgements.open,
        f"queries without a relevant document, left out: {queries:,}": queries,
        f"pairs with different grades, left out: {len(judgements.conflicts):,}. Agree on one grade, write it into both "
        "sheets and run again": len(judgements.conflicts),
    }
    return [line for line, count in lines.items() if count]


def _how_to_load(out: Path, data: Dataset) -> str:
    """Read what was written, and say under which name."""
    from embedlab.data.load import load_dataset
    from embedlab.errors import LeakageError

    judged = (document for qrels in data.qrels.values() for grades in qrels.values() for document in grades)
    options = ["split_by=query"] if data.split_by == "query" else []
    options += ["repair=true"] if any(document not in data.corpus for document in judged) else []
    spec = f"{'pairs' if out.suffix else 'beir'}:{out}" + (f"?{'&'.join(options)}" if options else "")
    try:
        load_dataset(spec, training=False)
    except LeakageError as error:
        return f"A document that answers a test query now also answers a training query. {error.remedy}"
    return f"use it as {spec}"


def _curve(texts: list[str]) -> dict[int, float]:
    values = name_value_pairs(texts, "--curve")
    try:
        return {int(pairs): float(value) for pairs, value in values.items()}
    except ValueError:
        problem = f"expected numbers, got {' '.join(texts)!r}"
        raise ParameterError(problem, remedy="Write --curve 1000=0.52, for example", field="--curve") from None


def _budget(data: Dataset, split: str, rankings: dict[str, Ranking], negatives: int, gain: float) -> list[str]:
    """What so many judged queries show about the first two systems."""
    from embedlab.errors import DataError
    from embedlab.evaluation.labelling.budget import label_budget
    from embedlab.evaluation.metrics import evaluate

    qrels = data.qrels[split]
    (first, a), (second, b) = list(rankings.items())[:2]
    differences = evaluate(a, qrels, [10]).of(METRIC) - evaluate(b, qrels, [10]).of(METRIC)
    judged = sum(bool(grades) for grades in qrels.values())
    pairs = (sum(map(len, qrels.values())) + negatives) / max(1, judged)
    try:
        budget = label_budget(differences, gain, pairs_per_query=pairs)
    except DataError as error:
        return [str(error)]
    more = f"{budget.missing_queries:,} more, about {budget.missing_pairs:,} judgements"
    return [
        f"{first} against {second}, {split}, nDCG@10:",
        f"  {budget.queries:,} judged queries show a gain of {budget.detectable:.3f} or more (power 0.8)",
        f"  a gain of {gain:g} takes {budget.queries_needed:,} queries: "
        + (more if budget.missing_queries else "you have enough"),
    ]


def _expected(gain: ExpectedGain) -> str:
    interval = "" if gain.low != gain.low else f" [{gain.low:+.3f}, {gain.high:+.3f}]"
    return f"  {gain.more_pairs:,} more training pairs: {gain.value:+.3f}{interval} nDCG@10 expected"
