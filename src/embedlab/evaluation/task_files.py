"""Tasks from a folder of other people's data sets, beside those a code tree gives.

Sub-folder | kind | files
---|---|---
`medquad` or `retrieval` | retrieval | a BEIR folder
`stsb` or `similarity` | similarity | train and test, as `local_tasks` reads `sts`
`banking77` or `classification` | classification | train and test, as `local_tasks` reads them
`clinc150` or `clustering` | clustering | the same, or one JSON file of all splits

Sub-folders of other names are left alone, and none has to be there. A task is called like its folder; one whose folder
is called like its kind is "own similarity" and so on, so that it stands beside the code tree's.
"""

from __future__ import annotations

from pathlib import Path

from embedlab.data.dataset import GradedPair
from embedlab.data.load import load_dataset
from embedlab.data.tasks import Kind, Labelled, Task
from embedlab.errors import DataError
from embedlab.evaluation.local_tasks import SUFFIXES, labelled_columns, sts_columns

FOLDERS: dict[str, Kind] = {
    "medquad": "retrieval",
    "stsb": "similarity",
    "banking77": "classification",
    "clinc150": "clustering",
}
FOLDERS |= {kind: kind for kind in FOLDERS.values()}


def folder_tasks(folder: str | Path) -> list[Task]:
    """The tasks in `folder`; empty when it is "".

    Raises:
        DataError: there is no such folder, it holds no task, or a file is malformed.
    """
    if not folder:
        return []
    root = Path(folder).expanduser()
    places = [(root / name, kind) for name, kind in FOLDERS.items() if (root / name).is_dir()]
    if not places:
        remedy = f"Give a folder with one or more of {', '.join(FOLDERS)}"
        raise DataError("holds no task", remedy=remedy, file=root, field="tasks_dir")
    readers = {"retrieval": _retrieval, "similarity": _similarity}
    return [readers[kind](place) if kind in readers else _labelled(place, kind) for place, kind in places]


def _retrieval(place: Path) -> Task:
    spec = f"beir:{place}"
    data = load_dataset(spec, repair=True)
    pairs = tuple((data.queries[query], data.corpus[document]) for query, document in data.pairs("train"))
    return Task(_name(place), "retrieval", pairs, f"{spec}?repair=true")


def _similarity(place: Path) -> Task:
    train, test = (_file(place, split) for split in ("train", "test"))
    columns = sts_columns(train)
    highest = max(columns["score"])
    pairs = zip(columns["sentence1"], columns["sentence2"], columns["score"], strict=True)
    graded = tuple(GradedPair(one, other, score / highest) for one, other, score in pairs)
    return Task(_name(place), "similarity", graded, f"sts:{test}")


def _labelled(place: Path, kind: Kind) -> Task:
    whole = sorted(place.glob("data*.json"))  # one file of all splits, as CLINC150 comes
    source = whole[0] if whole else place
    splits = labelled_columns(source)
    if missing := [split for split in ("train", "test") if split not in splits]:
        raise DataError(f"no {missing[0]} split", remedy="Give train and test", file=source, field="split")
    rows = zip(splits["train"]["text"], splits["train"]["label"], strict=True)
    judge = source if kind == "classification" or whole else _file(place, "test")
    return Task(_name(place), kind, tuple(Labelled(text, str(label)) for text, label in rows), f"{kind}:{judge}")


def _file(place: Path, split: str) -> Path:
    found = [place / f"{split}{suffix}" for suffix in SUFFIXES if (place / f"{split}{suffix}").is_file()]
    if not found:
        raise DataError(f"holds no {split} file", remedy=f"Name it {split}.csv or so", file=place)
    return found[0]


def _name(place: Path) -> str:
    return f"own {place.name}" if place.name in FOLDERS.values() else place.name
