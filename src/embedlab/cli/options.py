"""Checks of options before a command does anything: numbers in their range, places that can be written."""

from __future__ import annotations

import math
import tempfile
from collections.abc import Callable
from pathlib import Path
from typing import TypeVar

import typer

from embedlab.errors import ParameterError

Place = TypeVar("Place", Path, str)


def number(
    *, at_least: float | None = None, above: float | None = None, below: float | None = None
) -> Callable[[typer.CallbackParam, float | None], float | None]:
    """Return a callback for `typer.Option` that refuses numbers outside a range, NaN and infinity.

    `typer.Option(min=...)` lets NaN pass.

    Args:
        at_least: the lowest allowed value.
        above, below: the value must lie above or below; excluded themselves.
    """
    limits = [("at least", at_least), ("above", above), ("below", below)]
    allowed_range = " and ".join(f"{words} {limit:g}" for words, limit in limits if limit is not None)

    def check(param: typer.CallbackParam, value: float | None) -> float | None:
        if value is None:
            return None
        too_low = (at_least is not None and value < at_least) or (above is not None and value <= above)
        too_high = below is not None and value >= below
        if too_low or too_high or not math.isfinite(value):
            problem = f"expected a number {allowed_range}, got {value:g}"
            raise ParameterError(problem, remedy="Choose another number", field=param.opts[-1])
        return value

    return check


def output_file(path: Path | None, option: str) -> None:
    """Check that a file can be written, so that a long command does not fail at its end.

    The parent folder is created if needed.

    Args:
        path: the file; None for no output.
        option: the option that named it, for the message.

    Raises:
        ParameterError: it is a folder, or its folder cannot be created or written.
    """
    if path is None:
        return
    if path.is_dir():
        remedy = f"Add a file name: {path / 'NAME'}"
        raise ParameterError(f"{path} is a folder", remedy=remedy, field=option)
    writable_folder(path.absolute().parent, option)


def new_output(path: Path, option: str) -> None:
    """Check that a file or folder can be created, so that people's work is never overwritten.

    Raises:
        ParameterError: it exists, or its folder cannot be created or written.
    """
    if path.exists():
        problem = f"{path} exists" + (" and is a folder" if path.is_dir() else "")
        raise ParameterError(problem, remedy="Choose another name, or remove it", field=option)
    writable_folder(path.absolute().parent, option)


def writable_folder(folder: Path, option: str) -> None:
    """Check that files can be written to a folder, and create it if needed.

    Raises:
        ParameterError: there is a file of that name, or the folder cannot be created or written.
    """
    try:
        folder.mkdir(parents=True, exist_ok=True)
        with tempfile.TemporaryFile(dir=folder):
            pass
    except OSError as error:
        problem = f"cannot write to the folder {folder} ({error.strerror or error})"
        raise ParameterError(problem, remedy="Choose another place", field=option) from None


def folder_or_new(param: typer.CallbackParam, value: Place | None) -> Place | None:
    """Refuse a file where a folder is expected; for `typer.Option(callback=...)`. An empty text means the default."""
    if value and any(ancestor.exists() and not ancestor.is_dir() for ancestor in _with_parents(Path(value))):
        raise ParameterError(f"{value} is not a folder", remedy="Choose another folder", field=param.opts[-1])
    return value


def _with_parents(path: Path) -> list[Path]:
    return [path.absolute(), *path.absolute().parents]
