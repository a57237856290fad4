"""`embedlab diagnose DATASET`: should you fine-tune?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embedlab.cli.console import out, print_frame
from embedlab.models.load import BASE_MODEL

if TYPE_CHECKING:
    from embedlab.evaluation.diagnose.study import Study


def diagnose(
    dataset: Annotated[str, typer.Argument(help="a dataset spec: beir:FOLDER, pairs:FILE, icd10cm:small, hf:NAME")],
    model: Annotated[
        list[str] | None, typer.Option("-m", "--model", help="a folder, a hub name or openai:MODEL@URL; first = base")
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="QUERY PROMPT||DOCUMENT PROMPT to try")] = None,
    chunk: Annotated[list[str] | None, typer.Option(help="chunks to try in words, e.g. '128+32 sentences'")] = None,
    reranker: Annotated[str, typer.Option(help="a cross-encoder: a folder or a hub name")] = "",
    filter_field: Annotated[str, typer.Option(help="metadata field of the documents to filter by")] = "",
    filter_known: Annotated[bool, typer.Option("--filter-known", help="the field is known with every query")] = False,
    max_docs: Annotated[int, typer.Option(help="search at most so many documents; 0 = all")] = 0,
    good_enough: Annotated[float, typer.Option(help="nDCG@10 that needs no help")] = 0.85,
    seed: Annotated[int, typer.Option(help="of the probe")] = 0,
) -> None:
    """Measure what could be done before fine-tuning, say why queries miss, and what to do.

    Nothing is kept: `embedlab run 01_diagnose -p dataset=DATASET` does the same as a run with a record.
    """
    from embedlab.evaluation.diagnose.params import DiagnoseParams

    base, *others = model or [BASE_MODEL]
    values = {"dataset": dataset, "model_name": base, "other_models": others, "reranker": reranker, "seed": seed}
    values |= {"filter_field": filter_field, "filter_known": filter_known, "max_docs": max_docs}
    values |= {name: given for name, given in (("prompts", prompt), ("chunkings", chunk)) if given is not None}
    _show(*_run(DiagnoseParams.checked({**values, "good_enough": good_enough})))


def _run(params: object) -> tuple[Study, object]:
    from embedlab.data.load import load_dataset
    from embedlab.evaluation.diagnose.remedies import applicable
    from embedlab.evaluation.diagnose.study import Study
    from embedlab.models.encoders import open_encoder

    data = load_dataset(params.dataset, max_examples=params.max_examples or None)
    study = Study(data, open_encoder(params.model_name), params.max_docs)
    for remedy in applicable(study, params):
        study.compare(remedy)
    return study, study.verdict(params.thresholds())


def _show(study: Study, verdict: object) -> None:
    from embedlab.evaluation.diagnose.failures import count_causes
    from embedlab.evaluation.diagnose.report import headline

    data = study.data
    print_frame(
        headline(study.table()), f"{data.name}: {len(data.corpus):,} documents, test, gain over {study.base.name}"
    )
    causes = count_causes(study.missed)
    print_frame(causes.loc[causes["n"] > 0, ["cause", "n", "rule", "remedy"]], f"{len(study.missed)} queries miss")
    out.print(str(verdict), markup=False, highlight=False, soft_wrap=True)
