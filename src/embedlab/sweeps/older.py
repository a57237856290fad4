"""Find records that an older version of a notebook made, for use in place of new runs.

A run id depends on the notebook's code, so an edited or renumbered notebook gives every run a new id. An older record
is still valid for a sweep if the notebook's topic, the seed, the parameters and the data are the same. The data include
the files that parameters name, such as a model. Sweeps use it and mark it as older.
"""

from __future__ import annotations

import json
from collections import defaultdict
from collections.abc import Iterable, Mapping
from pathlib import Path
from typing import Any

from embedlab import paths
from embedlab.runs import record_index
from embedlab.runs.inputs import input_digests
from embedlab.runs.notebooks import Parameter
from embedlab.runs.records import Record
from embedlab.runs.run_id import RunId, topic_of

NOT_COMPARED = ("seed", "output_dir")  # the seed is part of the key; the folder does not change results

Key = tuple[str, str, str]  # seed, fingerprint of the data, parameters


class OlderRuns:
    """The records of one notebook's topic, found by seed, data and parameters.

    Args:
        notebook: current name of the notebook, e.g. "03_contrastive".
        parameters: current parameters of the notebook.
        folder: folder of the runs; default results/runs.
    """

    def __init__(self, notebook: str, parameters: Iterable[Parameter], folder: Path | None = None) -> None:
        self._folder = folder or paths.runs_dir()
        self._defaults = {parameter.name: parameter.default for parameter in parameters}
        records = [
            record
            for record in record_index.indexed_records((), folder=self._folder)
            if topic_of(record.notebook) == topic_of(notebook)
        ]
        varied = _varied([record.parameters for record in records], self._defaults)
        self._by_key: dict[Key, list[Record]] = defaultdict(list)
        for record in sorted(records, key=lambda record: (record.finished, record.run_id), reverse=True):
            if not varied & record.parameters.keys():
                self._by_key[self._key(record.parameters, record.data_fingerprint)].append(record)

    def find(self, values: Mapping[str, Any], data_fingerprint: str) -> str | None:
        """Return the id of the newest run with the same seed, data and parameters; None if there is none.

        Args:
            values: all parameters of a planned run.
            data_fingerprint: fingerprint of its dataset.
        """
        digests = input_digests(values, self._folder)
        same_values = self._by_key.get(self._key(values, data_fingerprint), [])
        return next((record.run_id for record in same_values if _has_inputs(record, digests)), None)

    def _key(self, values: Mapping[str, Any], data_fingerprint: str) -> Key:
        """Return what must be equal. A parameter that a record does not have counts as the notebook's default."""
        compared = {
            name: _comparable(values.get(name, default))
            for name, default in self._defaults.items()
            if name not in NOT_COMPARED
        }
        return json.dumps(values.get("seed", 0)), data_fingerprint, json.dumps(compared, sort_keys=True)


def _has_inputs(record: Record, digests: Mapping[str, str]) -> bool:
    """Whether a record was made with files of this content.

    Older records have no digests. One of them counts only if the files belong to a run, whose id stands for them.
    """
    return all(
        record.inputs[text] == digest if text in record.inputs else bool(RunId.find_all(text))
        for text, digest in digests.items()
    )


def _varied(settings: Iterable[Mapping[str, Any]], defaults: Mapping[str, Any]) -> set[str]:
    """Return the parameters that the notebook no longer has and that had several values.

    Records with such a parameter are not used, because it is unknown which value the current notebook corresponds to. A
    former parameter that always had the same value is ignored.
    """
    texts: dict[str, set[str]] = defaultdict(set)
    for values in settings:
        for name in values.keys() - defaults.keys():
            texts[name].add(json.dumps(values[name], sort_keys=True))
    return {name for name, different in texts.items() if len(different) > 1}


def _comparable(value: Any) -> Any:
    """Convert integers to floats: 1 and 1.0 are the same number."""
    if isinstance(value, list):
        return [_comparable(item) for item in value]
    return float(value) if isinstance(value, int) and not isinstance(value, bool) else value
