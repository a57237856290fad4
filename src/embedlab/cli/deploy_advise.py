"""Advise how to go on when the model of an index changes."""

from __future__ import annotations

import json
from datetime import UTC, datetime
from pathlib import Path
from typing import Annotated

import typer

from embedlab import paths
from embedlab.cli.console import GATE_CLOSED, out, print_frame
from embedlab.cli.options import number, output_file
from embedlab.redaction import redacted


def advise(
    old: Annotated[str, typer.Option(help="model of the live index: folder, hub name or openai:MODEL@URL")],
    new: Annotated[str, typer.Option(help="model that may replace it")],
    dataset: Annotated[str, typer.Option("--dataset", "--data", help="judged queries: icd10cm, beir:FOLDER, …")],
    retuned_warm: Annotated[str, typer.Option(help="model tuned again from the old fine-tuned one")] = "",
    retuned_new: Annotated[str, typer.Option(help="model tuned from the new base")] = "",
    documents: Annotated[
        int | None, typer.Option(help="in the live index; default: those of the dataset", callback=number(at_least=1))
    ] = None,
    per_day: Annotated[
        int | None,
        typer.Option(help="documents that can be re-embedded per day; default: all", callback=number(at_least=1)),
    ] = None,
    texts_per_second: Annotated[
        float | None, typer.Option(help="speed of re-embedding; default: measured", callback=number(above=0))
    ] = None,
    sample: Annotated[
        int, typer.Option(help="documents that the adapters are fitted on", callback=number(at_least=2))
    ] = 5_000,
    share: Annotated[
        float, typer.Option(help="of the documents in a partly re-embedded index", callback=number(above=0, below=1))
    ] = 0.5,
    tolerance: Annotated[
        float, typer.Option(help="loss of nDCG@10 that a cheaper way may have", callback=number(at_least=0))
    ] = 0.01,
    probe: Annotated[
        str, typer.Option(help="dataset of another domain, to measure forgetting; empty for none")
    ] = "pydocs",
    probe_queries: Annotated[
        int, typer.Option(help="at most so many of its queries", callback=number(at_least=2))
    ] = 100,
    report: Annotated[
        Path | None, typer.Option(help="JSON file of the report; default: a new file in results/mine")
    ] = None,
    seed: Annotated[int, typer.Option(help="of the sample and the share", callback=number(at_least=0))] = 0,
) -> None:
    """Compare staying, adapters, re-embedding and re-tuned models. Exits with 3 if the choice fails on test."""
    import pandas as pd

    from embedlab.deploy.migration import advise as migration
    from embedlab.deploy.migration.advice import advice
    from embedlab.deploy.migration.compare import Settings
    from embedlab.io import write_atomic
    from embedlab.reporting.migration_table import HEADER, QUALITY, table_rows

    now = datetime.now(UTC)
    file = report or paths.results_dir() / "mine" / f"migration-{now:%Y%m%d-%H%M%S}.json"
    output_file(file, "--report")
    models = dict(zip(migration.TUNED, (retuned_warm, retuned_new), strict=True))
    comparison = migration.advise(
        old,
        new,
        dataset,
        tuned={name: model for name, model in models.items() if model},
        probe=probe,
        probe_queries=probe_queries,
        texts_per_second=texts_per_second,
        settings=Settings(documents, per_day, sample, share, tolerance, seed=seed),
    )
    content = comparison.as_json()
    sentences = advice(comparison)
    asked = {"old": old, "new": new, "dataset": dataset, "probe": probe, **{k: v for k, v in models.items() if v}}
    shown = {name: redacted(value) for name, value in asked.items()}
    header = {"date": now.isoformat(timespec="seconds"), **shown, "advice": sentences}
    write_atomic(file, json.dumps({**header, **content}, indent=1) + "\n")
    table = pd.DataFrame(table_rows(content["rows"], comparison.decision.recommended), columns=list(HEADER))
    print_frame(table.iloc[:, :QUALITY], f"{shown['old']} → {shown['new']}, {shown['dataset']}")
    print_frame(table[["option", *HEADER[QUALITY:]]], "Costs")
    for sentence in sentences:
        out.print(sentence, markup=False, highlight=False)
    out.print(f"saved in {paths.shown(file)}", highlight=False)
    raise typer.Exit(GATE_CLOSED if comparison.verdict.verdict == "fail" else 0)
