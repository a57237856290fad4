"""One run that an engine executes."""

from __future__ import annotations

import uuid
from dataclasses import dataclass, field

from embedlab.runs.execute import Plan
from embedlab.runs.limits import Limits


@dataclass(frozen=True)
class Job:
    """One run to execute.

    Attributes:
        plan: the run.
        limits: what it may use.
        gpus: how many graphics processors it needs.
        order: earlier ones start first.
        token: names this submission, so that a later one of the same run is not cancelled with it.
    """

    plan: Plan
    limits: Limits = field(default_factory=Limits)
    gpus: int = 0
    order: int = 0
    token: str = field(default_factory=lambda: uuid.uuid4().hex)
