"""Put the notebooks and sweeps into the wheel, for `embedlab init`; everything else is in pyproject.toml."""

import shutil
from pathlib import Path

from setuptools import setup
from setuptools.command.build_py import build_py

PROJECT_FILES = ("notebooks/*.ipynb", "notebooks/README.md", "experiments/sweeps/*.yaml")


class BuildWithProjectFiles(build_py):
    """Copy the project files to `embedlab/_project`; an editable install reads them from the checkout instead."""

    def run(self) -> None:
        super().run()
        if self.editable_mode:
            return
        for pattern in PROJECT_FILES:
            for source in Path().glob(pattern):
                target = Path(self.build_lib, "embedlab", "_project", source)
                target.parent.mkdir(parents=True, exist_ok=True)
                shutil.copyfile(source, target)


setup(cmdclass={"build_py": BuildWithProjectFiles})
