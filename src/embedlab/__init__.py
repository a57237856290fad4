"""embedlab: fine-tune text embedding models, measure the gain, prove it, ship it.

Importing this package is cheap: torch and sentence-transformers load with the module that needs them.
"""

import os

__version__ = "0.1.0"

# OpenMP threads that spin while they wait slow a training step eightfold as soon as another process wants a core.
# The runtime reads this once, when torch is first imported.
os.environ.setdefault("OMP_WAIT_POLICY", "PASSIVE")
