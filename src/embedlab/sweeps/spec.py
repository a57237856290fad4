"""Read sweep files: YAML files that describe many runs. Every value is checked before the first run starts.

notebook: 03_contrastive
fixed: {dataset: icd10cm:small}
grid: {learning_rate: [1e-4, 2e-4], hard_negatives: [0, 1]}   # every combination
list: [{}, {epochs: 5.0}]                                     # each added to every combination
skip: ["hard_negatives == 0 and epochs > 3"]                  # leave these combinations out; see `conditions`
seeds: [0, 1, 2]
resources: {cpus: 2, mem_gb: 8, wall_min: 60}                 # limits of each run
retries: {infrastructure: 2, kernel died: 1}                  # how often a run is repeated, by cause of failure

Entries of the parameter `engine` stand in a mapping, `fixed: {engine: {precision: bf16}}`, or one by one, with a dot:
`grid: {engine.precision: [fp32, bf16]}`.

`search:` lets Optuna choose values instead of a grid:

    search:
      trials: 20
      metric: ndcg@10
      system: contrastive
      space: {learning_rate: {low: 1e-5, high: 1e-3, log: true}}

`stages:` lists several such blocks instead of one notebook, each with a `name`. A later stage can use files and
parameters of an earlier one: `teacher: "{contrastive.model}"` is the model of the best run of stage `contrastive`, with
the same seed if that stage has it. `"{distillation.model/labelled}"` is one of several models of a run, and
`"{contrastive.p.epochs}"` is a parameter. The best run is the one with the highest nDCG@10 on dev, unless the earlier
stage says otherwise:

    pick: {metric: ndcg@10, split: dev, system: contrastive}

`system:` names the system to compare, as in the tables. It is needed if a run measures several systems.
"""

from __future__ import annotations

import itertools
import math
import re
from collections.abc import Iterator, Mapping, Sequence
from pathlib import Path
from typing import Annotated, Any, Literal

import yaml
from pydantic import BaseModel, ConfigDict, Field, ValidationError, model_validator

from embedlab import paths
from embedlab.checked import check_names
from embedlab.errors import ParameterError
from embedlab.params import check_common
from embedlab.runs import notebooks
from embedlab.runs.named_models import NamedModels
from embedlab.runs.notebooks import flat
from embedlab.sweeps.conditions import Condition

MAX_RUNS = 10_000
MAX_RETRIES = 100
RESERVED = {"seed": "Write seeds: [0, 1, 2]", "output_dir": "Use the option --output-dir"}
REFERENCE = re.compile(r"^\{(?P<stage>[\w-]+)\.(?P<what>[\w./-]+)\}$")  # e.g. {contrastive.model}

# Scalars of YAML 1.2. PyYAML follows version 1.1, where 1e-5 is a text, 010 is 8, 1:30 is 90 and yes is true. A number
# with leading zeros stays a text: it is a name such as 0012, or a mistake that the check of types reports.
_SCALARS = {
    "bool": (re.compile(r"^(?:true|True|TRUE|false|False|FALSE)$"), "tTfF"),
    "int": (re.compile(r"^[-+]?(?:0|[1-9]\d{0,24})$"), "-+0123456789"),
    "float": (
        re.compile(
            r"^[-+]?(?:(?:0|[1-9]\d*)(?:\.\d*)?|\.\d+)(?:[eE][-+]?\d+)?$|^[-+]?\.(?:inf|Inf|INF)$|^\.(?:nan|NaN|NAN)$"
        ),
        "-+0123456789.",
    ),
}

Finite = Annotated[float, Field(allow_inf_nan=False)]
Seed = Annotated[int, Field(ge=0, lt=2**32)]  # what NumPy accepts
Cause = Literal["infrastructure", "kernel died", "out of memory", "timeout", "incomplete", "error in cell"]


def is_reference(value: Any) -> bool:
    """Return whether a value refers to an earlier stage."""
    return isinstance(value, str) and REFERENCE.match(value) is not None


class _Part(BaseModel):
    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)


class Resources(_Part):
    """Limits of each run. 0 means no limit; `cpus: 0` gives each run an equal share of this machine's cores.

    With a fixed `cpus`, results do not depend on how many runs execute at a time.
    """

    cpus: int = Field(default=0, ge=0)
    gpus: int = Field(default=0, ge=0)
    mem_gb: float = Field(default=0, ge=0, allow_inf_nan=False)
    wall_min: float = Field(default=0, ge=0, allow_inf_nan=False)


class Metric(_Part):
    """The metric that decides. The default split is dev, which keeps the test queries for the final evaluation.

    Attributes:
        metric, split: for example "ndcg@10" on "dev".
        system: the system to compare, as in the tables, e.g. "contrastive"; can be "" if a run measures only one.
        direction: whether larger or smaller is better.
    """

    metric: str = "ndcg@10"
    split: str = "dev"
    system: str = ""
    direction: Literal["maximize", "minimize"] = "maximize"


class Space(_Part):
    """Values of a searched parameter: between low and high (integers if both are integers), or one of the choices."""

    low: int | Finite | None = None
    high: int | Finite | None = None
    log: bool = False
    choices: list[Any] | None = None

    @model_validator(mode="after")
    def _is_one_of_both(self) -> Space:
        if self.choices is None and (self.low is None or self.high is None or not self.low < self.high):
            raise ValueError("expected low < high, or choices")
        if self.choices is not None and (not self.choices or (self.low, self.high, self.log) != (None, None, False)):
            raise ValueError("expected either low < high or a list of choices, got both")
        if self.log and self.low is not None and self.low <= 0:
            raise ValueError(f"low must be positive on a log scale, got {self.low}")
        return self


class Search(Metric):
    """Values chosen by Optuna's TPE sampler. Trials of one `batch` can run at the same time."""

    trials: int = Field(gt=0, le=MAX_RUNS)
    space: dict[str, Space] = Field(min_length=1)
    batch: int = Field(default=1, gt=0)
    seed: Seed = 0


class Stage(_Part):
    """Runs of one notebook."""

    name: str = Field(default="", pattern=r"^[\w-]*$")
    notebook: str
    fixed: dict[str, Any] = Field(default_factory=dict)
    grid: dict[str, list[Any]] = Field(default_factory=dict)
    rows: list[dict[str, Any]] = Field(default=[{}], alias="list")
    skip: list[str] = Field(default_factory=list)
    seeds: list[Seed] = Field(default_factory=lambda: [0])
    resources: Resources = Resources()
    search: Search | None = None
    pick: Metric | None = None

    @property
    def decides(self) -> Metric:
        """The metric that chooses the run for later stages: `pick`, else that of the search."""
        return self.pick or self.search or Metric()

    def size(self) -> int:
        """Return the number of runs, including those that `skip` leaves out."""
        searched = self.search.trials if self.search else 1
        return math.prod(map(len, self.grid.values())) * len(self.rows) * len(self.seeds) * searched

    def named(self) -> list[tuple[str, re.Match[str]]]:
        """Return (parameter, reference) of every value that refers to an earlier stage."""
        gridded = ((name, value) for name, values in self.grid.items() for value in values)
        listed = itertools.chain(gridded, *(row.items() for row in (*self.rows, self.fixed)))
        matches = ((name, REFERENCE.match(value)) for name, value in listed if isinstance(value, str))
        return [(name, match) for name, match in matches if match]

    def references(self) -> set[str]:
        """Return the names of the earlier stages that its values refer to."""
        return {match["stage"] for _, match in self.named()}


class _Retries(_Part):
    retries: dict[Cause, Annotated[int, Field(ge=0, le=MAX_RETRIES)]] = {"infrastructure": 2, "kernel died": 1}

    def retries_after(self, cause: str) -> int:
        """How often a run that failed for this reason is repeated."""
        return {str(name): count for name, count in self.retries.items()}.get(cause, 0)


class SweepSpec(Stage, _Retries):
    """A sweep over one notebook."""

    @property
    def stages(self) -> Sequence[Stage]:
        """Itself, its only stage."""
        return (self,)


class StagedSweep(_Retries):
    """A sweep whose later stages use results of earlier ones."""

    stages: list[Stage] = Field(min_length=1)

    @model_validator(mode="after")
    def _names_are_good(self) -> StagedSweep:
        earlier_names: set[str] = set()
        for stage in self.stages:
            if not stage.name or stage.name in earlier_names:
                raise ValueError(f"every stage needs a unique name, got {stage.name!r}")
            if unknown := stage.references() - earlier_names:
                raise ValueError(f"stage {stage.name!r} refers to {sorted(unknown)}, which must come before it")
            earlier_names.add(stage.name)
        return self


class _Loader(yaml.SafeLoader):
    """Reads floats as YAML 1.2 does. Duplicate keys and aliases are errors: they lose values or grow without limit."""

    def compose_node(self, parent: Any, index: Any) -> Any:
        if self.check_event(yaml.AliasEvent):
            mark = self.peek_event().start_mark
            raise yaml.MarkedYAMLError(problem="aliases are not allowed", problem_mark=mark)
        return super().compose_node(parent, index)

    def construct_mapping(self, node: Any, deep: bool = False) -> dict[Any, Any]:
        keys = [self.construct_object(key, deep=True) for key, _ in node.value]
        for position, (key_node, _) in enumerate(node.value):
            if (key := keys[position]) in keys[:position]:
                raise yaml.MarkedYAMLError(problem=f"{key!r} appears twice", problem_mark=key_node.start_mark)
        return dict(super().construct_mapping(node, deep))


_KEPT = ("tag:yaml.org,2002:null", "tag:yaml.org,2002:merge")
_Loader.yaml_implicit_resolvers = {
    letter: [(tag, pattern) for tag, pattern in resolvers if tag in _KEPT]
    for letter, resolvers in yaml.SafeLoader.yaml_implicit_resolvers.items()
}
for _name, (_pattern, _letters) in _SCALARS.items():  # the integer pattern before the float pattern: 5 is an int
    _Loader.add_implicit_resolver(f"tag:yaml.org,2002:{_name}", _pattern, list(_letters))


def find_sweep(name: str) -> Path:
    """Find a sweep file by its path or by its name in experiments/sweeps.

    Raises:
        ParameterError: no such file exists.
    """
    for path in (Path(name), paths.sweeps_dir() / f"{name}.yaml"):
        if path.suffix in (".yaml", ".yml") and path.is_file():
            return path.resolve()
    names = ", ".join(sorted(path.stem for path in paths.sweeps_dir().glob("*.yaml"))) or "none"
    raise ParameterError(f"there is no sweep {name!r}", remedy=f"Choose one of {names}, or a YAML file", field="sweep")


def read_sweep(path: Path) -> SweepSpec | StagedSweep:
    """Read and check a sweep file.

    Raises:
        ParameterError: the file is not YAML or not a sweep; the message names the line or the field.
    """
    kind: type[SweepSpec | StagedSweep] = SweepSpec
    try:
        content = yaml.load(path.read_text(encoding="utf-8-sig"), Loader=_Loader)
        kind = StagedSweep if isinstance(content, dict) and "stages" in content else SweepSpec
        return kind(**content)
    except UnicodeDecodeError:
        raise ParameterError("the file is not UTF-8", remedy="Save it as UTF-8", file=path) from None
    except OSError as error:
        raise ParameterError(f"cannot be read ({error.strerror})", remedy="Check the path", file=path) from None
    except yaml.YAMLError as error:
        mark = getattr(error, "problem_mark", None)
        line = mark.line + 1 if mark else None
        problem = getattr(error, "problem", None) or "is not YAML"
        raise ParameterError(problem, remedy="Fix this line", file=path, line=line) from None
    except ValidationError as error:
        raise _validation_error(error, kind, path) from None
    except (TypeError, ValueError, RecursionError):  # a list or string, keys that are not strings, deep nesting
        raise ParameterError("a sweep must be a mapping", remedy="Start with notebook: NAME", file=path) from None


def _validation_error(error: ValidationError, kind: type[BaseModel], path: Path) -> ParameterError:
    first = error.errors()[0]
    field = ".".join(map(str, first["loc"]))
    remedy = "Correct this value"
    if first["type"] in ("extra_forbidden", "missing"):
        remedy = f"Allowed fields: {', '.join(field.alias or name for name, field in kind.model_fields.items())}"
    return ParameterError(first["msg"].splitlines()[0], remedy=remedy, file=path, field=field or None)


def expand(spec: Stage, path: Path | None = None) -> list[dict[str, Any]]:
    """Return the parameter values of every run, checked against the notebook.

    Seeds vary fastest: all seeds of a combination finish early, and its mean is known. Searched parameters are missing,
    because Optuna chooses them later. References to earlier stages are not replaced.

    Args:
        spec: a stage.
        path: its file, for error messages.

    Raises:
        ParameterError: an empty grid, too many runs, a name that the notebook does not have, a value of another type.
    """
    if not 0 < (size := spec.size()) <= MAX_RUNS:
        raise ParameterError(f"the sweep has {size:,} runs", remedy=f"It must have 1 to {MAX_RUNS:,}", file=path)
    _check_places(spec, path)
    parameters = notebooks.parameters(notebooks.find_notebook(spec.notebook))
    is_training = {"dataset", "model_name", "max_steps"} <= {parameter.name for parameter in parameters}
    models = NamedModels(parameters)
    combinations = [dict(zip(spec.grid, values, strict=True)) for values in itertools.product(*spec.grid.values())]
    runs = [
        notebooks.grouped({**flat(spec.fixed), **flat(combination), **flat(extra), "seed": seed})
        for combination, extra, seed in itertools.product(combinations, spec.rows, spec.seeds)
    ]
    for values in (*runs, *_corners(spec.search)):
        concrete = {name: value for name, value in values.items() if not is_reference(value)}
        notebooks.check_values(parameters, concrete, path)
        check_names(notebooks.grouped(values), [parameter.name for parameter in parameters])
        if is_training:
            check_common(concrete, path)
            models.check(concrete, path)
    return _without_skipped(runs, spec.skip, {parameter.name: parameter.default for parameter in parameters}, path)


def _check_places(spec: Stage, path: Path | None) -> None:
    """Check that no value is lost: a parameter stands in one place, the seed under `seeds`, the folder in no place."""
    searched = spec.search.space if spec.search else {}
    places: dict[str, set[str]] = {
        "fixed": set(flat(spec.fixed)),
        "grid": set(spec.grid),
        "list": {name for row in spec.rows for name in flat(row)},
        "search.space": set(searched),
    }
    for section, names in places.items():
        for name, remedy in RESERVED.items():
            if name in names:
                problem = f"{name} must not be a parameter of a sweep"
                raise ParameterError(problem, remedy=remedy, file=path, field=f"{section}.{name}")
    for first, second in itertools.combinations(places, 2):
        if (first, second) != ("fixed", "list") and (repeated := sorted(places[first] & places[second])):
            problem = f"{repeated[0]} stands under {first} and under {second}, so one of the values would be lost"
            raise ParameterError(problem, remedy=f"Remove it from {first}", file=path, field=f"{second}.{repeated[0]}")


def check_references(spec: SweepSpec | StagedSweep, path: Path | None = None) -> None:
    """Check that every referenced parameter of an earlier stage exists and has the right type.

    Raises:
        ParameterError: it does not; the message names the parameter and the file.
    """
    parameters = {stage.name: notebooks.parameters(notebooks.find_notebook(stage.notebook)) for stage in spec.stages}
    for stage in spec.stages:
        for name, match in stage.named():
            if match["stage"] in parameters and (source := match["what"].removeprefix("p.")) != match["what"]:
                defaults = {parameter.name: parameter.default for parameter in parameters[match["stage"]]}
                if source not in defaults:
                    remedy = f"Name one of {', '.join(defaults)}"
                    raise ParameterError(f"there is no {match[0]}", remedy=remedy, file=path, field=name)
                notebooks.check_values(parameters[stage.name], {name: defaults[source]}, path)


def _corners(search: Search | None) -> Iterator[dict[str, Any]]:
    """Return the extreme values of every searched parameter, to check their types."""
    for name, space in search.space.items() if search else ():
        yield from ({name: value} for value in space.choices or (space.low, space.high))


def _without_skipped(
    runs: list[dict[str, Any]], skip: Sequence[str], defaults: Mapping[str, Any], path: Path | None
) -> list[dict[str, Any]]:
    if not skip:
        return runs
    try:
        conditions = [Condition(text) for text in skip]
        # Every condition is evaluated, so that none of them can hide the error of another.
        all_values = ({**defaults, **values} for values in runs)
        skipped = [sum(condition.holds(values) for condition in conditions) for values in all_values]
        remaining = [values for values, count in zip(runs, skipped, strict=True) if not count]
    except ParameterError as error:
        raise ParameterError(error.problem, remedy=error.remedy, file=path, field="skip") from None
    if not remaining:
        raise ParameterError("every run is skipped", remedy="Change the conditions", file=path, field="skip")
    return remaining


def varying(runs: Sequence[Mapping[str, Any]]) -> list[str]:
    """Return the parameters whose values differ between runs, in order of first appearance, without the seed."""
    runs = notebooks.with_defaults(runs)
    names = list(dict.fromkeys(name for values in runs for name in values if name != "seed"))
    return [name for name in names if len({repr(values.get(name)) for values in runs}) > 1]


def varying_where_known(settings: Sequence[Mapping[str, Any]]) -> list[str]:
    """Like `varying`, but a parameter that some notebooks do not have varies only if the others differ in it."""
    settings = notebooks.with_defaults(settings)
    any_value = {name: value for values in reversed(settings) for name, value in values.items()}
    return varying([{**any_value, **values} for values in settings])
