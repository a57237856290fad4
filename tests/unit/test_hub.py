"""Uploads to the hub: a client that notes every call, a server on loopback, and no connection at all."""

from __future__ import annotations

import json
import threading
from http.server import BaseHTTPRequestHandler, ThreadingHTTPServer
from types import SimpleNamespace

import pytest
from huggingface_hub import HfApi, constants
from typer.testing import CliRunner

from embedlab.cli import main as cli
from embedlab.deploy.hub import prepare_upload, push
from embedlab.errors import ModelError, ParameterError
from embedlab.models.save import save_model
from tests.conftest import tiny_model

TEXT = "Patient reports sharp pain in the left knee"


class FakeApi:
    """Notes calls; `public` is the state of a repository that exists already."""

    def __init__(self, public: bool = False) -> None:
        self.public, self.calls = public, []

    def create_repo(self, repo_id, **options):
        self.calls.append(("create", repo_id, options))

    def repo_info(self, repo_id):
        return SimpleNamespace(private=not self.public)

    def upload_folder(self, **options):
        self.calls.append(("upload", options["repo_id"], options))
        return SimpleNamespace(commit_url="https://hub/commit/1")


@pytest.fixture(scope="module")
def saved(tmp_path_factory):
    folder = tmp_path_factory.mktemp("hub") / "model"
    save_model(tiny_model(layers=1), folder)
    (folder / ".cache").mkdir()
    (folder / ".cache" / "hidden.txt").write_text(TEXT)
    return folder


@pytest.fixture
def copy(saved, tmp_path):
    import shutil

    return shutil.copytree(saved, tmp_path / "model")


def test_exactly_the_scanned_files_are_sent_and_stay_private(saved):
    api, upload = FakeApi(), prepare_upload(saved, [TEXT])
    assert push(upload, "me/model", api=api) == "https://hub/commit/1"
    (_, _, created), (_, repo_id, sent) = api.calls
    assert created == {"private": True, "exist_ok": True} and repo_id == "me/model"
    assert sent["allow_patterns"] == list(upload.sizes) and "model.safetensors" in upload.sizes
    assert not any(name.startswith(".") for name in upload.sizes)
    assert upload.sizes["model.safetensors"] == (saved / "model.safetensors").stat().st_size


def test_a_public_repository_gets_nothing_that_is_meant_to_be_private(saved):
    api = FakeApi(public=True)
    with pytest.raises(ModelError, match="me/model exists and is public"):
        push(prepare_upload(saved, []), "me/model", api=api)
    assert [call[0] for call in api.calls] == ["create"]
    push(prepare_upload(saved, []), "me/model", private=False, api=api)
    assert api.calls[-1][0] == "upload" and api.calls[-2][2]["private"] is False


@pytest.mark.parametrize(
    ("content", "says"),
    [
        (f"- {TEXT}", "notes.md: training text"),
        ("made in /home/ada/lab", "notes.md: folder of this machine"),
        ("key sk-abcdefghijklmnopqrst", "notes.md: key"),
    ],
)
def test_nothing_is_sent_when_something_is_found(copy, content, says):
    (copy / "notes.md").write_text(content)
    api, upload = FakeApi(), prepare_upload(copy, [TEXT])
    with pytest.raises(ModelError, match=says) as error:
        push(upload, "me/model", api=api)
    assert api.calls == [] and "sk-abc" not in str(error.value)


def test_names_with_wildcards_match_themselves_only(copy):
    (copy / "a[1]*.md").write_text("x")
    (copy / "a1x.md").write_text("x")
    api, upload = FakeApi(), prepare_upload(copy, [])
    push(upload, "me/model", api=api)
    from fnmatch import fnmatch

    patterns = [pattern for pattern in api.calls[-1][2]["allow_patterns"] if pattern.startswith("a[")]
    assert [fnmatch(name, patterns[0]) for name in ("a[1]*.md", "a1x.md", "a[1]b.md")] == [True, False, False]


def test_a_folder_without_a_model(tmp_path):
    with pytest.raises(ModelError, match="modules.json is missing"):
        prepare_upload(tmp_path, [])


def test_evidence_of_another_model_is_not_sent(copy):
    from embedlab.models import evidence
    from tests.unit.test_evidence import collected

    made = collected()
    files = {**evidence.hash_files(copy), "model.safetensors": "0" * 64}
    evidence.write(made.model_copy(update={"model": made.model.model_copy(update={"files": files})}), copy)
    with pytest.raises(ModelError, match="the evidence belongs to another model: model.safetensors differs"):
        prepare_upload(copy, [])


def serve(status: int, body: dict):
    """A server on loopback that gives the same answer to everything, and notes what it is asked."""
    asked: list[tuple[str, str, dict]] = []

    class Handler(BaseHTTPRequestHandler):
        def do_POST(self):
            length = int(self.headers.get("Content-Length") or 0)
            sent = json.loads(self.rfile.read(length) or b"{}")
            asked.append((self.path, self.headers.get("Authorization", ""), sent))
            content = json.dumps(body).encode()
            self.send_response(status)
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(content)))
            self.end_headers()
            self.wfile.write(content)

        def log_message(self, *arguments):
            pass

    server = ThreadingHTTPServer(("127.0.0.1", 0), Handler)
    threading.Thread(target=server.serve_forever, daemon=True).start()
    return server, asked


@pytest.mark.parametrize(
    ("status", "says"), [(401, "may write"), (403, "may write"), (500, r"cannot be reached \(status 500\)")]
)
def test_the_real_client_against_a_hub_that_refuses(saved, monkeypatch, status, says):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    server, asked = serve(status, {"error": "no"})
    try:
        api = HfApi(endpoint=f"http://127.0.0.1:{server.server_address[1]}", token="not-a-token")
        with pytest.raises(ModelError, match=says) as error:
            push(prepare_upload(saved, []), "me/model", api=api)
    finally:
        server.shutdown()
        server.server_close()
    path, authorisation, sent = asked[0]
    assert path == "/api/repos/create" and sent["visibility"] == "private" and sent["name"] == "model"
    assert "not-a-token" in authorisation and "not-a-token" not in str(error.value)


def test_without_a_connection(saved, monkeypatch):
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", True)
    with pytest.raises(ModelError, match=r"the hub cannot be reached \(HF_HUB_OFFLINE is set\). Nothing was published"):
        push(prepare_upload(saved, []), "me/model")
    monkeypatch.setattr(constants, "HF_HUB_OFFLINE", False)
    with pytest.raises(ModelError, match="the hub cannot be reached"):
        push(prepare_upload(saved, []), "me/model", api=HfApi(endpoint="http://127.0.0.1:9", token="x"))


@pytest.mark.parametrize("name", ["a/b/c", "a b", "../x", ""])
def test_a_name_that_no_repository_has(saved, name):
    with pytest.raises(ModelError, match="is not the name of a repository"):
        push(prepare_upload(saved, []), name)


class TestCommand:
    def invoke(self, *arguments):
        return CliRunner().invoke(cli.app, ["push", *arguments])

    def test_a_dry_run_sends_nothing(self, saved, monkeypatch):
        monkeypatch.setattr("embedlab.deploy.hub.push", lambda *a, **k: pytest.fail("uploaded"))
        result = self.invoke(str(saved), "me/model", "--data", "icd10cm:smoke", "--dry-run")
        assert result.exit_code == 0 and "model.safetensors" in result.output, result.output
        assert "no training texts, keys or folders" in result.output and "Nothing was uploaded" in result.output

    def test_a_planted_training_text(self, copy, monkeypatch):
        from embedlab.data.load import load_dataset

        corpus = load_dataset("icd10cm:smoke").corpus.values()
        (copy / "notes.md").write_text(max(corpus, key=len))
        result = self.invoke(str(copy), "me/model", "--data", "icd10cm:smoke", "--dry-run")
        assert "notes.md: training text" in str(result.exception)

    @pytest.mark.parametrize("options", [[], ["--data", "icd10cm:smoke", "--without-text-scan"]])
    def test_what_is_looked_for_must_be_said(self, saved, options):
        assert isinstance(self.invoke(str(saved), "me/model", *options).exception, ParameterError)

    def test_private_by_default(self, saved, monkeypatch):
        called = []
        monkeypatch.setattr("embedlab.deploy.hub.push", lambda upload, name, private: called.append(private) or "url")
        self.invoke(str(saved), "me/model", "--without-text-scan")
        self.invoke(str(saved), "me/model", "--without-text-scan", "--public")
        assert called == [True, False]
