"""Keys are found and replaced; ordinary texts stay as they are."""

from __future__ import annotations

import pytest

from embedlab.redaction import holds_key, key_values, redacted, without_own_keys


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("Authorization: Bearer abc123def", "Authorization: Bearer [key]"),
        ("{'Authorization': 'Basic dXNlcjpwYXNz1'}", "{'Authorization': 'Basic [key]'}"),
        ("postgres://ada:s3cret@host/db", "postgres://[key]@host/db"),
        ("http://h/v1?a=1&api_key=abc&b=2", "http://h/v1?a=1&api_key=[key]&b=2"),
        ("https://h/?X-Amz-Security-Token=abc", "https://h/?X-Amz-Security-Token=[key]"),
        ("sk-proj-abcdefghijklmnop", "[key]"),
        ("hf_abcdefghijklmnopqrstuvwx", "[key]"),
        ("my value-of-a-variable is", "my [key] is"),
    ],
)
def test_keys_are_replaced(monkeypatch, text, expected):
    monkeypatch.setenv("SOME_API_KEY", "value-of-a-variable\n")
    assert redacted(text) == expected and holds_key(text)
    assert redacted(expected) == expected


@pytest.mark.parametrize(
    "text",
    [
        "bearer certificate", "the basic training of a token", "task-force", "http://h:80/v1?page=2", "a@b.c", "sk-1",
        "openai:m@http://h/v1", "pairs:data/my.csv", "E11.9", "token=3", "risk-adjusted-return-of-capital", "",
    ],
)  # fmt: skip
def test_ordinary_texts_stay(text):
    assert redacted(text) == text and not holds_key(text)


def test_words_in_variables_with_such_names_are_not_keys(monkeypatch):
    for name, value in {"TOKENIZERS_PARALLELISM": "false", "A_KEY": "disabled", "B_TOKEN": "/run/x/token1"}.items():
        monkeypatch.setenv(name, value)
    assert not {"false", "disabled", "/run/x/token1"} & set(key_values())


def test_without_own_keys_changes_only_those(monkeypatch):
    monkeypatch.setenv("MY_SECRET", "abcd-1234-efgh")
    assert without_own_keys("abcd-1234-efgh and Bearer abc123def") == "[key] and Bearer abc123def"
