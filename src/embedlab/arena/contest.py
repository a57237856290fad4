"""Run recipes on one dataset, test their models on the same queries, and record quality and cost."""

from __future__ import annotations

from collections.abc import Sequence
from pathlib import Path
from typing import TYPE_CHECKING

import pandas as pd

from embedlab.arena import exchange, recipe
from embedlab.arena.params import ArenaParams
from embedlab.arena.recipe import Outcome, Recipe
from embedlab.arena.standings import METRIC, standings
from embedlab.data.load import load_dataset
from embedlab.errors import ParameterError, RecipeError
from embedlab.evaluation.probes import ProbeScore, compare_probe, score_dataset, score_ranking, shrunk
from embedlab.models.fingerprint import model_fingerprint
from embedlab.models.folder import ModelFolder
from embedlab.models.late_interaction import load_late_interaction
from embedlab.models.load import load_model, model_path
from embedlab.runs.retrievers import DEPTH, FLOAT_BYTES
from embedlab.search.late_interaction import index_tokens

if TYPE_CHECKING:
    from sentence_transformers import MultiVectorEncoder, SentenceTransformer

    from embedlab.data.dataset import Dataset
    from embedlab.runs.leaderboard import Leaderboard

TECHNIQUE = "recipe"
PROBE, PROBE_QUERIES = "pydocs", 100
BASE = "base"


class Contest:
    """One dataset, one base model, one seed, and any number of recipes.

    Args:
        board: measures and records; the base model must be on it as `base`.
        params: what to compare.
        base: the base model.
        scratch: folder for the data that recipes read.

    Attributes:
        costs: name of a recipe -> what it cost.
        failures: name of a recipe -> why it has no result.

    Raises:
        ParameterError: a recipe is unknown or named twice, or the reference is not among the recipes.
    """

    def __init__(self, board: Leaderboard, params: ArenaParams, base: SentenceTransformer, scratch: str) -> None:
        self.board, self.params, self.folder = board, params, Path(scratch) / "data"
        self.recipes = _ordered([recipe.find(name) for name in params.recipes], params.reference)
        self.costs: dict[str, Outcome] = {}
        self.failures: dict[str, str] = {}
        self._probe = _probe_for(board.data)
        self._base_score = score_dataset(base, self._probe) if self._probe else None
        exchange.write(board.data, self.folder)
        self._facts = {"data": exchange.fingerprint(self.folder), "base": model_fingerprint(base)}

    def enter(self, entry: Recipe) -> str:
        """Run a recipe, test its model once, and record it. A recipe that fails does not stop the others.

        Returns:
            One line: the result, or why there is none.
        """
        minutes = self.params.minutes or self._minutes_of_reference()
        try:
            if entry.takes_budget and not minutes:
                raise RecipeError("there is no time to give", remedy="Set minutes", field="minutes")
            cost, model_folder = recipe.run(
                entry,
                self.folder,
                model_path(self.params.model_name),
                seed=self.params.seed,
                max_steps=self.params.max_steps,
                minutes=minutes,
                facts=self._facts,
            )
        except RecipeError as error:
            self.failures[entry.name] = str(error)
            return f"{entry.name}: {error}"
        self.costs[entry.name] = cost
        self._record(entry, cost, model_folder)
        value = self.board.evaluations[entry.name].mean(METRIC)
        return f"{entry.name}: {METRIC} {value:.3f} after {cost.cpu_seconds:.0f} s of CPU time"

    def _minutes_of_reference(self) -> float:
        """Minutes of CPU time that the reference took; 0 if it has not finished."""
        reference = self.costs.get(self.params.reference)
        return reference.cpu_seconds / 60 if reference else 0.0

    def _record(self, entry: Recipe, cost: Outcome, model_folder: Path) -> None:
        run, name = self.board.run, entry.name
        run.declare_system(name, TECHNIQUE, entry.description)
        if ModelFolder(str(model_folder), name, "recipes").kind() == "MultiVectorEncoder":
            size, score = self._test_tokens(name, load_late_interaction(str(model_folder)))
        else:
            size, score = self._test_vectors(name, load_model(str(model_folder)))
        self.board.compare(name, against=BASE)
        if score and self._base_score:
            change = compare_probe(score, self._base_score)
            run.difference(change, metric=METRIC, system=name, against=BASE, split="test", task=PROBE, stage="probe")
        facts = {"seconds": cost.seconds, "CPU seconds": cost.cpu_seconds, "peak bytes": cost.peak_bytes}
        for metric, value in {**facts, "bytes per vector": size}.items():
            run.value(metric, value, system=name, stage="footprint")

    def _test_vectors(self, name: str, model: SentenceTransformer) -> tuple[float, ProbeScore | None]:
        """Test a model with one vector per text; return the bytes of a document's vector, and the probe's score."""
        vectors = self.board.add_model(name, model)
        return FLOAT_BYTES * vectors.dim, score_dataset(model, self._probe) if self._probe else None

    def _test_tokens(self, name: str, model: MultiVectorEncoder) -> tuple[float, ProbeScore | None]:
        """Test a model with one vector per token, on all documents; return as `_test_vectors`, for all its vectors."""
        index = index_tokens(model, self.board.data)
        self.board.add_ranking(name, index.rank(DEPTH))
        if self._probe is None:
            return index.bytes_per_document, None
        return index.bytes_per_document, score_ranking(index_tokens(model, self._probe).rank(10), self._probe)

    def results(self) -> pd.DataFrame:
        """Compare all systems of the board with the reference, and record the differences.

        Returns:
            The table of `standings`, the best system first.

        Raises:
            ParameterError: the reference has no result.
        """
        reference, evaluations = self.params.reference, self.board.evaluations
        if reference not in evaluations:
            remedy = "Choose a reference that works: its error is above"
            raise ParameterError(f"the reference {reference!r} has no result", remedy=remedy, field="reference")
        for name in evaluations:
            if name != reference:
                self.board.compare(name, against=reference)
        table = standings(self.board.run.rows, reference)
        return table.sort_values(METRIC, ascending=False, ignore_index=True)


def _probe_for(data: Dataset) -> Dataset | None:
    """Return the probe for forgetting; None if the data has documents of it, because a recipe then trains on them."""
    probe = load_dataset(PROBE, training=False)
    shared = set(probe.corpus.values()) & set(data.corpus.values())
    return None if shared else shrunk(probe, PROBE_QUERIES)


def _ordered(recipes: Sequence[Recipe], reference: str) -> list[Recipe]:
    """Put the reference first, whose time others may get as their budget."""
    names = [entry.name for entry in recipes]
    if repeated := sorted({name for name in names if names.count(name) > 1}):
        problem = f"the recipe {repeated[0]!r} is named twice"
        raise ParameterError(problem, remedy="Remove one", field="recipes")
    if reference not in names:
        problem = f"the reference {reference!r} is not among the recipes"
        raise ParameterError(problem, remedy=f"Choose one of {', '.join(names)}", field="reference")
    return sorted(recipes, key=lambda entry: entry.name != reference)
