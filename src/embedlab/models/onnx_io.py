"""Inputs and output of an exported graph, and the packages of the extra `export`. Imports no torch."""

from __future__ import annotations

from importlib import import_module
from types import ModuleType

from embedlab.errors import EmbedlabError

IDS, MASK, PROMPT, OUTPUT = "input_ids", "attention_mask", "prompt_length", "sentence_embedding"
OPSET = 21  # version of the ONNX operators


def needs(module: str) -> ModuleType:
    """Import a package of the extra `export`.

    Raises:
        EmbedlabError: it is not installed.
    """
    try:
        return import_module(module)
    except ModuleNotFoundError as error:
        problem = f"the package {module.partition('.')[0]} is not installed"
        raise EmbedlabError(problem, remedy="Run pip install 'embedlab[export]'") from error
