"""Documents without queries: every kind of file, chunks with their provenance, and what is said about the rest."""

from __future__ import annotations

import json
import os

import pytest

from embedlab.data.documents import CHUNK
from embedlab.data.load import load_dataset, source_fingerprint
from embedlab.errors import DataError, ParameterError


def load(location, options=""):
    return load_dataset(f"docs:{location}{options}", training=False, queries=False)


def pdf(path, *pages, password=None):
    """A PDF with these texts, one per page."""
    from pypdf import PdfWriter
    from pypdf.generic import DecodedStreamObject, DictionaryObject, NameObject

    writer = PdfWriter()
    font = {"/Type": "/Font", "/Subtype": "/Type1", "/BaseFont": "/Helvetica"}
    font = DictionaryObject({NameObject(key): NameObject(value) for key, value in font.items()})
    for text in pages:
        page = writer.add_blank_page(300, 300)
        fonts = DictionaryObject({NameObject("/F1"): font})
        page[NameObject("/Resources")] = DictionaryObject({NameObject("/Font"): fonts})
        stream = DecodedStreamObject()
        stream.set_data(f"BT /F1 12 Tf 20 200 Td ({text}) Tj ET".encode() if text else b"")
        page[NameObject("/Contents")] = stream
    writer.add_metadata({"/Title": "Pump manual"})
    if password:
        writer.encrypt(password, algorithm="RC4-128")
    writer.write(path)
    return path


HTML = """<html><head><title>Pumps &amp; valves</title><style>p {}</style></head><body><nav>Home</nav>
<h1>Seals</h1><p>Replace the <b>seal</b>
ring.</p><script>alert(1)</script><ul><li>grease</li><li>oil</li></ul></body></html>"""


def test_every_kind_of_file(tmp_path):
    (tmp_path / "a.txt").write_text("﻿plain text\n", "utf-8")
    (tmp_path / "b.md").write_text("---\nauthor: me\n---\n# The title #\n\nsome *text*\n", "utf-8")
    (tmp_path / "c.html").write_text(HTML, "utf-8")
    pdf(tmp_path / "d.pdf", "first page", "", "third page")
    (tmp_path / "e.jsonl").write_text(json.dumps({"title": "T", "text": "record"}) + "\n", "utf-8")
    (tmp_path / "sub").mkdir()
    (tmp_path / "sub" / "f.csv").write_text("id,content\n1,cell\n", "utf-8")
    dataset = load(tmp_path)
    assert dataset.corpus == {
        "a.txt#1": "plain text",
        "b.md#1": "# The title #\n\nsome *text*",
        "c.html#1": "Pumps & valves\nSeals\n\nReplace the seal ring.\n\ngrease\n\noil",
        "d.pdf#1": "Pump manual\nfirst page",
        "d.pdf#2": "Pump manual\nthird page",
        "e.jsonl#1": "T\nrecord",
        "sub/f.csv#1": "cell",
    }
    whole = "1 of 1"
    assert dataset.fields["d.pdf#2"] == {"source": "d.pdf", "place": "page 3", "title": "Pump manual", "chunk": whole}
    assert dataset.fields["sub/f.csv#1"] == {"source": "sub/f.csv", "place": "line 2", "chunk": whole}
    assert not dataset.queries and not any(dataset.qrels.values())


def test_blocks_and_cells_of_a_page_stay_apart(tmp_path):
    table = "<table><tr><th>size</th><th>torque</th></tr><tr><td>8</td><td>25</td></tr></table>"
    (tmp_path / "a.html").write_text(f"<blockquote>one</blockquote>two<hr>three{table}<b>f</b>our")
    assert load(tmp_path).corpus["a.html#1"] == "one\ntwo\nthree\n\nsize torque\n\n8 25\n\nfour"


def test_names_and_characters_that_no_file_can_store(tmp_path):
    (tmp_path / "a.txt").write_bytes(b"one\0two")
    (tmp_path / os.fsdecode(b"gr\xfcn.txt")).write_text("three")
    dataset = load(tmp_path)
    assert dataset.corpus == {"a.txt#1": "one two", "gr\\xfcn.txt#1": "three"}
    assert source_fingerprint(f"docs:{tmp_path}")


def test_links_that_are_not_followed_are_named(tmp_path, caplog):
    (tmp_path / "docs").mkdir()
    (tmp_path / "docs" / "a.txt").write_text("text")
    (tmp_path / "docs" / "more").symlink_to(tmp_path)
    (tmp_path / "docs" / "gone.txt").symlink_to(tmp_path / "gone.txt")
    assert list(load(tmp_path / "docs").corpus) == ["a.txt#1"]
    assert "links to folders are not followed, and these are not read: gone.txt, more" in caplog.text


def test_chunks_by_hand(tmp_path):
    (tmp_path / "a.txt").write_text("One two. Three four. Five six.")
    dataset = load(tmp_path / "a.txt", "?chunk=4 sentences")
    assert list(dataset.corpus.values()) == ["One two. Three four.", "Five six."]
    assert [fields["chunk"] for fields in dataset.fields.values()] == ["1 of 2", "2 of 2"]
    assert list(load(tmp_path / "a.txt", "?chunk=3+1").corpus) == ["a.txt#1", "a.txt#2", "a.txt#3"]
    (tmp_path / "a.txt").write_text("word " * 1_000)
    assert list(load(tmp_path / "a.txt", "?chunk=0").corpus) == ["a.txt#1"]
    assert max(len(text.split()) for text in load(tmp_path / "a.txt").corpus.values()) <= int(CHUNK.split("+")[0])
    with pytest.raises(ParameterError, match="expected SIZE"):
        load(tmp_path / "a.txt", "?chunk=big")


def test_what_is_left_out_is_said(tmp_path, caplog):
    for name, text in (("a.txt", "same"), ("b.txt", "same"), ("c.txt", " \n"), ("x.docx", "?"), (".hidden.txt", "no")):
        (tmp_path / name).write_text(text)
    assert list(load(tmp_path).corpus.values()) == ["same"]
    for message in ("read 3 texts as 1 chunks", "1 empty texts", "1 chunks that repeat", "not read: 1 .docx"):
        assert message in caplog.text


def test_a_column_of_a_table(tmp_path):
    (tmp_path / "a.csv").write_text("Note,other\nfirst,x\nsecond,y\n")
    assert list(load(tmp_path / "a.csv", "?column=note").corpus.values()) == ["first", "second"]
    for options, problem in (("", "no column is known"), ("?column=nope", "there is no column 'nope'")):
        with pytest.raises(DataError, match=f"{problem}.*there are Note, other") as caught:
            load(tmp_path / "a.csv", options)
        assert caught.value.line == 2


def test_faults_name_the_file(tmp_path):
    with pytest.raises(DataError, match="this PDF has a password"):
        load(pdf(tmp_path / "a.pdf", "secret", password="x"))
    (tmp_path / "b.pdf").write_bytes(b"%PDF-1.4 and no more")
    with pytest.raises(DataError, match="damaged PDF file") as caught:
        load(tmp_path / "b.pdf")
    assert caught.value.file == tmp_path / "b.pdf"
    with pytest.raises(DataError, match="no file has a text.*OCR"):
        load(pdf(tmp_path / "c.pdf", "", ""))
    (tmp_path / "d.txt").write_bytes(b"caf\xe9")
    with pytest.raises(DataError, match="not UTF-8"):
        load(tmp_path / "d.txt")
    (tmp_path / "empty").mkdir()
    with pytest.raises(DataError, match="no document to read"):
        load(tmp_path / "empty")
    with pytest.raises(DataError, match="does not exist"):
        load(tmp_path / "gone")


def test_training_needs_queries_and_says_how_to_get_them(tmp_path):
    (tmp_path / "a.txt").write_text("a text")
    with pytest.raises(DataError, match="1 documents and no queries.*embedlab synthesise 'docs:.*pairs:pairs.jsonl"):
        load_dataset(f"docs:{tmp_path}")
    with pytest.raises(DataError, match="nothing can be trained or measured"):
        load_dataset(f"docs:{tmp_path}", training=False)


def test_fingerprint_sees_names_and_contents(tmp_path):
    (tmp_path / "a.txt").write_text("a text")
    prints = [source_fingerprint(f"docs:{tmp_path}")]
    (tmp_path / "a.txt").rename(tmp_path / "b.txt")
    prints.append(source_fingerprint(f"docs:{tmp_path}"))
    (tmp_path / "b.txt").write_text("another")
    prints.append(source_fingerprint(f"docs:{tmp_path}"))
    assert len(set(prints)) == 3
