"""Give this project an environment that matches its pins, and say where its interpreter is.

    python tools/bootstrap.py          reuse the active environment if its pins match, else build or mend .venv
    python tools/bootstrap.py --check  list what differs in the interpreter that runs this; exit 1 if anything does

Standard library only, and no network when nothing is missing. What it does goes to stderr; the one line on stdout is
the path of the interpreter.

On Linux the package index's `torch` is the CUDA build, which drags in several gigabytes of nvidia packages. Without an
NVIDIA card the CPU build is installed instead: pip is asked what it would take, and where that is the CUDA build, uv,
which knows PyTorch's CPU index by itself, installs torch. Everything else is installed exactly as the lock says.
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
# There while .venv is being built. A killed build leaves it behind, with packages that may be half copied although
# their metadata is complete; such a .venv is not mended but built anew. One made by hand has no such file and is kept.
UNFINISHED = VENV / "unfinished"
TURN = ROOT / ".cache" / "environment.turn"

PIN = re.compile(r'^([\w.-]+)==([^\s;]+)(?: ; (python_version|sys_platform) == "([^"]+)")?$')
CUDA = re.compile(r"^(nvidia-|cuda-|triton\b|pytorch-triton)")
HERE = {"python_version": "{}.{}".format(*sys.version_info[:2]), "sys_platform": sys.platform}


def canonical(name: str) -> str:
    """Package names compare without case, dots and underscores (PEP 503)."""
    return re.sub(r"[-_.]+", "-", name).lower()


def pins(lock: Path = LOCK, here: dict[str, str] = HERE) -> dict[str, str]:
    """Package -> version of the lock's lines that hold on a system; by default the one that this runs on."""
    found = {}
    for number, line in enumerate(lock.read_text().splitlines(), start=1):
        if not line or line.startswith("#"):
            continue
        if (match := PIN.match(line)) is None:
            raise SystemExit(f"{lock.name}:{number}: {line!r} is no pin; run `make lock`")
        name, version, variable, value = match.groups()
        if variable is None or here[variable] == value:
            found[canonical(name)] = version
    return found


def installed() -> dict[str, str]:
    """Package -> version in the running interpreter, without local suffixes (+cpu); the first on the path wins."""
    found: dict[str, str] = {}
    for distribution in metadata.distributions():
        if name := distribution.metadata["Name"]:
            found.setdefault(canonical(name), distribution.version.split("+")[0])
    return found


def mismatches(wanted: dict[str, str], found: dict[str, str]) -> list[str]:
    """One line per pin that is missing or has another version."""
    return [
        f"{name} {version}: {found.get(name, 'not installed')}"
        for name, version in wanted.items()
        if found.get(name) != version
    ]


def checkout() -> Path | None:
    """The folder that the installed embedlab is run from; None when it is no editable installation."""
    try:
        url = metadata.distribution("embedlab").read_text("direct_url.json")
    except metadata.PackageNotFoundError:
        return None
    return Path(unquote(urlsplit(json.loads(url)["url"]).path)).resolve() if url else None


def differences() -> list[str]:
    """What the running interpreter lacks: pins, and embedlab itself from this very checkout."""
    source = checkout()
    own = [] if source == ROOT else [f"embedlab from {ROOT}: {source or 'not installed'}"]
    return mismatches(pins(), installed()) + own


def inspect(python: Path) -> list[str]:
    """`differences` of another interpreter."""
    command = [str(python), str(Path(__file__)), "--check"]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    return (done.stdout or done.stderr or str(python)).splitlines() if done.returncode else []


def has_nvidia_gpu() -> bool:
    """Whether there is a card, or the driver's tool for one."""
    return shutil.which("nvidia-smi") is not None or any(Path("/dev").glob("nvidia*"))


def say(text: str) -> None:
    """One stage, visible also where stdout is captured."""
    print(f"== {text}", file=sys.stderr, flush=True)


def run(*command: str | Path, remedy: str = "mend the cause above and call again") -> None:
    """Run a command with its output visible; a failure ends everything in one line."""
    # Open files go along, and the turn with them: a build outlives its killed parent, and the next call must wait.
    done = subprocess.run([str(part) for part in command], stdout=sys.stderr, close_fds=False, check=False)
    if done.returncode:
        raise SystemExit(f"== failed: {' '.join(map(str, command))}\n== {remedy}")


def pip_takes_cuda(python: Path, torch: str) -> bool:
    """Whether the wheel that pip would take for `torch` wants CUDA packages. Reads metadata; installs nothing."""
    command = [str(python), "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--ignore-installed"]
    answer = subprocess.run([*command, "--report", "-", torch], capture_output=True, text=True, check=False)
    if answer.returncode:
        raise SystemExit(f"{answer.stderr.strip()[-800:]}\n== pip finds no {torch} for Python {HERE['python_version']}")
    wanted = json.loads(answer.stdout)["install"][0]["metadata"].get("requires_dist", [])
    return any(CUDA.match(canonical(requirement)) for requirement in wanted)


def install_torch(python: Path, torch: str) -> None:
    """The build of torch that suits this machine."""
    pip = (python, "-m", "pip", "install")
    if has_nvidia_gpu():
        run(*pip, torch)  # together with its CUDA packages, which the lock leaves out
    elif sys.platform == "linux" and pip_takes_cuda(python, torch):
        say("no NVIDIA card here: taking the CPU build of torch, through uv")
        run(*pip, "--quiet", "uv")
        remedy = "mend that, or export PIP_FIND_LINKS=<a folder with the wheel of torch's CPU build>; call again"
        uv = (python, "-m", "uv", "pip", "install", "--python", python)
        run(*uv, "--no-deps", "--torch-backend=cpu", torch, remedy=remedy)
    else:
        run(*pip, "--no-deps", torch)


def refuse_cuda_without_gpu(python: Path) -> None:
    """A CUDA package on a machine without a card is several gigabytes of nothing."""
    code = "from importlib import metadata; print(*{d.metadata['Name'] for d in metadata.distributions()})"
    names = subprocess.run([str(python), "-c", code], capture_output=True, text=True, check=True).stdout.split()
    found = sorted(name for name in names if CUDA.match(canonical(name)))
    if found and not has_nvidia_gpu():
        raise SystemExit(f"== no NVIDIA card, yet there are {', '.join(found)}\n== run `make clean` and call again")


def usable(python: Path) -> bool:
    """Whether .venv is worth mending: a finished build of a fitting Python that has pip."""
    if UNFINISHED.exists() or not python.exists():
        return False
    code = "import pip, sys; sys.exit(sys.version_info < (3, 11))"
    return subprocess.run([str(python), "-c", code], capture_output=True, check=False).returncode == 0


def start_afresh() -> None:
    """An empty .venv, marked as unfinished from its first moment on."""
    say(f"building {VENV.name} with Python {sys.version.split()[0]}")
    shutil.rmtree(VENV, ignore_errors=True)
    VENV.mkdir()
    UNFINISHED.touch()
    # The running interpreter may be the one of the .venv that has just gone.
    run(getattr(sys, "_base_executable", sys.executable), "-m", "venv", VENV)


def build(python: Path) -> None:
    """Make .venv match the lock: from nothing, or by changing what differs."""
    if not usable(python):
        start_afresh()
    UNFINISHED.touch()
    say("installing the pinned packages (a few minutes the first time)")
    if any(line.startswith("torch ") for line in inspect(python)):
        install_torch(python, f"torch=={pins()['torch']}")
    pip = (python, "-m", "pip", "install")
    run(*pip, "--no-deps", "-r", LOCK)  # a closure: nothing else may come along
    run(*pip, "--quiet", "--no-deps", "--no-build-isolation", "-e", ROOT)
    refuse_cuda_without_gpu(python)
    UNFINISHED.unlink()


@contextmanager
def my_turn() -> Iterator[None]:
    """One build at a time in this checkout; the system ends the turn of a killed process."""
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
    """Whether .venv is finished and matches."""
    return python.exists() and not UNFINISHED.exists() and not inspect(python)


def active_environment() -> Path | None:
    """The interpreter of the active virtual or conda environment."""
    folder = os.environ.get("VIRTUAL_ENV") or os.environ.get("CONDA_PREFIX")
    return Path(folder) / "bin" / "python" if folder else None


def ensure() -> Path:
    """An interpreter with every pin: the active environment's, else that of .venv, built when needed."""
    active, own = active_environment(), VENV / "bin" / "python"
    if active is not None and active != own:
        if not (wrong := inspect(active) if active.exists() else ["gone"]):
            return active
        say(f"the active environment does not match ({len(wrong)}, first {wrong[0]}): using {VENV.name}")
    if not ready(own):
        with my_turn():
            if not ready(own):  # the turn may have been another's, who built it
                build(own)
        if wrong := inspect(own):
            raise SystemExit("\n".join([*wrong, "== built, yet not as pinned: run `make clean` and call again"]))
    return own


def main() -> None:
    """Do what the arguments say."""
    if sys.version_info < (3, 11):  # noqa: UP036 - this script is what an older interpreter meets first
        raise SystemExit(f"Python 3.11 or newer is needed, this is {sys.version.split()[0]}: make PYTHON=python3.11 …")
    if "--check" in sys.argv:
        if wrong := differences():
            print("\n".join(wrong))
            raise SystemExit(1)
        return
    try:
        print(ensure())
    except KeyboardInterrupt:
        raise SystemExit("== interrupted; the next call builds what is missing") from None


if __name__ == "__main__":
    main()
