"""Draw the figures of a published run again from their tables, in today's style and with today's names.

A run keeps the table behind each figure as CSV. Where this module knows the figure, it draws the table; the numbers
are not touched. Figures that it does not know are published as the run left them.
"""

from __future__ import annotations

from collections.abc import Callable
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from embedlab.escaping import csv_frame, from_csv_frame
from embedlab.reporting import figures, plots
from embedlab.reporting.pareto import cost_panels, pareto_figure
from embedlab.runs.records import Record

if TYPE_CHECKING:
    from matplotlib.figure import Figure

# Names in figure tables of runs that are older than the declared system names.
NAMES = {
    "base, truncated": "base",
    "tuned": "contrastive",
    "teacher": "contrastive",
    "fine-tuned": "contrastive",
    "tuned without MRL": "contrastive-full-width",
    "tuned 2D": "matryoshka-2d",
    "tuned, prefixes fitted": "matryoshka-adaptor",
    "layers": "distilled-3L",
    "narrow": "distilled-narrow",
    "labelled": "distilled+labels",
    "scored": "distilled+scores",
    "both": "contrastive+static",
    "pre-trained": "pretrained",
    "multi-task": "multitask",
    "layer decay": "layer-decay",
    "cocktail": "model soup",
    "real": "real-pairs",
    "synthetic, same documents": "synthetic-same-documents",
    "synthetic, any document": "synthetic-any-document",
    "fine-tune": "linear-probe",
    "true theta": "corrected with the true position bias",
}
Draw = Callable[[pd.DataFrame, Record], "Figure"]


def redraw(table: Path, picture: Path, record: Record) -> bool:
    """Draw a figure from its CSV, and write both.

    Args:
        table: the CSV, as the run kept it.
        picture: the PNG to write; its table goes next to it.
        record: the run.

    Returns:
        False, having written nothing, for a figure that is not known here.
    """
    draw = FIGURES.get((record.notebook.partition("_")[2], table.stem)) or FIGURES.get(("", table.stem))
    if draw is None:
        return False
    frame = _with_names(from_csv_frame(pd.read_csv(table)))
    draw(frame, record).savefig(picture, metadata={"Software": None})
    csv_frame(frame).to_csv(picture.with_suffix(".csv"), index=False, lineterminator="\n")
    return True


def _with_names(frame: pd.DataFrame) -> pd.DataFrame:
    """The table with today's column and system names."""
    frame = frame.rename(columns={"model": "system"})
    for column in frame.columns.intersection(["system", "name"]):
        frame[column] = [_name(str(text)) for text in frame[column]]
    return frame


def _name(text: str) -> str:
    if "% " in text:  # a step of averaging: "50% tuned + table"
        share, _, target = text.partition("% ")
        target, plus, _ = target.partition(" + ")
        return f"{share}% {NAMES.get(target, target)}" + (" + static" if plus else "")
    return NAMES.get(text, text)


def _level(record: Record, system: str) -> float | None:
    """A system's nDCG@10 on the test queries, at its largest dimension."""
    rows = [
        row
        for row in record.metrics
        if (row.system, row.metric, row.statistic, row.split, row.stage)
        == (system, "ndcg@10", "value", "test", "retrieval")
    ]
    return max(rows, key=lambda row: row.dim or 0).value if rows else None


def _forgetting(frame: pd.DataFrame, record: Record) -> Figure:
    return plots.draw_trade_off(frame, budget=record.parameters.get("forgetting_budget"))


def _remedies(frame: pd.DataFrame, record: Record) -> Figure:
    best = frame.loc[frame["gain"].idxmax()]
    return plots.draw_intervals(
        frame,
        "What does each remedy gain?",
        "system",
        "gain",
        low="gain_low",
        high="gain_high",
        xlabel="gain in nDCG@10 over the base model (test)",
        reference=0,
        finding=f"{best['system']} gains most: {best['gain']:+.3f}.",
    )


def _probe_by_queries(frame: pd.DataFrame, record: Record) -> Figure:
    first, last = frame.iloc[0], frame.iloc[-1]
    return plots.draw_lines(
        frame,
        "Would more training pairs help?",
        "queries",
        "gain",
        xlabel="training queries",
        ylabel="gain in nDCG@10 (test)",
        band=("gain_low", "gain_high"),
        level=0,
        finding=f"A linear probe gains {first['gain']:+.3f} from {first['queries']:.0f} queries and"
        f" {last['gain']:+.3f} from {last['queries']:.0f}.",
    )


def _adapters(frame: pd.DataFrame, record: Record) -> Figure:
    level, full = frame.iloc[0]["value"], frame.iloc[-1]["value"]
    best = frame.iloc[1:-1].sort_values("value").iloc[-1]
    share = (best["value"] - level) / (full - level)
    return plots.draw_intervals(
        frame,
        "Can a map replace re-embedding the corpus?",
        "system",
        "value",
        low="ci_low",
        high="ci_high",
        xlabel="nDCG@10 (test)",
        reference=level,
        finding=f"The best map ({best['system']}) keeps {share:.0%} of the gain that re-embedding brings.",
    )


def _synthetic(frame: pd.DataFrame, record: Record) -> Figure:
    base = frame.loc[frame["system"] == "base", "mean"].iloc[0]
    rows = frame[frame["system"].str.startswith("synthetic")]
    above = int((rows["low"] > base).sum())
    return plots.draw_intervals(
        frame,
        "Is synthetic data worth training on?",
        "system",
        "mean",
        low="low",
        high="high",
        xlabel="nDCG@10 (real test queries)",
        reference=base,
        finding=f"{above} of {len(rows)} models trained on synthetic queries are clearly above the base model.",
    )


def _stages(frame: pd.DataFrame, record: Record) -> Figure:
    best = frame.loc[frame["value"].idxmax()]
    return plots.draw_intervals(
        frame,
        "What did each stage do?",
        "system",
        "value",
        low="ci_low",
        high="ci_high",
        xlabel="nDCG@10 (test)",
        reference=_level(record, "bm25"),
        finding=f"{best['system']} is best ({best['value']:.3f}). Dashed: BM25.",
    )


def _gate(frame: pd.DataFrame, record: Record) -> Figure:
    names = [row.check if pd.isna(row.slice) else f"{row.check}: {row.slice}" for row in frame.itertuples()]
    counts = frame["verdict"].value_counts()
    return plots.draw_intervals(
        frame.assign(name=names),
        "Where does it win, where does it lose?",
        "name",
        "difference",
        low="ci_low",
        high="ci_high",
        xlabel="difference in nDCG@10 from the base model",
        reference=0,
        finding=", ".join(f"{verdict}: {count}" for verdict, count in counts.items()) + " checks.",
    )


def _splits(frame: pd.DataFrame, record: Record) -> Figure:
    last = frame[frame["step"] == frame["step"].max()].set_index("split")["value"]
    return plots.draw_lines(
        frame,
        "Does it only learn its training queries?",
        "step",
        "value",
        xlabel="training step",
        ylabel="nDCG@10 in a sampled corpus",
        by="split",
        band=("ci_low", "ci_high"),
        finding=f"At the last step: train {last['train']:.3f}, dev {last['dev']:.3f}, test {last['test']:.3f}.",
    )


def _bits(frame: pd.DataFrame, record: Record) -> Figure:
    full = frame.loc[frame["bytes"].idxmax()]
    near = frame[frame["value"] >= 0.97 * full["value"]]
    small = near.loc[near["bytes"].idxmin()]
    return plots.draw_lines(
        frame,
        "Fewer dimensions or fewer bits?",
        "bytes",
        "value",
        xlabel="bytes per document, nothing else stored (log scale)",
        ylabel="nDCG@10 (test)",
        by="form",
        band=("ci_low", "ci_high"),
        log=2,
        level=_level(record, "bm25"),
        finding=f"{small['bytes']:.0f} bytes ({small['form']}, {small['dim']:.0f} dimensions) keep 97 % of the quality"
        f" of {full['bytes']:,.0f}. Dashed: BM25.",
    )


def _latency(frame: pd.DataFrame, record: Record) -> Figure:
    frame = frame.rename(columns={"index": "kind"})
    frame = frame[frame["recall@10"] < 1].dropna(subset=["p50_ms"]) if (frame["kind"] == "exact").any() else frame
    good = frame[frame["recall@10"] >= 0.99]
    best = good.loc[good["p50_ms"].idxmin()]
    return plots.draw_lines(
        frame,
        "What does recall cost?",
        "p50_ms",
        "recall@10",
        xlabel="median latency of one query, ms (log scale)",
        ylabel="recall@10 against exact search",
        by="kind",
        log=10,
        finding=f"{best['kind']} reaches {best['recall@10']:.3f} in {best['p50_ms']:.3f} ms.",
    )


def _clicks(frame: pd.DataFrame, record: Record) -> Figure:
    most = frame[frame["sessions"] == frame["sessions"].max()].set_index("rate")["mean"]
    return plots.draw_lines(
        frame.assign(rate=[NAMES.get(rate, rate) for rate in frame["rate"]]),
        "When does correcting clicks for position pay?",
        "sessions",
        "mean",
        xlabel="sessions per query (log scale)",
        ylabel="Kendall's tau with the true relevance",
        by="rate",
        band=("low", "high"),
        log=10,
        finding=f"With {frame['sessions'].max():,} sessions, correcting reaches {most['corrected']:.2f} and counting"
        f" clicks {most['naive']:.2f}.",
    )


def _examination(frame: pd.DataFrame, record: Record) -> Figure:
    long = frame.melt(id_vars="place", var_name="estimate", value_name="share")
    names = {name: f"{int(name):,} sessions" for name in frame.columns if name.isdigit()}
    worst = (frame.filter(regex=r"^\d+$").sub(frame["true"], axis=0)).abs().max().max()
    return plots.draw_lines(
        long.assign(estimate=[names.get(name, name) for name in long["estimate"]]),
        "Is the position bias of clicks recovered?",
        "place",
        "share",
        xlabel="position on the page",
        ylabel="examined, relative to position 1",
        by="estimate",
        finding=f"The largest error of any estimate is {worst:.2f}.",
    )


def _shares(frame: pd.DataFrame, record: Record) -> Figure:
    best = frame.loc[frame["ndcg@10"].idxmax()]
    return plots.draw_lines(
        frame,
        "How much should the reranker's score count?",
        "share",
        "ndcg@10",
        xlabel="share of the reranker's score",
        ylabel="nDCG@10 (dev)",
        band=("low", "high"),
        finding=f"Best at a share of {best['share']:.1f}: {best['ndcg@10']:.3f}.",
    )


def _pretraining_loss(frame: pd.DataFrame, record: Record) -> Figure:
    return plots.draw_lines(
        frame,
        "Does it learn from text alone?",
        "step",
        "loss",
        xlabel="pre-training step",
        ylabel=f"{record.parameters.get('objective', '')} loss".strip(),
        finding=f"The loss falls from {frame['loss'].iloc[0]:.1f} to {frame['loss'].iloc[-1]:.1f}.",
    )


FIGURES: dict[tuple[str, str], Draw] = {
    ("", "quality_by_dimension"): lambda frame, record: figures.draw_quality_by_dimension(frame),
    ("", "learning_curve"): lambda frame, record: figures.draw_learning_curve(frame),
    ("", "pareto"): lambda frame, record: pareto_figure(frame, bm25=_level(record, "bm25")),
    ("multitask", "trade_off"): _forgetting,
    ("diagnose", "gain_by_remedy"): _remedies,
    ("diagnose", "gain_by_training_queries"): _probe_by_queries,
    ("deploy", "adapters"): _adapters,
    ("deploy", "recall_and_latency"): _latency,
    ("data", "synthetic_worth"): _synthetic,
    ("data", "click_order"): _clicks,
    ("data", "examination"): _examination,
    ("domain_pretraining", "stages"): _stages,
    ("domain_pretraining", "pretraining_loss"): _pretraining_loss,
    ("evaluate", "gate"): _gate,
    ("evaluate", "splits_while_training"): _splits,
    ("matryoshka", "quality_by_bytes"): _bits,
    ("reranker", "quality_by_share"): _shares,
    ("retrievers", "pareto"): lambda frame, record: cost_panels(frame, "nDCG@10", "nDCG@10 on test")[0],
}
