"""Hub datasets, through local folders that the same library call reads, and without a connection."""

import json

import pytest

from embedlab.data.load import load_dataset, source_fingerprint
from embedlab.errors import DataError


@pytest.fixture
def datasets(monkeypatch, tmp_path):
    """The library with its cache in a temporary folder and the hub out of reach."""
    datasets = pytest.importorskip("datasets")
    from huggingface_hub import constants

    monkeypatch.setattr(datasets.config, "HF_DATASETS_CACHE", tmp_path / "cache")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    return datasets


def write(folder, **splits):
    folder.mkdir()
    for split, numbers in splits.items():
        records = [{"question": f"question {i}", "answer": f"answer {i}"} for i in numbers]
        (folder / f"{split}.jsonl").write_text("".join(json.dumps(record) + "\n" for record in records), "utf-8")
    return folder


@pytest.mark.usefixtures("datasets")
def test_its_own_splits_are_kept(tmp_path):
    folder = write(tmp_path / "d", train=range(6), validation=range(6, 8), test=range(8, 9))
    dataset = load_dataset(f"hf:{folder}")
    assert {split: len(part) for split, part in dataset.qrels.items()} == {"train": 6, "dev": 2, "test": 1}
    (query, text), *_ = dataset.split_queries("test").items()
    assert (text, [dataset.corpus[d] for d in dataset.qrels["test"][query]]) == ("question 8", ["answer 8"])


@pytest.mark.usefixtures("datasets")
def test_a_single_split_is_divided(tmp_path):
    dataset = load_dataset(f"hf:{write(tmp_path / 'd', train=range(20))}")
    assert {split: len(part) for split, part in dataset.qrels.items()} == {"train": 15, "dev": 2, "test": 3}


@pytest.mark.usefixtures("datasets")
def test_fingerprint_is_stable_and_follows_the_name(tmp_path):
    one, other = write(tmp_path / "a", train=range(6)), write(tmp_path / "b", train=range(7))
    assert source_fingerprint(f"hf:{one}") == source_fingerprint(f"hf:{one}")
    assert source_fingerprint(f"hf:{one}") != source_fingerprint(f"hf:{other}")


@pytest.mark.usefixtures("datasets")
@pytest.mark.parametrize("call", [load_dataset, source_fingerprint])
def test_offline_gives_one_error_with_the_remedy(call):
    with pytest.raises(DataError, match="cannot be loaded") as caught:
        call("hf:nobody/no-such-dataset")
    assert "pairs:FILE" in caught.value.remedy
    assert caught.value.file == "hf:nobody/no-such-dataset"
    assert "\n" not in str(caught.value)
