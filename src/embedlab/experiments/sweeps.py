"""A sweep: many runs of one notebook, written down in a YAML file and checked before the first one starts.

notebook: 04_contrastive
fixed: {dataset: icd10cm:small}
grid: {learning_rate: [1e-4, 2e-4], hard_negatives: [0, 1]}   # every combination
list: [{}, {epochs: 5.0}]                                     # each added to every combination
seeds: [0, 1, 2]
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError

from embedlab import paths
from embedlab.errors import ParameterError
from embedlab.experiments import notebooks

MAX_RUNS = 10_000

# YAML 1.2's floats: version 1.1, which PyYAML speaks, reads a bare 1e-5 as text.
_FLOAT = re.compile(r"^[-+]?(?:\d+\.?\d*|\.\d+)(?:[eE][-+]?\d+)?$")


class SweepSpec(BaseModel):
    """What a sweep file says; anything else in it is refused."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)

    notebook: str
    fixed: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    rows: list[dict[str, Any]] = Field(default_factory=lambda: [{}], alias="list")
    seeds: list[int] = Field(default_factory=lambda: [0])

    def size(self) -> int:
        """Number of runs."""
        return math.prod(map(len, self.grid.values())) * len(self.rows) * len(self.seeds)


class _Loader(yaml.SafeLoader):
    """YAML 1.2 floats; no duplicate keys, which would silently lose one; no aliases, which can explode."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, (key_node, _) in enumerate(node.value):
            if (key := keys[position]) in keys[:position]:
                raise yaml.MarkedYAMLError(problem=f"{key!r} stands twice", problem_mark=key_node.start_mark)
        return super().construct_mapping(node, deep)


_Loader.add_implicit_resolver("tag:yaml.org,2002:float", _FLOAT, list("-+0123456789."))
# The stock resolvers for int come first and keep 5 an int.


def find_sweep(name: str) -> Path:
    """The sweep file called `name`: a path, or a stem in experiments/sweeps.

    Raises:
        ParameterError: there is none.
    """
    for path in (Path(name), paths.sweeps_dir() / f"{name}.yaml"):
        if path.suffix in (".yaml", ".yml") and path.is_file():
            return path.resolve()
    known = ", ".join(sorted(path.stem for path in paths.sweeps_dir().glob("*.yaml"))) or "none"
    raise ParameterError(f"there is no sweep {name!r}", remedy=f"Sweeps are {known}", field="sweep")


def read_sweep(path: Path) -> SweepSpec:
    """The spec in a YAML file.

    Raises:
        ParameterError: not YAML, or not a sweep, with the line or the field.
    """
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)  # noqa: S506 - a SafeLoader
        return SweepSpec(**content)
    except UnicodeDecodeError:
        raise ParameterError("is not UTF-8", remedy="Save it as UTF-8", file=path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        problem = getattr(error, "problem", None) or "is not YAML"
        raise ParameterError(problem, remedy="Mend that line", file=path, line=line) from None
    except TypeError:
        raise ParameterError("is no mapping", remedy="Begin with notebook: NAME", file=path) from None
    except ValidationError as error:
        first = error.errors()[0]
        field = ".".join(map(str, first["loc"]))
        remedy = f"Fields are {', '.join(field.alias or name for name, field in SweepSpec.model_fields.items())}"
        raise ParameterError(first["msg"], remedy=remedy, file=path, field=field) from None


def expand(spec: SweepSpec, path: Path | None = None) -> list[dict[str, Any]]:
    """Parameter values of every run, checked against the notebook; seeds vary fastest, so that means come early.

    Args:
        spec: the sweep.
        path: its file, for the message.

    Raises:
        ParameterError: an empty grid, too many runs, a name the notebook does not have, a value of another type.
    """
    if not 0 < (size := spec.size()) <= MAX_RUNS:
        raise ParameterError(f"the sweep has {size:,} runs", remedy=f"Make it 1 to {MAX_RUNS:,}", file=path)
    if any("seed" in values for values in (spec.fixed, spec.grid, *spec.rows)):
        raise ParameterError("seeds are listed once", remedy="Write seeds: [0, 1, 2]", file=path, field="seed")
    known = notebooks.parameters(notebooks.find_notebook(spec.notebook))
    combinations = [dict(zip(spec.grid, values, strict=True)) for values in itertools.product(*spec.grid.values())]
    runs = [
        {**spec.fixed, **combination, **extra, "seed": seed}
        for combination, extra, seed in itertools.product(combinations, spec.rows, spec.seeds)
    ]
    for values in runs:
        notebooks.check_values(known, values, path)
    return runs


def varying(runs: list[Mapping[str, Any]]) -> list[str]:
    """Names whose value differs between runs, in order of first appearance; the seed last."""
    names = list(dict.fromkeys(name for values in runs for name in values if name != "seed"))
    return [name for name in names if len({repr(values.get(name)) for values in runs}) > 1]
