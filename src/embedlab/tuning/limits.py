"""What a model may cost: forgetting on another domain, encoding speed, bytes of a vector."""

from __future__ import annotations

from typing import Any

import numpy as np

from embedlab.data.splits import evenly_spread
from embedlab.evaluation.efficiency import measure_footprints
from embedlab.evaluation.probes import ProbeScore, compare_probe, score_dataset
from embedlab.tuning.candidate import Candidate
from embedlab.tuning.workbench import PROBE, SPEED_TEXTS, Workbench


class Limits:
    """Check candidates against the limits of a tuning run.

    Args:
        bench: base model and parameters.

    Attributes:
        measured: candidate name -> what was measured: `bytes`, `speed` (a multiple of the base model's) and
            `forgetting` (nDCG@10 lost on the probe, negative for a gain).
    """

    def __init__(self, bench: Workbench) -> None:
        self.bench = bench
        self.measured: dict[str, dict[str, float]] = {}
        self._of_base: ProbeScore | None = None

    def __call__(self, candidate: Candidate) -> str:
        """Return the limit that a candidate breaks, in words; empty if it keeps all of them."""
        params = self.bench.params
        facts = self.measured.setdefault(candidate.name, {"bytes": candidate.bytes})
        if params.max_bytes and candidate.bytes > params.max_bytes:
            return f"{candidate.bytes} bytes per vector, more than max_bytes={params.max_bytes}"
        forgets, is_timed = self.bench.measures("max_forgetting"), self.bench.measures("min_speed")
        model = candidate.build() if forgets or is_timed else None
        if forgets:
            facts["forgetting"] = self._forgetting(model)
            if facts["forgetting"] > params.max_forgetting:
                return f"loses {facts['forgetting']:.3f} on {PROBE}, more than max_forgetting={params.max_forgetting}"
        if is_timed:
            facts["speed"] = self._speed(model)
            if facts["speed"] < params.min_speed:
                return f"{facts['speed']:.2f} times the base model's speed, less than min_speed={params.min_speed}"
        return ""

    def _forgetting(self, model: Any) -> float:
        if self._of_base is None:
            self._of_base = score_dataset(self.bench.base, self.bench.probe_data)
        if model is self.bench.base:
            return 0.0
        return -compare_probe(score_dataset(model, self.bench.probe_data), self._of_base).mean

    def _speed(self, model: Any) -> float:
        if model is self.bench.base:
            return 1.0
        texts = evenly_spread(self.bench.data.corpus.values(), SPEED_TEXTS)
        rates = {
            name: footprint.texts_per_second
            for name, footprint in measure_footprints({"base": self.bench.base, "model": model}, texts).items()
        }
        return float(np.divide(rates["model"], rates["base"]))
