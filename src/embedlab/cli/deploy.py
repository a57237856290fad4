"""Deploy a model: embed, index, promote, compare, monitor, roll back."""

from __future__ import annotations

import shlex
import textwrap
from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Table

from embedlab import paths
from embedlab.cli import deploy_advise, deploy_shards
from embedlab.cli.console import ALARM, err, out, print_frame
from embedlab.cli.options import folder_or_new, number, output_file, writable_folder
from embedlab.errors import ParameterError
from embedlab.escaping import csv_frame
from embedlab.models.load import BASE_MODEL
from embedlab.redaction import redacted

if TYPE_CHECKING:
    from embedlab.data.dataset import Dataset
    from embedlab.deploy.build import Source
    from embedlab.deploy.drift import DriftReport, Search
    from embedlab.deploy.indexes import IndexSpec
    from embedlab.deploy.recheck import Check
    from embedlab.deploy.serve import Served
    from embedlab.deploy.space import ModelEncoder
    from embedlab.deploy.versions import Judged

app = typer.Typer(no_args_is_help=True, help=__doc__)
drift_app = typer.Typer(no_args_is_help=True, help="Check whether new queries or documents differ from before.")
app.add_typer(drift_app, name="drift")
app.add_typer(deploy_shards.app, name="shards")
app.command("advise")(deploy_advise.advise)

SHOWN_TEXT = 300  # characters of a document that a search shows
Root = Annotated[
    Path | None, typer.Option(help="folder of all versions; default results/index", callback=folder_or_new)
]
DatasetSpec = Annotated[str, typer.Option("--dataset", help="icd10cm, beir:FOLDER, pairs:FILE, …")]
ModelName = Annotated[str, typer.Option("--model", help="folder, hub name or openai:MODEL@URL")]
MaybeModel = Annotated[str, typer.Option("--model", help="default: the model of the version")]
Version = Annotated[str, typer.Option("--version", help="FINGERPRINT/BUILD; default: the served version")]


@app.command()
def embed(
    dataset: DatasetSpec,
    model: ModelName = BASE_MODEL,
    root: Root = None,
    dry_run: Annotated[bool, typer.Option("--dry-run", help="only show how much there is to do")] = False,
) -> None:
    """Encode the documents that have no vector yet. If interrupted, run it again to continue."""
    from embedlab.deploy.build import store_of
    from embedlab.deploy.embed import embed_corpus, estimate
    from embedlab.models.api import ApiModel

    encoder, source = _encoder(model), _source(dataset, model)
    store = store_of(_root(root), encoder)
    api_model = getattr(encoder, "model", None)
    if dry_run and isinstance(api_model, ApiModel):  # encoding a sample would cost money
        texts, prompt = [text for _, text in source.documents], encoder.space.document_prompt
        out.print(f"{api_model.for_role('document').estimate(texts, prompt=prompt)}", highlight=False)
        return
    if dry_run:
        ahead = estimate(encoder, source.documents, store)
        time = "" if ahead.seconds is None else f", about {ahead.seconds:.0f} s"
        out.print(f"{ahead.missing:,} of {source.total:,} texts to encode{time}; space {encoder.space.fingerprint}")
        return
    report = embed_corpus(encoder, source.documents, store, total=source.total)
    out.print(f"{report.documents:,} documents: {report.encoded:,} encoded, {report.reused:,} unchanged")


@app.command()
def index(
    dataset: DatasetSpec,
    model: ModelName = BASE_MODEL,
    root: Root = None,
    kind: Annotated[str, typer.Option(help="flat, hnsw, ivf, ivfpq, int8, binary or matryoshka")] = "hnsw",
    split: Annotated[str, typer.Option(help="split to evaluate the version on; empty for none")] = "test",
) -> None:
    """Build and evaluate a new version of the index. `promote` serves it.

    Documents without queries (docs:FOLDER) are indexed and not evaluated.
    """
    from embedlab.deploy.build import build_version
    from embedlab.deploy.recheck import judge
    from embedlab.deploy.versions import read_manifest
    from embedlab.models.truncation import tell_truncation
    from embedlab.search.encoded import judged_queries

    spec, data = _index_spec(kind), _load(dataset, queries=False)
    split = split if any(data.qrels.values()) else ""  # documents alone
    if split:
        judged_queries(data, split)
    encoder = _encoder(model)
    if (encoding := getattr(encoder, "model", None)) is not None:
        tell_truncation(encoding, dataset, documents=data.corpus, queries={})
    assess = (lambda served: judge(served, encoder, data, split)) if split else None
    version, report = build_version(_root(root), encoder, _source(dataset, model, data), spec, assess=assess)
    judged = read_manifest(_root(root), version).judged
    out.print(f"{version}: {report.documents:,} documents, {report.encoded:,} newly encoded", highlight=False)
    out.print(_quality(judged), markup=False, highlight=False)
    out.print(f"Next: embedlab deploy promote {version}{_option(root)}", highlight=False, soft_wrap=True)


def _option(root: Path | None) -> str:
    """The option --root as the user gave it, for a command that follows."""
    return f" --root {shlex.quote(str(root))}" if root else ""


@app.command()
def promote(version: Annotated[str, typer.Argument(help="FINGERPRINT/BUILD")], root: Root = None) -> None:
    """Check a version's files, then serve it."""
    from embedlab.deploy import versions

    folder = _root(root)
    pointer = versions.promote(folder, _name(version))
    previous = f" (before: {pointer.previous[-1]})" if pointer.previous else ""
    out.print(f"served: {pointer.version}{previous}", highlight=False)
    if pointer.previous:
        names = (pointer.version, pointer.previous[-1])
        now, before = (escape(redacted(versions.read_manifest(folder, name).dataset)) for name in names)
        if now != before:
            err.print(
                f"[yellow]This version searches {now}, the one before searched {before}. If these are two collections, "
                "keep each in a folder of its own: --root FOLDER[/yellow]"
            )
    out.print(f"Next: embedlab deploy search 'YOUR QUERY'{_option(root)}", highlight=False, soft_wrap=True)


@app.command()
def rollback(root: Root = None) -> None:
    """Serve the previous version again."""
    from embedlab.deploy import versions

    out.print(f"served: {versions.rollback(_root(root)).version}", highlight=False)


@app.command()
def status(root: Root = None) -> None:
    """List all versions and check their files. → marks the served one. Exits with 1 if a version is damaged."""
    from embedlab.deploy import versions
    from embedlab.errors import StorageError

    folder, damaged = _root(root), []
    pointer = versions.read_pointer(folder)
    for version in versions.versions(folder):
        mark = "→" if pointer and pointer.version == version else " "
        try:
            manifest = versions.verify(folder, version)
        except StorageError as error:
            damaged.append(version)
            state, facts = escape(error.problem), []
        else:
            judged = manifest.judged
            quality = [f"{judged.metric} {judged.value:.3f}"] if judged and judged.value is not None else []
            names = f"model {manifest.model_name}", f"dataset {redacted(manifest.dataset)}"
            state, facts = "ok", [*names, manifest.index.kind, f"{manifest.documents:,} documents", *quality]
        out.print(f"{mark}  {version}  {state}", highlight=False, soft_wrap=True)  # versions are for copying
        if facts:
            out.print(f"     {', '.join(facts)}", highlight=False, markup=False, soft_wrap=True)
    if damaged:
        raise typer.Exit(ALARM)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="the query")],
    root: Root = None,
    version: Version = "",
    model: MaybeModel = "",
    k: Annotated[int, typer.Option("-k", "--k", help="number of documents", callback=number(at_least=1))] = 10,
) -> None:
    """Search a version of the index."""
    if not query.strip():
        raise ParameterError("the query is empty", remedy="Write some words", field="query")
    served = _open(root, version)
    ranking = served.rank(_encoder(model or served.manifest.model_name), {"query": query}, k)
    texts = _load(served.manifest.dataset, queries=False).corpus if served.manifest.dataset else {}
    table = Table("score", "document", "text", title=served.manifest.version, title_justify="left")
    for name, score in ranking.as_candidates()["query"]:
        table.add_row(f"{score:.3f}", name, escape(textwrap.shorten(texts.get(name, ""), SHOWN_TEXT, placeholder=" …")))
    out.print(table)


@app.command()
def shadow(
    candidate: Annotated[str, typer.Argument(help="the version to test: FINGERPRINT/BUILD")],
    root: Root = None,
    log: Annotated[str, typer.Option(help="file with a column query; default: the test queries")] = "",
    dataset: Annotated[str, typer.Option(help="dataset with relevance labels; default: the candidate's")] = "",
    margin: Annotated[
        float, typer.Option(help="largest tolerated loss of nDCG@10", callback=number(at_least=0))
    ] = 0.01,
    slowdown: Annotated[
        float,
        typer.Option(help="largest tolerated factor on the 95th percentile of latency", callback=number(above=0)),
    ] = 1.5,
    report: Annotated[str, typer.Option(help="CSV file for the results of every query")] = "",
) -> None:
    """Replay a query log against the served version and a candidate. Exits with 1 if the candidate is not ready."""
    from embedlab.deploy.shadow import Limits, QueryLog, Side, read_query_log, shadow_test

    output_file(Path(report) if report else None, "--report")

    serving, tested = _open(root, ""), _open(root, candidate)
    spec = dataset or tested.manifest.dataset
    data = _load(spec, queries=not log) if spec else None
    if not log and data is None:
        raise ParameterError("the candidate has no dataset to take queries from", remedy="Give --log", field="--log")
    queries = read_query_log(Path(log)) if log else QueryLog(data.split_queries("test") if data else {}, frozenset())
    limits = Limits(margin=margin, slowdown=slowdown)
    current, new = (Side(served, _encoder(served.manifest.model_name)) for served in (serving, tested))
    result = shadow_test(current, new, queries, qrels=data.qrels.get("test") if data else None, limits=limits)
    if report:
        csv_frame(result.per_query).to_csv(report, index=False)
    for mark, reasons in (("-", result.holds), ("+", result.grounds)):
        for reason in reasons:
            out.print(f"  {mark} {reason}", markup=False, highlight=False)
    means = result.per_query[["overlap", "rbo"]].mean()
    out.print(f"{result.verdict}: overlap@10 {means['overlap']:.2f}, rank-biased overlap {means['rbo']:.2f}")
    raise typer.Exit(ALARM if result.holds else 0)


@drift_app.command("reference")
def drift_reference(
    documents: Annotated[bool, typer.Option("--documents", help="use the documents instead of queries")] = False,
    log: Annotated[str, typer.Option(help="file with a column query; default: the training queries")] = "",
    dataset: Annotated[str, typer.Option(help="default: the version's dataset")] = "",
    root: Root = None,
) -> None:
    """Save a reference for drift checks: queries of a log, or the documents of the served version."""
    from embedlab.deploy.drift import make_reference, save_reference

    served = _open(root, "")
    data = _load(dataset or served.manifest.dataset, queries=not (documents or log))
    path = _reference_file(root, served, documents)
    if documents:
        texts = [data.corpus.get(name, "") for name in served.ids]
        reference = make_reference(served.index.vectors, texts, served.space)
    else:
        texts = list(_log_texts(log) if log else (data.split_queries("train") or data.queries).values())
        encoder = _encoder(served.manifest.model_name)
        vectors, corpus = encoder.encode_queries(texts), data.corpus.values()
        reference = make_reference(vectors, texts, encoder.space, known_texts=corpus, search=_scores(served))
    save_reference(reference, path)
    out.print(f"{len(texts):,} texts saved in {paths.shown(path)}", highlight=False)


@drift_app.command("check")
def drift_check(
    log: Annotated[str, typer.Option(help="file with a column query: recent queries")] = "",
    dataset: Annotated[str, typer.Option(help="check new documents of this dataset instead of a log")] = "",
    root: Root = None,
    alpha: Annotated[float, typer.Option(help="false-alarm rate per check", callback=number(above=0, below=1))] = 0.01,
) -> None:
    """Compare recent queries or new documents with the reference. Exits with 1 on an alarm."""
    from embedlab.deploy.drift import check_drift, load_reference

    if bool(log) == bool(dataset):
        raise ParameterError("expected either --log or --dataset", remedy="Give exactly one of them", field="--log")
    served = _open(root, "")
    texts = _log_texts(log) if log else []
    reference = load_reference(_reference_file(root, served, not log))
    encoder = _encoder(served.manifest.model_name)
    search = _scores(served) if log else None  # a document would find itself
    if log:
        vectors = encoder.encode_queries(texts)
    else:
        served_ids = set(served.ids)
        texts = [text for name, text in _load(dataset, queries=False).corpus.items() if name not in served_ids]
        vectors = encoder.encode_documents(texts) if texts else served.index.vectors[:0]
    drift = check_drift(reference, vectors, texts, encoder.space, search=search, alpha=alpha)
    _show_drift(drift, len(texts))
    raise typer.Exit(ALARM if drift.alarms else 0)


def _show_drift(drift: DriftReport, count: int) -> None:
    print_frame(drift.table.round(4), f"{count:,} texts, false-alarm rate {drift.alpha:g}")
    for text in drift.unusual["text"].head(5):
        out.print(f"  unlike the reference: {text}", markup=False)
    if drift.new_words:
        words = ", ".join(f"{word} ({texts:,})" for word, texts in drift.new_words[:5])
        out.print(f"  words that the reference does not have (number of texts): {words}", markup=False)
    for sentence in drift.advice:
        out.print(f"[yellow]{sentence}[/yellow]")


@app.command()
def recheck(
    dataset: Annotated[str, typer.Option(help="new data; default: the version's dataset, read again")] = "",
    root: Root = None,
    version: Version = "",
) -> None:
    """Repeat a version's evaluation on new data and log the result. Exits with 1 if it has become worse."""
    from embedlab.data.load import source_fingerprint
    from embedlab.deploy.recheck import checks_file, read_checks
    from embedlab.deploy.recheck import recheck as check_again

    manifest = _open(root, version).manifest
    spec = dataset or (manifest.judged.dataset if manifest.judged else manifest.dataset)
    encoder, data, folder = _encoder(manifest.model_name), _load(spec), _root(root)
    fingerprint = source_fingerprint(spec)
    check = check_again(folder, encoder, data, version=manifest.version, data_fingerprint=fingerprint)
    out.print(f"now: {_quality(check.found)}", markup=False, highlight=False)
    out.print(f"when it was built: {_quality(check.stored)}", markup=False, highlight=False)
    out.print(f"{check.missing_documents:,} documents are new since then, {check.gone_documents:,} are gone")
    out.print(f"saved in {paths.shown(checks_file(folder, manifest.version))}", highlight=False)
    _show_checks(read_checks(folder, manifest.version))
    raise typer.Exit(ALARM if check.worse else 0)


def _show_checks(checks: Sequence[Check]) -> None:
    """Print all checks of a version, if there are earlier ones."""
    import pandas as pd

    if len(checks) > 1:
        rows = [
            {
                "time": check.time,
                "quality": _quality(check.found),
                "missing": check.missing_documents,
                "gone": check.gone_documents,
                "worse": "yes" if check.worse else "",
            }
            for check in checks
        ]
        print_frame(pd.DataFrame(rows), f"{len(checks)} checks so far")


@app.command()
def export(
    target: Annotated[str, typer.Argument(help="folder, address of a Qdrant server, or postgresql://HOST/DATABASE")],
    to: Annotated[str, typer.Option(help="lancedb, qdrant or postgresql; default: what the target can be")] = "",
    root: Root = None,
    version: Version = "",
) -> None:
    """Export a version with texts and metadata to a LanceDB, Qdrant or PostgreSQL database."""
    from embedlab.deploy.lance import export_lance
    from embedlab.deploy.postgres import export_postgres
    from embedlab.deploy.qdrant import export_qdrant

    kinds, shown = _databases(target)
    kind = to or kinds[0]
    if kind not in kinds:
        remedy = "Choose lancedb or qdrant for a folder; qdrant for http://; postgresql for postgresql://"
        raise ParameterError(f"cannot export to {shown} as {kind!r}", remedy=remedy, field="--to")
    if "lancedb" in kinds:
        writable_folder(Path(target), "target")
    served = _open(root, version)
    data = _load(served.manifest.dataset, queries=False)
    if kind == "postgresql":
        rows = export_postgres(served, target, data.corpus, data.fields)
    elif kind == "qdrant":
        rows = export_qdrant(served, target, data.corpus, data.fields)
    else:
        rows = export_lance(served, Path(target), data.corpus, data.fields)
    out.print(f"{rows:,} documents of {served.manifest.version} in {shown}", markup=False, highlight=False)


@app.command("import")
def import_vectors(
    source: Annotated[str, typer.Argument(help="Qdrant folder or address, or postgresql://; written by `export`")],
    model: ModelName = BASE_MODEL,
    root: Root = None,
) -> None:
    """Take the vectors of a Qdrant or PostgreSQL database, so that `index` does not encode their texts again."""
    from embedlab.deploy.build import store_of
    from embedlab.deploy.postgres import import_postgres
    from embedlab.deploy.qdrant import import_qdrant

    kinds, shown = _databases(source)
    if "lancedb" in kinds and not Path(source).is_dir():
        raise ParameterError(f"there is no folder {source!r}", remedy="Give the folder of a database", field="source")
    encoder = _encoder(model)
    take = import_postgres if "postgresql" in kinds else import_qdrant
    imported = take(source, encoder, store_of(_root(root), encoder))
    text = f"{imported.points:,} vectors in {shown}, {imported.added:,} of them new here"
    out.print(text, markup=False, highlight=False)


def _databases(target: str) -> tuple[tuple[str, ...], str]:
    """Return the kinds of database that a target can be, the default first, and the target without a password."""
    from embedlab.deploy.postgres import is_postgres, shown_address
    from embedlab.deploy.qdrant import is_address

    if is_postgres(target):
        return ("postgresql",), shown_address(target)
    return (("qdrant",) if is_address(target) else ("lancedb", "qdrant")), redacted(target)


def _root(root: Path | None) -> Path:
    return root or paths.index_dir()


def _encoder(model: str) -> ModelEncoder:
    from embedlab.deploy.space import ModelEncoder
    from embedlab.models.load import open_model

    return ModelEncoder(open_model(model))


def _load(spec: str, *, queries: bool = True) -> Dataset:
    from embedlab.data.load import load_dataset

    return load_dataset(spec, training=False, queries=queries)


def _source(spec: str, model: str, data: Dataset | None = None) -> Source:
    from embedlab.data.load import source_fingerprint
    from embedlab.deploy.build import Source

    corpus = (data or _load(spec, queries=False)).corpus
    return Source(corpus.items(), spec, lambda: source_fingerprint(spec), len(corpus), model)


def _index_spec(kind: str) -> IndexSpec:
    from pydantic import ValidationError

    from embedlab.deploy.indexes import KINDS, IndexSpec

    try:
        return IndexSpec.model_validate({"kind": kind})
    except ValidationError:
        remedy = f"Choose one of {', '.join(KINDS)}"
        raise ParameterError(f"unknown kind of index {kind!r}", remedy=remedy, field="kind") from None


def _open(root: Path | None, version: str) -> Served:
    from embedlab.deploy.serve import open_version

    return open_version(_root(root), _name(version) or None)


def _name(version: str) -> str:
    """Return the name of a version; completion in a shell ends a folder's name with a slash."""
    return version.strip().rstrip("/")


def _log_texts(log: str) -> list[str]:
    from embedlab.deploy.shadow import read_query_log

    return list(read_query_log(Path(log)).queries.values())


def _scores(served: Served) -> Search:
    return lambda vectors: served.search(vectors, served.space, 1)[0]


def _reference_file(root: Path | None, served: Served, documents: bool) -> Path:
    """Return the reference file of a version; search scores differ between versions."""
    return _root(root) / f"{served.manifest.version}.{'documents' if documents else 'queries'}.npz"


def _quality(judged: Judged | None) -> str:
    """Format an evaluation for people."""
    if judged is None or judged.value is None:
        return "not evaluated"
    interval = "" if judged.ci_low is None else f" [{judged.ci_low:.3f}, {judged.ci_high:.3f}]"
    return f"{judged.metric} {judged.value:.3f}{interval}, n = {judged.n}, {judged.dataset}"
