"""Claims on pieces of work: who works on what, so that two workers rarely do the same.

A claim saves time and guarantees nothing: that every result counts once is the task of `Storage.commit_once`. A worker
renews its claim while it works. A claim that is old belongs to a worker that died, and the next one takes it over. A
worker also takes over claims of its own driver, because a driver gives a piece to a second worker only after the first
is lost.
"""

from __future__ import annotations

import json
import time
from dataclasses import dataclass, field

from embedlab.deploy.storage import Storage, read_json

LEASE_S = 120.0  # age at which a claim has expired
RENEW_S = 20.0


@dataclass
class Claim:
    """A claim on one piece.

    Args:
        storage: the folder of the results.
        name: of the claim's file.
        driver: token of the process that hands out the work.
    """

    storage: Storage
    name: str
    driver: str
    _renewed: float = field(default=0.0, init=False)

    def take(self) -> bool:
        """Claim the piece; False if a worker of another driver works on it."""
        if not self.storage.commit_once(self.name, self._content()):
            holder = read_json(self.storage, self.name) or {}
            age = time.time() - _number(holder.get("time"))
            if holder.get("driver") != self.driver and 0 <= age < LEASE_S:
                return False
            self.storage.write(self.name, self._content())
        self._renewed = time.monotonic()
        return True

    def renew(self) -> None:
        """Write the time again, if the last time is some seconds ago."""
        if time.monotonic() - self._renewed >= RENEW_S:
            self.storage.write(self.name, self._content())
            self._renewed = time.monotonic()

    def release(self) -> None:
        """Remove the claim, unless another driver has it."""
        if (read_json(self.storage, self.name) or {}).get("driver") == self.driver:
            self.storage.remove(self.name)

    def _content(self) -> bytes:
        return json.dumps({"driver": self.driver, "time": time.time()}).encode()


def _number(value: object) -> float:
    return float(value) if isinstance(value, int | float) else 0.0
