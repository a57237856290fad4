"""Deploy a model: embed a corpus, index it, version it, watch it and roll back.

A notebook takes the names it needs from here: `from embedlab import deploy`.
"""

from embedlab.deploy.adapter import AdaptedEncoder, adapter_table, compare_adapters, fit_adapter
from embedlab.deploy.build import Source, build_version, store_of
from embedlab.deploy.drift import QueryMonitor, check_drift, false_alarm_rate, make_reference
from embedlab.deploy.embed import estimate
from embedlab.deploy.indexes import IndexSpec
from embedlab.deploy.lance import export_lance, search_lance
from embedlab.deploy.measure import STANDARD_INDEXES, compare_indexes, exact_scores, tuning_curves
from embedlab.deploy.mixing import mixed_rankings
from embedlab.deploy.params import DeployParams
from embedlab.deploy.postgres import export_postgres, import_postgres, search_postgres
from embedlab.deploy.qdrant import export_qdrant, import_qdrant, search_qdrant
from embedlab.deploy.recheck import judge, recheck
from embedlab.deploy.serve import open_version
from embedlab.deploy.shadow import QueryLog, Side, overlap_at_k, rbo, shadow_test
from embedlab.deploy.space import ModelEncoder, SpaceMismatch
from embedlab.deploy.versions import INDEX, promote, rollback, version_folder
from embedlab.errors import StorageError

__all__ = [
    "INDEX",
    "STANDARD_INDEXES",
    "AdaptedEncoder",
    "DeployParams",
    "IndexSpec",
    "ModelEncoder",
    "QueryLog",
    "QueryMonitor",
    "Side",
    "Source",
    "SpaceMismatch",
    "StorageError",
    "adapter_table",
    "build_version",
    "check_drift",
    "compare_adapters",
    "compare_indexes",
    "estimate",
    "exact_scores",
    "export_lance",
    "export_postgres",
    "export_qdrant",
    "false_alarm_rate",
    "fit_adapter",
    "import_postgres",
    "import_qdrant",
    "judge",
    "make_reference",
    "mixed_rankings",
    "open_version",
    "overlap_at_k",
    "promote",
    "rbo",
    "recheck",
    "rollback",
    "search_lance",
    "search_postgres",
    "search_qdrant",
    "shadow_test",
    "store_of",
    "tuning_curves",
    "version_folder",
]
