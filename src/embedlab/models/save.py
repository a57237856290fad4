"""Save a model so that it loads without this package, even if it uses modules of this package."""

from __future__ import annotations

import json
from collections.abc import Mapping
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab.io import sha256_of
from embedlab.models import pair_pooling, static_concat, static_ngrams
from embedlab.models.card import UNTRAINED, plain_card
from embedlab.models.evidence import CARD

if TYPE_CHECKING:
    from sentence_transformers.base import BaseModel

OWN = "embedlab."
# File and class as written in a model folder -> the module of this package that the file is a copy of.
OWN_MODULES = {
    "static_concat.ConcatStaticEmbedding": static_concat,
    "static_ngrams.NGramStaticEmbedding": static_ngrams,
    "pair_pooling.PairProductPooling": pair_pooling,
}


# Files that earlier versions saved with a model. Such a model runs the file in its folder, so it stays as it was.
EARLIER_FILES = {
    "85c5dfbd6549151eae285931389fe8042a4f81ada1b6bfe0d3669efbbdb1331f",  # static_concat.py, counted prompt tokens
    "115c7967b138744237e378da2da48f5a8f58e2e53d3e2596a0c78bfa81e35c15",  # static_concat.py, knew word pieces only
}


def save_model(model: BaseModel, folder: str | Path, *, facts: Mapping[str, str] | None = None) -> None:
    """Save a model with a copy of every module of this package that it uses.

    A model made of standard modules loads with `SentenceTransformer(folder)`. A model that uses a module of this
    package needs `SentenceTransformer(folder, trust_remote_code=True)`, like any model that comes with code.

    The model card names the base model and `facts`. It quotes no training texts, and no file holds a path of this
    machine.

    Args:
        model: the model.
        folder: where to save it.
        facts: lines of the model card, such as {"Run": "03_contrastive-1a2b3c4d-s0"}.
    """
    folder = Path(folder)
    model.save_pretrained(str(folder), create_model_card=False)
    listing = folder / "modules.json"
    modules = _read(listing)
    for module in modules:
        if module["type"].startswith(OWN):
            module["type"] = ".".join(module["type"].split(".")[-2:])  # file and class, relative to the folder
    listing.write_text(json.dumps(modules, indent=2), encoding="utf-8")
    base = str(model.model_card_data.base_model or "")
    (folder / CARD).write_text(plain_card(folder, type(model).__name__, base, facts or {}), encoding="utf-8")


def mark_untrained(folder: str | Path) -> None:
    """Say in the card of a saved model that its training changed nothing."""
    card = Path(folder) / CARD
    text = card.read_text(encoding="utf-8") if card.exists() else ""
    front, fence, body = text.partition("\n---\n") if text.startswith("---\n") else ("", "", text)
    card.write_text(f"{front}{fence}\n{UNTRAINED}\n{body}", encoding="utf-8")


def is_own_code(folder: str | Path) -> bool:
    """Whether a saved model comes with code, and every byte of that code is a copy of this package's.

    `trust_remote_code` applies to everything in a folder. We therefore also return False if a configuration points to
    code elsewhere (`auto_map`, or a module class of another package).

    Args:
        folder: a model's folder.
    """
    folder, files = Path(folder), list(Path(folder).rglob("*.py"))
    sources = {sha256_of(Path(str(module.__file__))) for module in OWN_MODULES.values()} | EARLIER_FILES
    if not files or any(sha256_of(file) not in sources for file in files):
        return False
    refers_to_code = any(
        "auto_map" in json.dumps(_read(file)) for file in folder.rglob("*config*.json")
    )  # re-encoded, so escaped spellings are caught too
    return not refers_to_code and all(_is_trusted(module["type"]) for module in _read(folder / "modules.json"))


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _is_trusted(class_name: str) -> bool:
    return class_name.startswith("sentence_transformers.") or class_name.removeprefix(f"{OWN}models.") in OWN_MODULES
