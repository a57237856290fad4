"""Training tasks: those of the ICD-10-CM code tree, and your own from a folder.

Sub-folder | kind | files
---|---|---
`medquad` or `retrieval` | retrieval | a BEIR folder
`stsb` or `similarity` | similarity | train and test, as `local_tasks` reads `sts`
`banking77` or `classification` | classification | train and test, as `local_tasks` reads them
`clinc150` or `clustering` | clustering | the same, or one JSON file with all splits

Other sub-folders are ignored, and every one is optional. A task has the name of its folder. A folder that is called
like a kind gives "own similarity" and so on, because the code tree's tasks have the plain names.
"""

from __future__ import annotations

from pathlib import Path

from embedlab.data.dataset import Dataset, GradedPair
from embedlab.data.load import load_dataset
from embedlab.data.tasks import Kind, Labelled, Task, code_tree_tasks
from embedlab.errors import DataError
from embedlab.evaluation.local_tasks import SUFFIXES, check_labels, check_scores, labelled_columns, sts_columns

FOLDERS: dict[str, Kind] = {
    "medquad": "retrieval",
    "stsb": "similarity",
    "banking77": "classification",
    "clinc150": "clustering",
}
FOLDERS |= {kind: kind for kind in FOLDERS.values()}


def load_tasks(
    dataset: Dataset, tasks_dir: str | Path, scratch: str | Path, *, limit: int, seed: int = 0
) -> list[Task]:
    """Load the tasks of a dataset's code tree and of a folder.

    Args:
        dataset: ICD-10-CM brings three tasks; any other dataset none.
        tasks_dir: folder with tasks of your own; "" for none.
        scratch: folder for the test files of the code tree's tasks.
        limit: most training examples of a task.
        seed: of the sample.

    Raises:
        DataError: the folder is missing, holds no task, or a file is malformed.
    """
    tasks = code_tree_tasks(dataset, Path(scratch) / "probes") + folder_tasks(tasks_dir)
    return [task.capped(limit, seed) for task in tasks]


def folder_tasks(folder: str | Path) -> list[Task]:
    """Read the tasks in `folder`; an empty name gives none.

    Raises:
        DataError: the folder is missing, holds no task, or a file is malformed.
    """
    if not folder:
        return []
    root = Path(folder).expanduser()
    folders = [(root / name, kind) for name, kind in FOLDERS.items() if (root / name).is_dir()]
    if not folders:
        remedy = f"Give a folder with one or more of the sub-folders {', '.join(FOLDERS)}"
        raise DataError("The folder holds no task", remedy=remedy, file=root, field="tasks_dir")
    readers = {"retrieval": _retrieval, "similarity": _similarity}
    return [readers[kind](path) if kind in readers else _labelled(path, kind) for path, kind in folders]


def _retrieval(path: Path) -> Task:
    spec = f"beir:{path}"
    data = load_dataset(spec, repair=True)
    pairs = tuple((data.queries[query], data.corpus[document]) for query, document in data.pairs("train"))
    return Task(_name(path), "retrieval", pairs, f"{spec}?repair=true")


def _similarity(path: Path) -> Task:
    train, test = (_file(path, split) for split in ("train", "test"))
    columns = sts_columns(train, lowest=0.0)
    check_scores(columns["score"], train)
    highest = max(columns["score"])  # above 0, because the scores differ
    pairs = zip(columns["sentence1"], columns["sentence2"], columns["score"], strict=True)
    graded = tuple(GradedPair(first, second, score / highest) for first, second, score in pairs)
    return Task(_name(path), "similarity", graded, f"sts:{test}")


def _labelled(path: Path, kind: Kind) -> Task:
    all_splits = sorted(path.glob("data*.json"))  # CLINC150 comes as one file with all splits
    source = all_splits[0] if all_splits else path
    splits = labelled_columns(source)
    if missing := [split for split in ("train", "test") if split not in splits]:
        remedy = "Give a train and a test split"
        raise DataError(f"The {missing[0]} split is missing", remedy=remedy, file=source, field="split")
    if kind == "classification":
        check_labels(source)
    rows = zip(splits["train"]["text"], splits["train"]["label"], strict=True)
    examples = tuple(Labelled(text, str(label)) for text, label in rows)
    probe = source if kind == "classification" or all_splits else _file(path, "test")
    return Task(_name(path), kind, examples, f"{kind}:{probe}")


def _file(path: Path, split: str) -> Path:
    candidates = [path / f"{split}{suffix}" for suffix in SUFFIXES]
    file = next((file for file in candidates if file.is_file()), None)
    if file is None:
        raise DataError(f"The folder has no {split} file", remedy=f"Name it {split}.csv, for example", file=path)
    return file


def _name(path: Path) -> str:
    return f"own {path.name}" if path.name in FOLDERS.values() else path.name
