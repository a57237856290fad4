"""Keys are found and replaced; ordinary texts stay as they are."""

from __future__ import annotations

import pytest

from embedlab.redaction import holds_key, key_values, redacted, shareable, shareable_value, without_own_keys


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


def test_what_is_shared_names_no_folder_of_this_machine(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBEDLAB_HOME", str(tmp_path / "lab"))
    monkeypatch.setenv("HOME", "/home/ada")
    monkeypatch.setattr("tempfile.tempdir", "/tmp")
    monkeypatch.setattr("sys.prefix", "/opt/envs/lab")
    text = f"""File {tmp_path}/lab/notebooks/a.ipynb, "{tmp_path}/lab"
/opt/envs/lab/lib/python3.11/site-packages/numpy/_core/_methods.py:219: Warning
/usr/lib/python3/dist-packages/x.py and '/opt/envs/lab/bin/python'
/tmp/ipykernel_123/456.py:1, /home/ada/data/x.csv, /home/ada, /home/adam/x, https://h/tmp/x, ./tmp/x, a/home/ada/b"""
    assert (
        shareable(text)
        == """File notebooks/a.ipynb, ""
site-packages/numpy/_core/_methods.py:219: Warning
dist-packages/x.py and 'environment/bin/python'
temporary/ipykernel_123/456.py:1, ~/data/x.csv, ~/, /home/adam/x, https://h/tmp/x, ./tmp/x, a/home/ada/b"""
    )
    assert shareable(shareable(text)) == shareable(text)
    coloured = {"traceback": ["\x1b[32m/home/ada/x\x1b[39m\n/home/ada/y"], "image/png": "/home/ada/", "n": [1, None]}
    expected = {"traceback": ["\x1b[32m~/x\x1b[39m\n~/y"], "image/png": "/home/ada/", "n": [1, None]}
    assert shareable_value(coloured) == expected


def test_a_home_folder_that_is_the_root_leaves_addresses_alone(monkeypatch):
    monkeypatch.setenv("HOME", "/")
    assert shareable("https://example.org/a/b") == "https://example.org/a/b"
