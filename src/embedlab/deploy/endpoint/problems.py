"""Errors as OpenAI's API reports them: `{"error": {"message", "type", "param", "code"}}`."""

from __future__ import annotations

from typing import Any

INVALID, TOO_MANY, FAILED = "invalid_request_error", "rate_limit_error", "server_error"


class Problem(Exception):
    """A request that gets an error as its answer.

    The message goes to the client and to no log, since it may quote the request.

    Args:
        status: of the answer.
        message: what is wrong and how to fix it.
        param: the field with the problem.
        code: a word for programs.
        retry_after_s: seconds after which the client may try again; None if that does not help.
    """

    def __init__(
        self,
        status: int,
        message: str,
        *,
        param: str | None = None,
        code: str | None = None,
        retry_after_s: int | None = None,
    ) -> None:
        super().__init__(message)
        self.status, self.message, self.param, self.code = status, message, param, code
        self.retry_after_s = retry_after_s

    @property
    def body(self) -> dict[str, Any]:
        """The content of the answer."""
        kind = TOO_MANY if self.status == 429 else FAILED if self.status >= 500 else INVALID
        return {"error": {"message": self.message, "type": kind, "param": self.param, "code": self.code}}

    @property
    def headers(self) -> dict[str, str]:
        """Headers of the answer."""
        headers = {} if self.retry_after_s is None else {"Retry-After": str(self.retry_after_s)}
        return headers | ({"WWW-Authenticate": "Bearer"} if self.status == 401 else {})
