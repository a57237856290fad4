"""Run the benchmarks: `python experiments/benchmarks/run.py [--only NAME …] [--quick] [--repeats N]`."""

from __future__ import annotations

import sys
from pathlib import Path

# Replaces this script's folder, whose module names would hide others.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from experiments.benchmarks.command import main  # noqa: E402

sys.exit(main())
