"""The HTTP client against a scripted transport; `test_synthetic_llm` and `test_diagnose_endpoint` use real servers."""

from __future__ import annotations

import json
import socket
import threading
import time
from contextlib import contextmanager
from email.utils import formatdate

import httpx
import pytest

from embedlab import http
from embedlab.errors import ParameterError
from embedlab.http import RefusedError, TransientError, checked_url, new_client, parse_json, post_json, with_retries


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


@contextmanager
def raw_server(*pieces, pause_s=0.05):
    """A server that sends the pieces with pauses, then the last one again without end."""
    listener, over = socket.create_server(("127.0.0.1", 0)), threading.Event()

    def serve():
        connection, _ = listener.accept()
        connection.recv(65_536)
        waiting = list(pieces)
        try:
            while not over.is_set():
                connection.sendall(waiting.pop(0) if len(waiting) > 1 else waiting[0])
                over.wait(pause_s)
        except OSError:
            pass
        connection.close()

    thread = threading.Thread(target=serve)
    thread.start()
    try:
        yield f"http://127.0.0.1:{listener.getsockname()[1]}"
    finally:
        over.set()
        thread.join()
        listener.close()


HEAD = b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n"


@pytest.mark.parametrize(
    "pieces",
    [(HEAD, b"1\r\n \r\n"), (b"HTTP/1.1 200 OK\r\nX: ", b"a"), (b"H",)],
    ids=["body", "header", "first line"],
)
def test_a_server_that_sends_a_byte_now_and_then_cannot_hold_a_request(pieces):
    with raw_server(*pieces) as url, new_client(5) as patient, pytest.raises(TransientError, match="within 0.4 s"):
        post_json(patient, url, {}, total_s=0.4)


def test_an_endless_body_is_refused(monkeypatch):
    monkeypatch.setattr(http, "MAX_ANSWER_BYTES", 1 << 20)
    block = b"10000\r\n" + b"x" * 65_536 + b"\r\n"
    with raw_server(HEAD, block, pause_s=0) as url, new_client(5) as real, pytest.raises(RefusedError, match="1 MiB"):
        post_json(real, url, {})


KEY = "sk-SECRET-KEY-12345"


@pytest.mark.parametrize("status", [400, 503])
@pytest.mark.parametrize(
    "content", [f"invalid key Bearer {KEY}", f'{{"headers": "{KEY}"}}', "x" * 190 + KEY, f"\x1b[31m{KEY}\r\n\u202e"]
)
def test_a_server_that_sends_the_key_back_does_not_spread_it(monkeypatch, status, content):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    options = {"content": content.encode(), "headers": {"Location": f"http://u:{KEY}@h/?api_key={KEY}"}}
    with pytest.raises((RefusedError, TransientError)) as caught:
        post_json(response(status, **options), "http://h", {})
    text = f"{caught.value} {caught.value!r}"
    assert "SECRET" not in text and f"HTTP {status}" in text and caught.value.__cause__ is None
    assert str(caught.value).isprintable()


@pytest.mark.parametrize("key", ["sk-\u00e4bcdefgh", "sk-abc\ndefghij", "sk-abc\x00defghij"])
def test_a_key_that_no_header_can_hold_is_refused_without_it(monkeypatch, key):
    if "\x00" not in key:
        monkeypatch.setenv("OPENAI_API_KEY", key)
        with new_client(1) as real, pytest.raises(RefusedError) as caught:
            post_json(real, "http://127.0.0.1:9", {})
        assert "sk-" not in str(caught.value)


@pytest.mark.parametrize(
    "url",
    ["http://user:pass1234@h/v1", f"http://h/v1?api_key={KEY}", "http://h/#x", "file:///etc", "h:1", "", "http://"],
)
def test_addresses_hold_no_keys(url):
    with pytest.raises(ParameterError, match=r"\[base_url\]") as caught:
        checked_url(url, "base_url")
    assert "pass1234" not in str(caught.value) and "SECRET" not in str(caught.value)
    assert checked_url("http://h:1/v1/", "base_url") == "http://h:1/v1"


@pytest.mark.parametrize("text", ["[" * 100_000, "9" * 5_000, "{", '{"a":' * 50_000])
def test_json_of_a_server_is_parsed_or_a_value_error(text):
    with pytest.raises(ValueError):
        parse_json(text)
