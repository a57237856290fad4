"""Run ids: parsed, found in text, and pooled over seeds."""

from __future__ import annotations

import pytest

from embedlab.errors import ParameterError
from embedlab.runs.run_id import RunId, topic_of, without_seeds

SEEDS = [0, 17, -3]


@pytest.mark.parametrize("seed", SEEDS)
def test_found_in_paths_and_prose_with_any_seed(seed):
    run_id = RunId("04_contrastive", "6f4b1d3a", seed)
    assert RunId.parse(str(run_id)) == run_id
    assert RunId.find_all(f"results/runs/{run_id}/model and `{run_id}`.") == [run_id, run_id]


@pytest.mark.parametrize(
    "text", ["", "04_contrastive-6f4b1d3-s0", "04_contrastive-6F4B1D3A-s0", "04_contrastive-6f4b1d3a"]
)
def test_other_texts_are_not_run_ids(text):
    assert RunId.find_all(text) == []
    with pytest.raises(ParameterError, match="not a run id"):
        RunId.parse(text)


def test_an_id_is_found_only_as_a_whole():
    assert RunId.find_all("x-04_contrastive-6f4b1d3a-s0") == []
    assert RunId.find_all("04_contrastive-6f4b1d3a-s0x") == []
    with pytest.raises(ParameterError):
        RunId.parse("04_contrastive-6f4b1d3a-s0/model")


def test_runs_of_all_seeds_read_the_same_without_them():
    texts = {without_seeds(f"results/runs/04_contrastive-6f4b1d3a-s{seed}/model") for seed in SEEDS}
    assert texts == {"results/runs/04_contrastive-6f4b1d3a/model"}


def test_a_topic_survives_renumbering():
    assert topic_of("04_contrastive") == topic_of("03_contrastive") == "contrastive"
    assert RunId.parse("05_matryoshka-c6fc7ad9-s0").topic == "matryoshka"
    assert topic_of("my_notebook") == "my_notebook"
