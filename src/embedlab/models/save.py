"""Save a model so that it loads without this package, its own modules included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING

from embedlab.models import beside

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

OWN = "embedlab."


def save_model(model: SentenceTransformer, folder: str | Path) -> None:
    """`model.save_pretrained`, after which modules of this package are looked for in the folder, not in the package.

    A model of stock modules loads with `SentenceTransformer(folder)`; one with a module of this package wants
    `trust_remote_code=True`, as every model with code of its own does.
    """
    model.save_pretrained(str(folder))
    listing = Path(folder) / "modules.json"
    modules = json.loads(listing.read_text(encoding="utf-8"))
    for module in modules:
        if module["type"].startswith(OWN):
            module["type"] = ".".join(module["type"].split(".")[-2:])  # file and class, as they lie in the folder
    listing.write_text(json.dumps(modules, indent=2), encoding="utf-8")


def is_own_code(folder: str | Path) -> bool:
    """Whether all code in the folder of a saved model is this package's own, to the byte."""
    source = Path(beside.__file__)
    files = list(Path(folder).rglob("*.py"))
    return bool(files) and all(file.read_bytes() == source.read_bytes() for file in files)
