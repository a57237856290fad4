"""Find or build an environment with the pinned packages, and print the path of its interpreter.

    python tools/bootstrap.py          use the active environment if its packages match, else build or repair .venv
    python tools/bootstrap.py --check  list what differs in the running interpreter; exit 1 if anything does

It needs only the standard library, and no network if nothing is missing. Progress goes to stderr; the only line on
stdout is the path of the interpreter.

On Linux, `torch` from PyPI is the CUDA build, which needs several gigabytes of nvidia packages. Without an NVIDIA GPU
the CPU build is installed instead: if pip would choose the CUDA build, uv installs torch from PyTorch's CPU index. All
other packages are installed exactly as in requirements.lock.
"""

from __future__ import annotations

import fcntl
import json
import os
import re
import shutil
import subprocess
import sys
from collections.abc import Iterator
from contextlib import contextmanager
from importlib import metadata
from pathlib import Path
from urllib.parse import unquote, urlsplit

ROOT = Path(__file__).resolve().parents[1]
LOCK = ROOT / "requirements.lock"
VENV = ROOT / ".venv"
# Exists while .venv is being built. After a killed build, packages may be incomplete although their metadata is not, so
# a .venv with this file is rebuilt from scratch. One made by hand has no such file and is repaired.
UNFINISHED = VENV / "unfinished"
TURN = ROOT / ".cache" / "environment.turn"

PIN = re.compile(r'^([\w.-]+)==([^\s;]+)(?: ; (python_version|sys_platform) == "([^"]+)")?$')
CUDA = re.compile(r"^(nvidia-|cuda-|triton\b|pytorch-triton)")
HERE = {"python_version": "{}.{}".format(*sys.version_info[:2]), "sys_platform": sys.platform}


def canonical(name: str) -> str:
    """Return the normalised package name: case, dots and underscores do not count (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: Path = LOCK, here: dict[str, str] = HERE) -> dict[str, str]:
    """Return the pins of requirements.lock (package -> version) for a system; by default the current one."""
    versions = {}
    for number, line in enumerate(lock.read_text().splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if (match := PIN.match(line)) is None:
            raise SystemExit(f"{lock.name}:{number}: {line!r} is not a pin; run `make lock`")
        name, version, variable, value = match.groups()
        if variable is None or here[variable] == value:
            versions[canonical(name)] = version
    return versions


def installed() -> dict[str, str]:
    """Return package -> version of the running interpreter, without local suffixes such as +cpu."""
    versions: dict[str, str] = {}
    for distribution in metadata.distributions():
        if name := distribution.metadata["Name"]:
            # The first on the path is the one that Python imports.
            versions.setdefault(canonical(name), distribution.version.split("+")[0])
    return versions


def mismatches(pinned: dict[str, str], versions: dict[str, str]) -> list[str]:
    """Return one line per pinned package that is missing or has another version."""
    return [
        f"{name} {version}: {versions.get(name, 'not installed')}"
        for name, version in pinned.items()
        if versions.get(name) != version
    ]


def checkout() -> Path | None:
    """Return the source folder of the installed embedlab; None if the installation is not editable."""
    try:
        url = metadata.distribution("embedlab").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    return Path(unquote(urlsplit(json.loads(url)["url"]).path)).resolve() if url else None


def differences() -> list[str]:
    """Return what differs in the running interpreter: pinned packages, and embedlab if it is not from this checkout."""
    source = checkout()
    checkouts = [] if source == ROOT else [f"embedlab from {ROOT}: {source or 'not installed'}"]
    return mismatches(pins(), installed()) + checkouts


def inspect(python: Path) -> list[str]:
    """Return the `differences` of another interpreter."""
    command = [str(python), str(Path(__file__)), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr or str(python)).splitlines() if done.returncode else []


def has_nvidia_gpu() -> bool:
    """Return whether the machine has an NVIDIA GPU or its driver."""
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia*"))


def say(text: str) -> None:
    """Print a progress message to stderr; stdout is for the result."""
    print(f"== {text}", file=sys.stderr, flush=True)


def run(*command: str | Path, remedy: str = "fix the cause above and run the command again") -> None:
    """Run a command and show its output; exit with a short message if it fails."""
    # The child inherits the lock file: a build survives its killed parent, and the next call must wait for it.
    done = subprocess.run([str(part) for part in command], stdout=sys.stderr, close_fds=False, check=False)
    if done.returncode:
        raise SystemExit(f"== failed: {' '.join(map(str, command))}\n== {remedy}")


def pip_takes_cuda(python: Path, torch: str) -> bool:
    """Return whether pip would install a `torch` that requires CUDA packages. Reads metadata only."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed"]
    answer = subprocess.run([*command, "--report", "-", torch], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SystemExit(
            f"{answer.stderr.strip()[-800:]}\n== pip cannot find {torch} for Python {HERE['python_version']}"
        )
    requirements = json.loads(answer.stdout)["install"][0]["metadata"].get("requires_dist", [])
    return any(CUDA.match(canonical(requirement)) for requirement in requirements)


def install_torch(python: Path, torch: str) -> None:
    """Install the build of torch for this machine: CUDA or CPU."""
    pip = (python, "-m", "pip", "install")
    if has_nvidia_gpu():
        run(*pip, torch)  # together with its CUDA packages, which the lock leaves out
    elif sys.platform == "linux" and pip_takes_cuda(python, torch):
        say("no NVIDIA GPU: installing the CPU build of torch with uv")
        run(*pip, "--quiet", "uv")
        remedy = "fix this, or export PIP_FIND_LINKS=<folder with a CPU wheel of torch>; then run the command again"
        uv = (python, "-m", "uv", "pip", "install", "--python", python)
        run(*uv, "--no-deps", "--torch-backend=cpu", torch, remedy=remedy)
    else:
        run(*pip, "--no-deps", torch)


def check_no_cuda_without_gpu(python: Path) -> None:
    """Exit if CUDA packages, several gigabytes, are installed on a machine without a GPU."""
    code = "from importlib import metadata; print(*{d.metadata['Name'] for d in metadata.distributions()})"
    names = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.split()
    cuda_packages = sorted(name for name in names if CUDA.match(canonical(name)))
    if cuda_packages and not has_nvidia_gpu():
        problem = f"== CUDA packages without an NVIDIA GPU: {', '.join(cuda_packages)}"
        raise SystemExit(f"{problem}\n== run `make clean`, then the command again")


def usable(python: Path) -> bool:
    """Return whether .venv can be repaired: a finished build with pip and a supported Python."""
    if UNFINISHED.exists() or not python.exists():
        return False
    code = "import pip, sys; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([str(python), "-c", code], capture_output=True, check=False).returncode == 0


def start_afresh() -> None:
    """Create an empty .venv that is marked as unfinished."""
    say(f"building {VENV.name} with Python {sys.version.split()[0]}")
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.mkdir()
    UNFINISHED.touch()
    # The running interpreter may belong to the .venv that was just deleted.
    run(getattr(sys, "_base_executable", sys.executable), "-m", "venv", VENV)


def build(python: Path) -> None:
    """Make .venv match requirements.lock: build it, or install what differs."""
    if not usable(python):
        start_afresh()
    UNFINISHED.touch()
    say("installing the pinned packages (a few minutes the first time)")
    if any(line.startswith("torch ") for line in inspect(python)):
        install_torch(python, f"torch=={pins()['torch']}")
    pip = (python, "-m", "pip", "install")
    run(*pip, "--no-deps", "-r", LOCK)  # the lock is complete: no other package may be added
    run(*pip, "--quiet", "--no-deps", "--no-build-isolation", "-e", ROOT)
    check_no_cuda_without_gpu(python)
    UNFINISHED.unlink()


@contextmanager
def my_turn() -> Iterator[None]:
    """Allow one build at a time in this checkout; the system releases the lock of a killed process."""
    TURN.parent.mkdir(exist_ok=True)
    with TURN.open("w") as file:
        os.set_inheritable(file.fileno(), True)
        try:
            fcntl.flock(file, fcntl.LOCK_EX | fcntl.LOCK_NB)
        except BlockingIOError:
            say("waiting for another build in this folder")
            fcntl.flock(file, fcntl.LOCK_EX)
        yield


def ready(python: Path) -> bool:
    """Return whether .venv is finished and matches the lock."""
    return python.exists() and not UNFINISHED.exists() and not inspect(python)


def active_environment() -> Path | None:
    """Return the interpreter of the active virtual or conda environment."""
    folder = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX")
    return Path(folder) / "bin" / "python" if folder else None


def ensure() -> Path:
    """Return an interpreter with all pinned packages: the active one, else that of .venv, built if necessary."""
    active, venv = active_environment(), VENV / "bin" / "python"
    if active is not None and active != venv:
        if not (wrong := inspect(active) if active.exists() else ["missing"]):
            return active
        say(f"the active environment differs in {len(wrong)} packages ({wrong[0]}, …): using {VENV.name}")
    if not ready(venv):
        with my_turn():
            if not ready(venv):  # another process may have built it while this one waited
                build(venv)
        if wrong := inspect(venv):
            raise SystemExit(
                "\n".join([*wrong, "== built, but not as pinned: run `make clean`, then the command again"])
            )
    return venv


def main() -> None:
    """Run the command line."""
    if sys.version_info < (3, 11):  # noqa: UP036 - older interpreters can start this script
        raise SystemExit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=python3.11 …")
    if "--check" in sys.argv:
        if wrong := differences():
            print("\n".join(wrong))
            raise SystemExit(1)
        return
    try:
        print(ensure())
    except KeyboardInterrupt:
        raise SystemExit("== interrupted; run the command again to continue") from None


if __name__ == "__main__":
    main()
