"""Which int8 export keeps the ranking, and how fast is it?

    python -m experiments.export            # measures all schemes (15 minutes on one core) and writes the tables
    python -m experiments.export --tables   # writes the tables only

The results are kept in results/export.json.
"""

from __future__ import annotations

import argparse
import json
import os
from collections.abc import Sequence

from embedlab.io import write_atomic
from embedlab.models.load import BASE_MODEL
from embedlab.paths import results_dir
from experiments.export.tables import write_tables


def main(arguments: Sequence[str] | None = None) -> None:
    """Measure if asked to, and write the tables."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("dataset", nargs="?", default="icd10cm:mini")
    parser.add_argument("-m", "--model", default=BASE_MODEL, help="a BERT: short name, folder or hub name")
    parser.add_argument("--texts", type=int, default=300, help="documents that are timed")
    parser.add_argument("--repeats", type=int, default=5, help="of every timing")
    parser.add_argument("--tables", action="store_true", help="only write the tables")
    options = parser.parse_args(arguments)
    file = results_dir() / "export.json"
    if not options.tables:
        for variable in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):  # read when torch and tokenizers are imported
            os.environ[variable] = "1"
        from experiments.export.study import study

        result = study(options.dataset, options.model, texts=options.texts, repeats=options.repeats)
        write_atomic(file, json.dumps(result, indent=1) + "\n")
    write_tables(json.loads(file.read_text(encoding="utf-8")))


if __name__ == "__main__":
    main()
