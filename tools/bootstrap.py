"""Give this project an environment that matches its pins, and say where its interpreter is.

    python tools/bootstrap.py          reuse the active environment if its pins match, else build or mend .venv
    python tools/bootstrap.py --check  exit 0 when the interpreter that runs this has every pin, 1 otherwise
    python tools/bootstrap.py --lock   rewrite requirements.lock from the running interpreter

Standard library only, and no network when nothing is missing. The last line printed is the interpreter.

On Linux the package index's `torch` is the CUDA build, which drags in several gigabytes of nvidia packages. Without an
NVIDIA card the CPU build is installed instead: pip is asked what it would take, and where that is the CUDA build, uv,
which knows PyTorch's CPU index by itself, installs torch.
"""

from __future__ import annotations

import json
import os
import re
import shutil
import subprocess
import sys
from importlib import metadata
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
CUDA_PACKAGES = re.compile(r"^(nvidia-|cuda-|triton$|pytorch-triton)")
REQUIREMENT = re.compile(r"^([A-Za-z0-9._-]+)")


def canonical(name: str) -> str:
    """Package names compare without case, dots and underscores (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: Path = LOCK) -> dict[str, str]:
    """Package -> version of every line `name==version` in the lock."""
    lines = (line.split("#")[0].strip() for line in lock.read_text().splitlines())
    return {canonical(name): version for name, version in (line.split("==") for line in lines if line)}


def installed() -> dict[str, str]:
    """Package -> version in the running interpreter, without local suffixes such as +cpu."""
    found = ((dist.metadata["Name"], dist.version) for dist in metadata.distributions())
    return {canonical(name): version.split("+")[0] for name, version in found if name}


def mismatches(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """One line per pin that is missing or has another version; embedlab itself must be installed too."""
    differing = {name: version for name, version in wanted.items() if found.get(name) != version}
    wrong = [f"{name} {version}: found {found.get(name)}" for name, version in differing.items()]
    return wrong if "embedlab" in found else [*wrong, "embedlab: not installed"]


def matches(python: Path | str) -> bool:
    """Whether an interpreter has every pin."""
    done = subprocess.run([str(python), str(Path(__file__)), "--check"], capture_output=True, check=False)
    return done.returncode == 0


def has_nvidia_gpu() -> bool:
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia[0-9]*"))


def say(text: str) -> None:
    print(f"== {text}", file=sys.stderr, flush=True)


def run(*command: str | Path) -> None:
    done = subprocess.run([str(part) for part in command], stdout=sys.stderr, check=False)
    if done.returncode:
        raise SystemExit(f"{' '.join(map(str, command))[:200]} failed; mend the cause above and call again")


def pip_takes_cuda(python: Path, torch: str) -> bool:
    """Whether the wheel that pip would take for `torch` wants CUDA packages."""
    command = [python, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed"]
    answer = subprocess.run([*command, "--report", "-", torch], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SystemExit(f"pip finds no {torch}:\n{answer.stderr.strip()[-500:]}")
    wanted = json.loads(answer.stdout)["install"][0]["metadata"].get("requires_dist", [])
    return any(CUDA_PACKAGES.match(canonical(REQUIREMENT.match(line)[1])) for line in wanted)


def install_torch(python: Path, torch: str) -> None:
    if has_nvidia_gpu():
        run(python, "-m", "pip", "install", torch)  # with its CUDA packages
    elif pip_takes_cuda(python, torch):
        say("no NVIDIA card: taking the CPU build of torch through uv")
        run(python, "-m", "pip", "install", "--quiet", "uv")
        run(python, "-m", "uv", "pip", "install", "--python", python, "--no-deps", "--torch-backend=cpu", torch)
    else:
        run(python, "-m", "pip", "install", "--no-deps", torch)


def usable(python: Path) -> bool:
    """Whether an interpreter is there and its pip works; a build that was killed may have left neither."""
    if not python.exists():
        return False
    return subprocess.run([str(python), "-m", "pip", "--version"], capture_output=True, check=False).returncode == 0


def build() -> Path:
    """Build .venv, or finish one that was left half built."""
    python = VENV / "bin" / "python"
    if not usable(python):
        say(f"building {VENV.name} with Python {sys.version.split()[0]}")
        shutil.rmtree(VENV, ignore_errors=True)
        run(sys.executable, "-m", "venv", VENV)
    say("installing the pinned packages (minutes the first time)")
    install_torch(python, f"torch=={pins()['torch']}")
    # The lock is a closure for Linux; other systems need a few more packages.
    run(python, "-m", "pip", "install", *(["--no-deps"] if sys.platform == "linux" else []), "-r", LOCK)
    run(python, "-m", "pip", "install", "--quiet", "--no-deps", "--no-build-isolation", "-e", ROOT)
    refuse_cuda_on_cpu(python)
    return python


def refuse_cuda_on_cpu(python: Path) -> None:
    """A CUDA package on a machine without a card is several gigabytes of nothing."""
    command = [str(python), "-m", "pip", "list", "--format=json"]
    names = [row["name"] for row in json.loads(subprocess.run(command, capture_output=True, check=True).stdout)]
    found = [name for name in names if CUDA_PACKAGES.match(canonical(name))]
    if found and not has_nvidia_gpu():
        raise SystemExit(f"no NVIDIA card, yet {', '.join(found)} were installed; remove .venv and call again")


def active_environment() -> Path | None:
    """The interpreter of the active virtual or conda environment."""
    for variable in ("VIRTUAL_ENV", "CONDA_PREFIX"):
        if folder := os.environ.get(variable):
            return Path(folder) / "bin" / "python"
    return None


def ensure() -> Path:
    """An interpreter with every pin: the active environment's, else that of .venv, built when needed."""
    for python in (active_environment(), VENV / "bin" / "python"):
        if python is not None and python.exists() and matches(python):
            return python
    python = build()
    if not matches(python):
        raise SystemExit("the environment was built but does not match requirements.lock; remove .venv and call again")
    return python


def closure() -> list[str]:
    """`name==version` of everything that the project's requirements, extras included, need here."""
    import tomllib

    from packaging.requirements import Requirement

    project = tomllib.loads((ROOT / "pyproject.toml").read_text())
    texts = [*project["project"]["dependencies"], *sum(project["project"]["optional-dependencies"].values(), [])]
    queue = [Requirement(text) for text in [*texts, *project["build-system"]["requires"]]]
    versions, seen = installed(), {}
    while queue:
        requirement = queue.pop()
        name, extras = canonical(requirement.name), frozenset(requirement.extras)
        if extras <= seen.get(name, frozenset({None})) - {None} and name in seen:
            continue
        seen[name] = seen.get(name, frozenset()) | extras
        if CUDA_PACKAGES.match(name):
            continue
        for text in metadata.requires(name) or []:
            needed = Requirement(text)
            if needed.marker is None or any(needed.marker.evaluate({"extra": extra}) for extra in {"", *seen[name]}):
                queue.append(needed)
    return sorted(f"{name}=={versions[name]}" for name in seen if not CUDA_PACKAGES.match(name))


def write_lock() -> None:
    header = "# Every package of the environment, exactly; made by `make lock` from the environment in use.\n"
    LOCK.write_text(header + "\n".join(closure()) + "\n")


def main() -> None:
    if sys.version_info < (3, 11):  # noqa: UP036 - this script is what an older interpreter meets first
        raise SystemExit(
            f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}; say make PYTHON=python3.11"
        )
    if "--check" in sys.argv:
        wrong = mismatches(pins(), installed())
        print("\n".join(wrong), end="\n" if wrong else "")
        raise SystemExit(1 if wrong else 0)
    if "--lock" in sys.argv:
        return write_lock()
    print(ensure())
    return None


if __name__ == "__main__":
    main()
