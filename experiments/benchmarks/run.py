"""Measure the fast path: `python experiments/benchmarks/run.py [--only NAME …] [--quick] [--repeats N]`."""

from __future__ import annotations

import sys
from pathlib import Path

# In the place of this script's own folder, whose module names nobody else is meant to see.
sys.path[0] = str(Path(__file__).resolve().parents[2])

from experiments.benchmarks.command import main  # noqa: E402

sys.exit(main())
