"""`embedlab init [FOLDER]`: start a project of your own."""

from __future__ import annotations

from pathlib import Path
from typing import Annotated

import typer

from embedlab.cli.console import out
from embedlab.cli.options import writable_folder
from embedlab.errors import ParameterError

PROJECT_FILES = ("notebooks/*.ipynb", "notebooks/README.md", "experiments/sweeps/*.yaml")

README = """# Embedding models for our search

Made by `embedlab init`. In this folder:

    embedlab run 00_quickstart                                  # see a fine-tune pay off
    embedlab diagnose pairs:my.csv                              # should you fine-tune on your data?
    embedlab run 03_contrastive -p dataset=pairs:my.csv         # fine-tune on it
    embedlab table                                              # all results

`my.csv` has a column `query` and a column `positive`, one pair per line. Run `embedlab --help` for more.

| folder | what is in it |
|---|---|
| `notebooks/` | lessons, and the code of every run; change them as you like |
| `experiments/sweeps/` | YAML files for `embedlab sweep` |
| `results/` | records, tables, figures and models of your runs |
"""

GITIGNORE = """.cache/
.ipynb_checkpoints/
results/index/
results/runs/*/attempts/
results/runs/*/executed.html
results/runs/*/model/
*.safetensors
"""


def init(
    folder: Annotated[Path, typer.Argument(help="the new project's folder; default: the current folder")] = Path(),
) -> None:
    """Create a project: copy the notebooks and sweeps into a folder. Existing files are never overwritten."""
    if folder.exists() and not folder.is_dir():
        raise ParameterError(f"{folder} is a file", remedy="Choose a new folder: embedlab init FOLDER", field="folder")
    source = template_folder()
    contents = {path.relative_to(source): path.read_text(encoding="utf-8") for path in template_files(source)}
    contents |= {Path("README.md"): README, Path(".gitignore"): GITIGNORE}
    if existing := sorted(str(name) for name in contents if (folder / name).exists()):
        problem = f"{folder.resolve()} already has {existing[0]}"
        raise ParameterError(problem, remedy="Choose a new folder: embedlab init FOLDER", field="folder")
    writable_folder(folder, "folder")
    for name, text in contents.items():
        (folder / name).parent.mkdir(parents=True, exist_ok=True)
        (folder / name).write_text(text, encoding="utf-8")
    out.print(f"created {folder.resolve()} with {len(contents)} files", highlight=False, soft_wrap=True)
    change_folder = "" if folder.resolve() == Path.cwd() else f"cd {folder} && "
    out.print(f"Next: {change_folder}embedlab run 00_quickstart", highlight=False, soft_wrap=True)


def template_folder() -> Path:
    """Return the folder with the notebooks and sweeps that came with embedlab: in the package, or the checkout.

    Raises:
        ParameterError: there are none.
    """
    package = Path(__file__).resolve().parents[1]
    for folder in (package / "_project", package.parents[1]):
        if (folder / "notebooks").is_dir():
            return folder
    raise ParameterError("this installation has no notebooks", remedy="Install embedlab again, from its wheel")


def template_files(folder: Path) -> list[Path]:
    """Return the files to copy into a new project."""
    return sorted(path for pattern in PROJECT_FILES for path in folder.glob(pattern))
