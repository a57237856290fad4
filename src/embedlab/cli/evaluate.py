"""`embedlab evaluate MODEL --against MODEL [--gate]`: is the gain real, and for whom?"""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedlab.cli.console import GATE_CLOSED
from embedlab.cli.options import output_file
from embedlab.evaluation.budgets import Budgets
from embedlab.models.load import BASE_MODEL

if TYPE_CHECKING:
    import pandas as pd

    from embedlab.evaluation.model_pair import ModelPair
    from embedlab.evaluation.significance import PairedDifference

METRICS = ("ndcg@10", "recall@10", "precision@10", "mrr@10", "map@10")


def evaluate(
    model: Annotated[str, typer.Argument(help="the model to judge: folder, hub name or openai:MODEL@URL")],
    dataset: Annotated[str, typer.Option(help="pairs:FILE, beir:FOLDER, icd10cm:small, …")],
    against: Annotated[str, typer.Option(help="the model to compare with")] = BASE_MODEL,
    split: Annotated[str, typer.Option(help="dev or test")] = "test",
    metric: Annotated[str, typer.Option(help="the metric that decides")] = "ndcg@10",
    by: Annotated[list[str] | None, typer.Option(help="query field to slice by; repeat for more")] = None,
    kind: Annotated[str | None, typer.Option(help="field with the kind of a query, e.g. its chapter")] = None,
    high_risk: Annotated[list[str] | None, typer.Option(help="a value of --kind where mistakes cost most")] = None,
    probe: Annotated[list[str] | None, typer.Option(help="dataset of another domain; default pydocs, or none")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="exit with 3 if a slice or probe drops too much")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="with --gate: count uncertain checks as failed")] = False,
    overall_budget: Annotated[float, typer.Option(help="largest tolerated drop of the mean")] = Budgets.overall,
    slice_budget: Annotated[float, typer.Option(help="largest tolerated drop of a slice")] = Budgets.slice,
    risk_budget: Annotated[float, typer.Option(help="the same for the high-risk slice")] = Budgets.high_risk,
    probe_budget: Annotated[float, typer.Option(help="largest tolerated drop of a probe")] = Budgets.probe,
    html: Annotated[Path | None, typer.Option(help="HTML file for wins and losses with their texts")] = None,
    sheet: Annotated[Path | None, typer.Option(help="CSV file for human review")] = None,
) -> None:
    """Compare a fine-tuned model with its base model: metrics, significance, slices, other domains."""
    from embedlab.evaluation.probes import check_files

    output_file(html, "--html")
    output_file(sheet, "--sheet")
    budgets = Budgets(overall_budget, slice_budget, risk_budget, probe_budget)
    probes = [name for name in (probe or ["pydocs"]) if name != "none"]
    check_files(probes)
    pair = _compare(model, against, dataset, split, metric)
    _show("metrics", pair.comparison([metric, *(name for name in METRICS if name != metric)]))
    fields = pair.fields(kind or "", high_risk or [])
    slices = pair.slices(fields, kind or "", by or [])
    for name, table in slices.items():
        _show(f"{metric} by {name}", table)
    if html or sheet:
        _export(pair, fields, html, sheet)
    differences = _probe_differences(pair, probes)
    verdict = pair.gate(fields, list(slices), differences, budgets)
    _show("gate", verdict.table)
    typer.echo(f"{verdict.summary()}\n{pair.reading()}")
    if gate and not verdict.passed(strict=strict):
        raise typer.Exit(GATE_CLOSED)


def _compare(model: str, against: str, dataset: str, split: str, metric: str) -> ModelPair:
    """Score both models; raise for an unknown metric before anything is printed."""
    from embedlab.data.load import load_dataset
    from embedlab.evaluation.model_pair import compare_models
    from embedlab.models.cache import EmbeddingCache
    from embedlab.models.load import open_model

    names = model, against if against != model else f"{against} (again)"
    data, encode = load_dataset(dataset, training=False), EmbeddingCache().encode
    pair = compare_models(
        open_model(model), open_model(against), data, names=names, metric=metric, split=split, encode=encode
    )
    pair.candidate.of(metric)
    return pair


def _export(pair: ModelPair, fields: dict[str, dict[str, str]], html: Path | None, sheet: Path | None) -> None:
    """Write the HTML page of cases and the review sheet, if they have a path."""
    typer.echo(f"\n{pair.export_review(pair.cases(fields), html, sheet, max_cases=None)}")
    for path in filter(None, (html, sheet)):
        typer.echo(f"  {path}")


def _probe_differences(pair: ModelPair, probes: list[str]) -> dict[str, PairedDifference]:
    if not probes:
        return {}
    typer.echo(f"\nOther domains ({', '.join(probes)}): this encodes more texts; --probe none skips it", err=True)
    table, differences = pair.probes(probes)
    _show("probes", table)
    return differences


def _show(title: str, frame: pd.DataFrame) -> None:
    typer.echo(f"\n{title}\n{frame.round(4).to_string(index=False)}")
