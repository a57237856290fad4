"""Check the files of a model folder before they are loaded, and say in one line what is wrong with them."""

from __future__ import annotations

import json
import re
from collections.abc import Container, Iterator
from pathlib import Path
from typing import Any, NoReturn

from embedlab.errors import ModelError

MODULES, KIND, LIMIT = "modules.json", "config_sentence_transformers.json", "sentence_bert_config.json"
WEIGHTS = (".safetensors", ".bin")
LFS = b"version https://git-lfs"
LONGEST_HEADER = 100 << 20  # bytes; the limit of the safetensors library
PLAIN = ("Transformer", "Pooling", "Dense", "Normalize")  # modules that state the embedding dimension
CONFIGURED = ("Pooling", "Dense", "WordEmbeddings", "CNN", "LSTM", "WordWeights", "WeightedLayerPooling", "LayerNorm")
ACTIVATIONS = ("activation_function", "activation_fn", "sbert_ce_default_activation_function")
LAYER = re.compile(r"torch\.nn\.(?:modules\.[a-z]+\.)?[A-Z]\w*")
HEADS = "ForSequenceClassification"
EMBEDDING, CROSS_ENCODER = "SentenceTransformer", "CrossEncoder"
OTHER_INPUTS = {"vision_config", "audio_config"}  # parts of a configuration of models for more than texts
OTHER_KINDS = {
    "SparseEncoder": "a sparse model with one dimension per word",
    "MultiVectorEncoder": "a model with one vector per token",
}
LOADERS = {
    "SparseEncoder": "embedlab.models.sparse.load_sparse",
    "MultiVectorEncoder": "embedlab.models.late_interaction.load_late_interaction",
}


class ModelFolder:
    """A folder with a model of sentence-transformers or transformers.

    Args:
        path: the folder.
        name: what the user wrote.
        field: the parameter that the name came from.
    """

    def __init__(self, path: str | Path, name: str, field: str = "model_name") -> None:
        self.path, self.name, self.field = Path(path), name, field

    def check(self) -> None:
        """Check that every file is whole and has the right form.

        Raises:
            ModelError: a file is damaged or missing.
        """
        self._check_pointers()
        for module in self.modules():
            folder = self.path / module["path"]
            if module["path"] and module["type"].split(".")[-1] in CONFIGURED and not (folder / "config.json").exists():
                problem = f"the file is missing, but {MODULES} lists the module {module['type']}"
                self._fail(problem, "Copy the whole model folder again, subfolders included", folder / "config.json")
        for file in self.path.rglob("*.safetensors"):
            self._require_file(file)
            self._check_safetensors(file)
        for file in self.path.rglob("*.bin"):
            self._require_file(file)
            if not file.stat().st_size:
                self._fail("the file is empty", "Download or copy it again", file)
        self._check_limit()
        self._check_activations()

    def check_embedding_model(self) -> None:
        """Check that the folder holds a model with one dense vector per text.

        Raises:
            ModelError: it is a cross-encoder or another kind of model.
        """
        kind = self.kind()
        if kind == CROSS_ENCODER:
            remedy = "Give it as the reranker, to `embedlab diagnose --reranker` or notebook 07, not as a model"
            self._fail("this is a cross-encoder, which scores pairs and has no embeddings", remedy)
        paths = {"", *(module["path"] for module in self.modules())}
        if any(OTHER_INPUTS & self._dict(str(Path(path) / "config.json")).keys() for path in sorted(paths)):
            self._fail("it also reads images or sound, but embedlab works with texts only", "Use a model for texts")
        if kind in OTHER_KINDS:
            remedy = f"Use a model with one vector per text, or load it with {LOADERS[kind]}"
            self._fail(f"this is {OTHER_KINDS[kind]}, not an embedding model", remedy)

    def check_kind(self, kind: str) -> None:
        """Check that the folder holds a model of one of `OTHER_KINDS`.

        Args:
            kind: the class of sentence-transformers.

        Raises:
            ModelError: it is another kind of model, which would be completed with random weights.
        """
        if (saved := self.kind()) != kind:
            self._fail(f"this is a {saved}, not {OTHER_KINDS[kind]}", "Train one with notebook 15_retrievers")

    def check_cross_encoder(self) -> None:
        """Check that the folder holds a trained cross-encoder.

        Raises:
            ModelError: it is another kind of model, or a transformer without a trained scoring layer.
        """
        kind, modules = self.kind(), self.modules()
        if modules and kind != CROSS_ENCODER:
            self._fail("this is an embedding model, not a cross-encoder", "Give it as model_name or --other-model")
        if not modules and kind != CROSS_ENCODER:
            problem = "this transformer has no trained scoring layer, so its scores would be random"
            self._fail(problem, "Use a cross-encoder trained for ranking")

    def kind(self) -> str:
        """Return the class of sentence-transformers that the model was saved with."""
        named = str(self._dict(KIND).get("model_type") or "")
        if named and named != EMBEDDING:
            return named
        architectures = self._dict("config.json").get("architectures") or []
        has_head = any(str(architecture).endswith(HEADS) for architecture in architectures)
        if has_head and not any("Pooling" in module["type"] for module in self.modules()):
            return CROSS_ENCODER
        return "SparseEncoder" if any("Splade" in module["type"] for module in self.modules()) else EMBEDDING

    def modules(self) -> list[dict[str, Any]]:
        """Return the entries of modules.json; none if there is no such file.

        Raises:
            ModelError: the file is damaged.
        """
        file = self.path / MODULES
        modules = self._read(file) if file.exists() else []
        if not isinstance(modules, list) or (file.exists() and not modules):
            self._fail("expected a list of modules", "Copy the file again from the model's source", file)
        for number, module in enumerate(modules):
            missing = [key for key in ("type", "path") if not isinstance(_get(module, key), str)]
            if missing:
                problem = f"module {number} has no text {missing[0]!r}"
                self._fail(problem, "Copy the file again from the model's source", file)
            if not (self.path / module["path"]).resolve().is_relative_to(self.path.resolve()):
                problem = f"module {number} is at {module['path']!r}, outside the model's folder"
                self._fail(problem, "Do not use this model", file)
        return modules

    def dimension(self) -> int | None:
        """Return the embedding dimension that the configurations state; None if they do not,
        or if a module of another kind may change it.

        Raises:
            ModelError: a file is damaged.
        """
        stated: int | None = None
        if not all(module["type"].split(".")[-1] in PLAIN for module in self.modules()):
            return None
        for module in self.modules():
            for field in ("word_embedding_dimension", "embedding_dimension", "out_features"):
                value = self._dict(str(Path(module["path"]) / "config.json")).get(field)
                stated = value if type(value) is int else stated
        return stated

    def foreign_modules(self) -> list[str]:
        """Return the classes of the modules that are not in sentence-transformers."""
        classes = [module["type"] for module in self.modules()]
        return [name for name in classes if not name.startswith("sentence_transformers.")]

    def foreign_code(self) -> list[str]:
        """Return where the folder refers to Python code outside sentence-transformers and transformers."""
        places = self.foreign_modules()
        for file in sorted(self.path.rglob("*config*.json")):
            # Encoded again, because an escaped spelling of the key would hide it.
            if "auto_map" in json.dumps(self._read(file)):
                places.append(f"auto_map in {file.relative_to(self.path)}")
        return places

    def weight_names(self) -> set[str]:
        """Return the names of the tensors in all safetensors files; empty if there is another kind of weights."""
        names: set[str] = set()
        for file in self.path.glob("*.safetensors"):
            names |= {name for name in self._header(file) if name != "__metadata__"}
        return names

    def _check_pointers(self) -> None:
        for file in self.path.rglob("*"):
            if file.is_file() and file.suffix in (*WEIGHTS, ".json", ".model", ".txt"):
                with open(file, "rb") as handle:
                    if handle.read(len(LFS)) == LFS:
                        problem = "the file is a Git LFS pointer, not the file itself"
                        self._fail(problem, "Run `git lfs pull` in the model's repository, or download the file", file)

    def _check_safetensors(self, file: Path) -> None:
        header, size = self._header(file), file.stat().st_size
        try:
            ends = [tensor["data_offsets"][1] for name, tensor in header.items() if name != "__metadata__"]
            expected = 8 + _header_size(file) + max(ends, default=0)
        except (TypeError, KeyError, IndexError):
            self._fail("the header of the weights is damaged", "Download or copy the file again", file)
        if size < expected:
            problem = f"the weights are cut off, {size:,} of {expected:,} bytes are there"
            self._fail(problem, "Download or copy the file again", file)

    def _header(self, file: Path) -> dict[str, Any]:
        size = file.stat().st_size
        if size < 8:
            self._fail(f"the file holds no weights, it has {size} bytes", "Download or copy the file again", file)
        length = _header_size(file)
        try:
            if length > min(size - 8, LONGEST_HEADER):
                raise ValueError
            with open(file, "rb") as handle:
                handle.seek(8)
                header = json.loads(handle.read(length))
        except (ValueError, RecursionError):
            self._fail("the header of the weights is damaged or cut off", "Download or copy the file again", file)
        if not isinstance(header, dict):
            self._fail("the header of the weights is damaged", "Download or copy the file again", file)
        return header

    def _check_limit(self) -> None:
        for file in (self.path / LIMIT, *(self.path / module["path"] / LIMIT for module in self.modules())):
            if not file.exists():
                continue
            limit = _get(self._read(file), "max_seq_length")
            if limit is not None and (type(limit) is not int or limit < 1):
                problem = f"max_seq_length must be a whole number of tokens, got {limit!r}"
                self._fail(problem, "Write a number such as 256, without quotes", file)

    def _require_file(self, file: Path) -> None:
        """Refuse a folder, a broken link, a pipe or a device, whose reading fails or never ends."""
        if not file.is_file():
            self._fail("this is not a file", "Download or copy the model again", file)

    def _check_activations(self) -> None:
        """Check the activation in a configuration: libraries import and call it, so it must be a layer of PyTorch."""
        for file in self.path.rglob("config*.json"):
            self._require_file(file)
            for name in _values(self._read(file), ACTIVATIONS):
                if isinstance(name, str) and name.startswith("torch.") and not LAYER.fullmatch(name):
                    self._fail(f"the activation {name[:90]!r} is not a layer of PyTorch", "Do not use this model", file)

    def _dict(self, name: str) -> dict[str, Any]:
        file = self.path / name
        content = self._read(file) if file.exists() else {}
        if not isinstance(content, dict):
            self._fail("expected a JSON object", "Copy the file again from the model's source", file)
        return content

    def _read(self, file: Path) -> Any:
        try:
            return json.loads(file.read_text(encoding="utf-8"))
        except (ValueError, RecursionError) as error:
            self._fail(f"the file is not valid JSON ({error})", "Copy the file again from the model's source", file)

    def _fail(self, problem: str, remedy: str, file: Path | None = None) -> NoReturn:
        if file is None:
            problem = f"the model {self.name!r} cannot be used: {problem}"
        raise ModelError(problem, remedy=remedy, file=file, field=self.field)


def _header_size(file: Path) -> int:
    with open(file, "rb") as handle:
        return int.from_bytes(handle.read(8), "little")


def _values(content: Any, names: Container[str]) -> Iterator[Any]:
    """Yield the values that have one of these names at any depth of JSON."""
    if isinstance(content, dict):
        yield from (value for name, value in content.items() if name in names)
    inner = content.values() if isinstance(content, dict) else content if isinstance(content, list) else ()
    for value in inner:
        yield from _values(value, names)


def _get(content: Any, key: str) -> Any:
    return content.get(key) if isinstance(content, dict) else None
