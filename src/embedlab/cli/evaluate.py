"""`embedlab evaluate MODEL --against MODEL [--gate]`: is the gain real, and for whom?"""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedlab.cli.console import GATE_CLOSED
from embedlab.models.load import BASE_MODEL

if TYPE_CHECKING:
    import pandas as pd
    from sentence_transformers import SentenceTransformer

    from embedlab.data.dataset import Dataset
    from embedlab.evaluation.budgets import Budgets
    from embedlab.evaluation.metrics import Evaluation
    from embedlab.search.exact import Ranking

    Models = tuple[SentenceTransformer, SentenceTransformer]  # the tuned one, the one to beat

SHOWN = ("ndcg@10", "recall@10", "precision@10", "mrr@10", "map@10")
OWN_FIELDS = ("length", "document length", "script", "frequency", "risk", "seen")


def evaluate(
    model: Annotated[str, typer.Argument(help="the tuned model: a folder, a short name or a hub name")],
    against: Annotated[str, typer.Option(help="the model to beat")] = BASE_MODEL,
    dataset: Annotated[str, typer.Option(help="dataset spec")] = "icd10cm:small",
    split: Annotated[str, typer.Option(help="whose queries")] = "test",
    metric: Annotated[str, typer.Option(help="what decides")] = "ndcg@10",
    by: Annotated[
        list[str] | None, typer.Option(help="field to slice by, as often as needed; what applies if none")
    ] = None,
    kind: Annotated[str | None, typer.Option(help="field that tells kinds of queries apart (frequency, risk)")] = None,
    high_risk: Annotated[list[str] | None, typer.Option(help="a value of --kind where mistakes cost most")] = None,
    probe: Annotated[list[str] | None, typer.Option(help="out-of-domain probe; pydocs if none, 'none' skips")] = None,
    gate: Annotated[bool, typer.Option("--gate", help="exit with 3 when a slice or probe drops past budget")] = False,
    strict: Annotated[bool, typer.Option("--strict", help="with --gate: what is unsure counts as failed")] = False,
    overall_budget: Annotated[float, typer.Option(help="tolerated drop of the mean")] = 0.0,
    slice_budget: Annotated[float, typer.Option(help="tolerated drop of a slice")] = 0.02,
    risk_budget: Annotated[float, typer.Option(help="tolerated drop of the high-risk slice")] = 0.01,
    probe_budget: Annotated[float, typer.Option(help="tolerated drop of a probe")] = 0.03,
    html: Annotated[Path | None, typer.Option(help="write wins and losses with their texts to this file")] = None,
    sheet: Annotated[Path | None, typer.Option(help="write a CSV sheet for human review")] = None,
) -> None:
    """Compare a model with another one: metrics, tests, slices, probes; with --gate, decide."""
    from embedlab.evaluation.budgets import Budgets
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
    """Both systems' results on one split; index 0 is the tuned model."""

    names: tuple[str, str]
    data: Dataset
    split: str
    metric: str
    rankings: tuple[Ranking, Ranking]
    evaluations: tuple[Evaluation, Evaluation]

    def metrics(self) -> pd.DataFrame:
        """Every headline metric of both with difference, interval, tests and wins."""
        from embedlab.evaluation.comparison import compare_systems

        wanted = [self.metric, *(name for name in SHOWN if name != self.metric)]
        return compare_systems({self.names[0]: self.evaluations[0]}, self.evaluations[1], wanted).drop(columns="system")

    def fields(
        self, kind: str | None, high_risk: list[str], by: list[str] | None
    ) -> tuple[dict[str, dict[str, str]], list[str]]:
        """Query fields, and those to slice by: the ones asked for, else every one that parts the queries."""
        from embedlab.evaluation.segments import derived_fields

        fields = derived_fields(self.data, self.split, kind=kind, high_risk=high_risk)
        values: dict[str, set[str]] = {}
        for own in fields.values():
            for name, value in own.items():
                values.setdefault(name, set()).add(value)
        asked = by or [name for name in (*OWN_FIELDS, kind) if name and len(values.get(name, ())) > 1]
        return fields, list(dict.fromkeys(asked))

    def slices(self, fields: dict[str, dict[str, str]], by: str) -> pd.DataFrame:
        """The comparison by one field."""
        from embedlab.evaluation.slices import slice_differences

        return slice_differences(*self.evaluations, fields, by, self.metric)

    def checks(self, fields: dict[str, dict[str, str]], by: list[str], budgets: Budgets) -> list[pd.DataFrame]:
        """What the gate looks at: the mean and every slice."""
        from embedlab.evaluation.gate import difference_checks, slice_checks
        from embedlab.evaluation.significance import paired_difference

        overall = paired_difference(*(evaluation.of(self.metric) for evaluation in self.evaluations))
        return [
            difference_checks({"overall": overall}, budgets.overall),
            slice_checks(*self.evaluations, fields, by, self.metric, budgets),
        ]

    def export(self, html: Path | None, sheet: Path | None, fields: dict[str, dict[str, str]]) -> None:
        """Write the browser and the review sheet where asked."""
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
    from embedlab.evaluation.retrieval import encode_split
    from embedlab.models.cache import EmbeddingCache

    data, cache = load_dataset(dataset), EmbeddingCache()
    rankings = tuple(encode_split(model, data, split, encode=cache.encode).rank(max(CUTOFFS)) for model in models)
    evaluations = tuple(score(ranking, data.qrels[split]) for ranking in rankings)
    evaluations[0].of(metric)  # an unknown metric is said before anything is shown
    return _Pair(names, data, split, metric, rankings, evaluations)


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
