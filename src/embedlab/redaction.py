"""Keep keys and this machine's folders out of what people read and files keep: errors, records, notebooks, logs."""

from __future__ import annotations

import os
import re
import sys
import tempfile
from collections.abc import Iterator
from pathlib import Path
from typing import Any

from embedlab import paths

HIDDEN = "[key]"
MIN_LENGTH = 8  # a shorter value in the environment is a word, not a key

_KEY_VARIABLE = re.compile(r"KEY|TOKEN|SECRET|PASSW", re.IGNORECASE)
_WORD = re.compile(r"[\w./-]{1,12}")  # such as /dev/null or true, which variables with these names hold too
_AUTHORISATION = re.compile(  # not "bearer certificate": a word without digits is a word
    r"\b(Bearer|Authorization['\"]?\s?[:=]\s?['\"]?(?:Basic|Token))(?:\s+|%20)(?=[\w.~+/=-]*\d|[\w.~+/=-]{20})[\w.~+/=-]{6,}",
    re.IGNORECASE,
)
_USER_IN_URL = re.compile(r"(\b[a-z][a-z0-9+.-]{0,20}://)[^\s/@'\"<>]{1,300}@", re.IGNORECASE)
_QUERY = re.compile(
    r"([?&](?:api[-_]?key|key|(?:[\w-]{1,30}[-_])?token|secret|password|sig|signature)=)[^&\s#'\"<>]+", re.IGNORECASE
)
_SHAPES = (
    r"\bsk-[\w-]{16,}", r"\bhf_\w{20,}", r"\bgh[pousr]_\w{20,}", r"\bgithub_pat_\w{20,}", r"\bAKIA[0-9A-Z]{16}\b",
    r"\bxox[abprs]-[\w-]{10,}", r"\bAIza[\w-]{30,}",
)  # fmt: skip
_START = r"\x1b\[[0-9;]*m|(?<![\w./~-])"  # of a path: after a colour, or not within another path or an address
_PACKAGES = re.compile(rf"({_START})/(?:[\w.~+-]{{1,80}}/){{0,20}}?((?:site|dist)-packages(?:/|\b))")
_KNOWN_KEY = re.compile("|".join(_SHAPES))


def key_values() -> list[str]:
    """Return the values of all environment variables that hold keys, the longest first."""
    values = {value.strip() for name, value in os.environ.items() if _KEY_VARIABLE.search(name)}
    return sorted((value for value in values if _is_key(value)), key=len, reverse=True)


def _is_key(value: str) -> bool:
    return len(value) >= MIN_LENGTH and not (_WORD.fullmatch(value) and value.isalpha()) and not value.startswith("/")


def without_own_keys(text: str) -> str:
    """Replace every key of the environment in a text by `[key]`; nothing else changes."""
    for value in key_values():
        text = text.replace(value, HIDDEN)
    return text


def redacted(text: str) -> str:
    """Replace everything that is a key, or looks like one, by `[key]`.

    That is: the keys in environment variables, Authorization headers, the user in an address, tokens in the query of an
    address, and the well-known forms such as `sk-...` and `hf_...`.

    Args:
        text: an error, a log or the like.
    """
    text = _AUTHORISATION.sub(rf"\1 {HIDDEN}", without_own_keys(text))
    text = _QUERY.sub(rf"\1{HIDDEN}", _USER_IN_URL.sub(rf"\1{HIDDEN}@", text))
    return _KNOWN_KEY.sub(HIDDEN, text)


def holds_key(text: str) -> bool:
    """Return whether a text, such as the value of a parameter, holds something that `redacted` would replace."""
    return redacted(text) != text


def shareable(text: str) -> str:
    """Return a text without keys and without this machine's folders, so that it can be committed and published.

    Folders of the project become relative paths. Installed packages keep the part from `site-packages` on.

    Args:
        text: for example a traceback, or a notebook as JSON.
    """
    text = _PACKAGES.sub(r"\1\2", redacted(text))
    for folder, name in _folders():
        text = re.sub(rf"({_START}){re.escape(folder)}(?:/|(?![\w.-]))", rf"\g<1>{name}", text)
    return text


def shareable_value(value: Any) -> Any:
    """Return a value of JSON with every text in it made shareable; pictures stay as they are."""
    if isinstance(value, str):
        return shareable(value)
    if isinstance(value, dict):
        return {k: item if k.startswith("image/png") else shareable_value(item) for k, item in value.items()}
    return [shareable_value(item) for item in value] if isinstance(value, list) else value


def _folders() -> Iterator[tuple[str, str]]:
    """This machine's folders, inner ones first, and what stands in their place."""
    package = Path(__file__).resolve().parents[1]  # a checkout outside the project
    places = {
        str(paths.project_root()): "",
        str(package): "embedlab/",
        sys.prefix: "environment/",
        sys.base_prefix: "python/",
        str(Path.home()): "~/",
        tempfile.gettempdir(): "temporary/",
    }
    for folder in sorted(places, key=len, reverse=True):
        if len(Path(folder).parts) > 1:  # the home folder of some accounts is /, which is in every URL
            yield folder.rstrip("/"), places[folder]
