"""What an option costs: documents to encode, hours, money, days, and bytes of the index."""

from __future__ import annotations

import math
from collections.abc import Mapping
from dataclasses import dataclass

from embedlab.deploy.migration.options import Option

SECONDS_PER_DAY = 86_400
FLOAT_BYTES = 4


@dataclass(frozen=True)
class Rate:
    """How fast and at what price one model encodes documents.

    Attributes:
        texts_per_second: None if unknown.
        price_per_text: None if it has no price.
    """

    texts_per_second: float | None = None
    price_per_text: float | None = None


@dataclass(frozen=True)
class Cost:
    """What one option costs.

    Attributes:
        documents: to encode.
        hours: of one process that encodes them; None without a rate.
        price: in the currency of the model's price; None without one.
        days: until the last of these documents is encoded; None without a rate and a daily limit.
        mixed_days: of these, days on which one index holds vectors of two models if you replace its vectors in place.
            With a second index and a switch at the end it is 0, and the bytes of both are needed until then.
        index_bytes: of the vectors, in float32.
    """

    documents: int
    hours: float | None
    price: float | None
    days: float | None
    mixed_days: float | None
    index_bytes: int


def cost_of(
    option: Option, *, documents: int, sample: int, rates: Mapping[str, Rate], per_day: int | None, dim: int
) -> Cost:
    """Compute the cost of an option.

    Args:
        option: the option.
        documents: in the live index.
        sample: documents that a map is fitted on.
        rates: model of an option -> its rate.
        per_day: documents that can be re-embedded per day; None for as many as the rate allows.
        dim: dimensions of the option's vectors.
    """
    rate = rates.get(option.model, Rate())
    encoded = math.ceil(option.share * documents)
    if option.fits_map:
        encoded = max(encoded, min(sample, documents))  # the sample is a part of what is re-embedded
    seconds = encoded / rate.texts_per_second if rate.texts_per_second else 0.0 if not encoded else None
    days = encoded / per_day if per_day else None if seconds is None else seconds / SECONDS_PER_DAY
    return Cost(
        documents=encoded,
        hours=None if seconds is None else seconds / 3600,
        price=None if rate.price_per_text is None else encoded * rate.price_per_text,
        days=days,
        mixed_days=days if option.share else 0.0,
        index_bytes=documents * dim * FLOAT_BYTES,
    )


def cost_key(cost: Cost) -> tuple[float, ...]:
    """Return numbers that sort costs, the cheapest first; what is unknown counts as 0."""
    return (cost.documents, cost.hours or 0.0, cost.mixed_days or 0.0, cost.index_bytes)
