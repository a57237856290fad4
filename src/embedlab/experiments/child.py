"""The process that executes one notebook: `python -m embedlab.experiments.child JOB.json`.

Papermill gets the values as they are (its command line would turn 007 into 7 and a bare 1e-05 into text), the kernel is
this very interpreter, and everything ends when the driver does.
"""

from __future__ import annotations

import json
import os
import sys
from pathlib import Path

from embedlab.experiments import processes


def main() -> None:
    """Execute the notebook that the job file describes; the exit status says nothing, the record says it all."""
    job = json.loads(Path(sys.argv[1]).read_text())
    processes.end_with(job["driver"])
    _kernel_of_this_interpreter(Path(job["scratch"]))
    import papermill

    papermill.execute_notebook(
        job["notebook"],
        job["output"],
        parameters=job["values"],
        cwd=job["cwd"],
        kernel_name="python3",
        progress_bar=False,
        autosave_cell_every=30,
    )


def _kernel_of_this_interpreter(scratch: Path) -> None:
    """A kernelspec that comes before any other `python3` a user may have installed."""
    spec = scratch / "kernels" / "python3"
    spec.mkdir(parents=True, exist_ok=True)
    argv = [sys.executable, "-m", "ipykernel_launcher", "-f", "{connection_file}"]
    (spec / "kernel.json").write_text(json.dumps({"argv": argv, "display_name": "Python 3", "language": "python"}))
    os.environ["JUPYTER_PATH"] = str(scratch)


if __name__ == "__main__":
    main()
