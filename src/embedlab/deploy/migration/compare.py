"""Compare all options on dev, test and a probe."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import asdict, dataclass
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.deploy.migration.costs import Cost, Rate, cost_of
from embedlab.deploy.migration.decision import Decision, Verdict, check, decide
from embedlab.deploy.migration.maps import FittedMaps, fit_maps
from embedlab.deploy.migration.options import RE_EMBED, STAY, Judged, Option, all_options
from embedlab.errors import DataError, ParameterError
from embedlab.evaluation.budgets import Budgets
from embedlab.evaluation.significance import Interval, PairedDifference, bootstrap_ci, paired_difference, paired_ratio
from embedlab.progress import track

if TYPE_CHECKING:
    import pandas as pd


@dataclass(frozen=True)
class Settings:
    """What the comparison assumes.

    Attributes:
        documents: in the live index; None for those of the dataset.
        per_day: documents that can be re-embedded per day; None for as many as the model's speed allows.
        sample: documents that the maps are fitted on.
        share: of the documents that `partly re-embedded` re-embeds.
        tolerance: loss of nDCG@10 that a cheaper option may have.
        probe_budget: tolerated drop on the probe.
        seed: of the sample and of the re-embedded share.
        can_stay: False if the old model is retired, for example by its provider.

    Raises:
        ParameterError: a value is out of range.
    """

    documents: int | None = None
    per_day: int | None = None
    sample: int = 5_000
    share: float = 0.5
    tolerance: float = 0.01
    probe_budget: float = Budgets.probe
    seed: int = 0
    can_stay: bool = True

    def __post_init__(self) -> None:
        rules = {
            "documents": (self.documents is None or self.documents > 0, "1 or more"),
            "per_day": (self.per_day is None or self.per_day > 0, "1 or more"),
            "sample": (self.sample >= 2, "2 or more"),
            "share": (0 < self.share < 1, "between 0 and 1"),
            "tolerance": (0 <= self.tolerance < math.inf, "0 or more"),
            "probe_budget": (0 <= self.probe_budget < math.inf, "0 or more"),
            "seed": (self.seed >= 0, "0 or more"),
        }
        for name, (holds, allowed) in rules.items():
            if not holds:
                problem = f"{name} must be {allowed}, got {getattr(self, name)}"
                raise ParameterError(problem, remedy="Choose another value", field=name)


@dataclass(frozen=True)
class Row:
    """One option.

    Attributes:
        option: its name.
        meaning: what is done.
        cost: see `Cost`.
        dev: nDCG@10.
        to_best: paired difference to the best option on dev.
        test: nDCG@10 with its interval.
        to_stay, to_re_embed: paired differences on test.
        share_kept: nDCG@10 on test as a share of what re-embedding reaches.
        probe: nDCG@10 on the probe; None without one.
        forgetting: paired difference to staying on the probe, below 0 if it forgets; None without a probe.
    """

    option: str
    meaning: str
    cost: Cost
    dev: float
    to_best: PairedDifference
    test: Interval
    to_stay: PairedDifference
    to_re_embed: PairedDifference
    share_kept: Interval
    probe: float | None
    forgetting: PairedDifference | None


@dataclass(frozen=True)
class Comparison:
    """All options, and what to do.

    Attributes:
        rows: one per option.
        decision: what dev says.
        verdict: what test says about it.
        settings: the assumptions.
        ridges: adapter -> chosen ridge strength.
        sample: documents that the maps were fitted on.
        queries: split -> number of queries.
    """

    rows: tuple[Row, ...]
    decision: Decision
    verdict: Verdict
    settings: Settings
    ridges: Mapping[str, float]
    sample: int
    queries: Mapping[str, int]

    def of(self, option: str) -> Row:
        """Return the row of an option."""
        return next(row for row in self.rows if row.option == option)

    def as_json(self) -> dict[str, Any]:
        """Return everything as JSON values; what is unknown is null."""
        content: dict[str, Any] = _without_nan(asdict(self))
        return content

    def table(self) -> pd.DataFrame:
        """Return one row of numbers per option."""
        import pandas as pd

        return pd.DataFrame([_numbers(row) for row in self.rows])


def compare(
    dev: Judged,
    test: Judged,
    *,
    probe: Judged | None = None,
    tuned: Mapping[str, str] | None = None,
    rates: Mapping[str, Rate] | None = None,
    settings: Settings | None = None,
) -> Comparison:
    """Fit the maps, score every option on dev, choose, and check the choice on test.

    Args:
        dev, test: both splits, encoded by every model.
        probe: queries and documents of another domain; None to measure no forgetting.
        tuned: name of a tuned model in `Spaces.tuned` -> what is done.
        rates: `OLD`, `NEW` or name of a tuned model -> how fast it encodes.
        settings: the assumptions.

    Raises:
        DataError: a split has fewer than two queries with a relevant document.
    """
    settings, rates = settings or Settings(), rates or {}
    for name, judged in (("dev", dev), ("test", test)):
        if len(judged.spaces.old.query_ids) < 2:
            remedy = "A comparison needs two or more queries; hundreds for a useful interval"
            raise DataError(f"the split {name} has fewer than two queries", remedy=remedy)
    fitted = fit_maps(dev, sample=settings.sample, seed=settings.seed)
    options = all_options(fitted.maps, tuned or {}, share=settings.share, seed=settings.seed)
    splits = {"dev": dev, "test": test, **({"probe": probe} if probe else {})}
    values = _scored(options, splits)
    costs = {option.name: _cost(option, dev, settings, rates, fitted) for option in options}
    on_probe = values.get("probe", {})
    forgetting = {name: paired_difference(scores, on_probe[STAY]) for name, scores in on_probe.items()}
    tolerance, probe_budget, can_stay = settings.tolerance, settings.probe_budget, settings.can_stay
    decision = decide(
        values["dev"], costs, forgetting, tolerance=tolerance, probe_budget=probe_budget, can_stay=can_stay
    )
    verdict = check(
        decision, values["test"], forgetting, tolerance=tolerance, probe_budget=probe_budget, can_stay=can_stay
    )
    return Comparison(
        tuple(_row(option, costs[option.name], values, decision, forgetting) for option in options),
        decision,
        verdict,
        settings,
        {"query": fitted.query_ridge, "document": fitted.document_ridge},
        fitted.sample,
        {name: len(judged.spaces.old.query_ids) for name, judged in splits.items()},
    )


def _scored(options: list[Option], splits: Mapping[str, Judged]) -> dict[str, dict[str, np.ndarray]]:
    """Return split -> option -> nDCG@10 of every query (Q,)."""
    values: dict[str, dict[str, np.ndarray]] = {split: {} for split in splits}
    for option in track(options, "options"):
        for split, judged in splits.items():
            values[split][option.name] = judged.values(option)
    return values


def _row(
    option: Option,
    cost: Cost,
    values: Mapping[str, Mapping[str, np.ndarray]],
    decision: Decision,
    forgetting: Mapping[str, PairedDifference],
) -> Row:
    name, on_test = option.name, values["test"]
    return Row(
        name,
        option.meaning,
        cost,
        float(np.nanmean(values["dev"][name])),
        decision.to_best[name],
        bootstrap_ci(on_test[name]),
        paired_difference(on_test[name], on_test[STAY]),
        paired_difference(on_test[name], on_test[RE_EMBED]),
        paired_ratio(on_test[name], on_test[RE_EMBED]),
        float(np.nanmean(values["probe"][name])) if forgetting else None,
        forgetting.get(name),
    )


def _cost(option: Option, dev: Judged, settings: Settings, rates: Mapping[str, Rate], fitted: FittedMaps) -> Cost:
    return cost_of(
        option,
        documents=settings.documents or len(dev.spaces.old.corpus),
        sample=fitted.sample,
        rates=rates,
        per_day=settings.per_day,
        dim=option.vectors(dev.spaces).corpus.shape[1],
    )


def _numbers(row: Row) -> dict[str, Any]:
    return {
        "option": row.option,
        "dev": row.dev,
        "test": row.test.mean,
        "test_low": row.test.low,
        "test_high": row.test.high,
        "to_stay": row.to_stay.mean,
        "to_stay_low": row.to_stay.low,
        "to_stay_high": row.to_stay.high,
        "to_re_embed": row.to_re_embed.mean,
        "to_re_embed_low": row.to_re_embed.low,
        "to_re_embed_high": row.to_re_embed.high,
        "share_kept": row.share_kept.mean,
        "kept_low": row.share_kept.low,
        "kept_high": row.share_kept.high,
        "forgetting": None if row.forgetting is None else row.forgetting.mean,
        **asdict(row.cost),
    }


def _without_nan(value: Any) -> Any:
    if isinstance(value, Mapping):
        return {key: _without_nan(item) for key, item in value.items()}
    if isinstance(value, list | tuple):
        return [_without_nan(item) for item in value]
    if isinstance(value, float) and not math.isfinite(value):
        return None
    return value
