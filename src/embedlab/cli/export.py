"""`embedlab export MODEL OUT [--int8] [--dataset DATA]`: a model for onnxruntime."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING, Annotated, Any

import typer

from embedlab.cli.console import GATE_CLOSED
from embedlab.cli.options import new_output, number

if TYPE_CHECKING:
    from embedlab.deploy.onnx_folder import ExportCard


def export(
    model: Annotated[str, typer.Argument(help="a folder or hub name, with ?max_seq_length=N")],
    out: Annotated[Path, typer.Argument(help="a new folder for the graph, the tokenizer and the card")],
    int8: Annotated[bool, typer.Option("--int8", help="quantise to int8: smaller and faster on a CPU")] = False,
    dataset: Annotated[
        str, typer.Option(help="compare nDCG@10 on its queries: pairs:FILE, beir:FOLDER, icd10cm:mini, …")
    ] = "",
    split: Annotated[str, typer.Option(help="split of the queries")] = "dev",
    max_docs: Annotated[
        int,
        typer.Option(help="most documents to compare on; those near the queries first", callback=number(at_least=1)),
    ] = 10_000,
    budget: Annotated[
        float, typer.Option(help="with --int8: largest tolerated drop of nDCG@10", callback=number(at_least=0))
    ] = 0.01,
    strict: Annotated[bool, typer.Option("--strict", help="also exit with 3 if there are too few queries")] = False,
    side: Annotated[str, typer.Option(help="query or document, for a model with two encoders (Router)")] = "",
) -> None:
    """Export a model to ONNX and compare it with the original; exit with 3 if it differs too much."""
    import torch

    from embedlab.data.load import load_dataset
    from embedlab.deploy.export import export_model
    from embedlab.deploy.parity import Comparison
    from embedlab.models.cache import EmbeddingCache
    from embedlab.models.load import load_model

    new_output(out, "OUT")
    data = load_dataset(dataset, training=False) if dataset else None
    threads = torch.get_num_threads()
    comparison = Comparison(data, split, max_docs, budget, EmbeddingCache().encode, threads)
    card = export_model(load_model(model, packed=False, device="cpu"), out, int8=int8, side=side, comparison=comparison)
    for line in report(card, out):
        typer.echo(line)
    if card.parity["verdict"] == "fail" or (strict and card.parity["verdict"] != "pass"):
        raise typer.Exit(GATE_CLOSED)


def report(card: ExportCard, folder: Path) -> list[str]:
    """Return what was exported and how it compares, one sentence per line."""
    megabytes = sum(file.stat().st_size for file in folder.iterdir()) / 1e6
    parity: dict[str, Any] = card.parity
    lines = [
        f"{folder}: {card.precision}, {card.dimension} dimensions, {megabytes:.1f} MB",
        f"cosine with the model: mean {parity['cosine_mean']:.5f}, lowest {parity['cosine_min']:.5f} "
        f"({parity['texts']:,} texts)",
    ]
    if retrieval := parity["retrieval"]:
        lines.append(
            f"nDCG@10 on {retrieval['dataset']}, {retrieval['split']}, {retrieval['queries']:,} queries, "
            f"{retrieval['documents']:,} documents: model {retrieval['model']:.4f}, export {retrieval['export']:.4f}, "
            f"difference {_interval(retrieval['difference'])}"
        )
        if mixed := retrieval["queries_only"]:
            lines.append(f"the export for queries, the model for documents: difference {_interval(mixed)}")
    return [*lines, f"gate: {parity['verdict']}, {parity['reason']}"]


def _interval(difference: dict[str, float | None]) -> str:
    mean, low, high = (difference[name] for name in ("mean", "low", "high"))
    if mean is None or low is None or high is None:
        return "unknown: too few queries"
    return f"{mean:+.4f} [{low:+.4f}, {high:+.4f}]"
