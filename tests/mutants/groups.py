"""Which modules get mutants, and which test files must kill them."""

from __future__ import annotations

from dataclasses import dataclass
from pathlib import Path

ROOT = Path(__file__).resolve().parents[2]
SOURCE = Path("src/embedlab")


@dataclass(frozen=True)
class Group:
    """Modules that share one mutation run, because the same tests reach them.

    Attributes:
        modules: paths below src/embedlab, without the ending.
        tests: names of files in tests/unit, without `test_` and the ending.
    """

    modules: tuple[str, ...]
    tests: tuple[str, ...]

    @property
    def test_files(self) -> list[str]:
        """Paths of the test files below the root."""
        return [f"tests/unit/test_{name}.py" for name in self.tests]


GROUPS: dict[str, Group] = {
    "evidence": Group(
        ("models/evidence", "models/card", "runs/evidence", "evaluation/verify", "evaluation/mteb_files"),
        ("evidence", "evaluate_mteb"),
    ),
    "upload": Group(("scan", "deploy/hub"), ("scan", "hub")),
    "losses": Group(
        ("training/losses", "training/batches", "training/contrastive/graded", "training/contrastive/loss_gradients"),
        ("losses", "batches", "graded", "simcse", "matryoshka"),
    ),
    "mining": Group(("training/contrastive/mining", "search/judged"), ("mining", "judged")),
    "checkpoints": Group(("training/checkpoints", "training/finished"), ("checkpoints",)),
    "group": Group(("training/group", "training/launch", "launchers"), ("group",)),
    "engine": Group(("engine", "checked", "training/engine", "training/truncated"), ("engine", "params")),
    "hostile": Group(
        ("escaping", "redaction", "sweeps/conditions"),
        ("escaping", "redaction", "sweeps"),
    ),
    "distillation": Group(
        ("training/distillation/embeddings", "training/distillation/cross_encoder", "models/cross_encoder"),
        ("distillation", "distill_cross_encoder"),
    ),
    "pretraining": Group(
        ("training/pretraining/mlm", "training/pretraining/tsdae", "training/pretraining/objectives"),
        ("mlm", "tsdae", "pretraining", "simcse"),
    ),
    "models": Group(
        ("models/packing", "models/packed_attention", "models/packed_layers", "models/merging", "models/lora"),
        ("packing", "merging", "lora"),
    ),
    "api": Group(
        (
            "models/api",
            "models/endpoint",
            "models/providers",
            "models/spending",
            "models/vector_map",
            "models/adapter_folder",
        ),
        ("api_models", "adapters", "diagnose_endpoint"),
    ),
    "adapters": Group(("training/adapters/train", "models/adapter", "models/vector_map"), ("adapters",)),
    "retrievers": Group(
        (
            "search/encoded",
            "search/sparse",
            "search/late_interaction",
            "models/sparse",
            "models/late_interaction",
            "models/asymmetric",
            "training/distillation/query_encoder",
        ),
        ("sparse", "late_interaction", "asymmetric"),
    ),
    "static": Group(
        ("models/static", "models/static_concat", "models/concatenation"),
        ("static", "static_model", "concatenation"),
    ),
    "search": Group(
        (
            "search/exact",
            "search/funnel",
            "search/quantised",
            "search/bm25",
            "search/fusion",
            "search/scaling",
            "search/rescore",
            "search/recall",
            "search/early_stop",
        ),
        ("evaluation_search", "funnel", "quantised", "evaluation_baselines", "matryoshka_prefixes", "evaluate_groups"),
    ),
    "metrics": Group(
        ("evaluation/metrics", "evaluation/significance"),
        ("evaluation_metrics", "evaluation_significance", "evaluation_slices"),
    ),
    "tuning": Group(("tuning/choice", "tuning/trials", "tuning/clock"), ("tuning_choice", "tuning_trials")),
    "labelling": Group(
        ("evaluation/labelling/budget", "evaluation/labelling/priority", "data/review", "data/relabel"),
        ("labelling", "review", "relabel"),
    ),
    "data": Group(
        ("data/splits", "data/leakage", "data/overlap", "data/text_analysis", "data/languages"),
        ("data_splits", "data_leakage", "data_extra", "data_overlap", "text_analysis", "languages"),
    ),
    "endpoint": Group(
        (
            "deploy/endpoint/batching",
            "deploy/endpoint/guard",
            "deploy/endpoint/protocol",
            "deploy/endpoint/roles",
            "deploy/endpoint/settings",
        ),
        ("endpoint", "endpoint_batching"),
    ),
    "qdrant": Group(("deploy/qdrant", "deploy/exported"), ("deploy_qdrant", "deploy_lance")),
    "languages": Group(
        (
            "data/translations",
            "data/extra",
            "data/icd10multi",
            "data/parallel",
            "search/across_languages",
            "evaluation/cross_lingual",
            "models/vocabulary",
            "training/distillation/languages",
        ),
        ("data_languages", "data_extra", "data_glossary", "cross_lingual", "vocabulary"),
    ),
    "postgres": Group(("deploy/postgres",), ("deploy_postgres",)),
    "deploy": Group(
        ("deploy/versions", "deploy/drift", "deploy/shadow", "deploy/adapter"),
        ("deploy_versions", "deploy_drift", "deploy_shadow", "deploy_adapter"),
    ),
    "runs": Group(
        ("runs/records", "runs/run_id", "runs/inputs", "runs/migrate", "io"),
        ("experiments_records", "run_id", "inputs", "migrate", "io"),
    ),
    "reporting": Group(
        ("reporting/sweep_table", "reporting/pareto", "reporting/figure_fonts"),
        ("experiments_sweep_table", "efficiency", "figure_fonts"),
    ),
}


def known_modules() -> list[str]:
    """Every module of every group."""
    return [module for group in GROUPS.values() for module in group.modules]


def group_of(module: str) -> str:
    """The name of the group that a module belongs to.

    Raises:
        SystemExit: no group has it.
    """
    for name, group in GROUPS.items():
        if module in group.modules:
            return name
    raise SystemExit(f"No group has the module {module!r}. Modules: {', '.join(known_modules())}.")
