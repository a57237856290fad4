"""Another release of the code book: what changed, and what the old index and the old tuned model still find."""

from __future__ import annotations

import json
import os
import subprocess
import sys
from collections.abc import Mapping
from dataclasses import asdict, replace
from typing import Any

import numpy as np

from embedlab.data.dataset import Dataset
from embedlab.data.load import load_dataset
from embedlab.deploy.migration.options import ndcg
from embedlab.evaluation.probes import DEFAULT_PROBES, shrunk
from embedlab.evaluation.significance import bootstrap_ci, paired_difference
from embedlab.models.load import load_model
from embedlab.paths import cache_dir
from experiments.migrations.tuned import PROBE, PROBE_QUERIES, adapted, encode_parts, tune

PACKAGE = "simple-icd-10-cm"
SPEC = "icd10cm:full"
OLDER = {"January 2021": "1.2.0", "April 2025": "1.4.0"}  # release of the code book -> version of the package
NEWEST = "April 2026"
READ = """
import json, sys
from embedlab.data.load import load_dataset
data = load_dataset(sys.argv[1], training=False)
json.dump({"corpus": data.corpus, "queries": data.queries, "qrels": data.qrels}, sys.stdout)
"""


def release_changes(model_name: str) -> dict[str, Any]:
    """Measure the step from each older release to the newest one.

    Args:
        model_name: the model whose vectors are tuned.

    Returns:
        Release -> counts and one row per way to go on, ready for JSON.
    """
    model = load_model(model_name)
    new, probe = load_dataset(SPEC), shrunk(load_dataset(DEFAULT_PROBES[0], training=False), PROBE_QUERIES)
    parts = encode_parts(model, new, probe)
    fresh = tune(parts, new)
    changes = {}
    for release, version in OLDER.items():
        old = read_release(version)
        changes[release] = {"to": NEWEST, "model": model_name, **_change(old, new, parts, fresh, model, probe)}
        print(release, changes[release], flush=True)
    return changes


def read_release(version: str) -> Dataset:
    """Return the dataset as an older version of the package gives it; pip installs that version if needed."""
    folder = cache_dir() / "releases" / f"{PACKAGE}-{version}"
    if not folder.is_dir():
        command = [sys.executable, "-m", "pip", "install", "--quiet", "--no-deps", "--target", str(folder)]
        subprocess.run([*command, f"{PACKAGE}=={version}"], check=True)
    search_path = os.pathsep.join([str(folder), *filter(None, sys.path)])
    command = [sys.executable, "-c", READ, SPEC]
    done = subprocess.run(
        command, check=True, capture_output=True, text=True, env={**os.environ, "PYTHONPATH": search_path}
    )
    return Dataset(name=f"{SPEC}, {PACKAGE} {version}", **json.loads(done.stdout))


def count_changes(old: Mapping[str, str], new: Mapping[str, str]) -> dict[str, int]:
    """Count the documents that were added, deleted and revised, and the texts that have to be encoded.

    >>> count_changes({"A": "a", "B": "b", "C": "c"}, {"B": "b", "C": "d", "D": "a"})
    {'old': 3, 'new': 3, 'added': 1, 'deleted': 1, 'revised': 1, 'to_encode': 1}

    Args:
        old, new: id -> text.
    """
    shared = old.keys() & new.keys()
    return {
        "old": len(old),
        "new": len(new),
        "added": len(new.keys() - old.keys()),
        "deleted": len(old.keys() - new.keys()),
        "revised": sum(old[code] != new[code] for code in shared),
        "to_encode": len(set(new.values()) - set(old.values())),
    }


def untouched_pairs(old: Dataset, new: Dataset) -> list[tuple[str, str]]:
    """Return the training pairs of the old release without those that the new release holds out.

    A pair is left out if its text is a held-out query of the new release, or if its code or that code's text is
    relevant to one.
    """
    held = {query for split in ("dev", "test") for query in new.qrels[split]}
    texts = {new.queries[query].casefold() for query in held}
    codes = {code for split in ("dev", "test") for grades in new.qrels[split].values() for code in grades}
    names = {new.corpus[code].casefold() for code in codes}
    return [
        (query, code)
        for query, code in old.pairs("train")
        if old.queries[query].casefold() not in texts | names
        and code not in codes
        and old.corpus[code].casefold() not in names
    ]


def _change(old: Dataset, new: Dataset, parts: Any, fresh: Any, model: Any, probe: Dataset) -> dict[str, Any]:
    old_parts = encode_parts(model, old, probe)
    pairs = untouched_pairs(old, new)
    tuned = tune(old_parts, old, pairs)
    before = adapted(parts, tuned)
    warm_start = adapted(before, tune(before, new))
    old_index = replace(before["test"], corpus=adapted(old_parts, tuned)["test"].corpus, corpus_ids=tuple(old.corpus))
    counts = count_changes(old.corpus, new.corpus)
    from_base = adapted(parts, fresh)
    everything = {
        "old model, old index": (old_index, before[PROBE], 0),
        "old model, changed documents embedded": (before["test"], before[PROBE], counts["to_encode"]),
        "re-tuned, warm, all embedded": (warm_start["test"], warm_start[PROBE], counts["new"]),
        "re-tuned from the base, all embedded": (from_base["test"], from_base[PROBE], counts["new"]),
        "untuned, changed documents embedded": (parts["test"], parts[PROBE], counts["to_encode"]),
    }
    is_new = np.array([not (new.qrels["test"][query].keys() & old.corpus.keys()) for query in parts["test"].query_ids])
    values = {name: ndcg(vectors, new.qrels["test"]) for name, (vectors, _, _) in everything.items()}
    on_probe = {name: ndcg(vectors, probe.qrels["test"]) for name, (_, vectors, _) in everything.items()}
    base = "old model, old index"
    rows = [
        {
            "option": name,
            "documents": documents,
            "test": asdict(bootstrap_ci(values[name])),
            "to_old": asdict(paired_difference(values[name], values[base])),
            "new_codes": asdict(bootstrap_ci(values[name][is_new])),
            "forgetting": asdict(paired_difference(on_probe[name], on_probe[base])),
        }
        for name, (_, _, documents) in everything.items()
    ]
    return {"counts": counts, "pairs": len(pairs), "queries_on_new_codes": int(is_new.sum()), "rows": rows}
