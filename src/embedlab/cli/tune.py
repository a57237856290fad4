"""`embedlab tune DATASET --minutes 30`: the best model that the data allows, in the time given."""

from __future__ import annotations

from typing import Annotated

import typer

from embedlab.cli.options import folder_or_new
from embedlab.cli.run import run
from embedlab.models.load import BASE_MODEL

NOTEBOOK = "12_tune"


def tune(
    dataset: Annotated[str, typer.Argument(help="pairs:FILE, beir:FOLDER, clicks:FILE, hf:NAME or icd10cm:small")],
    minutes: Annotated[float, typer.Option(min=0.1, help="time for everything, the test included")] = 30,
    model: Annotated[
        str, typer.Option("-m", "--model", help="base model: short name, folder or hub name")
    ] = BASE_MODEL,
    max_forgetting: Annotated[
        float, typer.Option(min=0, max=1, help="most nDCG@10 to lose on a probe of another domain; 1: any")
    ] = 1,
    min_speed: Annotated[
        float, typer.Option(min=0, help="encoding speed as a multiple of the base model's; 0: any")
    ] = 0,
    max_bytes: Annotated[int, typer.Option(min=0, help="most bytes of a document vector in float32; 0: any")] = 0,
    seed: Annotated[int, typer.Option(min=0, help="random seed")] = 0,
    output_dir: Annotated[str, typer.Option(help="folder for runs; default results/runs", callback=folder_or_new)] = "",
    force: Annotated[bool, typer.Option("--force", help="run again even if the run is finished")] = False,
) -> None:
    """Try a ladder of recipes within a time budget, choose on dev, test once, and save the model with a report.

    This runs notebook 12_tune: `embedlab run 12_tune -p minutes=30` has more parameters.
    """
    values = {
        "dataset": dataset,
        "minutes": float(minutes),
        "model_name": model,
        "max_forgetting": float(max_forgetting),
        "min_speed": float(min_speed),
        "max_bytes": max_bytes,
        "seed": seed,
    }
    parameters = [f"{name}={value}" for name, value in values.items()]
    run(NOTEBOOK, parameters, output_dir=output_dir, force=force, html=True)
