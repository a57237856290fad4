"""Is OpenVINO faster than onnxruntime with the graphs that `embedlab export` writes?

    pip install openvino    # not a dependency of this project
    python -m experiments.export.with_openvino    # five minutes on one core

OpenVINO 2026.4 gives no vectors for the int8 graph, so it runs the fp32 graph only. One thread; texts per CPU second in
one run, in turns. The results are kept in results/openvino.json, the table is in
the experiment log.
"""

from __future__ import annotations

import json
import os
import tempfile
from collections.abc import Callable
from datetime import UTC, datetime
from functools import cached_property
from importlib import metadata
from pathlib import Path
from types import SimpleNamespace
from typing import Any

from embedlab.deploy.onnx_folder import GRAPH, ExportedEncoder
from embedlab.io import write_atomic
from embedlab.models.load import BASE_MODEL
from embedlab.paths import project_root, results_dir
from experiments.pages import markdown_table, replace_block

FILE = "openvino.json"
TEXTS, REPEATS = 300, 5
START, END = "<!-- openvino: python -m experiments.export.with_openvino -->", "<!-- end of openvino -->"
PACKED = "embedlab, packed"
INT8 = "onnxruntime, int8"
ARMS = {  # graph and OpenVINO's precision of the arithmetic; None is onnxruntime
    "onnxruntime, fp32": ("fp32", None),
    "OpenVINO, fp32": ("fp32", "f32"),
    "OpenVINO, fp32 graph in bf16 (its default here)": ("fp32", "bf16"),
    INT8: ("int8", None),
}


class OpenVinoEncoder(ExportedEncoder):
    """An exported model that OpenVINO runs on one thread.

    Args:
        folder: from `embedlab export`.
        precision: of the arithmetic: "f32" or "bf16".
    """

    def __init__(self, folder: Path, precision: str) -> None:
        super().__init__(folder, threads=1)
        self.precision = precision

    @cached_property
    def _session(self) -> Any:
        import openvino

        options = {
            "INFERENCE_NUM_THREADS": 1,
            "NUM_STREAMS": 1,
            "INFERENCE_PRECISION_HINT": self.precision,
            "PERFORMANCE_HINT": "LATENCY",
        }
        compiled = openvino.Core().compile_model(str(self.folder / GRAPH), "CPU", options)
        request = compiled.create_infer_request()
        return SimpleNamespace(run=lambda _, inputs: [request.infer(inputs)[0].copy()])


def measure() -> dict[str, Any]:
    """Export the base model in fp32 and int8, and run both graphs with both runtimes.

    Returns:
        Environment and one row per arm, ready for JSON.
    """
    import torch

    from embedlab.data.load import load_dataset
    from embedlab.data.splits import evenly_spread
    from embedlab.deploy.export import export_model
    from embedlab.deploy.parity import Comparison
    from embedlab.models.encode import encode
    from embedlab.models.load import load_model
    from embedlab.search.vectors import encode_split
    from experiments.benchmarks.environment import describe
    from experiments.benchmarks.stats import median_of, median_ratio
    from experiments.export.study import ALL, quality, time_in_turns, with_all_queries

    torch.set_num_threads(1)
    model, data = load_model(packed=False), with_all_queries(load_dataset("icd10cm:mini", training=False))
    ours, packed = encode_split(model, data, ALL), load_model()
    texts = evenly_spread(data.corpus.values(), TEXTS)
    with tempfile.TemporaryDirectory() as temporary:
        folders = {name: Path(temporary) / name for name in ("fp32", "int8")}
        for name, folder in folders.items():
            export_model(model, folder, int8=name == "int8", comparison=Comparison(threads=1))
        encoders = {
            arm: OpenVinoEncoder(folders[graph], precision) if precision else ExportedEncoder(folders[graph], threads=1)
            for arm, (graph, precision) in ARMS.items()
        }
        rows = {arm: quality(encoder, data, ours) for arm, encoder in encoders.items()}
        timed: dict[str, Callable[[], Any]] = {PACKED: lambda: encode(packed, texts)}
        timed |= {arm: lambda encoder=encoder: encoder.encode_documents(texts) for arm, encoder in encoders.items()}
        seconds = time_in_turns(timed, REPEATS)
    speeds = {}
    for arm, values in seconds.items():
        speeds[arm] = {
            "texts_per_second": median_of([len(texts) / value for value in values])._asdict(),
            "times_packed": median_ratio(seconds[PACKED], values)._asdict(),
            "times_int8": median_ratio(seconds[INT8], values)._asdict(),
        }
    versions = {name: metadata.version(name) for name in ("openvino", "onnxruntime", "onnx")}
    return {
        "dataset": data.name,
        "model": BASE_MODEL,
        "queries": len(ours.query_ids),
        "documents": len(ours.corpus_ids),
        "timed_texts": len(texts),
        "repeats": REPEATS,
        "date": datetime.now(UTC).isoformat(timespec="seconds"),
        "environment": describe(1) | versions,
        "quality": rows,
        "speeds": speeds,
    }


def table(result: dict[str, Any]) -> str:
    """Return the results as a Markdown table."""
    header = ["", "cosine: mean", "lowest", "nDCG@10: difference", "texts/s", "times packed", "times onnxruntime int8"]
    rows = []
    for arm, speed in result["speeds"].items():
        measured = result["quality"].get(arm)
        compared = ["", "", ""]
        if measured:
            d = measured["difference"]
            difference = f"{d['mean']:+.4f} [{d['low']:+.4f}, {d['high']:+.4f}]"
            compared = [f"{measured['cosine_mean']:.4f}", f"{measured['cosine_min']:.4f}", difference]
        ratios = [f"{speed['times_packed']['value']:.2f}", f"{speed['times_int8']['value']:.2f}"]
        rows.append([arm, *compared, f"{speed['texts_per_second']['value']:,.0f}", *ratios])
    return markdown_table(header, rows)


def main() -> None:
    """Measure, and write the results and the table."""
    for variable in ("OMP_NUM_THREADS", "RAYON_NUM_THREADS"):  # read when torch and tokenizers are imported
        os.environ[variable] = "1"
    result = measure()
    write_atomic(results_dir() / FILE, json.dumps(result, indent=1) + "\n")
    page = project_root() / "experiments" / "log" / "2026-11-29-export-int8.md"
    text = page.read_text(encoding="utf-8")
    page.write_text(replace_block(text, START, END, f"{START}\n\n{table(result)}\n\n{END}"), encoding="utf-8")


if __name__ == "__main__":
    main()
