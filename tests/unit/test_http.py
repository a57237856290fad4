"""The HTTP client against a scripted transport; `test_synthetic_llm` and `test_diagnose_endpoint` use real servers."""

from __future__ import annotations

import json
import time
from email.utils import formatdate

import httpx
import pytest

from embedlab import http
from embedlab.http import RefusedError, TransientError, post_json, with_retries


def client(answer):
    return httpx.Client(transport=httpx.MockTransport(answer))


def response(status=200, **options):
    return client(lambda request: httpx.Response(status, **options))


def test_the_body_is_json_and_the_key_a_header(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", " secret\n")
    seen = []
    with client(lambda request: seen.append(request) or httpx.Response(200, content=b"ok")) as plain:
        assert post_json(plain, "http://h/v1", {"a": "é"}) == b"ok"
    assert json.loads(seen[0].content) == {"a": "é"} and seen[0].headers["Authorization"] == "Bearer secret"


@pytest.mark.parametrize("status", [408, 425, 429, 500, 503])
def test_transient_status(status):
    with pytest.raises(TransientError, match=f"HTTP {status}: busy"):
        post_json(response(status, content=b" busy\n"), "http://h", {})


@pytest.mark.parametrize("status", [301, 400, 401, 404])
def test_refused_status(status):
    with pytest.raises(RefusedError, match=f"HTTP {status}: no text") as caught:
        post_json(response(status), "http://h", {})
    assert caught.value.status == status


def test_a_large_answer_is_refused(monkeypatch):
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1 << 20)
    with pytest.raises(RefusedError, match="larger than 1 MiB"):
        post_json(response(content=b"x" * (2 << 20)), "http://h", {})


@pytest.mark.parametrize("url", ["h/no-scheme", "ftp://h", "http://h:port"])
def test_an_invalid_address_is_refused(url):
    with httpx.Client() as real, pytest.raises(RefusedError):
        post_json(real, url, {})


@pytest.mark.parametrize(("header", "wait_s"), [("7", 7), ("0.5", 0.5), ("-3", 0)])
def test_retry_after_in_seconds(header, wait_s):
    with pytest.raises(TransientError) as caught:
        post_json(response(503, headers={"Retry-After": header}), "http://h", {})
    assert caught.value.wait_s == wait_s


@pytest.mark.parametrize(("seconds", "low", "high"), [(300, 250, 300), (-300, 0, 0)])
def test_retry_after_as_a_date(seconds, low, high):
    header = formatdate(time.time() + seconds, usegmt=True)
    with pytest.raises(TransientError) as caught:
        post_json(response(503, headers={"Retry-After": header}), "http://h", {})
    assert low <= caught.value.wait_s <= high


@pytest.mark.parametrize("header", ["soon", "nan", "inf", "Wed, 21 Oct"])
def test_an_unreadable_retry_after_is_ignored(header):
    with pytest.raises(TransientError) as caught:
        post_json(response(503, headers={"Retry-After": header}), "http://h", {})
    assert caught.value.wait_s is None


def test_waits_grow_up_to_a_limit(monkeypatch):
    monkeypatch.setattr(http.random, "uniform", lambda low, high: 1.0)
    waits = []

    def fail():
        raise TransientError("busy", 3600 if len(waits) == 1 else None)

    with pytest.raises(TransientError, match="busy"):
        with_retries(fail, attempts=9, sleep=waits.append)
    assert waits == [1, 60, 4, 8, 16, 32, 60, 60]


def test_other_errors_are_not_retried():
    calls = []

    def fail():
        calls.append(1)
        raise RefusedError("no")

    with pytest.raises(RefusedError):
        with_retries(fail, attempts=3, sleep=calls.append)
    assert calls == [1]
