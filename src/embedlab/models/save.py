"""Save a model so that it loads without this package, its own modules included."""

from __future__ import annotations

import json
from pathlib import Path
from typing import TYPE_CHECKING, Any

from embedlab.models import pair_pooling, static_concat

if TYPE_CHECKING:
    from sentence_transformers import CrossEncoder, SentenceTransformer

OWN = "embedlab."
# File and class, as they stand in a model folder -> the module that they were copied from.
OWN_MODULES = {
    "static_concat.ConcatStaticEmbedding": static_concat,
    "pair_pooling.PairProductPooling": pair_pooling,
}


def save_model(model: SentenceTransformer | CrossEncoder, folder: str | Path) -> None:
    """`model.save_pretrained`, after which modules of this package are looked for in the folder, not in the package.

    A model of stock modules loads with `SentenceTransformer(folder)`; one with a module of this package wants
    `trust_remote_code=True`, as every model with code of its own does.
    """
    model.save_pretrained(str(folder))
    listing = Path(folder) / "modules.json"
    modules = _read(listing)
    for module in modules:
        if module["type"].startswith(OWN):
            module["type"] = ".".join(module["type"].split(".")[-2:])  # file and class, as they lie in the folder
    listing.write_text(json.dumps(modules, indent=2), encoding="utf-8")


def is_own_code(folder: str | Path) -> bool:
    """Whether a saved model wants code, and all that it would run is this package's own, to the byte.

    Trust is for everything at once, so that a configuration naming code elsewhere (`auto_map`, a foreign module
    class) rules it out too.
    """
    folder, files = Path(folder), list(Path(folder).rglob("*.py"))
    sources = {Path(module.__file__).read_bytes() for module in OWN_MODULES.values()}
    if not files or any(file.read_bytes() not in sources for file in files):
        return False
    names_code = any("auto_map" in json.dumps(_read(file)) for file in folder.rglob("*config*.json"))  # escapes undone
    return not names_code and all(_is_known(module["type"]) for module in _read(folder / "modules.json"))


def _read(file: Path) -> Any:
    return json.loads(file.read_text(encoding="utf-8"))


def _is_known(class_name: str) -> bool:
    return class_name.startswith("sentence_transformers.") or class_name.removeprefix(f"{OWN}models.") in OWN_MODULES
