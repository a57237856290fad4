"""`embedlab convert IN OUT`: from one file format to another."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedlab.cli.options import number


def convert(
    source: Annotated[Path, typer.Argument(metavar="IN", help="a file or folder in any of the formats")],
    target: Annotated[Path, typer.Argument(metavar="OUT", help="a new file, or a new folder for BEIR and datasets")],
    to: Annotated[str, typer.Option(help="flagembedding, tevatron, beir, …; default by the suffix of OUT")] = "",
    source_format: Annotated[str, typer.Option("--from", help="format of IN; default: by its content")] = "",
    run: Annotated[Path | None, typer.Option(help="TREC run whose documents become hard negatives")] = None,
    negatives: Annotated[
        int, typer.Option(help="with --run: hard negatives per query", callback=number(at_least=1))
    ] = 5,
) -> None:
    """Convert training pairs and judgements to another format, and say what cannot be kept."""
    from embedlab.data.formats.convert import convert as convert_file

    for line in convert_file(source, target, to, format_name=source_format, run=run, negatives=negatives):
        typer.echo(line)
