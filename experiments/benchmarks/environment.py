"""The machine and settings of a benchmark, and the environment of its child processes."""

from __future__ import annotations

import importlib.metadata
import os
import platform
import shutil
import subprocess
from functools import cache
from pathlib import Path

import psutil

from embedlab.paths import cache_dir, project_root

PACKAGES = ("torch", "transformers", "sentence-transformers", "tokenizers", "datasets", "numpy", "embedlab")
INSTRUCTIONS = ("avx2", "avx512f", "avx512_bf16", "amx_bf16")
DISK_BYTES = 2 << 30  # a million vectors and their scratch copy

# By default, waiting OpenMP threads spin. Turning that off would help the faster arm most, so it is off for all arms.
WAIT_POLICY = "PASSIVE"


def child_environment(threads: int, device: str) -> dict[str, str]:
    """Return the environment of every arm: same threads, same wait policy, no network, no progress bars."""
    variables = {
        "OMP_NUM_THREADS": str(threads),
        "RAYON_NUM_THREADS": str(threads),
        "OMP_WAIT_POLICY": WAIT_POLICY,
        "HF_HUB_OFFLINE": "1",
        "EMBEDLAB_PROGRESS": os.devnull,
    }
    if device == "cpu":
        variables["CUDA_VISIBLE_DEVICES"] = ""
    return {**os.environ, **variables}


def describe(threads: int) -> dict[str, object]:
    """Return hardware, versions and settings, which every result stores."""
    return {
        "cpu": _cpu_model(),
        "cores": os.cpu_count(),
        "instructions": [name for name in INSTRUCTIONS if name in _cpu_flags()],
        "memory_gb": round(psutil.virtual_memory().total / 1e9, 1),
        "gpu": _gpu_name(),
        "system": platform.platform(),
        "python": platform.python_version(),
        "versions": {package: importlib.metadata.version(package) for package in PACKAGES},
        "threads": threads,
        "omp_wait_policy": WAIT_POLICY,
        "load_before": os.getloadavg()[0],
        "commit": _commit(),
    }


def processor_seconds() -> tuple[float, float]:
    """Return the busy seconds of all processors (including time taken by other virtual machines) and their total."""
    times = psutil.cpu_times()
    total = sum(times) - getattr(times, "guest", 0.0) - getattr(times, "guest_nice", 0.0)  # already counted in user
    return total - times.idle - getattr(times, "iowait", 0.0), total


def lacking(requirement: str) -> str | None:
    """Say why this machine does not meet a requirement of a benchmark; None if it does."""
    if requirement == "cuda":
        return None if _gpu_name() else "no CUDA device"
    if requirement == "amx_bf16":
        return None if requirement in _cpu_flags() else "the CPU has no bf16 matrix units (AMX)"
    if requirement == "disk":
        cache_dir().mkdir(parents=True, exist_ok=True)
        free = shutil.disk_usage(cache_dir()).free
        return None if free > DISK_BYTES else f"needs {DISK_BYTES / 1e9:.1f} GB of free disk"
    raise ValueError(f"unknown requirement {requirement!r}")


@cache
def _cpu_info() -> dict[str, str]:
    path = Path("/proc/cpuinfo")
    if not path.exists():
        return {}
    lines = (line.partition(":") for line in path.read_text().splitlines())
    return {name.strip(): value.strip() for name, _, value in lines}


def _cpu_model() -> str:
    return _cpu_info().get("model name", platform.processor())


def _cpu_flags() -> frozenset[str]:
    return frozenset(_cpu_info().get("flags", "").split())


@cache
def _gpu_name() -> str | None:
    import torch

    return torch.cuda.get_device_name() if torch.cuda.is_available() else None


def _commit() -> str:
    """The commit, with a + if files differ from it; empty outside a git checkout."""
    commands = (["git", "rev-parse", "--short=12", "HEAD"], ["git", "status", "--porcelain"])
    try:
        commit, changes = (
            subprocess.run(command, cwd=project_root(), capture_output=True, text=True, check=True).stdout.strip()
            for command in commands
        )
    except (OSError, subprocess.CalledProcessError):
        return ""
    return commit + ("+" if changes else "")
