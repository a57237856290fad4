"""The benchmarks' own arithmetic, their table, and arms that fail, lie or take memory."""

from __future__ import annotations

import importlib
import json
import os
import re
from dataclasses import replace

import numpy as np
import pytest

from embedlab.deploy.indexes import IndexSpec, empty_index
from embedlab.deploy.shard_costs import Corpus
from embedlab.paths import benchmarks_dir, project_root, tables_dir
from experiments.benchmarks import corpus_costs, serving
from experiments.benchmarks.command import main
from experiments.benchmarks.harness import (
    FAILED,
    MEASURED,
    NOT_MEASURED,
    disagreements,
    estimate,
    run_benchmark,
    write_result,
)
from experiments.benchmarks.registry import BENCHMARKS
from experiments.benchmarks.roofline import Shape, forward_flops, padding_share, roofline
from experiments.benchmarks.spec import PRODUCT, Arm, Benchmark, Figure, Workload
from experiments.benchmarks.stats import Estimate, abba, median_of, median_ratio
from experiments.benchmarks.table import markdown, others_share, read_results, summary, write_table
from experiments.benchmarks.train import _stock_batches

MEGABYTE = 1 << 20
ENVIRONMENT = {
    "cpu": "a CPU",
    "cores": 2,
    "threads": 2,
    "instructions": [],
    "gpu": None,
    "python": "3",
    "versions": {"torch": "2"},
}


def fake(check: float = 1.0, fails_at: int = 0, dies: bool = False, megabytes: int = 1, loading: int = 1) -> Workload:
    """An arm without a model: prints, takes memory, and breaks when told to."""
    np.ones(loading * MEGABYTE, dtype=np.uint8)  # for a moment only
    turns = []

    def run() -> dict[str, float]:
        print("libraries print, too")
        turns.append(np.ones(megabytes * MEGABYTE, dtype=np.uint8).sum())
        if len(turns) == fails_at:
            raise ValueError("boom")
        if dies:
            os._exit(3)
        return {"check": check, "turn": len(turns)}

    return Workload(run, warm_up=lambda: None, facts={"flops_ratio": 3.0, "padding_share": 0.5})


def fakes(stock: dict, tolerance: float | None = None, **ours: float) -> Benchmark:
    factory = f"{__name__}:fake"
    arms = {"ours": Arm(factory, "", ours), "stock": Arm(factory, "", stock), "tuned": Arm(factory, "")}
    figures = (Figure("seconds", 2.0, against="stock"), Figure("turn", against="tuned"), Figure("peak_bytes"))
    return Benchmark("fakes", "arms without a model", arms, figures, tolerance=tolerance)


def statuses(result: dict) -> list[str]:
    return [row["status"] for row in result["rows"]]


def test_every_second_round_runs_backwards():
    assert "".join(abba("AB", 4)) == "ABBAABBA"
    assert "".join(abba("ABC", 3)) == "ABCCBAABC"


def test_ratio_is_the_median_over_neighbouring_repeats():
    """The medians' own ratio would be 9 / 3; neighbours give 2, 3 and 2."""
    assert median_ratio([4, 9, 10], [2, 3, 5]).value == 2
    assert median_ratio([3, 3], [3, 3]) == Estimate(1, 1, 1)
    with pytest.raises(ValueError, match="got 3 and 2"):
        median_ratio([1, 2, 3], [1, 2])


def test_bootstrap_interval_by_hand():
    """Of 7 values, a resample's median is the smallest with 4 or more of 7 draws: 1.0 %; one of the two smallest:
    10.8 %. So the 2.5 % quantile is the second smallest, and by symmetry the other the second largest."""
    assert median_of([7, 3, 1, 5, 2, 6, 4]) == Estimate(4, 2, 6)


def test_time_is_how_many_times_faster_and_memory_is_a_share():
    assert estimate(Figure("seconds", against="stock"), [2.0], [5.0]).value == 2.5
    assert estimate(Figure("peak_bytes", against="stock"), [2.0], [5.0]).value == 0.4
    assert estimate(Figure("bytes_per_document"), [1.0, 9.0, 3.0]).value == 3
    assert Figure("seconds", 2.5).meets(2.5) and not Figure("seconds", 2.5).meets(2.4)
    assert Figure("peak_bytes", 0.125).meets(0.1) and not Figure("peak_bytes", 0.125).meets(0.2)
    assert Figure("seconds").meets(1.0) is None


def test_padding_share_by_hand():
    """Batches (2, 4), (1, 1) and (5) are computed as 8 + 2 + 5 = 15 tokens, of which 13 are real."""
    assert padding_share([2, 4, 1, 1, 5], 2) == pytest.approx(2 / 15)
    assert padding_share([3, 3, 3], 2) == 0


def test_flops_by_hand():
    """d = 2, inner 3: 8·4 + 4·2·3 = 56 per token, 4·L²·2 per text, 2·4 + 2·2·10 = 48 per scored token."""
    shape = Shape(layers=1, hidden=2, inner=3, vocabulary=10)
    packed, padded = 4 * 56 + 8 * (1 + 9), 6 * 56 + 8 * (9 + 9)
    assert forward_flops([[1, 3]], shape, packed=True) == packed
    assert forward_flops([[1, 3]], shape, packed=False) == padded
    assert forward_flops([[1, 3]], shape, packed=True, head_share=0.25) == packed + 48
    assert forward_flops([[1, 3]], shape, packed=False, head_share=0.25) == padded + 6 * 48
    assert roofline([[1, 3]], shape)["flops_ratio"] == pytest.approx(padded / packed, abs=1e-3)
    assert forward_flops([[1, 3]], replace(shape, layers=3), packed=True) == 3 * packed


def test_positives_and_negatives_share_one_width():
    """As sentence-transformers pads them: queries apart, the documents of a batch together."""
    assert _stock_batches([1, 2, 3], [[4, 5, 6], [7, 8, 9]], 2) == [[1, 2], [3], [4, 5, 7, 8], [6, 9]]


def test_all_arms_repeat_and_agree(tmp_path):
    result = run_benchmark(fakes({}, tolerance=0.1), repeats=3)
    assert statuses(result) == [MEASURED] * 3
    assert [[repeat["turn"] for repeat in arm["repeats"]] for arm in result["arms"].values()] == [[1, 2, 3]] * 3
    assert result["arms"]["ours"]["facts"]["padding_share"] == 0.5
    assert json.loads(write_result(result, tmp_path).read_text()) == result


def test_an_arm_that_raises_fails_its_rows_alone():
    result = run_benchmark(fakes({"fails_at": 2}), repeats=3)
    assert statuses(result) == [FAILED, MEASURED, MEASURED]
    assert result["rows"][0]["cause"] == "stock: ValueError: boom"
    assert "value" not in result["rows"][0]
    assert len(result["arms"]["ours"]["repeats"]) == 3


def test_an_arm_that_dies_leaves_its_exit_code():
    result = run_benchmark(fakes({"dies": True}), repeats=1)
    assert statuses(result)[0] == FAILED
    assert result["rows"][0]["cause"].startswith("stock: exit code 3")


def test_an_arm_with_another_result_has_no_ratio():
    result = run_benchmark(fakes({"check": 1.5}, tolerance=0.1), repeats=1)
    assert statuses(result) == [FAILED, MEASURED, MEASURED]
    assert "differs by 0.5" in result["rows"][0]["cause"]


def test_peak_memory_is_that_of_the_work_and_not_of_loading():
    result = run_benchmark(fakes({}, megabytes=100, loading=400), repeats=2)
    for repeat in result["arms"]["ours"]["repeats"]:
        assert 90 * MEGABYTE < repeat["peak_bytes"] < 200 * MEGABYTE


def result_with(**row: object) -> dict:
    figure = {"measure": "seconds", "against": "stock", "arm": "ours"}
    facts = {"flops_ratio": 3.0, "padding_share": 0.5}
    return {
        "name": "fakes",
        "smoke": False,
        "background_share": 0.0,
        "environment": ENVIRONMENT,
        "arms": {"ours": {"facts": facts}},
        "rows": [{**figure, "value": 123.4, "low": 120.0, "high": 130.0, "cause": "", **row}],
    }


def first_row(result: dict | None) -> list[str]:
    page = markdown([fakes({})], {"fakes": result} if result else {})
    return [
        cell.strip() for cell in next(line for line in page.splitlines() if "arms without" in line).split("|")[1:-1]
    ]


def test_table_shows_a_measured_row():
    assert first_row(result_with(status=MEASURED))[1:] == [
        "time",
        "stock",
        "≥ 2 ×",
        "123 × [120, 130]",
        "yes",
        "3.00 × (50% padding)",
    ]
    assert first_row(result_with(status=MEASURED, value=1.5, low=1.0, high=1.75))[4:6] == ["1.5 × [1, 1.75]", "no"]


@pytest.mark.parametrize("status", [FAILED, NOT_MEASURED])
def test_table_never_shows_a_number_without_a_measurement(status):
    assert first_row(result_with(status=status, cause="no CUDA device"))[4:] == [f"{status}: no CUDA device", "", ""]
    assert first_row(None)[4:] == [NOT_MEASURED, "", ""]


def test_table_labels_smoke_and_a_busy_machine():
    smoke = {**result_with(status=MEASURED), "smoke": True}
    assert first_row(smoke)[4:6] == ["123 × [120, 130] (smoke)", ""]
    busy = {**result_with(status=MEASURED), "background_share": 0.3}
    assert first_row(busy)[4] == "123 × [120, 130] (busy machine: 30% used by other programs)"


def test_a_product_measured_alone_is_the_bound():
    result = result_with(status=MEASURED)
    times = {"stock": (6.0, 9.0, 6.0), PRODUCT: (2.0, 2.0, 1.0)}
    result["arms"] |= {arm: {"repeats": [{"seconds": second} for second in row]} for arm, row in times.items()}
    assert first_row(result)[6] == "3.00 × (the matrix product alone)"


def test_an_arm_without_a_result_disagrees_with_none():
    arms = {"ours": {"repeats": [{"check": 1.0}]}, PRODUCT: {"repeats": [{"seconds": 1.0}]}}
    assert disagreements(arms, 0.1) == {}
    assert disagreements(arms | {"stock": {"repeats": [{"check": 2.0}]}}, 0.1).keys() == {"stock"}


def test_table_is_rebuilt_from_the_files(tmp_path):
    write_result(result_with(status=MEASURED), tmp_path)
    first = write_table([fakes({})], tmp_path).read_text()
    assert "123 ×" in first
    assert write_table([fakes({})], tmp_path).read_text() == first
    write_result(result_with(status=FAILED, cause="boom"), tmp_path)
    assert "123 ×" not in write_table([fakes({})], tmp_path).read_text()


def test_summary_has_one_line_for_what_was_measured():
    line = summary([fakes({})], {"fakes": result_with(status=MEASURED)}).splitlines()[2]
    assert [cell.strip() for cell in line.split("|")[2:-1]] == [
        "123 × [120, 130]",
        "≥ 2 ×",
        "",
        "3.00 × (50% padding)",
        "",
    ]
    for result in ({"fakes": result_with(status=FAILED)}, {}):
        assert len(summary([fakes({})], result).splitlines()) == 2


def test_committed_tables_come_from_their_files():
    folder, benchmarks = benchmarks_dir(), list(BENCHMARKS.values())
    assert (folder / "README.md").read_text() == markdown(benchmarks, read_results(folder))
    assert (tables_dir() / "benchmarks.md").read_text() == summary(benchmarks, read_results(folder))


ENCODERS = ("mpnet", "modernbert", "nomic_bert", "t5", "gemma3_text")


def test_registered_targets_are_those_promised():
    targets = {
        (name, figure.measure, figure.against or figure.arm): figure.target
        for name, benchmark in BENCHMARKS.items()
        for figure in benchmark.figures
        if figure.target is not None
    }
    assert targets == {
        ("train_short", "seconds", "stock"): 2.5,
        ("train_short_256", "seconds", "stock"): 2.5,
        ("train_passages", "seconds", "stock"): 1.4,
        ("train_short_gpu", "seconds", "stock"): 5.0,
        ("train_short_gpu", "seconds", "tuned"): 2.0,
        ("train_passages_gpu", "seconds", "stock"): 5.0,
        ("train_passages_gpu", "seconds", "tuned"): 2.0,
        ("mlm", "seconds", "stock"): 2.2,
        ("encode", "seconds", "stock"): 1.3,
        ("encode_gpu", "seconds", "stock"): 4.0,
        ("evaluate_dims", "seconds", "stock"): 5.0,
        ("search", "seconds", "stock"): 2.5,
        ("search", "peak_bytes", "stock"): 0.125,
        ("memory_1m", "bytes_per_document", "ours"): 1_600,
        ("memory_1m", "growth_ratio", "memmap"): 1.25,
        ("memmap_5m", "encoded_twice", "ours"): 0,
        ("million_pairs", "own_bytes", "ours"): 4_000_000_000,
        ("million_pairs", "seconds_to_first_step", "ours"): 600,
        ("train_processes", "seconds", "one"): 1.0,
        ("train_short_cached", "peak_bytes", "tuned"): 1.2,
        ("train_short_cached", "seconds", "tuned"): 1.0,
        ("shards_1m", "difference", "ours"): 1e-6,
        ("shards_1m", "encoded_twice", "ours"): 0,
        ("shards_1m", "growth_ratio", "ours"): 1.1,
        ("sweep_cold", "seconds", "stock"): 2.2,
        ("run_fixed_cost", "seconds", "stock"): 10.0,
        ("train_short_bert_base", "seconds", "stock"): 2.5,
        **{(f"train_short_{name}", "seconds", "stock"): 2.0 for name in ENCODERS},
        **{(f"train_short_{name}", "seconds", "stock"): 1.5 for name in ("qwen3", "llama")},
    }


@pytest.mark.parametrize("benchmark", BENCHMARKS.values(), ids=list(BENCHMARKS))
def test_registered_arms_exist(benchmark):
    assert {"ours"} <= set(benchmark.arms)
    for arm in benchmark.arms.values():
        module, _, function = arm.factory.partition(":")
        assert callable(getattr(importlib.import_module(module), function))
    for figure in benchmark.figures:
        assert {figure.arm, figure.against} - {None} <= set(benchmark.arms)


def test_smoke_runs_never_write_results(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path))
    with pytest.raises(SystemExit, match="a smoke run writes no results"):
        main(["--quick", "--out", str(tmp_path / "results" / "benchmarks" / "smoke")])


def test_gpu_rows_say_why_they_are_empty(tmp_path, monkeypatch):
    monkeypatch.setattr("experiments.benchmarks.environment._gpu_name", lambda: None)
    assert main(["--quick", "--only", "train_short_gpu", "--out", str(tmp_path)]) == 0
    page = (tmp_path / "README.md").read_text()
    assert "not measured: no CUDA device" in page


@pytest.mark.slow
def test_encode_end_to_end(tmp_path):
    """Real models in real children: the arms agree on the vectors, and the page carries the smoke label."""
    assert main(["--quick", "--only", "encode", "--repeats", "1", "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "encode.json").read_text())
    assert statuses(result) == [MEASURED] * 3
    assert result["environment"]["omp_wait_policy"] == "PASSIVE"
    assert "(smoke)" in (tmp_path / "README.md").read_text()


GPU = [name for name, benchmark in BENCHMARKS.items() if benchmark.device == "cuda"]


def test_gpu_script_names_every_benchmark_of_the_gpu():
    script = (project_root() / "experiments" / "benchmarks" / "gpu.sh").read_text()
    names = re.search(r'names="([^"]*)"', script)[1].split()
    assert sorted(names) == sorted(GPU)


def test_on_cpu_only_tests_the_benchmarks(tmp_path):
    with pytest.raises(SystemExit, match="--on-cpu tests the benchmarks themselves"):
        main(["--on-cpu", "--only", GPU[0], "--out", str(tmp_path)])


@pytest.mark.slow
def test_gpu_benchmark_runs_on_the_cpu_at_toy_size(tmp_path):
    """The arms of training; memory of a GPU cannot be measured, and the rows say so."""
    options = ["--quick", "--on-cpu", "--only", "train_600m_gpu", "--repeats", "1", "--threads", "1"]
    assert main([*options, "--out", str(tmp_path)]) == 0
    result = json.loads((tmp_path / "train_600m_gpu.json").read_text())
    assert statuses(result) == [MEASURED, MEASURED, NOT_MEASURED, NOT_MEASURED]
    assert "does not report device_peak_bytes" in result["rows"][2]["cause"]


class TestCorpusCosts:
    def test_arithmetic_by_hand(self):
        """10,000 documents of 4 dimensions: 160 kB of vectors, 400 lists of 25 codes of 2 + 8 bytes."""
        corpus = Corpus(10_000, dim=4, code_bytes=2, nprobe=40, shortlist=10, links=2)
        assert (corpus.lists, corpus.vector_bytes, corpus.code_file_bytes) == (400, 160_000, 100_000)
        assert corpus.server_bytes == (400 + 256) * 16
        assert corpus.query_bytes == 10_000 + 10 * 16
        assert corpus.hnsw_bytes == 160_000 + 10_000 * 16
        assert Corpus(7_200).hours(0.5, devices=4) == 1.0

    def test_code_bytes_are_those_of_faiss(self):
        index = empty_index(IndexSpec(kind="ivfpq", lists=4, code_bytes=48), 100_000, 384)
        assert Corpus(1).code_file_bytes == index.code_size + 8

    def test_a_rate_that_was_not_measured_says_so(self):
        repeats = [{"seconds": 3}, {"seconds": 2}, {"seconds": 1}]
        result = {"size": {"texts": 100}, "arms": {"ours": {"repeats": repeats}}}
        assert corpus_costs.rate(result) == 50
        assert corpus_costs.rate(None) is None and corpus_costs.rate({"arms": {}}) is None
        table = corpus_costs.time_table({"encode": result})
        assert f"| 50 | {100_000_000 / 50 / 3600:.3g} |" in table and table.count("not measured") == 12

    def test_page_has_the_tables_of_the_committed_results(self):
        assert corpus_costs.block(read_results(benchmarks_dir())) in corpus_costs.page().read_text()


class TestServing:
    def result(self, others_share):
        repeats = [
            {
                "texts_per_second_8": 100.0 * n,
                "p50_ms_8": n,
                "p99_ms_8": 9.0,
                "server_peak_bytes": 5e8,
                "others_share": 0,
            }
            for n in (1, 3, 2)
        ]
        repeats[0]["others_share"] = others_share
        arms = {name: {"repeats": repeats} for name in ("ours", "stock")}
        return {"arms": arms, "size": {"clients": [8]}, "environment": ENVIRONMENT}

    def test_medians_and_other_programs(self):
        table = serving.table(self.result(0.3))
        assert "| 8 | 200 | 200 | 2 | 2 | 9 | 9 |" in table and "500 MB (`embedlab serve`)" in table
        assert "other programs used up to 30%" in table and "a CPU, 2 threads." in table
        assert others_share(self.result(0.3) | {"background_share": None}) == 0.3
        assert "Busy" not in serving.table(self.result(0.01))

    def test_what_was_not_measured_says_so(self):
        assert serving.table(None) == serving.table({"arms": {}}) == "Not measured yet."

    def test_page_has_the_table_of_the_committed_result(self):
        assert serving.block(read_results(benchmarks_dir())) in serving.page().read_text()

    @pytest.mark.slow
    def test_both_servers_answer_with_the_same_vectors(self, tmp_path):
        options = ["--quick", "--only", "serving", "--repeats", "1", "--threads", "1"]
        assert main([*options, "--out", str(tmp_path)]) == 0
        result = json.loads((tmp_path / "serving.json").read_text())
        assert statuses(result) == [MEASURED] * 4 and not result["causes"]
