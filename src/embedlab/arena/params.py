"""Parameters of notebook 16_arena."""

from __future__ import annotations

from typing import Annotated

from pydantic import Field

from embedlab.params import CountOrNone, Params, Text


class ArenaParams(Params):
    """What to compare.

    Attributes:
        dataset: any dataset spec.
        model_name: base model that every recipe starts from.
        recipes: names of recipes, or Python files; see `arena.recipe`.
        reference: the recipe that the others are compared with.
        minutes: CPU time for recipes that take a budget; 0 gives them the CPU time that `reference` has used.
        max_examples: maximum number of training queries; 0 takes all.
        max_steps: maximum number of steps of every training; 0 sets none.
    """

    dataset: Text
    model_name: Text
    recipes: Annotated[list[Text], Field(min_length=1)]
    reference: Text
    minutes: Annotated[float, Field(ge=0, allow_inf_nan=False)] = 0.0
    max_examples: CountOrNone = 0
    max_steps: CountOrNone = 0
