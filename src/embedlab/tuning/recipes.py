"""The ladder of recipes, from the cheapest to the most expensive. Each adds its models to the workbench."""

from __future__ import annotations

import copy
import math
from collections.abc import Callable, Sequence
from functools import partial
from typing import TYPE_CHECKING

import numpy as np

from embedlab.evaluation.static_share import SHARES, best_share
from embedlab.models.concatenation import concat_static
from embedlab.models.encode import encode_by_role
from embedlab.models.layers import layer_count, pca_projection, project
from embedlab.models.merging import merge
from embedlab.search.vectors import Vectors
from embedlab.training.contrastive.static_model import train_static_model, untrained_static_model
from embedlab.training.distillation.students import distil_layers
from embedlab.tuning.candidate import BYTES_PER_DIMENSION, METRIC, Candidate
from embedlab.tuning.contrastive import FineTunes
from embedlab.tuning.params import Recipe
from embedlab.tuning.trials import search_settings
from embedlab.tuning.workbench import Workbench

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

STATIC_EPOCHS, STATIC_STEPS = 8, 200  # passes over the pairs, and fewest steps
STATIC_BATCH, STATIC_RATE = 256, 3e-3
STATIC_TIME = 0.2  # of the time that is left
STATIC_START = 0.4  # of the time that is left: encoding the vocabulary may take so much
TIMED_STEPS = 5
BASE_SHARES = (0.3, 0.5)  # of the base model in a merged model
STUDENT_TIME, STUDENT_RATE, STUDENT_BATCH = 0.3, 3e-4, 64  # share of the time that fine-tuning leaves


def add_base(bench: Workbench) -> Candidate:
    """Add the base model as it is."""
    return bench.add("base", "base", "untrained", bench.encode_base_dev(), lambda: bench.base)


def run_recipe(recipe: Recipe, bench: Workbench) -> None:
    """Run one recipe; one whose parts are missing, or for which no time is left, is noted in `bench.skipped`."""
    RECIPES[recipe](bench)


def _linear(bench: Workbench) -> None:
    """Train a linear map on the vectors of the base model."""
    with bench.clock.timed() as seconds:
        probe = bench.linear_map
        vectors = probe.apply(bench.candidates["base"].vectors)
    if not probe.step:
        bench.skipped["linear"] = "no step of its training was better than the base model on dev"
        return
    detail = f"best at step {probe.step}"
    build = partial(bench.mapped_base, 1.0)
    bench.add("linear-probe", "linear-probe", detail, vectors, build, parts=("base",), seconds=seconds())


def _static(bench: Workbench) -> None:
    """Train a static model on the pairs, if building it leaves most of the time for a fine-tune."""
    if bench.vocabulary_seconds > STATIC_START * bench.left:
        bench.skipped["static"] = bench.minutes_for(bench.vocabulary_seconds / STATIC_START)
        return
    rows = len(bench.training_data.pairs("train")) + len(bench.training_data.triplets)
    batch = max(2, min(STATIC_BATCH, rows // 4))
    steps = max(STATIC_STEPS, math.ceil(STATIC_EPOCHS * rows / batch))

    def train(model: SentenceTransformer, steps: int, evaluations: int) -> None:
        settings = bench.settings(
            steps, batch_size=batch, learning_rate=STATIC_RATE, weight_decay=0.0, evaluations=evaluations
        )
        evaluator = bench.evaluator if evaluations else None
        train_static_model(
            bench.base, bench.training_data, settings, start=model, evaluator=evaluator, output_dir=bench.scratch
        )

    with bench.clock.timed() as seconds:
        static = untrained_static_model(bench.base, bench.training_data)
        with bench.clock.timed() as of_steps:
            train(copy.deepcopy(static), TIMED_STEPS, 0)
            step_seconds = max(of_steps(), 1e-3) / TIMED_STEPS
        steps = bench.capped(min(steps, max(TIMED_STEPS, int(STATIC_TIME * bench.left / step_seconds))))
        train(static, steps, 4)
        vectors = bench.encode_dev(static)
    detail = f"{steps} steps, batch {batch}"
    bench.add("static", "static", detail, vectors, lambda: static, parts=("base",), seconds=seconds())


def _contrastive(bench: Workbench) -> None:
    """Search the settings of a contrastive fine-tune in the time that is left."""
    fine_tunes = FineTunes(bench)
    with bench.clock.timed() as seconds:
        kept = STUDENT_TIME * bench.left if _wants_student(bench) else 0.0
        tried = search_settings(
            fine_tunes, lambda: bench.left - kept, shortest=fine_tunes.shortest, seed=bench.params.seed
        )
        if fine_tunes.best is None:
            bench.skipped["contrastive"] = bench.minutes_for(fine_tunes.shortest)
            return
    best = fine_tunes.best
    detail = f"{best.setting}, {best.steps} steps; best of {tried} settings, {fine_tunes.trainings} trainings"
    vectors = bench.encode_dev(best.model)
    parts = ("base", "linear-probe") if best.setting.linear_start else ("base",)
    bench.add("contrastive", "contrastive", detail, vectors, lambda: best.model, parts=parts, seconds=seconds())


def _merged(bench: Workbench) -> None:
    """Average the weights of the fine-tuned model and of the base model: it forgets less, and is often better."""
    if (tuned := bench.candidates.get("contrastive")) is None:
        bench.skipped["merged"] = "it needs a fine-tuned model"
        return
    for share in BASE_SHARES:
        _add_merged(bench, tuned.build(), share)


def _add_merged(bench: Workbench, tuned: SentenceTransformer, share: float) -> None:
    """Add the average of a fine-tuned model and the base model, whose weight is `share`."""
    with bench.clock.timed() as seconds:
        started_from_map = len(tuned) > len(bench.base)  # merged models must have the same modules
        base = bench.mapped_base(0.0) if started_from_map else bench.base
        model = merge([tuned, base], [1 - share, share])
        vectors = bench.encode_dev(model)
    name, detail, parts = f"merged, {share:.0%} base", f"{share:.0%} base model", ("base", "contrastive")
    bench.add(name, "merged", detail, vectors, lambda: model, parts=parts, seconds=seconds())


def _distilled(bench: Workbench) -> None:
    """Distil the best transformer into a student with half of its layers, if a limit asks for speed."""
    if not _wants_student(bench):
        bench.skipped["distilled"] = "no limit asks for a faster model: min_speed is at most 1"
        return
    teacher, layers = best_transformer(bench), layer_count(bench.base) // 2
    data, budget = bench.training_data, bench.left
    queries = set(data.split_queries("train").values())
    texts = list(dict.fromkeys([*data.corpus.values(), *data.split_queries("train").values()]))
    texts = texts[: max(STUDENT_BATCH, int(budget / 4 / bench.text_seconds))]
    with bench.clock.timed() as seconds:
        model = teacher.build()
        vectors = encode_by_role(model, texts, queries)
        steps = bench.capped(max(1, int((budget - seconds()) / (3 * bench.text_seconds * STUDENT_BATCH))))
        settings = bench.settings(steps, batch_size=STUDENT_BATCH, learning_rate=STUDENT_RATE)
        student, _ = distil_layers(model, layers, texts, vectors, settings, queries=queries, output_dir=bench.scratch)
        of_student = bench.encode_dev(student)
    detail = f"{layers} layers, from {teacher.name}, {steps} steps"
    bench.add("distilled", "distilled", detail, of_student, lambda: student, parts=("base",), seconds=seconds())


def _wants_student(bench: Workbench) -> bool:
    params = bench.params
    return params.min_speed > 1 and "distilled" in params.recipes_to_try and layer_count(bench.base) > 1


def _concatenation(bench: Workbench) -> None:
    """Concatenate transformers with the static model, at full width and projected to the transformer's width."""
    if (static := bench.candidates.get("static")) is None:
        bench.skipped["concatenation"] = "it needs a static model"
        return
    model = static.build()
    transformers = [bench.candidates["base"], bench.candidates.get("contrastive"), best_transformer(bench)]
    for transformer in dict.fromkeys(candidate for candidate in transformers if candidate):
        with bench.clock.timed() as seconds:
            built = transformer.build()
            halves = bench.encode_dev(built, static=model)
            joined = {share: transformer.vectors.concatenated(halves, share) for share in SHARES}
            share = best_share({share: bench.evaluate_dev(vectors).of(METRIC) for share, vectors in joined.items()})
        name, detail, wide = f"{transformer.system}+static", f"static share {share}", joined[share]
        narrow = f"{name}, {transformer.vectors.dim} dimensions"
        build = partial(concat_static, built, model, share)
        parts = (transformer.name, "static")
        if sample := bench.projection_texts(transformer.vectors.dim):
            _add_narrow(bench, narrow, name, detail, wide, transformer.vectors.dim, build, parts, sample)
        bench.add(name, name, detail, wide, build, parts=(*parts, narrow), seconds=seconds())


def add_narrow(bench: Workbench) -> None:
    """Project the candidates that are too wide for `max_bytes` to the width that it allows."""
    dim = bench.params.max_bytes // BYTES_PER_DIMENSION
    if dim < 1:
        return
    too_wide = [candidate for candidate in bench.candidates.values() if candidate.vectors.dim > dim]
    names = {candidate.name: f"{candidate.name}, {dim} dimensions" for candidate in too_wide}
    for wide in too_wide:
        name = names[wide.name]
        parts = tuple(names.get(part, part) for part in wide.parts if part != "base")  # a higher mean is enough there
        system = "base-projected" if wide.system == "base" else wide.system
        sample = bench.projection_texts(dim)
        _add_narrow(bench, name, system, wide.detail, wide.vectors, dim, wide.build, parts, sample)


def best_transformer(bench: Workbench) -> Candidate:
    """Return the best candidate on dev that is a transformer of the base model's shape."""
    transformers = [made for made in bench.candidates.values() if made.system in ("base", "contrastive", "merged")]
    return max(transformers, key=lambda candidate: candidate.score)


def _add_narrow(
    bench: Workbench,
    name: str,
    system: str,
    detail: str,
    wide: Vectors,
    dim: int,
    build: Callable[[], SentenceTransformer],
    parts: tuple[str, ...],
    sample: Sequence[str],
) -> None:
    """Add a candidate with its vectors projected to their first principal components.

    They are computed on `sample`, training texts; without any, on the dev documents, which are fewer.
    """
    with bench.clock.timed() as seconds:
        queries = bench.training_data.split_queries("train").values()
        rows = encode_by_role(build(), sample, queries) if sample else np.asarray(wide.corpus)
        projection = pca_projection(rows, dim)
        narrow = wide.mapped(projection.numpy())
    bench.add(
        name,
        system,
        f"{detail}, principal components",
        narrow,
        lambda: project(copy.deepcopy(build()), projection),
        parts=parts,
        seconds=seconds(),
    )


RECIPES: dict[Recipe, Callable[[Workbench], None]] = {
    "linear": _linear,
    "static": _static,
    "contrastive": _contrastive,
    "merged": _merged,
    "distilled": _distilled,
    "concatenation": _concatenation,
}
