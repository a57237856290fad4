"""The scanner for training texts, keys and folders of the machine: every planted one is found, and nothing else."""

from __future__ import annotations

import json
import zipfile
from pathlib import Path

import numpy as np
import pytest

from embedlab.models.save import save_model
from embedlab.scan import FOLDER, KEY, MIN_WORDS, TEXT, UNKNOWN, Texts, readable, scan_folder, without_folders
from tests.conftest import tiny_model

TEXTS = ["Patient reports sharp pain in the left knee", "Fracture of the neck of femur, closed", "cholera", "a b c"]


def kinds(folder, texts=TEXTS):
    return [(finding.file, finding.kind) for finding in scan_folder(folder, texts)]


def test_a_saved_model_is_clean(tmp_path):
    save_model(tiny_model(layers=1), tmp_path)
    assert kinds(tmp_path) == []


@pytest.mark.parametrize(
    ("name", "content", "kind"),
    [
        ("README.md", f"# card\n- text: {TEXTS[0]}\n", TEXT),
        ("README.md", "the PATIENT reports\nsharp pain, in the left knee!", TEXT),
        ("config.json", json.dumps({"note": ["x", {TEXTS[1]: 1}]}), TEXT),
        ("notes.json", '{"a": "Fracture of the\\u0020neck of\\nfemur, closed"}', TEXT),
        ("executed.ipynb", json.dumps({"cells": [{"outputs": [{"text": f"1 | {TEXTS[0]}\n"}]}]}), TEXT),
        ("no_suffix", TEXTS[0], TEXT),
        ("config.json", '{"_name_or_path": "/home/ada/models/x"}', FOLDER),
        ("config.json", '{"_name_or_path": "/opt/env/lib/python3.11/site-packages/m"}', FOLDER),
        ("log.txt", "token hf_abcdefghijklmnopqrstuvwxyz", KEY),
        ("record.json", json.dumps({"url": "https://user:pass@host/v1"}), KEY),
        ("training_args.bin", "\x80\x04 /home/ada/run", FOLDER),
        ("optimizer.pt", "x", UNKNOWN),
        ("queries.parquet", "x", UNKNOWN),
    ],
)
def test_what_is_planted_is_found(tmp_path, name, content, kind):
    (tmp_path / "below").mkdir()
    (tmp_path / "below" / name).write_text(content, encoding="utf-8")
    assert kinds(tmp_path) == [(f"below/{name}", kind)]


def test_this_machines_own_folder_and_a_key_of_the_environment(tmp_path, monkeypatch):
    monkeypatch.setenv("EMBEDLAB_HOME", "/srv/lab/project")
    monkeypatch.setenv("SOME_API_KEY", "zq81-not-a-known-form")
    (tmp_path / "a.json").write_text('{"p": "/srv/lab/project/data"}')
    (tmp_path / "b.json").write_text('{"p": "zq81-not-a-known-form"}')
    assert kinds(tmp_path) == [("a.json", FOLDER), ("b.json", KEY)]
    assert "zq81" not in " ".join(map(str, scan_folder(tmp_path)))


@pytest.mark.parametrize(
    "text",
    [
        "cholera and a b c",  # too short to be a quotation
        "Patient reports sharp pain in the right knee",
        "Fracture of the neck of femur",
        "https://h/home/ada and results/tmp/x",
    ],
)
def test_other_texts_stay(tmp_path, text):
    (tmp_path / "README.md").write_text(text)
    assert kinds(tmp_path) == []


def test_texts_that_start_the_same():
    texts = Texts(["one two three four five", "one two three four", "one two three four six"])
    assert len(texts) == 3 and MIN_WORDS == 4
    assert texts.first_in("zero one two three four six") == "one two three four"
    assert Texts(["one two three four five"]).first_in("one two three four") == ""
    assert Texts().first_in("one two three four") == ""


def test_texts_in_other_scripts_are_found_inside_longer_ones():
    texts = Texts(["急性肝炎患者", "मटर कब बोएं और कैसे", "肝炎"])
    assert len(texts) == 2  # the last is shorter than four words
    assert texts.first_in("我们有一名急性肝炎患者。") and texts.first_in("क्या मटर कब बोएं और कैसे?")
    assert not texts.first_in("急性胃炎患者") and not texts.first_in("मोटर कब बोएं और कैसे")


def test_a_path_in_the_header_of_weights(tmp_path):
    header = json.dumps({"__metadata__": {"from": "/home/ada/x", "text": TEXTS[0]}}).encode()
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header + b"/home/ada/x")
    assert kinds(tmp_path) == [("model.safetensors", FOLDER), ("model.safetensors", TEXT)]
    (tmp_path / "model.safetensors").write_bytes((2).to_bytes(8, "little") + b"{}" + b"/home/ada/x")
    assert kinds(tmp_path) == []


def test_texts_among_the_arrays_of_an_adapter(tmp_path):
    np.savez(tmp_path / "adapter.npz", weights=np.zeros((3, 2)), vocabulary=np.array(["ok", TEXTS[0]]))
    assert kinds(tmp_path) == [("adapter.npz", TEXT)]
    np.savez(tmp_path / "adapter.npz", weights=np.zeros((3, 2)), vocabulary=np.array(["/home/ada/x"]))
    assert kinds(tmp_path) == [("adapter.npz", FOLDER)]
    np.savez(tmp_path / "adapter.npz", weights=np.arange(20, dtype=np.int8))
    assert kinds(tmp_path) == []


@pytest.mark.parametrize(
    "array",
    [
        np.frombuffer(TEXTS[0].encode(), dtype=np.uint8),
        np.array(["x\0y", TEXTS[0]]),
        np.array(["\ud800", TEXTS[0]]),
        np.array([TEXTS[0].encode()]),
    ],
    ids=["bytes", "NUL", "surrogate", "encoded"],
)
def test_a_text_is_found_in_an_array_of_any_kind(tmp_path, array):
    np.savez(tmp_path / "adapter.npz", v=array)
    assert kinds(tmp_path) == [("adapter.npz", TEXT)]


def test_texts_with_other_letters_in_an_array_of_bytes(tmp_path):
    text = "Lungenentzündung durch Streptokokken bei älteren Menschen"
    np.savez(tmp_path / "adapter.npz", v=np.array([text.encode()]))
    assert [finding.kind for finding in scan_folder(tmp_path, [text])] == [TEXT]


def not_arrays(kind: str, file: Path) -> None:
    """Write a file that NumPy refuses in one of its ways."""
    if kind == "a single array":
        with open(file, "wb") as handle:
            np.save(handle, np.zeros(3))
    elif kind == "a text in the archive":
        with zipfile.ZipFile(file, "w") as archive:
            archive.writestr("notes.txt", "hello")
    elif kind in ("objects", "fields"):
        dtype = object if kind == "objects" else [("text", "U20")]
        np.savez(file, v=np.array([("x",)] if kind == "fields" else [TEXTS[0]], dtype=dtype))
    else:
        file.write_bytes({"empty": b"", "torn": b"PK\3\4 torn", "header": b"\x93NUMPY\1\0\5\0{(((\n"}[kind])


@pytest.mark.parametrize(
    "kind", ["empty", "torn", "header", "a single array", "a text in the archive", "objects", "fields"]
)
def test_what_is_no_arrays_of_numbers_and_texts_is_unknown(tmp_path, kind):
    not_arrays(kind, tmp_path / "adapter.npz")
    assert kinds(tmp_path) == [("adapter.npz", UNKNOWN)]


def test_zeros_in_a_header_hide_nothing(tmp_path):
    header = json.dumps({"__metadata__": {"text": TEXTS[0]}}).encode() + b"\0" * 8
    (tmp_path / "model.safetensors").write_bytes(len(header).to_bytes(8, "little") + header)
    assert kinds(tmp_path) == [("model.safetensors", TEXT)]


def test_a_binary_file_is_not_read_as_text(tmp_path):
    """Regular expressions of a megabyte of noise take seconds. Folders are looked for in the bytes."""
    (tmp_path / "weights.bin").write_bytes(b"\0" + TEXTS[0].encode() + b" from /home/ada/x")
    (tmp_path / "photo.png").write_bytes(b"\0" + TEXTS[0].encode())
    assert kinds(tmp_path) == [("photo.png", UNKNOWN), ("weights.bin", FOLDER)]


def test_a_link_is_not_followed(tmp_path):
    (tmp_path / "secret.txt").write_text(TEXTS[0])
    (tmp_path / "model").mkdir()
    (tmp_path / "model" / "a.txt").symlink_to(tmp_path / "secret.txt")
    assert kinds(tmp_path / "model") == [("model/a.txt".removeprefix("model/"), UNKNOWN)]


def test_json_that_is_none_is_read_as_text():
    assert readable(b"{\\") == "{\\" and readable(b'["a\\nb", 1]') == "a\nb\n1"


@pytest.mark.parametrize(
    ("text", "expected"),
    [
        ("/home/ada/models/big", "big"),
        ("pairs:/data/clinic/my terms.csv?repair=true", "pairs:my terms.csv?repair=true"),
        ("pairs:a.csv?extra=pairs:/data/b.csv", "pairs:a.csv?extra=pairs:b.csv"),
        ("~/models/x", "x"),
        ("/model", "model"),
        ("results/runs/x/model", "results/runs/x/model"),
        ("sentence-transformers/all-MiniLM-L6-v2", "sentence-transformers/all-MiniLM-L6-v2"),
        ("https://host/v1/x", "https://host/v1/x"),
        ("and/or", "and/or"),
    ],
)
def test_without_folders(text, expected):
    assert without_folders(text) == expected
