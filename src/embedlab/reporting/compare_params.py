"""Which records a comparison is about: parameters of the notebook 11_compare."""

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

NOTEBOOK = "11_compare"  # its own records compare nothing


class CompareParams(Params):
    """Which records to compare, and by what."""

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
        """What the tables show."""
        second = tuple(metric for metric in View().metrics if metric != self.metric)[-1:]
        return View(metrics=(self.metric, *second), split=self.split, all_dims=self.all_dims)

    def folder(self) -> Path:
        """Where the records are read."""
        return paths.runs_dir(self.records_dir)

    def records(self) -> Iterator[Record]:
        """The records that match, one at a time.

        Raises:
            ParameterError: there is no such sweep.
        """
        found = filter(self._matches, self._all())
        for count, record in enumerate(found, start=1):
            yield record
            if count == self.max_examples:
                return

    def _all(self) -> Iterator[Record]:
        run_ids = (
            [run_id for group in groups([self.sweep], self.folder()) for run_id in group.run_ids]
            if self.sweep
            else None
        )
        return indexed_records((*self.view().metrics, *COSTS), run_ids, self.folder())

    def _matches(self, record: Record) -> bool:
        parts = {"dataset": self.dataset, "model_name": self.model_name}
        same = all(record.parameters.get(name) == value for name, value in parts.items() if value)
        return same and self.notebook_filter in record.notebook and record.notebook != NOTEBOOK


def pair(table: SweepTable, run_a: str = "", run_b: str = "") -> list[str]:
    """The two runs to compare: those named, else the first seeds of the best two combinations; [] if there are no two.

    Raises:
        ParameterError: only one is named.
    """
    if bool(run_a) != bool(run_b):
        raise ParameterError("one run is named", remedy="Name both run_a and run_b, or none", field="run_a")
    if run_a:
        return [run_a, run_b]
    ranked = table.combinations.sort_values(table.view.metrics[0], ascending=False, kind="stable").dropna(
        subset=table.view.metrics[0]
    )
    best = list(dict.fromkeys(run_ids.split()[0] for run_ids in ranked["runs"]))[:2]
    return best if len(best) == 2 else []
