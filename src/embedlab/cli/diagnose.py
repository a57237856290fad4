"""`embedlab diagnose DATASET`: should you fine-tune?"""

from __future__ import annotations

from typing import TYPE_CHECKING, Annotated

import typer

from embedlab.cli.console import out, print_frame
from embedlab.models.load import BASE_MODEL

if TYPE_CHECKING:
    from embedlab.evaluation.diagnose.params import DiagnoseParams
    from embedlab.evaluation.diagnose.study import Study
    from embedlab.evaluation.diagnose.verdict import Verdict


def diagnose(
    dataset: Annotated[str, typer.Argument(help="pairs:FILE, beir:FOLDER, clicks:FILE, hf:NAME or icd10cm:small")],
    model: Annotated[
        list[str] | None,
        typer.Option("-m", "--model", help="folder, hub name or openai:MODEL@URL; first: base model"),
    ] = None,
    prompt: Annotated[list[str] | None, typer.Option(help="prompts to try: QUERY PROMPT||DOCUMENT PROMPT")] = None,
    chunk: Annotated[list[str] | None, typer.Option(help="chunks to try, in words: '128+32 sentences'")] = None,
    reranker: Annotated[str, typer.Option(help="cross-encoder to try: folder or hub name")] = "",
    filter_field: Annotated[str, typer.Option(help="document field to filter by")] = "",
    filter_known: Annotated[bool, typer.Option("--filter-known", help="the field is known for every query")] = False,
    max_docs: Annotated[int, typer.Option(help="most documents to search; 0: all")] = 0,
    enrich_characters: Annotated[
        int, typer.Option(help="most characters of documents to encode with headings or metadata; 0: none")
    ] = 3_000_000,
    good_enough: Annotated[float, typer.Option(help="nDCG@10 that is high enough without fine-tuning")] = 0.85,
    seed: Annotated[int, typer.Option(help="random seed")] = 0,
) -> None:
    """Try cheaper options first, find out why queries fail, and advise whether to fine-tune.

    Nothing is saved. `embedlab run 01_diagnose -p dataset=DATASET` does the same and records the results.
    """
    from embedlab.evaluation.diagnose.params import DiagnoseParams

    base, *other_models = model or [BASE_MODEL]
    values = {"dataset": dataset, "model_name": base, "other_models": other_models, "reranker": reranker, "seed": seed}
    values |= {"filter_field": filter_field, "filter_known": filter_known, "max_docs": max_docs}
    values |= {"enrich_characters": enrich_characters}
    values |= {name: texts for name, texts in (("prompts", prompt), ("chunkings", chunk)) if texts is not None}
    _show(*_run(DiagnoseParams.checked({**values, "good_enough": good_enough})))


def _run(params: DiagnoseParams) -> tuple[Study, Verdict]:
    from embedlab.data.load import load_dataset
    from embedlab.evaluation.diagnose.remedies import applicable
    from embedlab.evaluation.diagnose.study import Study
    from embedlab.models.encoders import open_encoder

    data = load_dataset(params.dataset, max_examples=params.max_examples or None, training=False)
    study = Study(data, open_encoder(params.model_name), params.max_docs)
    for remedy in applicable(study, params):
        study.compare(remedy)
    return study, study.verdict(params.thresholds())


def _show(study: Study, verdict: Verdict) -> None:
    from embedlab.evaluation.diagnose.failures import count_causes
    from embedlab.evaluation.diagnose.report import headline

    data = study.data
    print_frame(
        headline(study.table()), f"{data.name}: {len(data.corpus):,} documents, test, gain over {study.base.name}"
    )
    for kind, reason in study.left_out.items():
        out.print(f"Left out: {kind}, because {reason}.", markup=False, highlight=False, soft_wrap=True)
    causes = count_causes(study.missed)
    print_frame(causes.loc[causes["n"] > 0, ["cause", "n", "rule", "remedy"]], f"{len(study.missed)} queries miss")
    out.print(str(verdict), markup=False, highlight=False, soft_wrap=True)
