"""The recipes that notebook 08 compares, and the weight averages it chooses from."""

from __future__ import annotations

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING

import numpy as np

from embedlab.data.splits import evenly_spread
from embedlab.data.tasks import Task
from embedlab.errors import ParameterError
from embedlab.models.concatenation import has_enough_rows, merge_and_concat
from embedlab.models.encode import encode
from embedlab.models.layers import pca_projection, project
from embedlab.models.load import load_model
from embedlab.models.merging import cocktail_weights
from embedlab.models.static import static_student
from embedlab.training.contrastive.static import train_static
from embedlab.training.examples import number_rows
from embedlab.training.fit import FitResult, batches_per_epoch
from embedlab.training.multitask.forgetting import Pair, with_anchor, with_replay
from embedlab.training.multitask.params import MultitaskParams
from embedlab.training.multitask.train import Objective, objective, retrieval, train_multitask

if TYPE_CHECKING:
    import pandas as pd
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

RECIPES = {
    "retrieval-only": "one task: rank the document of each pair first",
    "multitask": "retrieval plus similarity, classification and clustering",
    "layer-decay": "one task; each layer learns more slowly than the layer above it",
    "replay": "one task, plus labelled pairs of another domain",
    "anchor": "one task; texts of another domain must keep their embeddings",
}
STATIC_SHARE = 0.3  # of the cosine, in a concatenation with a static model
STEPS = (0.0, 0.25, 0.5, 0.75, 1.0)  # from the base model to the fine-tuned one
PCA_TEXTS = 4000


@dataclass(frozen=True)
class Mixture:
    """A weighted average of models, optionally concatenated with a static model.

    Attributes:
        name: e.g. "50% retrieval-only + static".
        weights: model -> weight, with the sum 1.
        static_share: share of the cosine that the static model gets; 0 leaves it out.
    """

    name: str
    weights: dict[str, float]
    static_share: float = 0.0


def train_recipe(
    name: str,
    params: MultitaskParams,
    pairs: Sequence[Pair],
    tasks: Sequence[Task],
    general_pairs: Sequence[Pair],
    *,
    evaluator: BaseEvaluator,
    output_dir: str,
) -> tuple[SentenceTransformer, FitResult]:
    """Fine-tune a fresh copy of the base model by one of the `RECIPES`.

    Args:
        name: of the recipe.
        params: base model, weights, sampling and shares.
        pairs: (query, positive) texts of the domain.
        tasks: further tasks, for "multitask".
        general_pairs: (query, positive) texts of another domain, for "replay" and "anchor".
        evaluator: scores dev.
        output_dir: scratch folder of the Trainer.

    Returns:
        The model with its best weights on dev, and the history of the training.

    Raises:
        ParameterError: there is no recipe of that name.
    """
    if name not in RECIPES:
        raise ParameterError(f"Unknown recipe {name!r}", remedy=f"Choose one of {', '.join(RECIPES)}", field="recipe")
    model = load_model(params.model_name, **params.engine.texts())
    objectives = _objectives(name, model, params, pairs, tasks, general_pairs)
    changes = {"layer_decay": params.layer_decay} if name == "layer-decay" else {}
    settings = params.fit_settings(**changes)
    result = train_multitask(model, objectives, settings, evaluator=evaluator, output_dir=output_dir, stage=name)
    return model, result


def _objectives(
    name: str,
    model: SentenceTransformer,
    params: MultitaskParams,
    pairs: Sequence[Pair],
    tasks: Sequence[Task],
    general_pairs: Sequence[Pair],
) -> dict[str, Objective]:
    domain = retrieval(model, pairs)
    if name == "multitask":
        further = {task.name: objective(model, task, params.weights[task.kind]) for task in tasks}
        return {"retrieval": domain.weighted(params.weights["retrieval"]), **further}
    builders: dict[str, Callable[..., dict[str, Objective]]] = {"replay": with_replay, "anchor": with_anchor}
    if name in builders:
        return builders[name](model, domain, general_pairs, params.replay_share, seed=params.seed)
    return {"retrieval": domain}


def train_static_part(
    base: SentenceTransformer,
    params: MultitaskParams,
    pairs: Sequence[Pair],
    documents: Sequence[str],
    *,
    evaluator: BaseEvaluator,
    output_dir: str,
) -> tuple[SentenceTransformer, FitResult]:
    """Train a static model on the pairs; it starts from the base model's own token embeddings.

    Args:
        base: gives the vocabulary and the first embeddings; it is not changed.
        params: seed and step cap.
        pairs: (query, positive) texts.
        documents: all documents of the corpus, as random negatives.
        evaluator: scores dev.
        output_dir: scratch folder of the Trainer.

    Returns:
        The static model with its best weights on dev, and the history of the training.
    """
    static = static_student(base, documents)
    rows, settings = number_rows(pairs), params.static_settings()
    return static, train_static(static, rows, documents, settings, evaluator=evaluator, output_dir=output_dir)


def influence(params: MultitaskParams, pairs: Sequence[Pair], tasks: Sequence[Task]) -> pd.DataFrame:
    """Compute how strongly each task pulls: its share of the batches times its weight, normalised to the sum 1.

    Args:
        params: weights and sampling.
        pairs: (query, positive) texts of retrieval.
        tasks: the further tasks.

    Returns:
        Columns task, batches (per epoch), share, weight, influence.
    """
    import pandas as pd

    settings = params.fit_settings()
    batches = [batches_per_epoch(settings, len(rows)) for rows in (pairs, *(task.train for task in tasks))]
    if params.sampling == "round_robin":
        batches = [min(batches)] * len(batches)
    table = pd.DataFrame({"task": ["retrieval", *(task.name for task in tasks)], "batches": batches})
    table["share"] = table["batches"] / table["batches"].sum()
    table["weight"] = [params.weights[kind] for kind in ("retrieval", *(task.kind for task in tasks))]
    pull = table["share"] * table["weight"]
    return table.assign(influence=pull / pull.sum())


def candidate_mixtures(losses: Mapping[str, float], target: str) -> list[Mixture]:
    """List what can be chosen without further training.

    Five steps from the base model to the fine-tuned one, every other recipe as it is, a weighted average of all models
    (LM-Cocktail, Xiao et al. 2024), and the five steps again, concatenated with the static model.

    Args:
        losses: model -> loss on a few dev pairs, the base model among them as "base".
        target: the fine-tuned model.
    """
    steps = [Mixture(f"{share:.0%} {target}", {"base": 1 - share, target: share}) for share in STEPS]
    recipes = [Mixture(name, {name: 1.0}) for name in losses if name not in ("base", target)]
    average = Mixture("weighted average", cocktail_weights(losses, target, share=0.5, temperature=0.1))
    with_static = [replace(step, name=f"{step.name} + static", static_share=STATIC_SHARE) for step in steps]
    return [*steps, *recipes, average, *with_static]


def build_mixture(
    mixture: Mixture, models: Mapping[str, SentenceTransformer], static: SentenceTransformer
) -> SentenceTransformer:
    """Average the models' weights and concatenate the static model if the mixture has a share for it.

    Args:
        mixture: names and weights.
        models: name -> model, all fine-tuned from the same base model.
        static: the static model.
    """
    return merge_and_concat(models, mixture.weights, static, mixture.static_share)


def reduce_dimensions(model: SentenceTransformer, texts: Sequence[str], dim: int) -> SentenceTransformer:
    """Append a PCA projection to `dim` dimensions, fitted on a sample of `texts`.

    A model that has `dim` is returned as it is; so is one for which there are too few texts, see `has_enough_rows`.

    Args:
        model: the model; it is changed in place.
        texts: texts of the corpus.
        dim: dimensions to keep.
    """
    if model.get_embedding_dimension() <= dim:
        return model
    sample = np.asarray(encode(model, evenly_spread(texts, PCA_TEXTS)))
    return project(model, pca_projection(sample, dim)) if has_enough_rows(sample, dim) else model
