"""What a server may be asked for, and its key."""

from __future__ import annotations

import hashlib
import hmac
import os
from typing import Annotated, Literal

from pydantic import Field

from embedlab.checked import Checked
from embedlab.errors import ParameterError
from embedlab.models.encode import BATCH_TOKENS
from embedlab.params import Count, PositiveFloat

KEY_VARIABLE = "EMBEDLAB_SERVE_KEY"
MIN_KEY_LENGTH = 16

InputType = Literal["query", "document", "text"]


class EndpointSettings(Checked):
    """Limits of a server. A request beyond them gets an error and costs no encoding.

    Attributes:
        input_type: what texts are if a request does not say it; None raises an error for models that encode queries and
            documents differently.
        batch_tokens: tokens that are encoded together.
        max_texts: texts in one request.
        max_bytes: size of the body of one request.
        max_requests: requests that are read, wait or run at the same time.
        max_waiting: texts of all requests that wait for their turn.
        timeout_s: most seconds from the first byte of a request to its answer.
    """

    input_type: InputType | None = None
    batch_tokens: Count = BATCH_TOKENS
    max_texts: Count = 2048
    max_bytes: Annotated[int, Field(ge=1024)] = 4 << 20
    max_requests: Count = 256
    max_waiting: Count = 8192
    timeout_s: PositiveFloat = 60.0


class Key:
    """The key that clients must send. It is kept as a hash, so no message and no traceback can show it.

    Args:
        key: the key itself.

    Raises:
        ParameterError: the key is short or has characters that a header cannot hold; the message does not show it.
    """

    def __init__(self, key: str) -> None:
        if len(key) < MIN_KEY_LENGTH or not (key.isascii() and key.isprintable()) or " " in key:
            problem = f"the key must have {MIN_KEY_LENGTH} or more printable ASCII characters without spaces"
            remedy = "Make one: python -c 'import secrets; print(secrets.token_urlsafe())'"
            raise ParameterError(problem, remedy=remedy, field=KEY_VARIABLE)
        self._digest = _digest(key.encode())

    @classmethod
    def from_environment(cls) -> Key | None:
        """Read the key from `EMBEDLAB_SERVE_KEY`; None if the variable is empty or missing."""
        key = os.environ.get(KEY_VARIABLE, "").strip()
        return cls(key) if key else None

    def matches(self, authorization: bytes) -> bool:
        """Compare the key with an Authorization header, in a time that does not depend on where they differ."""
        scheme, _, token = authorization.partition(b" ")
        return hmac.compare_digest(_digest(token.strip()), self._digest) and scheme.lower() == b"bearer"


def _digest(key: bytes) -> bytes:
    return hashlib.sha256(key).digest()
