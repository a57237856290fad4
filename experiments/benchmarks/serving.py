"""`embedlab serve` against a plain FastAPI application, on loopback: short texts, one per request, 1 to 32 clients.

Each repeat starts a new server, sends requests, and stops it. The clients are threads of the measuring process and
share the processors with the server. `python -m experiments.benchmarks.serving` writes the table in docs/deployment.md.
"""

from __future__ import annotations

import http.client
import json
import subprocess
import sys
import time
from collections.abc import Iterator, Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from functools import partial
from pathlib import Path
from statistics import median
from typing import Any
from urllib.parse import urlsplit

import numpy as np
import psutil

from embedlab.memory import peak_bytes
from embedlab.models.load import BASE_MODEL
from embedlab.paths import benchmarks_dir, project_root
from experiments.benchmarks import environment
from experiments.benchmarks.spec import Arm, Benchmark, Figure, Workload
from experiments.benchmarks.table import BUSY_SHARE, others_share, read_results
from experiments.benchmarks.workloads import checksum, short_dataset, texts_of
from experiments.pages import markdown_table, replace_block

OURS = ("-m", "embedlab.cli", "serve", BASE_MODEL, "--port", "0")
STOCK = ("-m", "experiments.benchmarks.stock_server")
ARMS = {"ours": "`embedlab serve`", "stock": "FastAPI and `encode`"}
START, END = "<!-- serving: python -m experiments.benchmarks.serving -->", "<!-- end of serving -->"


def served(*, data: str, clients: Sequence[int], requests: Sequence[int], command: Sequence[str]) -> Workload:
    """Requests to a server that `command` starts.

    Args:
        data: size of the dataset that gives the texts.
        clients: numbers of clients that send requests at the same time.
        requests: of one client, for each number of clients.
        command: arguments of the Python interpreter.
    """
    texts = texts_of(short_dataset(data), max(count * each for count, each in zip(clients, requests, strict=True)))
    return Workload(partial(_measure, texts, clients, requests, command), warm_up=lambda: None)


def _measure(
    texts: Sequence[str], clients: Sequence[int], requests: Sequence[int], command: Sequence[str]
) -> dict[str, float]:
    with _server(command) as (process, address):
        measured = {"loaded_server_bytes": float(process.memory_info().rss)}
        _client(address, texts[:8])
        busy, total, own = _processors(process)
        seconds = 0.0
        for count, each in zip(clients, requests, strict=True):
            began = time.perf_counter()
            with ThreadPoolExecutor(count) as pool:
                parts = pool.map(partial(_client, address), [texts[n * each : (n + 1) * each] for n in range(count)])
                latencies, vectors = map(np.concatenate, zip(*parts, strict=True))
            took = time.perf_counter() - began
            seconds += took
            measured |= {
                f"texts_per_second_{count}": count * each / took,
                f"p50_ms_{count}": float(np.quantile(latencies, 0.5)) * 1e3,
                f"p99_ms_{count}": float(np.quantile(latencies, 0.99)) * 1e3,
            }
        busy_now, total_now, own_now = _processors(process)
        others = (busy_now - busy - (own_now - own)) / (total_now - total)
        peak = peak_bytes(process.pid)
        return {
            **measured,
            "seconds": seconds,
            "others_share": round(max(0.0, others), 3),
            "server_peak_bytes": peak,
            "check": checksum(vectors),
        }


@contextmanager
def _server(command: Sequence[str]) -> Iterator[tuple[psutil.Process, str]]:
    """Start a server; gives its process and its address once it accepts requests."""
    with subprocess.Popen([sys.executable, *command], stdout=subprocess.PIPE, text=True) as process:
        try:
            address = next(word for word in process.stdout.readline().split() if word.startswith("http"))
            yield psutil.Process(process.pid), address
        finally:
            process.kill()


def _client(address: str, texts: Sequence[str]) -> tuple[np.ndarray, np.ndarray]:
    """Send one text after the other on one connection; returns the seconds of each request (N,), and vectors (N, d)."""
    parts = urlsplit(address)
    connection = http.client.HTTPConnection(parts.hostname, parts.port, timeout=120)
    seconds, bodies = [], []
    for text in texts:
        body = json.dumps({"input": text})
        began = time.perf_counter()
        connection.request("POST", f"{parts.path}/embeddings", body, {"Content-Type": "application/json"})
        answer = connection.getresponse()
        bodies.append(answer.read())
        seconds.append(time.perf_counter() - began)
        if answer.status != 200:
            raise RuntimeError(f"the server answered {answer.status}")
    connection.close()
    vectors = [json.loads(body)["data"][0]["embedding"] for body in bodies]
    return np.array(seconds), np.array(vectors, dtype=np.float32)


def _processors(server: psutil.Process) -> tuple[float, float, float]:
    """Return the busy and total seconds of all processors, and the seconds of the server and this process."""
    own = sum(times.user + times.system for times in (server.cpu_times(), psutil.Process().cpu_times()))
    return *environment.processor_seconds(), own


def table(result: Mapping[str, Any] | None) -> str:
    """Return throughput, latency and memory of both servers as Markdown, medians over the repeats."""
    if not result or not all(result["arms"].get(arm, {}).get("repeats") for arm in ARMS):
        return "Not measured yet."
    repeats = {arm: result["arms"][arm]["repeats"] for arm in ARMS}

    def middle(arm: str, measure: str) -> float:
        return median(repeat[measure] for repeat in repeats[arm])

    header = ["clients", *(f"{name}: {unit}" for unit in ("texts/s", "p50, ms", "p99, ms") for name in ARMS.values())]
    rows = []
    for count in result["size"]["clients"]:
        measures = (f"texts_per_second_{count}", f"p50_ms_{count}", f"p99_ms_{count}")
        rows.append([str(count), *(f"{middle(arm, measure):,.0f}" for measure in measures for arm in ARMS)])
    peaks = " and ".join(f"{middle(arm, 'server_peak_bytes') / 1e6:,.0f} MB ({name})" for arm, name in ARMS.items())
    busy, machine = others_share(result), result["environment"]
    threads = "1 thread" if machine["threads"] == 1 else f"{machine['threads']} threads"
    caption = (
        f"The base model (22 M parameters) on {machine['cpu']}, {threads}. One text of about a "
        f"dozen tokens per request. Medians of {len(repeats['ours'])} repeats. Peak memory: {peaks}."
    )
    if busy > BUSY_SHARE:
        caption += f" Busy machine: other programs used up to {busy:.0%} of the processors, so compare the columns."
    return f"{markdown_table(header, rows)}\n\n{caption}"


def block(results: Mapping[str, Mapping[str, Any]]) -> str:
    """Return the part of the page between the markers, with them."""
    return f"{START}\n\n{table(results.get('serving'))}\n\n{END}"


def page() -> Path:
    """Return the page that holds the table."""
    return project_root() / "docs" / "deployment.md"


def main() -> None:
    """Write the table into the page."""
    text = page().read_text(encoding="utf-8")
    page().write_text(replace_block(text, START, END, block(read_results(benchmarks_dir()))), encoding="utf-8")


BENCHMARKS = (
    Benchmark(
        name="serving",
        title="answer requests with one short text each, from 32 clients",
        arms={
            "ours": Arm(f"{__name__}:served", "embedlab serve with its defaults", {"command": OURS}),
            "stock": Arm(f"{__name__}:served", "FastAPI, a plain function that calls encode()", {"command": STOCK}),
        },
        figures=(
            Figure("texts_per_second_32", unit="texts/s"),
            Figure("texts_per_second_32", arm="stock", unit="texts/s of stock"),
            Figure("p99_ms_32", against="stock"),
            Figure("server_peak_bytes", against="stock"),
        ),
        size={"data": "full", "clients": [1, 8, 32], "requests": [200, 50, 25]},
        quick={"data": "smoke", "clients": [1, 32], "requests": [2, 1]},
        tolerance=1e-4,
        spawns=True,
    ),
)


if __name__ == "__main__":
    main()
