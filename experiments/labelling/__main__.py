"""Which order of judgements compares systems with the fewest labels?

    python -m experiments.labelling icd10cm:small [-m MODEL …] [--tolerance 0.01 0.005] [--seeds 20] [--samples 500]

Prints a Markdown table; `-o FILE` also writes it as CSV.
"""

from __future__ import annotations

import argparse
from collections.abc import Sequence
from dataclasses import asdict
from pathlib import Path

import numpy as np
import pandas as pd

from embedlab.data.load import load_dataset
from embedlab.evaluation.labelling.priority import CUTOFF
from embedlab.evaluation.labelling.systems import rank_systems
from embedlab.evaluation.metrics import evaluate
from embedlab.models.load import BASE_MODEL
from experiments.labelling.simulate import ORDERS, Need, Pool, error_curve, needs

SHARES = (0.05, 0.1, 0.25, 0.5)  # of the pool, for the table of errors


def main(arguments: Sequence[str] | None = None) -> None:
    """Simulate a judge on one dataset and print what every order needs."""
    options = _parser().parse_args(arguments)
    data = load_dataset(options.dataset, training=False)
    qrels = data.qrels[options.split]
    rankings = rank_systems(data, options.model or [BASE_MODEL], options.split, CUTOFF)
    pool = Pool.of(list(rankings.values()), qrels)
    means = {name: evaluate(ranking, qrels, [CUTOFF]).mean(f"ndcg@{CUTOFF}") for name, ranking in rankings.items()}
    found = len(np.unique(pool.row[pool.grade > 0]))
    print(f"{data.name}, {options.split}: {pool.queries:,} queries, {pool.size:,} pairs to ask about,", end=" ")
    print(f"{int((pool.grade > 0).sum()):,} of them relevant, for {found:,} queries\n")
    print("nDCG@10 with all judgements: " + ", ".join(f"{name} {value:.4f}" for name, value in means.items()) + "\n")
    table = needs(pool, options.tolerance, seeds=options.seeds, samples=options.samples)
    print(markdown(table, pool.size) + "\n")
    print(error_table(pool, options.seeds))
    if options.out:
        options.out.parent.mkdir(parents=True, exist_ok=True)
        pd.DataFrame([asdict(need) for need in table]).to_csv(options.out, index=False)


def markdown(table: Sequence[Need], size: int) -> str:
    """Return the labels of every order and tolerance, with their share of the pool and of the random order."""
    rows = ["| tolerance | order | labels | share of all | of the random order |", "|---|---|---|---|---|"]
    for need in table:
        labels = f"{need.labels:,.0f} [{need.low:,.0f}, {need.high:,.0f}]"
        ratio = f"{need.of_random:.2f} [{need.of_random_low:.2f}, {need.of_random_high:.2f}]"
        rows.append(f"| {need.tolerance:g} | {need.order} | {labels} | {need.labels / size:.0%} | {ratio} |")
    return "\n".join(rows)


def error_table(pool: Pool, seeds: int) -> str:
    """Return the mean error of the difference after a share of the labels, per order."""
    rows = ["| order | " + " | ".join(f"error after {share:.0%}" for share in SHARES) + " |"]
    rows.append("|---" * (len(SHARES) + 1) + "|")
    steps = [round(share * pool.size) for share in SHARES]
    for name in ORDERS:
        curves = [error_curve(pool, name, np.random.default_rng(seed))[steps] for seed in range(seeds)]
        rows.append(f"| {name} | " + " | ".join(f"{error:.4f}" for error in np.mean(curves, axis=0)) + " |")
    return "\n".join(rows)


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", help="a dataset whose judgements are hidden: icd10cm:small, beir:FOLDER, …")
    parser.add_argument("-m", "--model", action="append", help="folder or hub name; repeat for more; BM25 is added")
    parser.add_argument("--split", default="test")
    parser.add_argument("--tolerance", type=float, nargs="+", default=[0.01, 0.005], help="of a difference of nDCG@10")
    parser.add_argument("--seeds", type=int, default=20, help="random orders")
    parser.add_argument("--samples", type=int, default=500, help="bootstrap samples of the queries")
    parser.add_argument("-o", "--out", type=Path, help="CSV file for the table")
    return parser


if __name__ == "__main__":
    main()
