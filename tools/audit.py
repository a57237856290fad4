"""Check the locked packages for known vulnerabilities with pip-audit, where its advisory data can be reached.

    python tools/audit.py            # exit code 1 if a package has a vulnerability that ACCEPTED does not list

pip-audit runs in its own environment, build/audit, so its packages are not among ours. Without a network, or behind a
mirror that has no advisory data, the check is skipped with one line and exit code 0.
"""

from __future__ import annotations

import json
import subprocess
import sys
import urllib.request
import venv
from collections.abc import Sequence
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
ENVIRONMENT = ROOT / "build" / "audit"
PIP_AUDIT = "pip-audit==2.9.0"
ADVISORIES = "https://pypi.org/pypi/pip/25.0/json"  # mirrors lack the pages of versions, which pip-audit reads
PROBE_S, INSTALL_S, AUDIT_S = 5, 120, 300

# Vulnerabilities that do not concern us: id -> why.
ACCEPTED: dict[str, str] = {}


def is_reachable(url: str = ADVISORIES, timeout_s: float = PROBE_S) -> bool:
    """Return whether the index answers with advisory data."""
    try:
        with urllib.request.urlopen(url, timeout=timeout_s) as answer:
            return "vulnerabilities" in json.loads(answer.read(20_000_000))
    except (OSError, ValueError):
        return False


def install() -> Path | None:
    """Make the environment of pip-audit; return its interpreter, or None if it cannot be installed."""
    python = ENVIRONMENT / "bin" / "python"
    try:
        if not python.exists():
            venv.create(ENVIRONMENT, with_pip=True)
        command = [str(python), "-m", "pip", "install", "--quiet", "--retries", "0", PIP_AUDIT]
        subprocess.run(command, check=True, capture_output=True, timeout=INSTALL_S)
    except (OSError, subprocess.SubprocessError):
        return None
    return python


def command(python: Path, lock: Path, accepted: Sequence[str]) -> list[str]:
    """Return the command that audits exactly the locked packages."""
    ignored = [part for name in accepted for part in ("--ignore-vuln", name)]
    options = ["--requirement", str(lock), "--no-deps", "--disable-pip", "--progress-spinner", "off"]
    return [str(python), "-m", "pip_audit", *options, *ignored]


def main() -> int:
    """Audit, or say in one line why not."""
    if not is_reachable():
        print("audit skipped: advisory data cannot be reached")
        return 0
    if (python := install()) is None:
        print(f"audit skipped: {PIP_AUDIT} cannot be installed")
        return 0
    for name, reason in ACCEPTED.items():
        print(f"accepted: {name} ({reason})")
    try:
        return subprocess.run(command(python, LOCK, [*ACCEPTED]), check=False, timeout=AUDIT_S).returncode
    except subprocess.TimeoutExpired:
        print(f"audit skipped: no answer within {AUDIT_S} s")
        return 0


if __name__ == "__main__":
    sys.exit(main())
