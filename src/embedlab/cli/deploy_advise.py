"""Advise how to go on when the model of an index changes."""

from __future__ import annotations

import json
from collections.abc import Mapping
from datetime import UTC, datetime
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer

from embedlab import paths
from embedlab.cli.console import GATE_CLOSED, out, print_frame
from embedlab.cli.options import number, output_file
from embedlab.redaction import redacted

if TYPE_CHECKING:
    from embedlab.deploy.migration.compare import Comparison


Model = Annotated[str, typer.Option(help="folder, hub name or openai:MODEL@URL")]
DatasetSpec = Annotated[str, typer.Option("--dataset", "--data", help="judged queries: icd10cm, beir:FOLDER, …")]
Warm = Annotated[str, typer.Option(help="model that was tuned again from the old fine-tuned one")]
FromNewBase = Annotated[str, typer.Option(help="model that was tuned from the new base")]
Documents = Annotated[
    int | None, typer.Option(help="in the live index; default: those of the dataset", callback=number(at_least=1))
]
PerDay = Annotated[
    int | None,
    typer.Option(help="documents that can be re-embedded per day; default: no limit", callback=number(at_least=1)),
]
Speed = Annotated[float | None, typer.Option(help="of re-embedding; default: measured", callback=number(above=0))]
Sample = Annotated[int, typer.Option(help="documents that the adapters are fitted on", callback=number(at_least=2))]
Share = Annotated[
    float, typer.Option(help="of the documents in a partly re-embedded index", callback=number(above=0, below=1))
]
Tolerance = Annotated[
    float, typer.Option(help="loss of nDCG@10 that a cheaper way may have", callback=number(at_least=0))
]
Probe = Annotated[str, typer.Option(help="dataset of another domain, to measure forgetting; empty for none")]
ProbeQueries = Annotated[int, typer.Option(help="at most so many of its queries", callback=number(at_least=2))]
Report = Annotated[Path | None, typer.Option(help="JSON file; default: a new file in results/mine")]
Retired = Annotated[bool, typer.Option("--old-is-retired", help="you cannot stay with the old model")]
Seed = Annotated[int, typer.Option(help="of the sample and the share", callback=number(at_least=0))]


def advise(
    old: Model,
    new: Model,
    dataset: DatasetSpec,
    retuned_warm: Warm = "",
    retuned_new: FromNewBase = "",
    documents: Documents = None,
    per_day: PerDay = None,
    texts_per_second: Speed = None,
    sample: Sample = 5_000,
    share: Share = 0.5,
    tolerance: Tolerance = 0.01,
    probe: Probe = "pydocs",
    probe_queries: ProbeQueries = 100,
    report: Report = None,
    seed: Seed = 0,
    old_is_retired: Retired = False,
) -> None:
    """Compare staying, adapters, re-embedding and re-tuned models. Exits with 3 if the choice fails on test."""
    from embedlab.deploy.migration import advise as migration
    from embedlab.deploy.migration.compare import Settings

    now = datetime.now(UTC)
    file = report or paths.results_dir() / "mine" / f"migration-{now:%Y%m%d-%H%M%S}.json"
    output_file(file, "--report")
    tuned = dict(zip(migration.TUNED, (retuned_warm, retuned_new), strict=True))
    comparison = migration.advise(
        old,
        new,
        dataset,
        tuned={name: model for name, model in tuned.items() if model},
        probe=probe,
        probe_queries=probe_queries,
        texts_per_second=texts_per_second,
        settings=Settings(documents, per_day, sample, share, tolerance, seed=seed, can_stay=not old_is_retired),
    )
    names = {"old": old, "new": new, "dataset": dataset, "probe": probe, **tuned}
    _save_and_print(comparison, {key: redacted(name) for key, name in names.items() if name}, file, now)
    raise typer.Exit(GATE_CLOSED if comparison.verdict.verdict == "fail" else 0)


def _save_and_print(comparison: Comparison, names: Mapping[str, str], file: Path, now: datetime) -> None:
    import pandas as pd

    from embedlab.deploy.migration.advice import advice
    from embedlab.io import write_atomic
    from embedlab.reporting.migration_table import HEADER, QUALITY, table_rows

    content, sentences = comparison.as_json(), advice(comparison)
    header = {"date": now.isoformat(timespec="seconds"), **names, "advice": sentences}
    write_atomic(file, json.dumps({**header, **content}, indent=1) + "\n")
    table = pd.DataFrame(table_rows(content["rows"], comparison.decision.recommended), columns=list(HEADER))
    print_frame(table.iloc[:, :QUALITY], f"{names['old']} → {names['new']}, {names['dataset']}")
    print_frame(table[["option", *HEADER[QUALITY:]]], "Costs")
    for sentence in sentences:
        out.print(sentence, markup=False, highlight=False)
    out.print(f"saved in {paths.shown(file)}", highlight=False)
