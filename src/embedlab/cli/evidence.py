"""Commands around a finished model: `embedlab evidence`, `verify`, `push`."""

from __future__ import annotations

from contextlib import chdir
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.table import Table

from embedlab import paths
from embedlab.cli.console import GATE_CLOSED, out
from embedlab.cli.options import folder_or_new
from embedlab.errors import EmbedlabError, ModelError, ParameterError
from embedlab.models.api import is_api_name

if TYPE_CHECKING:
    from embedlab.data.dataset import Dataset
    from embedlab.evaluation.verify import Check, Rescored
    from embedlab.models.evidence import Evidence, Score
    from embedlab.runs.records import Record

ModelDir = Annotated[Path, typer.Argument(help="folder of a model, such as results/runs/RUN_ID/model")]
DECIDING = ("ndcg@10", "recall@10", "mrr@10")


def evidence(
    run_id: Annotated[str, typer.Argument(help="a finished run that saved a model")],
    mteb: Annotated[
        Path | None, typer.Option(help="also write mteb's result file to this result cache", callback=folder_or_new)
    ] = None,
    output_dir: Annotated[
        str, typer.Option(help="folder of the runs; default results/runs", callback=folder_or_new)
    ] = "",
) -> None:
    """Write the model card and evidence.json of a run's models from its record, for example for an older run."""
    from embedlab.io import confined
    from embedlab.models.evidence import read
    from embedlab.runs import records
    from embedlab.runs.evidence import write_evidence

    with paths.runs_in(output_dir):
        folder = confined(paths.runs_dir(), run_id, field="run")
        record = records.read(folder)
        written = write_evidence(record, folder, _data_of(record))
    if not written:
        remedy = "Run the notebook again with --force to make the model"
        raise ModelError("the run's folder has no model that its record knows", remedy=remedy, file=folder)
    for model_folder in written:
        out.print(f"  {paths.shown(model_folder)}", highlight=False)
        if mteb:
            from embedlab.evaluation.mteb_files import write_mteb_result

            out.print(f"  {paths.shown(write_mteb_result(read(model_folder), mteb))}", highlight=False)


def _data_of(record: Record) -> Dataset | None:
    """The dataset of a run, if its files are still there and the same."""
    from embedlab.data.load import load_dataset
    from embedlab.runs.inputs import data_fingerprint

    spec = str(record.parameters.get("dataset") or "")
    try:
        if spec and data_fingerprint(spec) == record.data_fingerprint:
            with chdir(paths.project_root()):  # where relative paths of parameters start
                return load_dataset(spec)
        reason = "the files behind it have changed"
    except EmbedlabError as error:
        reason = str(error)
    out.print(
        f"Without slices and the report on leaks: {spec or 'no dataset'} ({reason})", style="yellow", markup=False
    )
    return None


def verify(
    model: ModelDir,
    dataset: Annotated[str, typer.Argument(help="the data of the evidence: pairs:FILE, beir:FOLDER, icd10cm:small, …")],
    base: Annotated[str, typer.Option(help="the base model, if the evidence names a folder")] = "",
    other_data: Annotated[bool, typer.Option("--other-data", help="score other data, without a comparison")] = False,
) -> None:
    """Score a model and its base model again: are the values inside the published intervals? Exit code 3 if not.

    Raises an error if the evidence belongs to another model, or to other data.
    """
    from embedlab.data.load import load_dataset, source_fingerprint
    from embedlab.evaluation.verify import require_evidence_of, require_same_base, require_same_data, rescore
    from embedlab.models.evidence import read
    from embedlab.models.load import open_model

    published = read(model)
    tuned = open_model(str(model))
    require_evidence_of(published, model, tuned)
    data = load_dataset(dataset, training=not other_data)
    if not other_data:
        require_same_data(published, data, source_fingerprint(dataset))
    base_name = base or _base_name(published)
    base_model = open_model(base_name)
    require_same_base(published, base_model, base_name)
    rescored = rescore(tuned, base_model, data)
    if other_data:
        notice = "These data may differ from those of the evidence: the published intervals do not apply to them."
        out.print(notice, soft_wrap=True)
        _show_scores(rescored)
        return
    checks = rescored.compare(published)
    _show_checks([check for check in checks if check.published.metric in DECIDING or not check.is_inside])
    outside = sum(not check.is_inside for check in checks)
    if outside:
        out.print(f"{outside} of {len(checks)} values are outside the published interval.", style="red", soft_wrap=True)
        raise typer.Exit(GATE_CLOSED)
    out.print(f"All {len(checks)} values are inside the published intervals of {published.run_id}.", highlight=False)


def _base_name(published: Evidence) -> str:
    if not published.base.hub_name and not is_api_name(published.base.name):
        problem = f"the evidence names the base model {published.base.name!r}, a folder"
        raise ParameterError(problem, remedy="Give its path with --base", field="--base")
    return published.base.name


def _show_checks(checks: list[Check]) -> None:
    table = Table("metric", "of", "published", "now", "inside")
    for check in checks:
        sign = "+" if check.subject == "gain" else ""
        inside = "yes" if check.is_inside else "[red]no[/red]"
        table.add_row(
            check.published.metric, check.subject, _cell(check.published, sign), f"{check.value:{sign}.4f}", inside
        )
    out.print(table)


def _show_scores(rescored: Rescored) -> None:
    table = Table("metric", "of", "now", "queries")
    for subject, score in rescored.table(list(DECIDING)):
        table.add_row(score.metric, subject, _cell(score, "+" if subject == "gain" else ""), str(score.n))
    out.print(table)


def _cell(score: Score, sign: str) -> str:
    if score.value is None:
        return "missing"
    interval = f" [{score.ci_low:{sign}.4f}, {score.ci_high:{sign}.4f}]" if score.has_interval else ""
    return f"{score.value:{sign}.4f}{interval}".replace("[", "\\[")


def push(
    model: ModelDir,
    repo_id: Annotated[str, typer.Argument(help="OWNER/NAME on the Hugging Face hub; created if needed")],
    data: Annotated[str, typer.Option(help="the training data, whose texts must not be in the files")] = "",
    without_texts: Annotated[
        bool, typer.Option("--without-text-scan", help="do not look for training texts, for example of public data")
    ] = False,
    public: Annotated[bool, typer.Option("--public", help="everybody may see it; default: private")] = False,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="list the files and the result of the scan only")] = False,
) -> None:
    """Upload a model folder to the Hugging Face hub, private unless you say otherwise.

    The files are scanned first: training texts, keys and folders of this machine stop the upload.
    """
    from embedlab.deploy.hub import prepare_upload
    from embedlab.deploy.hub import push as upload_model

    if bool(data) == without_texts:
        problem = "give the training data, or say that texts are not looked for"
        raise ParameterError(problem, remedy="Add --data DATA, or --without-text-scan", field="--data")
    upload = prepare_upload(model, _texts_of(data) if data else ())
    table = Table(
        "file", "bytes", title=f"{model} → {repo_id}, {'public' if public else 'private'}", title_justify="left"
    )
    for name, size in upload.sizes.items():
        table.add_row(name, f"{size:,}")
    out.print(table)
    upload.require_clean()
    out.print("Nothing found: no training texts, keys or folders." if data else "Nothing found: no keys or folders.")
    if dry_run:
        out.print("Nothing was uploaded (--dry-run).")
        return
    out.print(f"uploaded to {upload_model(upload, repo_id, private=not public)}", highlight=False, markup=False)


def _texts_of(spec: str) -> list[str]:
    """All texts of a dataset: queries, documents, and those of triplets and graded pairs."""
    from embedlab.data.load import load_dataset

    dataset = load_dataset(spec, queries=False)
    texts = [*dataset.queries.values(), *dataset.corpus.values()]
    texts += [text for triplet in dataset.triplets for text in triplet]
    return texts + [text for pair in dataset.graded_pairs for text in (pair.text1, pair.text2)]
