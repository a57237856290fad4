"""Save an adapter with everything that is needed to use it with its API model, and load it again.

The folder holds `adapter.json` (the model's address, its request, input types and prompts), `adapter.npz` (the
weights), and `client.py`, which uses both with numpy and httpx alone. With a static model next to the API model, it
also holds `tokenizer.json`, and the client needs the package tokenizers. No key is in it.
"""

from __future__ import annotations

import json
import shutil
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import TYPE_CHECKING, Any

import numpy as np

from embedlab.errors import DataError, ModelError
from embedlab.io import write_atomic
from embedlab.models import adapter_client
from embedlab.models.adapter import VectorAdapter, with_adapter
from embedlab.models.api import CONTROL_TEXT, ApiModel
from embedlab.models.card import adapter_loading
from embedlab.models.evidence import CARD
from embedlab.models.static_table import TOKENIZER, StaticTable
from embedlab.models.vector_map import VectorMap

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

ABOUT, WEIGHTS, CLIENT = "adapter.json", "adapter.npz", "client.py"
FORMAT, FORMAT_WITH_STATIC = 1, 2
STATIC_WEIGHTS = "static.weights"
MAX_ABOUT_BYTES, MAX_TOKENIZER_BYTES = 1 << 20, 64 << 20


def is_adapter_folder(name: str) -> bool:
    """Whether a model name is that of a folder with an adapter for an API model."""
    try:
        return (Path(name) / ABOUT).is_file()
    except (OSError, ValueError):  # too long, or a NUL character
        return False


def save_adapter(
    model: ApiModel | SentenceTransformer,
    adapter: VectorAdapter,
    folder: str | Path,
    facts: Mapping[str, str],
    *,
    static: StaticTable | None = None,
) -> ApiModel | SentenceTransformer:
    """Save an adapter for an API model, with how to reach it; or a local model with the adapter on top.

    Args:
        model: the model that the adapter was trained for. A local one is saved as a sentence-transformers folder.
        adapter: its maps.
        folder: is created if needed.
        facts: lines of the card, such as {"Run": "14_closed_models-1a2b3c4d-s0"}.
        static: stands next to the API model; its vectors follow those of the adapter.

    Returns:
        The model with the adapter, as the folder loads.

    Raises:
        ModelError: a static model is given for a local model.
    """
    folder = Path(folder)
    if not isinstance(model, ApiModel):
        if static is not None:
            problem = "a static model next to a local model is one model, not an adapter"
            raise ModelError(problem, remedy="Use models.concatenation.concat_static, as notebook 06_distillation does")
        from embedlab.models.save import save_model  # loads torch

        adapted = with_adapter(model, adapter)
        save_model(adapted, folder, facts=facts)
        return adapted
    folder.mkdir(parents=True, exist_ok=True)
    names = _map_names(adapter)
    maps = {name: getattr(adapter, role) for role, name in names.items() if name}
    arrays = {f"{name}.{key}": array for name, role_map in maps.items() for key, array in role_map.arrays().items()}
    if static is not None:
        arrays[STATIC_WEIGHTS] = static.weights
        write_atomic(folder / TOKENIZER, static.tokenizer)
    with (folder / WEIGHTS).open("wb") as file:
        np.savez(file, **arrays)
    write_atomic(folder / ABOUT, json.dumps(_about(model, adapter, names, static), indent=1))
    shutil.copy(str(adapter_client.__file__), folder / CLIENT)
    lines = [f"- {name}: {' '.join(str(value).split())}" for name, value in {"Model": model.name, **facts}.items()]
    title = f"# {adapter.kind}, for a model behind an API"
    card = [title, "", *lines, "", *adapter_loading(has_static=static is not None)]
    write_atomic(folder / CARD, "\n".join(card))
    return model.adapted(adapter, static)


def _map_names(adapter: VectorAdapter) -> dict[str, str | None]:
    """Role -> name of its map in the file of the weights; None without a map."""
    if adapter.query is not None and adapter.query is adapter.document:
        return dict.fromkeys(("query", "document"), "both")
    return {"query": "query" if adapter.query else None, "document": "document" if adapter.document else None}


def _about(
    model: ApiModel, adapter: VectorAdapter, names: Mapping[str, str | None], static: StaticTable | None
) -> dict[str, Any]:
    """Return what `adapter.json` says. The control text gets its vector from the server, or from the cache."""
    control = replace(model, adapter=None, static=None).for_role("document").encode([CONTROL_TEXT])[0]
    return {
        "format": FORMAT if static is None else FORMAT_WITH_STATIC,  # older readers must not overlook it
        "kind": adapter.kind,
        "fingerprint": adapter.fingerprint,
        "model": model.name,
        "dim": len(control),
        "input_types": model.input_types._asdict(),
        "prompts": dict(model.prompts),
        "maps": dict(names),
        "request": model.endpoint.request(),
        "control": {"text": CONTROL_TEXT, "vector": control.tolist()},
        "static": {"share": static.share, "fingerprint": static.fingerprint} if static else None,
    }


def load_adapter(folder: str | Path) -> ApiModel:
    """Return the API model of a folder with its adapter.

    Raises:
        ModelError: a file is missing or damaged.
    """
    folder = Path(folder)
    try:
        about = _read_about(folder / ABOUT)
        arrays = _read_arrays(folder / WEIGHTS)
        maps = {role: _map(arrays, about["maps"][role]) for role in ("query", "document")}
        model = ApiModel.parse(about["model"])
        adapter = VectorAdapter(str(about["kind"]), maps["query"], maps["document"])
        if adapter.fingerprint != about["fingerprint"]:
            raise ValueError("the weights are not those that were saved")
        static = _static(folder, arrays, about["static"]) if about["format"] == FORMAT_WITH_STATIC else None
    except (OSError, ValueError, KeyError, TypeError, DataError, zipfile.BadZipFile) as error:
        problem = f"the adapter cannot be read ({type(error).__name__}: {str(error)[:200]})"
        remedy = "Save the adapter again, or copy the whole folder"
        raise ModelError(problem, remedy=remedy, file=folder, field="model_name") from None
    return model.adapted(adapter, static)


def _read_about(path: Path) -> dict[str, Any]:
    if path.stat().st_size > MAX_ABOUT_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_ABOUT_BYTES >> 20} MiB")
    try:
        about = json.loads(path.read_text(encoding="utf-8"))
    except RecursionError:
        raise ValueError(f"{path.name} is nested too deeply") from None
    if not isinstance(about, dict) or about.get("format") not in (FORMAT, FORMAT_WITH_STATIC):
        raise ValueError(f"{path.name} has another format than {FORMAT} or {FORMAT_WITH_STATIC}")
    return about


def _read_arrays(path: Path) -> dict[str, np.ndarray]:
    with np.load(path, allow_pickle=False) as arrays:
        return {name: arrays[name] for name in arrays.files}


def _map(arrays: Mapping[str, np.ndarray], name: str | None) -> VectorMap | None:
    if name is None:
        return None
    start = f"{name}."
    return VectorMap.from_arrays({key.removeprefix(start): a for key, a in arrays.items() if key.startswith(start)})


def _static(folder: Path, arrays: Mapping[str, np.ndarray], about: Mapping[str, Any]) -> StaticTable:
    if (path := folder / TOKENIZER).stat().st_size > MAX_TOKENIZER_BYTES:
        raise ValueError(f"{path.name} is larger than {MAX_TOKENIZER_BYTES >> 20} MiB")
    static = StaticTable(path.read_text(encoding="utf-8"), arrays[STATIC_WEIGHTS], float(about["share"]))
    if static.fingerprint != about["fingerprint"]:
        raise ValueError("the static model is not the one that was saved")
    return static
