"""Multilingual distillation: a student gives a translation the vector that the teacher gives the original."""

from __future__ import annotations

from collections.abc import Mapping
from dataclasses import replace
from typing import TYPE_CHECKING, Any, NamedTuple, Self

import numpy as np

from embedlab.data.load import load_dataset, parse_spec, source_fingerprint
from embedlab.data.translations import SCHEMES, require_languages
from embedlab.errors import DataError
from embedlab.models.sides import is_static
from embedlab.models.static import BagCollator, TokenBags, static_model
from embedlab.params import CountOrNone, PositiveFloat
from embedlab.training.contrastive.static_model import StaticParams
from embedlab.training.distillation.embeddings import STATIC_DISTILLATION_BATCH, PromptedTexts, distil
from embedlab.training.engine import prepare
from embedlab.training.fit import FitResult, FitSettings

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

    from embedlab.data.dataset import Dataset


class LanguagesParams(StaticParams):
    """Parameters of notebook 13_languages."""

    random_negatives: CountOrNone = 1024
    same_language: list[str] = []
    pieces: CountOrNone
    distillation_epochs: PositiveFloat
    mixed_dataset: str
    english_dataset: str

    @classmethod
    def resolve(cls, namespace: Mapping[str, Any]) -> Self:
        """Read the parameters and check that the data fits, because most of it is read after the training.

        Args:
            namespace: the notebook's `globals()`.

        Raises:
            ParameterError: see `Params.resolve`.
            DataError: queries or documents of `dataset` have no language, or another dataset cannot be read.
        """
        params = super().resolve(namespace)
        if parse_spec(params.dataset).scheme not in SCHEMES:  # else the data has it
            require_languages(load_dataset(params.dataset, training=False))
        specs_of = {"mixed_dataset": [params.mixed_dataset], "english_dataset": [params.english_dataset]}
        specs_of["same_language"] = [spec.replace("{}", "en") for spec in params.same_language]
        for name, spec in ((name, spec) for name, specs in specs_of.items() for spec in specs if spec):
            try:
                source_fingerprint(spec)
            except DataError as error:
                raise DataError(error.problem, remedy=error.remedy, file=error.file, field=name) from error
        return params

    def distillation_settings(self) -> FitSettings:
        """How to train a static student on the teacher's vectors."""
        return replace(self.fit_settings(), epochs=self.distillation_epochs, batch_size=STATIC_DISTILLATION_BATCH)


class Translations(NamedTuple):
    """Texts, and for each the text whose teacher vector it should get.

    Attributes:
        texts: N texts: originals and translations, each once.
        originals: M texts in the language that the teacher knows.
        original_of: for each of the N texts, the number of its original.
    """

    texts: list[str]
    originals: list[str]
    original_of: list[int]


def translations_of(data: Dataset) -> Translations:
    """Return the training pairs of a dataset of translations: queries are translations of documents.

    A query with several documents gets the first. Documents of the corpus that no query translates are originals too:
    the student keeps their vectors.

    Args:
        data: for example `icd10multi:all-en`.

    Raises:
        DataError: there are no training pairs.
    """
    pairs = data.pairs("train")
    if not pairs:
        raise DataError(
            f"{data.name} has no training pairs", remedy="Choose languages with translations", field="dataset"
        )
    originals = list(dict.fromkeys(data.corpus.values()))
    number = {text: row for row, text in enumerate(originals)}
    original_of = dict(number)  # text -> its original
    for query, document in pairs:
        original_of.setdefault(data.queries[query], number[data.corpus[document]])
    return Translations(list(original_of), originals, list(original_of.values()))


def distil_translations(
    student: SentenceTransformer,
    translations: Translations,
    teacher_vectors: np.ndarray,
    settings: FitSettings,
    *,
    output_dir: str,
) -> FitResult:
    """Train `student` in place: original and translation get the teacher's vector of the original.

    Reimers and Gurevych, "Making Monolingual Sentence Embeddings Multilingual using Knowledge Distillation" (EMNLP
    2020). The loss is that of `distil`: the squared distance to the teacher's vectors, and the similarities within the
    batch.

    Args:
        student: a transformer or a static model, with the teacher's dimensions.
        translations: see `translations_of`.
        teacher_vectors: unit vectors of the M originals (M, d).
        settings: how to train; for a static student, weight decay must be 0.
        output_dir: scratch folder of the Trainer.

    Raises:
        ParameterError: student and teacher differ in dimensions.
    """
    targets = teacher_vectors[translations.original_of]
    if is_static(student):
        collator = BagCollator(TokenBags.tokenise(student, translations.texts), ["text"])
        return distil(student, translations.texts, targets, settings, collator=collator, output_dir=output_dir)
    prepare(student, settings.engine)
    prompted = PromptedTexts(student, translations.texts)
    return distil(student, translations.texts, targets, settings, collator=prompted, output_dir=output_dir)


def static_from_inputs(transformer: SentenceTransformer) -> SentenceTransformer:
    """Build a static model from the input embeddings of a transformer, which take no forward pass.

    `models.static.static_student` encodes every token instead, but a transformer gives a new word piece no meaning.

    Args:
        transformer: gives the tokenizer and the embeddings; not changed.
    """
    return static_model(transformer, transformer[0].model.get_input_embeddings().weight.detach().clone())
