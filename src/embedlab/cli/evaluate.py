"""`embedlab evaluate MODEL --against MODEL [--gate]`: is the gain real, and for whom?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedlab.cli.console import GATE_CLOSED
from embedlab.evaluation.budgets import Budgets
from embedlab.models.load import BASE_MODEL

if TYPE_CHECKING:
    import pandas as pd
    from sentence_transformers import SentenceTransformer

    from embedlab.data.dataset import Dataset
    from embedlab.evaluation.metrics import Evaluation
    from embedlab.search.exact import Ranking

    Models = tuple[SentenceTransformer, SentenceTransformer]  # candidate, base

METRICS = ("ndcg@10", "recall@10", "precision@10", "mrr@10", "map@10")
SLICED_BY = ("length", "document length", "script", "frequency", "risk", "seen")


def evaluate(
    model: Annotated[str, typer.Argument(help="the fine-tuned model: a folder or a hub name")],
    against: Annotated[str, typer.Option(help="the model to compare with")] = BASE_MODEL,
    dataset: Annotated[str, typer.Option(help="pairs:FILE, beir:FOLDER, icd10cm:small, …")] = "icd10cm:small",
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
    from embedlab.models.load import load_model

    budgets = Budgets(overall_budget, slice_budget, risk_budget, probe_budget)
    models = load_model(model), load_model(against)
    pair = _score(models, (model, against), dataset, split, metric)
    _show("metrics", pair.metrics())
    fields, names = pair.fields(kind, high_risk or [], by)
    for name in names:
        _show(f"{metric} by {name}", pair.slices(fields, name))
    if html or sheet:
        pair.export(html, sheet, fields)
    probes = [name for name in (probe or ["pydocs"]) if name != "none"]
    checks = [*pair.checks(fields, names, budgets), _probe_checks(models, probes, budgets)]
    _decide(checks, budgets, gate=gate, strict=strict)


@dataclass(frozen=True, eq=False)
class _Pair:
    """Results of two models on one split: the candidate first, then the base model."""

    names: tuple[str, str]
    data: Dataset
    split: str
    metric: str
    rankings: tuple[Ranking, Ranking]
    evaluations: tuple[Evaluation, Evaluation]

    def metrics(self) -> pd.DataFrame:
        """Return every metric of both, with difference, interval, tests and wins."""
        from embedlab.evaluation.comparison import compare_systems

        metrics = [self.metric, *(name for name in METRICS if name != self.metric)]
        return compare_systems({self.names[0]: self.evaluations[0]}, self.evaluations[1], metrics).drop(
            columns="system"
        )

    def fields(
        self, kind: str | None, high_risk: list[str], by: list[str] | None
    ) -> tuple[dict[str, dict[str, str]], list[str]]:
        """Return the query fields, and the names to slice by: `by`, else every field with two values or more."""
        from embedlab.evaluation.segments import derived_fields

        fields = derived_fields(self.data, self.split, kind=kind, high_risk=high_risk)
        values: dict[str, set[str]] = {}
        for query_fields in fields.values():
            for name, value in query_fields.items():
                values.setdefault(name, set()).add(value)
        names = by or [name for name in (*SLICED_BY, kind) if name and len(values.get(name, ())) > 1]
        return fields, list(dict.fromkeys(names))

    def slices(self, fields: dict[str, dict[str, str]], by: str) -> pd.DataFrame:
        """Compare the two in every slice of a field."""
        from embedlab.evaluation.slices import slice_differences

        return slice_differences(*self.evaluations, fields, by, self.metric)

    def checks(self, fields: dict[str, dict[str, str]], by: list[str], budgets: Budgets) -> list[pd.DataFrame]:
        """Return the checks of the gate: the mean and every slice."""
        from embedlab.evaluation.gate import difference_checks, slice_checks
        from embedlab.evaluation.significance import paired_difference

        overall = paired_difference(self.evaluations[0].of(self.metric), self.evaluations[1].of(self.metric))
        return [
            difference_checks({"overall": overall}, budgets.overall),
            slice_checks(*self.evaluations, fields, by, self.metric, budgets),
        ]

    def export(self, html: Path | None, sheet: Path | None, fields: dict[str, dict[str, str]]) -> None:
        """Write the HTML page of cases and the review sheet, if they have a path."""
        from embedlab.data.review import export_sheet
        from embedlab.evaluation.human_review.browser import write_browser
        from embedlab.evaluation.human_review.cases import pooled, side_by_side

        cases = side_by_side(self.data, self.split, self.rankings, self.evaluations, metric=self.metric, fields=fields)
        if html:
            typer.echo(f"  {write_browser(cases, html, names=self.names)}")
        if sheet:
            sheet.parent.mkdir(parents=True, exist_ok=True)
            typer.echo(f"  {sheet}: {export_sheet(sheet, self.data, pooled(cases))} rows to judge")


def _score(models: Models, names: tuple[str, str], dataset: str, split: str, metric: str) -> _Pair:
    from embedlab.data.load import load_dataset
    from embedlab.evaluation.metrics import CUTOFFS
    from embedlab.evaluation.metrics import evaluate as score
    from embedlab.models.cache import EmbeddingCache
    from embedlab.search.vectors import encode_split

    data, cache = load_dataset(dataset), EmbeddingCache()

    def results(model: SentenceTransformer) -> tuple[Ranking, Evaluation]:
        ranking = encode_split(model, data, split, encode=cache.encode).rank(max(CUTOFFS))
        return ranking, score(ranking, data.qrels[split])

    (ranking, evaluation), (base_ranking, base_evaluation) = results(models[0]), results(models[1])
    evaluation.of(metric)  # raises for an unknown metric, before anything is printed
    return _Pair(names, data, split, metric, (ranking, base_ranking), (evaluation, base_evaluation))


def _probe_checks(models: Models, probes: list[str], budgets: Budgets) -> pd.DataFrame:
    from embedlab.evaluation.gate import difference_checks
    from embedlab.evaluation.probes import compare_probes
    from embedlab.models.cache import EmbeddingCache

    if not probes:
        return difference_checks({}, budgets.probe)
    table, differences = compare_probes(*models, probes, encode=EmbeddingCache().encode)
    _show("probes", table)
    return difference_checks(differences, budgets.probe)


def _decide(checks: list[pd.DataFrame], budgets: Budgets, *, gate: bool, strict: bool) -> None:
    from embedlab.evaluation.gate import judge

    verdict = judge(checks, alpha=budgets.alpha)
    _show("gate", verdict.table)
    typer.echo(verdict.summary())
    if gate and not verdict.passed(strict=strict):
        raise typer.Exit(GATE_CLOSED)


def _show(title: str, frame: pd.DataFrame) -> None:
    typer.echo(f"\n{title}\n{frame.round(4).to_string(index=False)}")
