"""Short keys of texts: two texts have the same key if their normal forms are equal, see `text_analysis.normalise`."""

from __future__ import annotations

import hashlib

from embedlab.data.text_analysis import normalise

KEY_BYTES = 16
LONG = 200  # characters; the key of a longer text is kept, because its normal form takes a while
KEPT = 1 << 18  # keys, some 200 bytes each

_known_keys: dict[str | bytes, str | bytes] = {}  # digest of a text -> its key


def text_key(text: str) -> str | bytes:
    """Return the key of a text. The normal form of a long text is computed once, however often its key is needed.

    >>> text_key("Reiter's  disease.") == text_key("reiter's DISEASE")
    True
    """
    if len(text) <= LONG:
        return digest(normalise(text))
    name = digest(text)
    key = _known_keys.get(name)
    if key is None:
        key = digest(normalise(text))
        if len(_known_keys) >= KEPT:
            _known_keys.clear()
        _known_keys[name] = key
    return key


def digest(text: str) -> str | bytes:
    """Return the text, or a hash of it if that is shorter."""
    if len(text) <= KEY_BYTES:
        return text
    return hashlib.blake2b(text.encode("utf-8", "surrogatepass"), digest_size=KEY_BYTES).digest()
