"""The command line of a recipe that uses this package, and the defaults of its notebook."""

from __future__ import annotations

import argparse
from typing import Any, NamedTuple

from embedlab.data.dataset import Dataset


class Job(NamedTuple):
    """What a recipe is asked to do; see `arena.recipe`.

    Attributes:
        data: folder as in `arena.exchange`.
        model: folder or hub name of the base model.
        output: folder of the result.
        seed: random seed.
        max_steps: maximum number of training steps; 0 sets none.
        minutes: budget in minutes of CPU time.
    """

    data: str
    model: str
    output: str
    seed: int
    max_steps: int
    minutes: float

    def dataset(self) -> Dataset:
        """Read the data, with an empty test split."""
        from embedlab.arena import exchange

        return exchange.read(self.data)

    def defaults_of(self, notebook: str) -> dict[str, Any]:
        """Return the parameters of a notebook, with the model, the seed and the steps of this job."""
        from embedlab.runs import notebooks

        changes = {"model_name": self.model, "seed": self.seed, "max_steps": self.max_steps}
        return notebooks.resolved(notebooks.parameters(notebooks.find_notebook(notebook)), changes)


def job(description: str | None) -> Job:
    """Read the command line.

    Args:
        description: docstring of the recipe.
    """
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("data", help="folder with corpus.jsonl, queries.jsonl and qrels")
    parser.add_argument("model", help="folder or hub name of the base model")
    parser.add_argument("output", help="folder of the fine-tuned model")
    parser.add_argument("--seed", type=int, default=0, help="random seed")
    parser.add_argument("--max-steps", type=int, default=-1, help="maximum number of training steps; -1: no maximum")
    parser.add_argument("--minutes", type=float, default=10.0, help="CPU time, for recipes that take a budget")
    values = vars(parser.parse_args())
    return Job(**values | {"max_steps": max(0, values["max_steps"])})
