"""Queries from a language model, against a local server that misbehaves in every way one can."""

import json
import threading
import time
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer

import numpy as np
import pytest

from embedlab import http
from embedlab.data.chat import Chat, ChatError, UnusableAnswerError
from embedlab.data.synthetic import SyntheticQuery
from embedlab.data.synthetic_llm import FAILURES_IN_A_ROW, generate_queries, parse_queries
from embedlab.errors import ParameterError
from embedlab.evaluation.data_sources.synthesis import language_judge

KEY = "sk-not-to-be-seen"
DOCUMENTS = {"a": "text a", "b": "text b", "c": "text c"}


def completion(content, **usage):
    return {"choices": [{"message": {"role": "assistant", "content": content}}], "usage": usage}


def queries(*texts):
    return completion(json.dumps(texts), prompt_tokens=100, completion_tokens=10)


class Server(ThreadingHTTPServer):
    """Answers with what `script` holds, in order, then with two good queries; keeps what it was sent."""

    daemon_threads = True

    def __init__(self):
        super().__init__(("127.0.0.1", 0), Handler)
        self.script, self.requests, self.headers = [], [], []
        self.release = threading.Event()

    @property
    def url(self):
        return f"http://127.0.0.1:{self.server_port}/v1"


class Handler(BaseHTTPRequestHandler):
    def do_POST(self):
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        self.server.requests.append((self.path, body))
        self.server.headers.append(dict(self.headers))
        number = len(self.server.requests)
        step = self.server.script.pop(0) if self.server.script else queries(f"one {number}", f"two {number}")
        status, headers, content = step if isinstance(step, tuple) else (200, {}, step)
        if content == "hang":
            self.server.release.wait(30)
            return
        raw = content.encode() if isinstance(content, str) else json.dumps(content).encode()
        self.send_response(status)
        for name, value in headers.items():
            self.send_header(name, value)
        self.send_header("Content-Length", str(len(raw) + (50 if headers.get("X-Cut") else 0)))
        self.end_headers()
        self.wfile.write(raw)

    do_GET = do_POST

    def log_message(self, *args):
        pass


@pytest.fixture
def server(monkeypatch):
    monkeypatch.setenv("OPENAI_API_KEY", KEY)
    server = Server()
    thread = threading.Thread(target=server.serve_forever, kwargs={"poll_interval": 0.01})
    thread.start()
    yield server
    server.release.set()
    server.shutdown()
    thread.join()
    server.server_close()


@pytest.fixture
def waits():
    return []


@pytest.fixture
def make(server, tmp_path, waits):
    def build(**options):
        defaults = {"requests_per_minute": 0, "timeout_s": 5, "folder": tmp_path, "sleep": waits.append}
        return Chat("some-model", **{"base_url": server.url, **defaults, **options})

    return build


def generate(chat, documents=DOCUMENTS, **options):
    return generate_queries(documents, chat, **{"count": 2, **options})


class TestAsking:
    def test_one_call_per_document(self, server, make):
        result = generate(make())
        assert [query.document for query in result.queries] == ["a", "a", "b", "b", "c", "c"]
        assert result.queries[0] == SyntheticQuery("one 1", "a", "llm")
        assert result.failed == {} and result.complete
        path, body = server.requests[0]
        assert path == "/v1/chat/completions" and body["model"] == "some-model"
        (message,) = body["messages"]
        assert (
            message["role"] == "user" and message["content"].endswith("text a") and "2 different" in message["content"]
        )
        assert server.headers[0]["Authorization"] == f"Bearer {KEY}"

    def test_a_restart_repeats_no_call(self, server, make):
        first = generate(make(), {"a": "text a", "b": "text b"})
        again = generate(make())
        assert len(server.requests) == 3
        assert again.queries[:4] == first.queries
        assert generate(make()).queries == again.queries and len(server.requests) == 3

    def test_another_prompt_model_or_count_is_another_question(self, server, make):
        one = {"a": "text a"}
        generate(make(), one)
        generate(make(), one, prompt="{count} {document}")
        generate(make(temperature=0.1), one)
        generate(make(base_url=server.url + "/"), one)
        assert len(server.requests) == 4

    def test_a_damaged_answer_on_disk_is_asked_again(self, server, make, tmp_path):
        generate(make(), {"a": "text a"})
        (kept,) = tmp_path.rglob("*.json")
        kept.write_text("{half")
        assert len(generate(make(), {"a": "text a"}).queries) == 2
        assert len(server.requests) == 2

    def test_documents_with_braces_reach_the_model_as_they_are(self, server, make):
        generate(make(), {"a": "a {count} and {document} {0}"})
        assert server.requests[0][1]["messages"][0]["content"].endswith("a {count} and {document} {0}")

    def test_workers_keep_the_order(self, server, make):
        documents = {str(i): f"text {i}" for i in range(20)}
        result = generate(make(), documents, workers=4)
        assert [query.document for query in result.queries] == [key for key in documents for _ in range(2)]
        assert len(server.requests) == 20


class TestMisbehaviour:
    @pytest.mark.parametrize(
        "step",
        [
            (429, {}, "slow down"),
            (500, {}, "oops"),
            (503, {}, ""),
            (200, {}, "no json at all"),
            (200, {}, "[1, 2]"),
            (200, {}, {"choices": []}),
            (200, {"X-Cut": "1"}, "cut off"),
            completion("not json"),
            completion('["only one"]'),
            completion('["same", "Same."]'),
            completion('["two", "are", "Two."]'),
            completion('["", "empty"]'),
            completion('[1, "number"]'),
            completion('{"questions": ["a", "b"]}'),
            completion(None),
            completion(json.dumps(["x" * 400, "y"])),
            completion(json.dumps(["\u200b\u200b", "y"])),
            completion(json.dumps(["\x1b[31mred", "y"])),
            completion(json.dumps(["\u202eabc", "y"])),
            completion(json.dumps(["...", "y"])),
            completion("[" * 5_000),
            (200, {}, "[" * 100_000),
            (200, {}, '{"choices": ' + "[" * 100_000),
        ],
        ids=str,
    )
    def test_is_asked_again(self, server, make, step, waits):
        server.script = [step]
        result = generate(make(timeout_s=1), {"a": "text a"})
        assert [query.text for query in result.queries] == ["one 2", "two 2"]
        assert len(server.requests) == 2 and len(waits) == 1

    def test_timeout(self, server, make):
        server.script = [(200, {}, "hang")]
        result = generate(make(timeout_s=0.2), {"a": "text a"})
        assert len(result.queries) == 2 and len(server.requests) == 2

    def test_waits_double_and_what_the_server_asks_for_goes_first(self, server, make, waits, monkeypatch):
        monkeypatch.setattr(http.random, "uniform", lambda low, high: 1.0)
        server.script = [(500, {}, "")] * 3 + [(429, {"Retry-After": "7"}, "")]
        generate(make(), {"a": "text a"})
        assert waits == [1, 2, 4, 7]

    def test_no_server_keeps_us_waiting_for_an_hour(self, server, make, waits):
        server.script = [(429, {"Retry-After": "3600"}, ""), (429, {"Retry-After": "soon"}, "")]
        generate(make(), {"a": "text a"})
        assert waits[0] == 60 and 0 < waits[1] < 60

    def test_a_date_to_wait_for(self, server, make, waits):
        from email.utils import formatdate

        server.script = [(503, {"Retry-After": formatdate(time.time() + 30, usegmt=True)}, "")]
        generate(make(), {"a": "text a"})
        assert 20 < waits[0] <= 30

    def test_a_document_that_keeps_failing_is_reported_and_the_rest_goes_on(self, server, make, tmp_path, waits):
        server.script = [queries("x", "y"), *[completion("no")] * 3]
        result = generate(make(attempts=3))
        assert len(waits) == 2  # none after the last attempt
        assert list(result.failed) == ["b"] and "3 attempts" in result.failed["b"] and "'no'" in result.failed["b"]
        assert [query.document for query in result.queries] == ["a", "a", "c", "c"]
        assert len(list(tmp_path.rglob("*.json"))) == 2  # what is unusable is not kept
        assert len(generate(make()).queries) == 6

    @pytest.mark.parametrize("status", [400, 401, 403, 404])
    def test_a_refusal_ends_it_at_once_without_the_key(self, server, make, status):
        server.script = [(status, {}, "wrong")]
        with pytest.raises(ChatError, match=f"HTTP {status}: wrong") as caught:
            generate(make())
        assert KEY not in str(caught.value) and "OPENAI_API_KEY" in caught.value.remedy
        assert len(server.requests) == 1

    def test_a_dead_endpoint_is_not_asked_for_every_document(self, server, make):
        server.script = [(500, {}, "down")] * 100
        documents = {str(i): f"text {i}" for i in range(50)}
        with pytest.raises(ChatError, match="in a row"):
            generate(make(attempts=1), documents)
        assert len(server.requests) <= FAILURES_IN_A_ROW + 2

    def test_failures_between_successes_do_not_end_it(self, server, make):
        server.script = [step for _ in range(FAILURES_IN_A_ROW + 2) for step in ((500, {}, ""), queries("x", "y"))]
        documents = {str(i): f"text {i}" for i in range(2 * FAILURES_IN_A_ROW + 4)}
        assert len(generate(make(attempts=1), documents).failed) == FAILURES_IN_A_ROW + 2

    def test_nobody_listens(self, make, server):
        with pytest.raises(UnusableAnswerError, match="2 attempts: ConnectError"):
            make(base_url="http://127.0.0.1:9/v1", attempts=2).ask("x", str)

    def test_a_redirect_is_not_followed(self, server, make):
        server.script = [(302, {"Location": f"http://localhost:{server.server_port}/elsewhere"}, "")]
        with pytest.raises(ChatError, match="HTTP 302: no text .redirect to http://localhost:.*elsewhere"):
            make().ask("x", str)
        assert len(server.requests) == 1


class TestLimits:
    def test_rate(self, server, make, waits):
        generate(make(requests_per_minute=30))
        assert len(waits) == 2
        assert waits == pytest.approx([2, 4], abs=0.5)  # nothing slept, so the debt adds up

    def test_cost(self, server, make):
        chat = make(price_per_million=(1.0, 5.0))
        result = generate(chat)
        assert result.cost == chat.cost == pytest.approx(3 * (100 * 1.0 + 10 * 5.0) / 1e6)
        assert generate(make(price_per_million=(1.0, 5.0))).cost == 0  # all from disk

    def test_unusable_answers_are_paid_for_too(self, server, make):
        server.script = [completion("no", prompt_tokens=100, completion_tokens=10)]
        assert generate(make(price_per_million=(1.0, 5.0)), {"a": "t"}).cost == pytest.approx(2 * 150 / 1e6)

    def test_unknown_costs_are_none(self, server, make):
        assert generate(make()).cost is None
        server.script = [completion('["x", "y"]', prompt_tokens="many", completion_tokens=5)]
        assert generate(make(price_per_million=(1.0, 5.0)), {"d": "unseen"}).cost is None

    @pytest.mark.parametrize("tokens", [-(10**9), 10**12, 1.5, True, "many", None])
    def test_impossible_token_counts_are_no_costs_and_end_a_budget(self, server, make, tokens):
        server.script = [completion('["x", "y"]', prompt_tokens=tokens, completion_tokens=5)] * 9
        chat = make(price_per_million=(1.0, 5.0))
        with pytest.raises(ChatError, match="reports no token counts, so the budget cannot be kept"):
            generate(chat, budget=1.0)
        assert chat.cost is None and len(server.requests) == 1

    def test_budget(self, server, make):
        result = generate(make(price_per_million=(1.0, 5.0)), budget=2 * 150 / 1e6)
        assert not result.complete and [query.document for query in result.queries] == ["a", "a", "b", "b"]
        assert generate(make(price_per_million=(1.0, 5.0)), budget=150 / 1e6).complete  # reached with the last

    def test_the_budget_is_checked_before_each_attempt(self, server, make):
        server.script = [completion("no array", prompt_tokens=100, completion_tokens=10)] * 9
        result = generate(make(price_per_million=(1.0, 5.0)), budget=2 * 150 / 1e6)
        assert len(server.requests) == 2 and not result.complete and not result.failed

    def test_a_judge_checks_the_budget_before_each_attempt(self, server, make):
        server.script = [completion("no digit", prompt_tokens=100, completion_tokens=10)] * 9
        score = language_judge(make(price_per_million=(1.0, 5.0)), 2 * 150 / 1e6)
        assert np.isnan(score([("q", "d"), ("q", "e")])).all() and len(server.requests) == 2

    def test_progress_carries_the_cost(self, server, make, tmp_path, monkeypatch):
        monkeypatch.setenv("EMBEDLAB_PROGRESS", str(tmp_path / "progress"))
        generate(make(price_per_million=(1.0, 5.0)))
        lines = [json.loads(line) for line in (tmp_path / "progress").read_text().splitlines()]
        assert [line["step"] for line in lines if "cost" in line] == [1, 2, 3]


@pytest.mark.parametrize(
    "options",
    [{"prompt": "{count}"}, {"prompt": "{document}"}, {"budget": 1.0}],
    ids=lambda options: next(iter(options)),
)
def test_impossible_settings(make, options):
    with pytest.raises(ParameterError):
        generate(make(), **options)


def test_impossible_chats():
    with pytest.raises(ParameterError, match="expected a web address"):
        Chat("m", "file:///etc/passwd")
    with pytest.raises(ParameterError, match="attempts"):
        Chat("m", attempts=0)


def test_the_key_is_in_no_file_and_no_representation(server, make, tmp_path):
    chat = make()
    generate(chat)
    assert KEY not in repr(chat)
    assert all(KEY not in path.read_text() for path in tmp_path.rglob("*.json"))


def test_a_server_that_sends_the_key_back_does_not_spread_it(server, make, tmp_path):
    server.script = [(400, {}, f"invalid key Bearer {KEY}")]
    with pytest.raises(ChatError) as caught:
        generate(make())
    assert KEY not in str(caught.value) and "HTTP 400: invalid key Bearer [key]" in str(caught.value)
    for script in ([(500, {}, f"x {KEY}")] * 2, [completion(f"no {KEY}")] * 2, [(200, {}, f'"{KEY}"')] * 2):
        server.script = script
        assert KEY not in str(generate(make(attempts=2), {"z": "unseen"}).failed)
    server.script = [queries(f"what is {KEY}", "y")]
    assert generate(make(), {"w": "w"}).queries[0].text == "what is [key]"
    assert all(KEY not in path.read_text() for path in tmp_path.rglob("*.json"))


def test_queries_are_one_visible_line():
    text = json.dumps([" a\nb\t\u200bc\u2028d ", "\ufeffb", "\u0646\u0645\u06cc\u200c\u062e"])
    assert parse_queries(text, 3) == ["a b c d", "b", "\u0646\u0645\u06cc\u200c\u062e"]


def test_parse_takes_a_fenced_array():
    assert parse_queries('```json\n[" a ", "b"]\n```', 2) == ["a", "b"]
    with pytest.raises(UnusableAnswerError, match="expected 3 different"):
        parse_queries('["a", "b"]', 3)
