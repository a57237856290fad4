"""Measure every technique on every architecture and write the page; `--page` writes the page only."""

import sys

from experiments.architectures.models import FAMILIES
from experiments.architectures.table import measure, write, write_page

if "--page" not in sys.argv[1:]:
    write({family: measure(family) for family in FAMILIES})
write_page()
