"""Models whose zip file comes in several packages: joined, checked, extracted once, and never outside their folder."""

from __future__ import annotations

import hashlib
import io
import zipfile
from dataclasses import replace
from pathlib import Path

import pytest

from embedlab.errors import ModelError
from embedlab.models import packaged
from embedlab.models.load import load_model, model_path, public_name
from embedlab.models.packaged import PACKAGED, ZipParts, packaged_folder

NAME = "toy-model"
FILES = {"toy/config.json": b"{}", "toy/1_Pooling/config.json": b"pooling", "toy/desktop.ini": b"left over"}


def zipped(files):
    content = io.BytesIO()
    with zipfile.ZipFile(content, "w") as archive:
        for name, text in files.items():
            archive.writestr(name, text)
    return content.getvalue()


@pytest.fixture
def install(tmp_path, monkeypatch):
    """Install a zip file in three packages, as PyPI has them; return the site folder."""
    site = tmp_path / "site"
    site.mkdir()
    monkeypatch.syspath_prepend(str(site))
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path / "cache"))

    def run(content, *, numbers=(1, 2, 3), max_bytes=1_000):
        third = -(-len(content) // 3)
        for number in numbers:
            package, version = f"toy-part-{number}", "0.0.1"
            part = site / package / "input" / f"toy.zip.00{number}"
            part.parent.mkdir(parents=True)
            part.write_bytes(content[(number - 1) * third : number * third])
            about = site / f"toy_part_{number}-{version}.dist-info"
            about.mkdir()
            (about / "METADATA").write_text(f"Metadata-Version: 2.1\nName: {package}\nVersion: {version}\n")
            (about / "RECORD").write_text(f"{package}/__init__.py,,\n{package}/input/toy.zip.00{number},,\n")
        parts = ZipParts(
            tuple(f"toy-part-{number}" for number in (1, 2, 3)),
            "toy",
            hashlib.sha256(content).hexdigest(),
            "toy",
            max_bytes,
        )
        monkeypatch.setitem(PACKAGED, NAME, parts)
        return site

    return run


def test_parts_are_joined_and_extracted_once(install, tmp_path, monkeypatch):
    install(zipped(FILES))
    folder = packaged_folder(NAME)
    assert folder.parent == tmp_path / "cache" / "models"
    assert {str(path.relative_to(folder)): path.read_bytes() for path in folder.rglob("*") if path.is_file()} == {
        "config.json": b"{}",
        "1_Pooling/config.json": b"pooling",
    }
    monkeypatch.setattr(packaged, "_extract", lambda *_: pytest.fail("extracted again"))
    assert packaged_folder(f"sentence-transformers/{NAME}") == folder
    assert model_path(NAME) == str(folder)
    assert public_name(NAME) == f"sentence-transformers/{NAME}"


def test_nothing_is_left_next_to_the_model(install, tmp_path):
    install(zipped(FILES))
    packaged_folder(NAME)
    assert sorted(path.name for path in (tmp_path / "cache" / "models").iterdir() if path.name != ".lock") == [
        packaged_folder(NAME).name
    ]


def test_a_damaged_part_is_refused_and_leaves_nothing(install, tmp_path):
    part = install(zipped(FILES)) / "toy-part-2" / "input" / "toy.zip.002"
    part.write_bytes(part.read_bytes()[:-1] + b"x")
    with pytest.raises(ModelError, match="another SHA-256.*--force-reinstall --no-deps toy-part-1 toy-part-2"):
        packaged_folder(NAME)
    assert [path.name for path in (tmp_path / "cache" / "models").iterdir()] == [".lock"]


def test_missing_parts_are_named(install):
    install(zipped(FILES), numbers=(1, 3))
    with pytest.raises(ModelError, match="the packages toy-part-2 are missing"):
        packaged_folder(NAME)


@pytest.mark.parametrize("name", ["../evil", "/etc/evil", "toy/../../evil", "toy/a\\b"])
def test_no_file_leaves_the_folder(install, tmp_path, name):
    install(zipped({**FILES, name: b"evil"}))
    with pytest.raises(ModelError, match="cannot be extracted"):
        packaged_folder(NAME)
    assert not list(tmp_path.rglob("evil*"))


def test_a_zip_bomb_is_refused(install):
    install(zipped({"toy/zeros": b"0" * 2_000}))
    with pytest.raises(ModelError, match="2,000 bytes, more than 1,000"):
        packaged_folder(NAME)


def test_not_a_zip_file(install):
    install(b"no zip file at all")
    with pytest.raises(ModelError, match="cannot be extracted"):
        packaged_folder(NAME)


def test_without_packages_the_name_is_for_the_hub(monkeypatch, tmp_path):
    monkeypatch.setenv("EMBEDLAB_CACHE", str(tmp_path))
    monkeypatch.setitem(PACKAGED, NAME, replace(PACKAGED["all-mpnet-base-v2"], packages=("toy-part-1",)))
    assert packaged_folder(NAME) is None and packaged_folder("another/model") is None
    assert model_path(NAME) == NAME
    with pytest.raises(ModelError, match=r"is not installed.*pip install './embedlab\[mpnet\]'"):
        load_model(NAME)


def test_the_extra_installs_what_the_loader_reads():
    import tomllib

    project = tomllib.loads((Path(__file__).resolve().parents[2] / "pyproject.toml").read_text())["project"]
    for parts in PACKAGED.values():
        assert [pin.partition("==")[0] for pin in project["optional-dependencies"][parts.extra]] == list(parts.packages)
