"""Fuzz every loader: `python -m tests.fuzz.loaders --files 10000 --seed 0`.

A file is a valid table that is changed in up to three places: a cell, a column, the structure, or a byte. A loader must
either return what the file says or raise an `EmbedlabError` that names the file. Another exception, a hang, and content
that differs from the file are faults. The expected content is computed here in another way than in the loaders: from
the table, whose columns have a known role.
"""

from __future__ import annotations

import argparse
import csv
import io
import json
import logging
import random
import shutil
import signal
import tempfile
import unicodedata
from collections import Counter
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from dataclasses import dataclass, field
from datetime import date
from pathlib import Path

from embedlab.data import beir, click_log, hub, pairs, review
from embedlab.data.dataset import Dataset
from embedlab.data.load import load_dataset
from embedlab.errors import EmbedlabError
from embedlab.evaluation.local_tasks import labelled_columns, sts_columns
from embedlab.evaluation.task_files import folder_tasks

FORMATS = (".csv", ".tsv", ".jsonl", ".json", ".parquet")
SECONDS = 20  # a loader that takes longer hangs
WORDS = (
    "pump",
    "valve",
    "leaks",
    "water",
    "été",
    "naïve",
    "Straße",
    "你好",
    "привет",
    "नमस्ते",
    "🎈",
    "C++",
    "[1]",
    "it's",
)
WORDS += ("“so”", "0,5", "NA", "null", "nan", "None", "007", "=1+1")
HOSTILE_TEXTS = (
    "",
    " ",
    "\u200b",
    "\ufeff",
    "a\0b",
    "\0",
    "x\ny",
    'say "hi"',
    "a\tb",
    "a;b",
    "a,b",
    "\\",
    "['a', 'b']",
)
HOSTILE = (
    *HOSTILE_TEXTS,
    None,
    float("nan"),
    float("inf"),
    3,
    3.0,
    -1,
    10**20,
    0.5,
    "0,5",
    "True",
    True,
    [],
    ["x y"],
    {},
)
NEGATIVES = ("negative", "negative_1", "hard_negative", "neg", "neg_doc", "Negative", "Hard Negative", "negatives")
SCORES = ("score", "label", "labels", "Score", "relevance", "is_relevant")
PLAIN_NAMES = ("source", "id", "Note", "year", "distractor")

Cell = object
Record = dict[str, Cell]


class Hang(Exception):
    """A loader that did not return in time."""


@contextmanager
def time_limit(seconds: int = SECONDS) -> Iterator[None]:
    """Raise `Hang` in the block after so many seconds."""

    def stop(*_: object) -> None:
        raise Hang(f"more than {seconds} s")

    signal.signal(signal.SIGALRM, stop)
    signal.alarm(seconds)
    try:
        yield
    finally:
        signal.alarm(0)


@dataclass
class Table:
    """Records and what their columns mean: role ("query", "negative", "other", …) -> column names."""

    records: list[Record]
    roles: dict[str, list[str]] = field(default_factory=dict)

    @property
    def columns(self) -> list[str]:
        """The names of all columns."""
        return list(dict.fromkeys(column for record in self.records for column in record))

    def column(self, role: str) -> str | None:
        """The only column of a role."""
        return next(iter(self.roles.get(role, [])), None)


def write_table(table: Table, path: Path) -> list[Record] | None:
    """Write a table in the format of the suffix.

    Returns:
        The records as a reader sees them, None if the format cannot hold the table.
    """
    columns = table.columns
    if path.suffix in (".csv", ".tsv"):
        records = [{column: _as_csv(record.get(column)) for column in columns} for record in table.records]
        buffer = io.StringIO(newline="")
        writer = csv.writer(buffer, delimiter="," if path.suffix == ".csv" else "\t")
        writer.writerow(columns)
        writer.writerows(record.values() for record in records)
        path.write_text(buffer.getvalue(), encoding="utf-8", newline="")
        # The csv module of readers takes a line with one empty cell for no record.
        return records
    if path.suffix == ".parquet":
        return _write_parquet(table, path)
    records = [{k: v.isoformat() if isinstance(v, date) else v for k, v in record.items()} for record in table.records]
    lines = [json.dumps(record, ensure_ascii=False) for record in records]
    text = "\n".join(lines) + "\n" if path.suffix == ".jsonl" else "[" + ",\n".join(lines) + "]"
    path.write_text(text, encoding="utf-8", newline="")
    return records


def _as_csv(value: Cell) -> str:
    empty = value is None or (isinstance(value, float) and value != value)
    return "" if empty else str(value)


def _write_parquet(table: Table, path: Path) -> list[Record] | None:
    import pyarrow
    import pyarrow.parquet

    records = [{column: record.get(column) for column in table.columns} for record in table.records]
    try:
        written = pyarrow.Table.from_pylist(records)
        pyarrow.parquet.write_table(written, path)
    except (pyarrow.ArrowException, ValueError, TypeError, OverflowError):  # mixed types
        return None
    return written.to_pylist()


def text(value: Cell) -> str | None:
    """The text of a cell; None if it has no visible character."""
    if value is None or value != value or value == []:
        return None
    stripped = str(value).strip()
    blank = all(unicodedata.category(c)[0] == "Z" or unicodedata.category(c) in ("Cc", "Cf") for c in stripped)
    return None if blank or not stripped.strip("\u115f\u1160\u2800\u3164\uffa0") else stripped


def number(value: Cell) -> float | None:
    """The number in a cell."""
    try:
        return float({"true": 1, "false": 0}.get(str(value).strip().lower(), value))  # type: ignore[arg-type]
    except (TypeError, ValueError):
        return None


@dataclass
class Content:
    """What a file of pairs says."""

    relevant: set[tuple[str, str]] = field(default_factory=set)
    documents: set[str] = field(default_factory=set)
    triplets: Counter[tuple[str, str, str]] = field(default_factory=Counter)
    groups: dict[str, str] = field(default_factory=dict)
    metadata: dict[str, dict[str, set[str]]] = field(default_factory=dict)
    graded: list[tuple[str, str, float]] = field(default_factory=list)


def expected_pairs(records: list[Record], table: Table) -> Content:
    """Compute what records say, by the roles of their columns."""
    content, score = Content(), table.column("score")
    query, positive = table.column("query"), table.column("positive")
    numbers = [number(record.get(score)) for record in records] if score else [1.0] * len(records)
    # Whole numbers up to 10 are grades of relevance.
    graded = any(value is None or not value.is_integer() or not 0 <= value <= 10 for value in numbers)
    first: dict[str, str] = {}
    zeros: dict[tuple[str, str], None] = {}
    for record, value in zip(records, numbers, strict=True):
        left, right = text(record.get(query or "")) or "", record.get(positive or "")
        for document in right if isinstance(right, list) else [right]:
            document = text(document) or ""
            if graded:
                content.graded.append((left, document, value if value is not None else -1.0))
                continue
            content.documents.add(document)
            if value == 0:
                zeros[left, document] = None
                continue
            content.relevant.add((left, document))
            first.setdefault(left, document)
            for column in table.roles.get("negative", []):
                cell = record.get(column)
                for item in cell if isinstance(cell, list) else [cell]:
                    if (negative := text(item)) is not None:
                        content.documents.add(negative)
                        content.triplets[left, document, negative] += 1
            for column in table.roles.get("other", []):
                cell = record.get(column)
                if isinstance(cell, str | int | float) and cell == cell and str(cell):
                    fields = content.metadata.setdefault(left, {})
                    fields.setdefault(column.strip().lower(), set()).add(str(cell))
        if (column := table.column("group")) and (group := text(record.get(column))) is not None:
            content.groups[left] = group
    content.triplets.update((left, first[left], document) for left, document in zeros if left in first)
    return content


def compare_pairs(dataset: Dataset, content: Content) -> list[str]:
    """List what differs between a dataset and what its file says."""
    if content.graded:
        return [] if [tuple(pair) for pair in dataset.graded_pairs] == content.graded else ["graded pairs differ"]
    judged = {
        (dataset.queries[query], dataset.corpus[document])
        for split in dataset.qrels
        for query, document in dataset.pairs(split)
    }
    train = set(dataset.split_queries("train").values())
    triplets = Counter({t: count for t, count in content.triplets.items() if t[0] in train})
    faults = []
    if judged != content.relevant:
        faults.append(f"positives differ: {judged ^ content.relevant}")
    if set(dataset.corpus.values()) != content.documents:
        faults.append(f"documents differ: {set(dataset.corpus.values()) ^ content.documents}")
    if Counter(map(tuple, dataset.triplets)) != triplets:
        faults.append("triplets differ")
    ids = {query_text: query for query, query_text in dataset.queries.items()}
    for query_text, group in content.groups.items():
        if query_text in ids and dataset.groups.get(ids[query_text]) != group:
            faults.append(f"group of {query_text!r} is {dataset.groups.get(ids[query_text])!r}, not {group!r}")
    for query_text, fields in content.metadata.items():
        own = dataset.fields.get(ids[query_text], {})
        faults += [
            f"field {name!r} is {own.get(name)!r}" for name, values in fields.items() if own.get(name) not in values
        ]
    return faults


def random_text(rng: random.Random, unique: object) -> str:
    """A text that no other number gives."""
    return " ".join(rng.choices(WORDS, k=rng.randint(1, 5))) + f" n{unique}"


def pairs_table(rng: random.Random) -> Table:
    """A valid table of pairs."""
    names = {
        "query": rng.choice(["query", "Question", "anchor"]),
        "positive": rng.choice(["positive", "answer", " Document "]),
    }
    roles = {role: [name] for role, name in names.items()}
    if rng.random() < 0.4:
        roles["score"] = [rng.choice(SCORES)]
    if rng.random() < 0.5:
        roles["negative"] = rng.sample(NEGATIVES[:4] + NEGATIVES[7:], rng.randint(1, 2))
    if rng.random() < 0.4:
        roles["group"] = ["group"]
    if rng.random() < 0.7:
        roles["split"] = ["split"]
    roles["other"] = rng.sample(PLAIN_NAMES, rng.randint(0, 2))
    graded = "score" in roles and "negative" not in roles and "group" not in roles and rng.random() < 0.3
    if graded:
        roles["other"] = []
    kinds = {name: rng.choice(["text", "int", "float", "bool"]) for name in (*roles["other"], "group")}
    lists = rng.random() < 0.5
    records = [_pairs_record(rng, n, roles, kinds, graded, lists) for n in range(rng.randint(4, 9))]
    return Table(records, roles)


def _pairs_record(
    rng: random.Random, n: int, roles: dict[str, list[str]], kinds: dict[str, str], graded: bool, lists: bool
) -> Record:
    record: Record = {roles["query"][0]: random_text(rng, f"q{n}"), roles["positive"][0]: random_text(rng, f"d{n}")}
    relevant = n % 4 != 3 or n == 3
    for column in roles.get("score", []):
        record[column] = round(rng.random(), 2) if graded else int(relevant)
    for place, column in enumerate(roles.get("negative", [])):
        texts = [random_text(rng, f"n{n}.{place}.{k}") for k in range(2)]
        record[column] = (texts if lists and column == "negatives" else texts[0]) if relevant else None
    if "split" in roles:
        record["split"] = ("train", "dev", "test", "train")[n % 4] if n < 4 or not graded else "train"
        record["split"] = "train" if graded else record["split"]
    for column in (*roles.get("group", []), *roles["other"]):
        value = n // 2 if column == "group" and "split" not in roles else n
        record[column] = {"text": f"{value:03d}", "int": value, "float": value / 2, "bool": bool(value % 2)}[
            kinds[column]
        ]
    return record


def mutate(rng: random.Random, table: Table) -> str:
    """Change a table in one place; return the kind of change."""
    kind = rng.choice(["cell", "cell", "cell", "column", "record"])
    record, column = rng.choice(table.records), rng.choice(table.columns)
    if kind == "cell":
        record[column] = rng.choice(HOSTILE)
    elif kind == "column":
        _mutate_column(rng, table, column)
    elif rng.random() < 0.5:
        table.records.append(dict(record))
    else:
        copy = dict(rng.choice(table.records))
        copy[column] = record.get(column)
        table.records.append(copy)
    return kind


def _mutate_column(rng: random.Random, table: Table, column: str) -> None:
    role = next((role for role, names in table.roles.items() if column in names), None)
    change = rng.choice(["drop", "rename", "add", "case"])
    if change == "drop" and len(table.columns) > 1:
        for record in table.records:
            record.pop(column, None)
        if role:
            table.roles[role].remove(column)
    elif change == "add":
        name = rng.choice([*PLAIN_NAMES, *NEGATIVES, *SCORES, "false negatives", "positive_2", "text1", "Split"])
        if name not in table.columns:
            for n, record in enumerate(table.records):
                record[name] = rng.choice([random_text(rng, f"x{n}"), n, None])
            table.roles.setdefault("added", []).append(name)
    elif change == "case" and role in ("query", "positive"):
        _rename(table, column, column.upper(), role)
    elif role == "other":
        _rename(table, column, rng.choice(["category", "Topic name", "x" * 300]), role)


def _rename(table: Table, old: str, new: str, role: str) -> None:
    if new in table.columns:
        return
    table.records = [{new if key == old else key: value for key, value in record.items()} for record in table.records]
    table.roles[role] = [new if name == old else name for name in table.roles[role]]


def mutate_bytes(rng: random.Random, path: Path) -> None:
    """Change, cut, repeat or insert bytes of a file."""
    content = bytearray(path.read_bytes())
    for _ in range(rng.randint(1, 3)):
        place = rng.randrange(len(content) + 1)
        end = min(len(content), place + rng.randint(1, 12))
        change = rng.choice(["flip", "delete", "insert", "repeat", "cut", "encode"])
        if change == "flip" and place < len(content):
            content[place] ^= 1 << rng.randrange(8)
        elif change == "delete":
            del content[place:end]
        elif change == "insert":
            content[place:place] = rng.choice(
                [b'"', b"\0", b"\r", b"\n", b"[" * 3000, b"9" * 5000, b"\xff", b"{", b",", b"\t"]
            )
        elif change == "repeat":
            content[place:place] = content[place:end] * rng.randint(1, 50)
        elif change == "cut":
            del content[place:]
        elif rng.random() < 0.2:
            content = bytearray(bytes(content).decode("utf-8", "replace").encode("utf-16"))
    path.write_bytes(bytes(content))


def write_spoilt(rng: random.Random, table: Table, folder: Path, stem: str) -> tuple[Path, list[Record] | None, bool]:
    """Change a table up to two times, write it in a random format, and damage the file now and then.

    Returns:
        The file, what `write_table` returned, and whether the file is damaged.
    """
    for _ in range(rng.randint(0, 2)):
        mutate(rng, table)
    path = folder / f"{stem}{rng.choice(FORMATS)}"
    records = write_table(table, path)
    damaged = records is not None and rng.random() < 0.35
    if damaged:
        mutate_bytes(rng, path)
    return path, records, damaged


def fuzz_pairs(rng: random.Random, folder: Path) -> list[str]:
    """One file of pairs, or one hub folder."""
    table = pairs_table(rng)
    path, records, damaged = write_spoilt(rng, table, folder, "x")
    if records is None:
        return []
    location = str(path)
    if as_hub := rng.random() < 0.2:
        path.rename(folder / f"train{path.suffix}")
        location = str(folder)
    load = hub.load if as_hub else pairs.load
    dataset = load(location, name="x")
    if damaged:
        load_dataset(f"{'hf' if as_hub else 'pairs'}:{location}", repair=True)
        return []
    added = table.roles.get("added", [])
    if any(name.lower() in {*NEGATIVES, *SCORES, "text1", "split", "hard negative"} for name in added):
        return []  # a column that changes the meaning, and has no role here
    table.roles["other"] = table.roles.get("other", []) + added
    content = expected_pairs(records, table)
    if content.graded and table.column("split"):
        return []
    return compare_pairs(dataset, content)


def fuzz_beir(rng: random.Random, folder: Path) -> list[str]:
    """One BEIR folder."""
    documents = [{"_id": f"d{n}", "title": rng.choice(["", f"T{n}"]), "text": random_text(rng, n)} for n in range(8)]
    queries = [{"_id": f"q{n}", "text": random_text(rng, f"?{n}"), "year": n} for n in range(8)]
    judged = [
        {"query-id": f"q{n}", "corpus-id": f"d{n}", "score": rng.randint(-1, 3) if n > 5 else 1} for n in range(8)
    ]
    tables = {"corpus": Table(documents), "queries": Table(queries), "qrels/test": Table(judged)}
    for _ in range(rng.randint(0, 2)):
        mutate(rng, rng.choice(list(tables.values())))
    (folder / "qrels").mkdir()
    for name, table in tables.items():
        write_table(table, folder / f"{name}{'.tsv' if name.startswith('qrels') else '.jsonl'}")
    if damaged := rng.random() < 0.35:
        mutate_bytes(rng, rng.choice([path for path in folder.rglob("*.*") if path.is_file()]))
    dataset = beir.load(str(folder), name="x", repair=rng.random() < 0.3)
    if damaged:
        return []
    texts = {text(record.get("_id")): text(record.get("text")) or "" for record in documents}
    titles = {text(record.get("_id")): text(record.get("title")) or "" for record in documents}
    expected = {key: f"{titles[key]} {texts[key]}".strip() for key in texts if titles[key] or texts[key]}
    faults = [] if dict(dataset.corpus) == expected else ["documents differ"]
    for split in ("dev", "test"):
        for query, grades in dataset.qrels[split].items():
            rows = [row for row in tables["qrels/test"].records if text(row["query-id"]) == query]
            grade = {text(row["corpus-id"]): int(number(row["score"]) or 0) for row in rows}
            if grades != {key: value for key, value in grade.items() if value > 0}:
                faults.append(f"grades of {query} are {grades}")
    return faults


def fuzz_sts(rng: random.Random, folder: Path) -> list[str]:
    """One file of scored sentence pairs, and the training task made of it."""
    records = [
        {"sentence1": random_text(rng, f"a{n}"), "sentence2": random_text(rng, f"b{n}"), "score": rng.randint(0, 5)}
        for n in range(6)
    ]
    table = Table(records)
    (folder / "stsb").mkdir()
    path, written, damaged = write_spoilt(rng, table, folder / "stsb", "train")
    if written is None:
        return []
    shutil.copy(path, path.with_name(f"test{path.suffix}"))
    columns = sts_columns(path)
    tasks = folder_tasks(folder)
    if damaged:
        return []
    found = list(zip(columns["sentence1"], columns["sentence2"], columns["score"], strict=True))
    scores = [name for name in table.columns if name.lower() in ("score", "label", "labels", "similarity")]
    expected = [(text(row["sentence1"]), text(row["sentence2"]), number(row[scores[0]])) for row in written]
    highest = max(columns["score"])
    graded = [(left, right, score / highest) for left, right, score in found]
    faults = [] if found == expected else [f"scores differ: {found} {expected}"]
    return faults + ([] if [tuple(pair) for pair in tasks[0].train] == graded else ["training pairs differ"])


def fuzz_labels(rng: random.Random, folder: Path) -> list[str]:
    """One file of labelled texts."""
    labels = rng.choice([["a", "b"], [0, 1], [0.5, 1.0], [True, False]])
    records = [
        {"text": random_text(rng, n), "label": labels[n % 2], "split": "train" if n < 4 else "test"} for n in range(8)
    ]
    path, written, damaged = write_spoilt(rng, Table(records), folder, "x")
    if written is None:
        return []
    columns = labelled_columns(path)
    if damaged:
        return []
    numbers = sorted({str(text(row["label"])) for row in written})
    faults = []
    for split, part in columns.items():
        rows = [row for row in written if (text(row.get("split")) or "test").lower() == split]
        expected = [(text(row["text"]), numbers.index(str(text(row["label"])))) for row in rows]
        if list(zip(part["text"], part["label"], strict=True)) != expected:
            faults.append(f"the {split} split differs")
    return faults


def fuzz_clicks(rng: random.Random, folder: Path) -> list[str]:
    """One click log."""
    records = [
        {"query": f"how to {n % 3}", "document_id": f"d{n % 4}", "document": f"text {n % 4}", "position": n % 3 + 1}
        | {"impressions": 50 + n, "clicks": rng.randint(0, 50)}
        for n in range(10)
    ]
    path, written, damaged = write_spoilt(rng, Table(records), folder, "x")
    if written is None:
        return []
    log = click_log.read_log(path)
    load_dataset(f"clicks:{path}") if rng.random() < 0.3 else None
    if damaged:
        return []
    expected: Counter[tuple[str | None, int]] = Counter()
    for row in written:
        shown = number(row["impressions"]) if "impressions" in row else 1
        place = number(row["position"]) if "position" in row else number(row["rank"]) if "rank" in row else 1
        expected[text(row["query"]), int(place or 0)] += int(shown or 0)
    found: Counter[tuple[str | None, int]] = Counter()
    for row in log.counts.to_dict("records"):
        found[log.queries[row["query"]], int(row["position"])] += int(row["impressions"])
    return [] if found == expected else [f"counts differ: {found} {expected}"]


def fuzz_review(rng: random.Random, folder: Path) -> list[str]:
    """One filled-in review sheet."""
    dataset = Dataset(
        "x", {f"d{n}": f"text {n}" for n in range(6)}, {f"q{n}": f"query {n}" for n in range(6)}, {"test": {}}
    )
    records = [{"query_id": f"q{n}", "document_id": f"d{n}", "grade": n % 4, "judge": "ada"} for n in range(6)]
    path, written, damaged = write_spoilt(rng, Table(records), folder, "x")
    if written is None:
        return []
    judged = review.import_judgements([path], dataset)
    if damaged:
        return []
    filled = [row for row in written if text(row["grade"]) is not None]
    grades: dict[tuple[str | None, str | None], set[float | None]] = {}
    for row in filled:
        grades.setdefault((text(row["query_id"]), text(row["document_id"])), set()).add(number(row["grade"]))
    expected = {key: values for key, values in grades.items() if len(values) == 1}
    found = {(q, d): {float(grade)} for q, part in judged.grades.items() for d, grade in part.items()}
    return [] if found == expected and judged.open == len(written) - len(filled) else [f"grades differ: {found}"]


TARGETS: dict[str, Callable[[random.Random, Path], list[str]]] = {
    "pairs": fuzz_pairs,
    "beir": fuzz_beir,
    "sts": fuzz_sts,
    "labels": fuzz_labels,
    "clicks": fuzz_clicks,
    "review": fuzz_review,
}
SHARES = {"pairs": 4, "beir": 2, "sts": 1, "labels": 1, "clicks": 1, "review": 1}


def run_one(target: str, seed: str) -> tuple[str, str]:
    """Fuzz one file.

    Returns:
        The outcome ("loaded", "refused", or the kind of fault) and its detail.
    """
    with tempfile.TemporaryDirectory() as folder:
        try:
            with time_limit():
                faults = TARGETS[target](random.Random(seed), Path(folder))
        except EmbedlabError as error:
            named = str(error.file or "").startswith((folder, f"hf:{folder}"))
            return ("refused", str(error)) if named else ("error without file", str(error))
        except Hang as error:
            return "hang", str(error)
        except Exception as error:
            return "foreign exception", f"{type(error).__name__}: {error}"
    return ("silent change", "; ".join(faults)) if faults else ("loaded", "")


def run(files: int, seed: int) -> tuple[dict[str, Counter[str]], list[str]]:
    """Fuzz so many files.

    Returns:
        Target -> outcome -> count, and one line per fault.
    """
    logging.getLogger("embedlab").setLevel(logging.CRITICAL)
    outcomes: dict[str, Counter[str]] = {target: Counter() for target in TARGETS}
    order = [target for target, share in SHARES.items() for _ in range(share)]
    faults = []
    for n in range(files):
        target = order[n % len(order)]
        outcome, detail = run_one(target, f"{seed}:{n}")
        outcomes[target][outcome] += 1
        if outcome not in ("loaded", "refused"):
            faults.append(f"{target} {seed}:{n} {outcome}: {detail[:300]}")
    logging.getLogger("embedlab").setLevel(logging.NOTSET)
    return outcomes, faults


def table_of(outcomes: dict[str, Counter[str]]) -> str:
    """A Markdown table of the outcomes."""
    kinds = ("loaded", "refused", "foreign exception", "hang", "silent change", "error without file")
    lines = [f"| loader | {' | '.join(kinds)} |", "|---|" + "---|" * len(kinds)]
    lines += [f"| {target} | {' | '.join(str(count[kind]) for kind in kinds)} |" for target, count in outcomes.items()]
    return "\n".join(lines)


def main() -> None:
    """Fuzz, print the faults and the table, and end with 1 if there is a fault."""
    parser = argparse.ArgumentParser()
    parser.add_argument("--files", type=int, default=10_000)
    parser.add_argument("--seed", type=int, default=0)
    arguments = parser.parse_args()
    outcomes, faults = run(arguments.files, arguments.seed)
    print("\n".join([*faults[:60], table_of(outcomes)]))
    raise SystemExit(bool(faults))


if __name__ == "__main__":
    main()
