"""Choose the records to compare: parameters of the notebook 11_compare."""

from __future__ import annotations

from collections.abc import Iterator
from pathlib import Path

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.params import CountOrNone, Params, Text
from embedlab.reporting.html_report import groups
from embedlab.reporting.sweep_data import COSTS, View
from embedlab.reporting.sweep_table import SweepTable
from embedlab.runs.record_index import indexed_records
from embedlab.runs.records import Record
from embedlab.runs.run_id import topic_of

TOPIC = "compare"  # records of the comparing notebook itself are left out


class CompareParams(Params):
    """Which records to compare, and by which metric."""

    dataset: str = ""
    model_name: str = ""
    max_steps: CountOrNone = 0
    max_examples: CountOrNone = 0
    notebook_filter: str = ""
    sweep: str = ""
    metric: Text = "ndcg@10"
    split: Text = "test"
    all_dims: bool = False
    run_a: str = ""
    run_b: str = ""
    records_dir: str = ""

    def view(self) -> View:
        """Return what the tables show."""
        second = tuple(metric for metric in View().metrics if metric != self.metric)[-1:]
        return View(metrics=(self.metric, *second), split=self.split, all_dims=self.all_dims)

    def folder(self) -> Path:
        """Return the folder that the records are read from."""
        return paths.runs_dir(self.records_dir)

    def _own_folder(self) -> Path | None:
        """Return the folder of `records_dir`; None for the default, where the published sweeps belong too."""
        return self.folder() if self.records_dir else None

    def records(self) -> Iterator[Record]:
        """Read the records that match, one at a time.

        Raises:
            ParameterError: there is no such sweep.
        """
        for count, record in enumerate(filter(self._matches, self._all()), start=1):
            yield record
            if count == self.max_examples:
                return

    def _all(self) -> Iterator[Record]:
        run_ids = (
            [run_id for group in groups([self.sweep], self._own_folder()) for run_id in group.run_ids]
            if self.sweep
            else None
        )
        return indexed_records((*self.view().metrics, *COSTS), run_ids, self.folder())

    def _matches(self, record: Record) -> bool:
        required = {"dataset": self.dataset, "model_name": self.model_name}
        equal = all(record.parameters.get(name) == value for name, value in required.items() if value)
        return equal and self.notebook_filter in record.notebook and topic_of(record.notebook) != TOPIC


def pair(table: SweepTable, run_a: str = "", run_b: str = "") -> list[str]:
    """Choose the two runs to compare: those named, else the first seeds of the best two combinations of one dataset.

    Returns:
        Two run ids; [] when there are no two combinations.

    Raises:
        ParameterError: only one is named.
    """
    if bool(run_a) != bool(run_b):
        raise ParameterError("only one of run_a and run_b is set", remedy="Set both, or neither", field="run_a")
    if run_a:
        return [run_a, run_b]
    metric = table.view.metrics[0]
    rows = table.for_dataset().combinations.dropna(subset=metric)
    ranked = rows.sort_values(metric, ascending=False, kind="stable")
    best = list(dict.fromkeys(run_ids.split()[0] for run_ids in ranked["runs"]))[:2]
    return best if len(best) == 2 else []
