"""Ship a model: embed, index, promote, compare, watch, roll back."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING, Annotated

import typer
from rich.markup import escape
from rich.table import Column, Table

from embedlab import paths
from embedlab.cli.console import ALARM, out, print_frame
from embedlab.models.load import BASE_MODEL

if TYPE_CHECKING:
    from embedlab.data.dataset import Dataset
    from embedlab.deploy.build import Source
    from embedlab.deploy.drift import DriftReport, Search
    from embedlab.deploy.recheck import Check
    from embedlab.deploy.serve import Served
    from embedlab.deploy.space import ModelEncoder
    from embedlab.deploy.versions import Judged

app = typer.Typer(no_args_is_help=True, help=__doc__)
drift_app = typer.Typer(no_args_is_help=True, help="Has what comes in changed?")
app.add_typer(drift_app, name="drift")

Root = Annotated[Path | None, typer.Option(help="folder of all versions; results/index when not given")]
DatasetSpec = Annotated[str, typer.Option("--dataset", help="dataset spec: icd10cm, beir:FOLDER, pairs:FILE, …")]
ModelName = Annotated[str, typer.Option("--model", help="short name, folder or hub name")]
MaybeModel = Annotated[str, typer.Option("--model", help="the version's own model when not given")]
Version = Annotated[str, typer.Option("--version", help="FINGERPRINT/BUILD; the served one when not given")]
DATASET = "icd10cm:small"


@app.command()
def embed(
    dataset: DatasetSpec = DATASET,
    model: ModelName = BASE_MODEL,
    root: Root = None,
    dry_run: Annotated[
        bool, typer.Option("--dry-run", help="only say what there is to do and how long it takes")
    ] = False,
) -> None:
    """Encode what has no vector yet; run again after a kill, it goes on where it was."""
    from embedlab.deploy.build import store_of
    from embedlab.deploy.embed import embed_corpus, estimate

    encoder, source = _encoder(model), _source(dataset, model)
    store = store_of(_root(root), encoder)
    if dry_run:
        ahead = estimate(encoder, source.documents, store)
        time = "" if ahead.seconds is None else f", about {ahead.seconds:.0f} s"
        out.print(f"{ahead.missing:,} of {source.total:,} texts to encode{time}; space {encoder.space.fingerprint}")
        return
    report = embed_corpus(encoder, source.documents, store, total=source.total)
    out.print(f"{report.documents:,} documents: {report.encoded:,} encoded, {report.reused:,} as they were")


@app.command()
def index(
    dataset: DatasetSpec = DATASET,
    model: ModelName = BASE_MODEL,
    root: Root = None,
    kind: Annotated[str, typer.Option(help="flat, hnsw, ivf, ivfpq, int8, binary or matryoshka")] = "hnsw",
    split: Annotated[str, typer.Option(help="queries that judge the version; empty for none")] = "test",
) -> None:
    """Build a version, judge it and give it its name; it is not served yet."""
    from embedlab.deploy.build import build_version
    from embedlab.deploy.recheck import judge
    from embedlab.deploy.versions import read_manifest

    spec, data, encoder = _index_spec(kind), _load(dataset), _encoder(model)
    assess = (lambda served: judge(served, encoder, data, split)) if split else None
    version, report = build_version(_root(root), encoder, _source(dataset, model, data), spec, assess=assess)
    judged = read_manifest(_root(root), version).judged
    out.print(f"{version}: {report.documents:,} documents, {report.encoded:,} newly encoded", highlight=False)
    out.print(_quality(judged), markup=False, highlight=False)


@app.command()
def promote(version: Annotated[str, typer.Argument(help="FINGERPRINT/BUILD")], root: Root = None) -> None:
    """Check a version's files and serve it from now on."""
    from embedlab.deploy import versions

    pointer = versions.promote(_root(root), version)
    before = f" (before: {pointer.previous[-1]})" if pointer.previous else ""
    out.print(f"served: {pointer.version}{before}", highlight=False)


@app.command()
def rollback(root: Root = None) -> None:
    """Serve the version before the current one again."""
    from embedlab.deploy import versions

    out.print(f"served: {versions.rollback(_root(root)).version}", highlight=False)


@app.command()
def status(root: Root = None) -> None:
    """List all versions, whether their files are whole, and which is served (→); exits 1 when one is damaged."""
    from embedlab.deploy import versions
    from embedlab.errors import StorageError

    folder, damaged = _root(root), []
    pointer = versions.read_pointer(folder)
    others = (Column(name, overflow="fold") for name in ("model", "index", "documents", "quality", "files"))
    # The version is there to be copied: it keeps its width and the other columns give way.
    table = Table(Column(""), Column("version", no_wrap=True, min_width=29), *others, box=None, pad_edge=False)
    for version in versions.versions(folder):
        mark = "→" if pointer and pointer.version == version else ""
        try:
            found = versions.verify(folder, version)
            value = found.judged.value if found.judged else None
            about = found.model_name, found.index.kind, f"{found.documents:,}", "" if value is None else f"{value:.3f}"
            table.add_row(mark, version, *about, "whole")
        except StorageError as error:
            damaged.append(version)
            table.add_row(mark, version, "", "", "", "", escape(error.problem))
    out.print(table)
    if damaged:
        raise typer.Exit(ALARM)


@app.command()
def search(
    query: Annotated[str, typer.Argument(help="what to look for")],
    root: Root = None,
    version: Version = "",
    model: MaybeModel = "",
    k: Annotated[int, typer.Option(help="documents to show")] = 10,
) -> None:
    """Search a version; vectors of another model are refused."""
    served = _open(root, version)
    ranking = served.rank(_encoder(model or served.manifest.model_name), {"query": query}, k)
    texts = _load(served.manifest.dataset).corpus if served.manifest.dataset else {}
    table = Table("score", "document", "text", title=served.manifest.version, title_justify="left")
    for name, score in ranking.as_candidates()["query"]:
        table.add_row(f"{score:.3f}", name, escape(texts.get(name, "")))
    out.print(table)


@app.command()
def shadow(
    candidate: Annotated[str, typer.Argument(help="FINGERPRINT/BUILD that may be promoted")],
    root: Root = None,
    log: Annotated[str, typer.Option(help="file with a column query; the test queries when not given")] = "",
    dataset: Annotated[str, typer.Option(help="judgements; the candidate's dataset when not given")] = "",
    margin: Annotated[float, typer.Option(help="loss of nDCG@10 that is tolerated")] = 0.01,
    slowdown: Annotated[float, typer.Option(help="factor on the 95th percentile of latency that is tolerated")] = 1.5,
    report: Annotated[str, typer.Option(help="CSV file for the answers query by query")] = "",
) -> None:
    """Replay a query log against the served version and a candidate; exits 1 on hold."""
    from embedlab.deploy.shadow import Limits, QueryLog, Side, read_query_log, shadow_test

    sides = [Side(side, _encoder(side.manifest.model_name)) for side in (_open(root, ""), _open(root, candidate))]
    spec = dataset or sides[1].served.manifest.dataset
    data = _load(spec) if spec else None
    queries = read_query_log(Path(log)) if log else QueryLog(data.split_queries("test"), frozenset())
    qrels, limits = (data.qrels.get("test") if data else None), Limits(margin=margin, slowdown=slowdown)
    found = shadow_test(*sides, queries, qrels=qrels, limits=limits)
    if report:
        found.per_query.to_csv(report, index=False)
    for mark, reasons in (("-", found.holds), ("+", found.grounds)):
        for reason in reasons:
            out.print(f"  {mark} {reason}", markup=False, highlight=False)
    means = found.per_query[["overlap", "rbo"]].mean()
    out.print(f"{found.verdict}: overlap@10 {means['overlap']:.2f}, rank-biased overlap {means['rbo']:.2f}")
    raise typer.Exit(ALARM if found.holds else 0)


@drift_app.command("reference")
def drift_reference(
    documents: Annotated[bool, typer.Option("--documents", help="of the version's documents, not of queries")] = False,
    log: Annotated[str, typer.Option(help="file with a column query; the training queries when not given")] = "",
    dataset: Annotated[str, typer.Option(help="the version's dataset when not given")] = "",
    root: Root = None,
) -> None:
    """Keep what is normal for the served version: its documents, or the queries of a log."""
    from embedlab.deploy.drift import make_reference, save_reference

    served = _open(root, "")
    data, path = _load(dataset or served.manifest.dataset), _reference_file(root, served, documents)
    if documents:
        texts = [data.corpus.get(name, "") for name in served.ids]
        reference = make_reference(served.index.vectors, texts, served.space)
    else:
        encoder = _encoder(served.manifest.model_name)
        texts = list(_log_texts(log) if log else data.split_queries("train").values())
        vectors, known = encoder.encode_queries(texts), data.corpus.values()
        reference = make_reference(vectors, texts, encoder.space, known_texts=known, search=_scores(served))
    save_reference(reference, path)
    out.print(f"{len(texts):,} texts kept in {paths.shown(path)}", highlight=False)


@drift_app.command("check")
def drift_check(
    log: Annotated[str, typer.Option(help="file with a column query: what was asked lately")] = "",
    dataset: Annotated[str, typer.Option(help="instead of a log: check the documents that the version lacks")] = "",
    root: Root = None,
    alpha: Annotated[float, typer.Option(help="chance of a false alarm per check")] = 0.01,
) -> None:
    """Compare what came in with the reference; made for a scheduler, exits 1 on alarm."""
    from embedlab.deploy.drift import check_drift, load_reference
    from embedlab.errors import ParameterError

    if bool(log) == bool(dataset):
        raise ParameterError("there is not one thing to check", remedy="Give either --log or --dataset", field="--log")
    served = _open(root, "")
    reference = load_reference(_reference_file(root, served, not log))
    encoder = _encoder(served.manifest.model_name)
    if log:
        texts, search = _log_texts(log), _scores(served)
        vectors = encoder.encode_queries(texts)
    else:
        held, search = set(served.ids), None  # a document would find itself
        texts = [text for name, text in _load(dataset).corpus.items() if name not in held]
        vectors = encoder.encode_documents(texts) if texts else served.index.vectors[:0]
    found = check_drift(reference, vectors, texts, encoder.space, search=search, alpha=alpha)
    _show_drift(found, len(texts))
    raise typer.Exit(ALARM if found.alarms else 0)


def _show_drift(found: DriftReport, count: int) -> None:
    print_frame(found.table.round(4), f"{count:,} texts, false-alarm rate {found.alpha:g}")
    for text in found.unusual["text"].head(5):
        out.print(f"  unlike anything before: {text}", markup=False)
    for sentence in found.advice:
        out.print(f"[yellow]{sentence}[/yellow]")


@app.command()
def recheck(
    dataset: Annotated[str, typer.Option(help="fresh data; the version's own spec, read again, when not given")] = "",
    root: Root = None,
    version: Version = "",
) -> None:
    """Make the stored evaluation again on fresh data and keep the line; exits 1 when the version has become worse."""
    from embedlab.data.load import source_fingerprint
    from embedlab.deploy.recheck import checks_file, read_checks
    from embedlab.deploy.recheck import recheck as check_again

    manifest = _open(root, version).manifest
    spec = dataset or (manifest.judged.dataset if manifest.judged else manifest.dataset)
    encoder, data, folder = _encoder(manifest.model_name), _load(spec), _root(root)
    fingerprint = source_fingerprint(spec)
    found = check_again(folder, encoder, data, version=manifest.version, data_fingerprint=fingerprint)
    out.print(f"now: {_quality(found.found)}", markup=False, highlight=False)
    out.print(f"when it was built: {_quality(found.stored)}", markup=False, highlight=False)
    out.print(f"{found.missing_documents:,} documents are not in the version, {found.gone_documents:,} are gone")
    out.print(f"kept in {paths.shown(checks_file(folder, manifest.version))}", highlight=False)
    _show_checks(read_checks(folder, manifest.version))
    raise typer.Exit(ALARM if found.worse else 0)


def _show_checks(checks: Sequence[Check]) -> None:
    """Every check of a version so far, where there is more than the one just made."""
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
    folder: Annotated[Path, typer.Argument(help="folder of the LanceDB database")],
    root: Root = None,
    version: Version = "",
) -> None:
    """Write a version with texts and metadata to a LanceDB database."""
    from embedlab.deploy.lance import export_lance

    served = _open(root, version)
    data = _load(served.manifest.dataset)
    rows = export_lance(served, folder, data.corpus, data.fields)
    out.print(f"{rows:,} documents of {served.manifest.version} in {folder}", highlight=False)


def _root(root: Path | None) -> Path:
    return root or paths.index_dir()


def _encoder(model: str) -> ModelEncoder:
    from embedlab.deploy.space import ModelEncoder
    from embedlab.models.load import load_model

    return ModelEncoder(load_model(model))


def _load(spec: str) -> Dataset:
    from embedlab.data.load import load_dataset

    return load_dataset(spec)


def _source(spec: str, model: str, data: Dataset | None = None) -> Source:
    from embedlab.data.load import source_fingerprint
    from embedlab.deploy.build import Source

    corpus = (data or _load(spec)).corpus
    return Source(corpus.items(), spec, lambda: source_fingerprint(spec), len(corpus), model)


def _index_spec(kind: str) -> object:
    from pydantic import ValidationError

    from embedlab.deploy.indexes import KINDS, IndexSpec
    from embedlab.errors import ParameterError

    try:
        return IndexSpec(kind=kind)
    except ValidationError:
        remedy = f"Choose one of {', '.join(KINDS)}"
        raise ParameterError(f"there is no index {kind!r}", remedy=remedy, field="kind") from None


def _open(root: Path | None, version: str) -> Served:
    from embedlab.deploy.serve import open_version

    return open_version(_root(root), version or None)


def _log_texts(log: str) -> list[str]:
    from embedlab.deploy.shadow import read_query_log

    return list(read_query_log(Path(log)).queries.values())


def _scores(served: Served) -> Search:
    return lambda vectors: served.search(vectors, served.space, 1)[0]


def _reference_file(root: Path | None, served: Served, documents: bool) -> Path:
    """One reference per version, for its scores depend on the version's index."""
    return _root(root) / f"{served.manifest.version}.{'documents' if documents else 'queries'}.npz"


def _quality(judged: Judged | None) -> str:
    """A judgement as people read it."""
    if judged is None or judged.value is None:
        return "not judged"
    interval = "" if judged.ci_low is None else f" [{judged.ci_low:.3f}, {judged.ci_high:.3f}]"
    return f"{judged.metric} {judged.value:.3f}{interval}, n = {judged.n}, {judged.dataset}"
