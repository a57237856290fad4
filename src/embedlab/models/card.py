"""Model cards: `README.md` of a model folder, for people and for the hub."""

from __future__ import annotations

from collections.abc import Iterable, Mapping, Sequence
from pathlib import Path

from embedlab.escaping import markdown, markdown_cell
from embedlab.finding import Finding, finding
from embedlab.models.evidence import CARD, SCORED, Evidence, Score, SliceDifference, TaskDifference
from embedlab.models.static_table import TOKENIZER

LIBRARY = "sentence-transformers"
API = "ApiModel"
UNTRAINED = "**Not tuned:** no training step beat the start on dev, so this model has the base model's weights."
TASKS = {
    "SentenceTransformer": "sentence-similarity",
    "CrossEncoder": "text-ranking",
    "SparseEncoder": "feature-extraction",
    "MultiVectorEncoder": "sentence-similarity",
    API: "sentence-similarity",
}
LABELS = {"ndcg": "nDCG", "recall": "Recall", "precision": "Precision", "mrr": "MRR", "map": "MAP"}
INDEX_METRICS = ("ndcg@10", "recall@10", "precision@10", "mrr@10", "map@10")  # that the hub shows

SHOWN = {
    Finding.TOO_FEW: "These are too few queries to show a gain.",
    Finding.GAIN: "The interval excludes 0: the gain is established on these queries.",
    Finding.LOSS: "The interval excludes 0: the model is worse than its base model.",
    Finding.NEITHER: "The interval includes 0: these queries do not show a gain.",
}


def plain_card(folder: Path, kind: str, base: str, facts: Mapping[str, str]) -> str:
    """Return the card of a model without evidence.

    Args:
        folder: the model's folder.
        kind: class of sentence-transformers, such as "CrossEncoder".
        base: name of the base model; "" if it is not known.
        facts: further lines, such as {"Run": "03_contrastive-1a2b3c4d-s0"}.
    """
    described = {"Base model": base, **facts} if base else dict(facts)
    lines = [f"- {name}: {' '.join(str(value).split())}" for name, value in described.items()]
    front = [f"library_name: {LIBRARY}", f"pipeline_tag: {TASKS.get(kind, TASKS['SentenceTransformer'])}"]
    front += [f"base_model: {base}"] if _on_hub(base) else []
    facts_text = "\n".join(lines) or "No facts are known about its training."
    parts = ["---", *front, "---", "", f"# {folder.name}", "", facts_text, "", *_loading(folder, kind)]
    return "\n".join(parts)


def write_card(evidence: Evidence, folder: Path, *, name: str = "") -> Path:
    """Write the card of a model with evidence, and return the file.

    Args:
        evidence: of the model.
        folder: the model's folder.
        name: of the model, for the hub and the title; the run's id when not given.
    """
    (folder / CARD).write_text(evidence_card(evidence, folder, name=name), encoding="utf-8")
    return folder / CARD


def evidence_card(evidence: Evidence, folder: Path, *, name: str = "") -> str:
    """Return the card: what the model is, what it gains, what it costs elsewhere, and what is not known.

    Everything in it stands in the evidence as well. It quotes no training text.

    Args:
        evidence: of the model.
        folder: the model's folder.
        name: of the model; the run's id when not given.
    """
    name = name or evidence.run_id
    how = "adapted to" if evidence.model.kind == API else "fine-tuned on"
    title = f"# {markdown(evidence.base.name)} {how} {markdown(evidence.data.name)}"
    sections = [
        ("", [UNTRAINED] if evidence.untrained else []),
        ("", _gain_lines(evidence)),
        ("Result on the test queries", _score_table(evidence)),
        ("Parts of the test queries", _slice_table(evidence.slices)),
        ("Other domains and tasks", _task_table(evidence)),
        ("Data", _data_lines(evidence)),
        ("Recipe", _recipe_lines(evidence)),
        ("Limits", [f"- {markdown(limit)}" for limit in evidence.limits]),
        ("Licence", _licence_lines(evidence)),
        ("Load it", _loading(folder, evidence.model.kind)),
        ("Check it", _check_lines(evidence)),
    ]
    lines = ["---", card_metadata(evidence, name), "---", "", title, ""]
    for heading, body in sections:
        if body:
            lines += [*([f"## {heading}", ""] if heading else []), *body, ""]
    return "\n".join(lines).rstrip("\n") + "\n"


def card_metadata(evidence: Evidence, name: str) -> str:
    """Return the YAML front matter for the hub, with the test scores as model-index.

    Args:
        evidence: of the model.
        name: of the model in the index.
    """
    from huggingface_hub import EvalResult, ModelCardData

    is_encoder = evidence.model.kind != "CrossEncoder"
    prefix = "cosine_" if evidence.model.kind in SCORED else ""
    library = None if evidence.model.kind == API else LIBRARY
    results = [
        EvalResult(
            task_type="information-retrieval" if is_encoder else "text-ranking",
            task_name="Information Retrieval" if is_encoder else "Text Ranking",
            dataset_type="unknown",  # the hub expects the id of a dataset on the hub
            dataset_name=evidence.data.name,
            dataset_split="test",
            dataset_args={"fingerprint": evidence.data.test_fingerprint or evidence.data.fingerprint},
            metric_type=f"{prefix}{score.metric}",
            metric_name=label(score.metric),
            metric_value=round(score.value, 6),
        )
        for score in evidence.scores
        if score.metric in INDEX_METRICS and score.value is not None
    ]
    data = ModelCardData(
        library_name=library,
        pipeline_tag=TASKS[evidence.model.kind],
        base_model=evidence.base.hub_name or None,
        tags=[*filter(None, [library]), "embedlab"],
        model_name=name if results else None,
        eval_results=results or None,
    )
    return str(data.to_yaml())


def label(metric: str) -> str:
    """Return a metric as people write it: `ndcg@10` is nDCG@10."""
    family, at, cutoff = metric.partition("@")
    return f"{LABELS.get(family, family)}{at}{cutoff}"


def _on_hub(name: str) -> bool:
    return name.count("/") == 1 and not name.startswith((".", "/", "~"))


def _gain_lines(evidence: Evidence) -> list[str]:
    gain = evidence.gain
    if gain is None or gain.value is None:
        return ["This model was not compared with its base model."]
    numbers = f"**{label(gain.metric)} {gain.value:+.3f}{_interval(gain, sign='+')}**"
    what = f"against the base model, paired over {_count(gain.n)} test queries (95 % interval)"
    return [f"{numbers} {what}. {SHOWN[finding(gain.ci_low, gain.ci_high, gain.n)]}"]


def _score_table(evidence: Evidence) -> list[str]:
    base = {score.metric: score for score in evidence.base_scores}
    gains = {score.metric: score for score in evidence.gains}
    rows = [
        (label(score.metric), _cell(base.get(score.metric)), _cell(score), _cell(gains.get(score.metric), sign="+"))
        for score in evidence.scores
        if score.metric in INDEX_METRICS
    ]
    return _table(("metric", "base model", "this model", "gain"), rows)


def _slice_table(slices: Sequence[SliceDifference]) -> list[str]:
    rows = [
        (
            row.field,
            row.name,
            _count(row.n),
            _number(row.base),
            _number(row.model),
            _cell(row, sign="+") + (" (significantly worse)" if row.is_regression else ""),
        )
        for row in slices
    ]
    return _table(("by", "queries", "n", "base model", "this model", "gain"), rows)


def _task_table(evidence: Evidence) -> list[str]:
    if not evidence.other_tasks:
        return []
    rows = [(task.task, label(task.metric), _count(task.n), _cell(task, sign="+")) for task in evidence.other_tasks]
    text = "Change against the base model. A negative value is what the model has forgotten."
    return [text, "", *_table(("task", "metric", "n", "change"), rows)]


def _data_lines(evidence: Evidence) -> list[str]:
    data, use = evidence.data, evidence.test_use
    facts = {"Name": markdown(data.name), "Fingerprint of the source": data.fingerprint or "not known"}
    if data.test_fingerprint:
        facts["Fingerprint of the test split"] = data.test_fingerprint
    if data.queries:
        facts["Queries"] = ", ".join(f"{count:,} {split}" for split, count in data.queries.items())
    if data.documents is not None:
        facts["Documents"] = f"{data.documents:,}"
    facts["Leaks"] = leak_sentence(data.leaks)
    if use:
        runs, systems = _plural(use.runs, "recorded run"), _plural(use.systems, "system")
        facts["Use of the test split"] = f"{runs} scored it, this one included. This run scored {systems}."
    return [f"- {name}: {value}" for name, value in facts.items()]


def leak_sentence(leaks: Mapping[str, int] | None) -> str:
    """Say what is known about training examples that reveal held-out queries.

    Args:
        leaks: kind -> dropped examples; None if it is not known.
    """
    if leaks is None:
        return "not known."
    if not leaks:
        return "no training example reveals a held-out query."
    kinds = ", ".join(f"{count:,} {kind}" for kind, count in leaks.items())
    total = _plural(sum(leaks.values()), "training or dev example")
    return f"{total} that would reveal held-out queries were dropped before training ({kinds})."


def _recipe_lines(evidence: Evidence) -> list[str]:
    recipe = evidence.recipe
    facts = {
        "Run": evidence.run_id,
        "System": f"{recipe.system}: {markdown(recipe.description)}",
        "Base model": markdown(evidence.base.name),
        "Technique": recipe.technique,
    }
    if recipe.settings:
        facts["Settings"] = markdown(recipe.settings)
    facts |= {"Seed": str(recipe.seed), "Parameters": ""}
    lines = [f"- {name}: {value}".rstrip() for name, value in facts.items()]
    return lines + [f"  - `{name}`: {markdown(str(value))}" for name, value in recipe.parameters.items()]


def _licence_lines(evidence: Evidence) -> list[str]:
    base = evidence.base
    licence = f"has the licence {base.licence}" if base.licence else "has a licence that is not known here"
    return [f"The base model {markdown(base.name)} {licence}. Check it, and that of your data, before you publish."]


def _loading(folder: Path, kind: str) -> list[str]:
    """Return the lines that load a model; its folder has its final files."""
    if kind == API:
        return adapter_loading(has_static=(folder / TOKENIZER).exists())
    arguments = f'"{folder.name}"' + (", trust_remote_code=True" if any(folder.glob("*.py")) else "")
    return [
        "Made with embedlab. Load it with sentence-transformers:",
        "",
        "```python",
        f"from sentence_transformers import {kind}",
        "",
        f"model = {kind}({arguments})",
        "```",
        "",
    ]


def adapter_loading(*, has_static: bool) -> list[str]:
    """Return the lines that use an adapter for an API model, or a static model next to one, without this package."""
    packages = "numpy, httpx and tokenizers" if has_static else "numpy and httpx"
    return [
        f"`client.py` needs {packages}. The API key comes from an environment variable; see `key_variable` in",
        "`adapter.json`.",
        "",
        "```python",
        "from client import AdaptedModel",
        "",
        'model = AdaptedModel(".")',
        'scores = model.encode_queries(["a query"]) @ model.encode_documents(["a document"]).T',
        "```",
        "",
    ]


def _check_lines(evidence: Evidence) -> list[str]:
    if evidence.model.kind not in SCORED:
        return []
    text = "`evidence.json` has all of this for programs. With the test data, score both models again:"
    return [text, "", "```bash", "embedlab verify MODEL_FOLDER DATA", "```"]


def _table(header: Sequence[str], rows: Iterable[Sequence[str]]) -> list[str]:
    lines = [f"| {' | '.join(markdown_cell(cell) for cell in row)} |" for row in rows]
    return [f"| {' | '.join(header)} |", f"|{'---|' * len(header)}", *lines] if lines else []


def _cell(score: Score | SliceDifference | TaskDifference | None, *, sign: str = "") -> str:
    if score is None or score.value is None:
        return ""
    return f"{score.value:{sign}.3f}{_interval(score, sign=sign)}"


def _interval(score: Score, *, sign: str = "") -> str:
    return f" [{score.ci_low:{sign}.3f}, {score.ci_high:{sign}.3f}]" if score.has_interval else ""


def _number(value: float | None) -> str:
    return "" if value is None else f"{value:.3f}"


def _count(n: int | None) -> str:
    return "" if n is None else f"{n:,}"


def _plural(count: int, noun: str) -> str:
    return f"{count:,} {noun}{'' if count == 1 else 's'}"
