"""Train a static model on the pairs of a dataset, from a transformer's token embeddings, in one call."""

from __future__ import annotations

from collections.abc import Sequence
from typing import TYPE_CHECKING, Annotated

from pydantic import Field

from embedlab.models.static import static_student, with_ngrams
from embedlab.params import CountOrNone, PositiveFloat, TrainingParams
from embedlab.training.contrastive.static import train_static
from embedlab.training.examples import contrastive_rows, number_rows, own_texts
from embedlab.training.fit import FitResult, FitSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base.evaluation import BaseEvaluator

    from embedlab.data.dataset import Dataset

StaticShare = Annotated[float, Field(ge=0, le=1)]


class StaticParams(TrainingParams):
    """Parameters of a static model that is trained on pairs and concatenated with a transformer.

    Attributes:
        epochs: passes over the training pairs.
        batch_size: pairs per step.
        learning_rate: peak learning rate.
        random_negatives: random documents per step.
        static_shares: weights of the static model to try on dev.
        ngrams: whether words, pairs of words and character n-grams have embeddings too, see `with_ngrams`.
    """

    epochs: PositiveFloat
    batch_size: Annotated[int, Field(ge=2)]
    learning_rate: PositiveFloat
    random_negatives: CountOrNone
    static_shares: Annotated[list[StaticShare], Field(min_length=1)]
    ngrams: bool = False

    def fit_settings(self) -> FitSettings:
        """How to train; without weight decay, which would shrink the embeddings of tokens that a batch lacks."""
        return FitSettings(
            epochs=self.epochs,
            max_steps=self.max_steps,
            batch_size=self.batch_size,
            learning_rate=self.learning_rate,
            weight_decay=0.0,
            seed=self.seed,
            engine=self.engine,
        )


def train_static_model(
    transformer: SentenceTransformer,
    dataset: Dataset,
    settings: FitSettings,
    *,
    random_negatives: int = 4096,
    more_negatives: Sequence[str] = (),
    start: SentenceTransformer | None = None,
    ngrams: bool = False,
    evaluator: BaseEvaluator | None = None,
    output_dir: str,
) -> tuple[SentenceTransformer, FitResult]:
    """Train a static model with InfoNCE on the training pairs and expert triplets of `dataset`.

    Each token starts with the embedding that `transformer` gives it as a text of its own. A document costs no forward
    pass through layers, so that each query is ranked against thousands of random documents in every step.

    Args:
        transformer: gives the tokenizer and the first embeddings; it is not changed.
        dataset: its training pairs are learned, and its corpus is where random negatives come from.
        settings: how to train; see `StaticParams.fit_settings`.
        random_negatives: random documents per step, shared by the batch.
        more_negatives: texts to draw random negatives from besides the corpus, such as texts in the language of the
            queries. A query is never its own negative.
        start: a static model to train in place, from `untrained_static_model`; made from `transformer` when None.
        ngrams: see `untrained_static_model`; not used with `start`.
        evaluator: scores dev and chooses the best weights; the last weights are kept when None.
        output_dir: scratch folder of the Trainer.

    Returns:
        The static model, with the dimension of the transformer, and what training logged.
    """
    documents = [*dataset.corpus.values(), *more_negatives]
    static = untrained_static_model(transformer, dataset, ngrams=ngrams) if start is None else start
    rows = number_rows(contrastive_rows(dataset, hard_negatives=0, seed=settings.seed), own_texts(dataset))
    result = train_static(
        static,
        rows,
        documents,
        settings,
        random_negatives=random_negatives,
        evaluator=evaluator,
        output_dir=output_dir,
    )
    return static, result


def untrained_static_model(
    transformer: SentenceTransformer, dataset: Dataset, *, ngrams: bool = False
) -> SentenceTransformer:
    """Build a static model from a transformer's token embeddings, see `static_student`.

    Args:
        transformer: encodes every token of its vocabulary as a text, which takes most of the time.
        dataset: token frequencies are counted in its corpus and training queries.
        ngrams: add embeddings of words, pairs of words and character n-grams, see `with_ngrams`; they are counted in
            the texts of the triplets too.
    """
    texts = [*dataset.corpus.values(), *dataset.split_queries("train").values()]
    model = static_student(transformer, list(dict.fromkeys(texts)))
    if not ngrams:
        return model
    return with_ngrams(
        model, [*texts, *(text for triplet in dataset.triplets for text in (triplet.query, triplet.positive))]
    )
