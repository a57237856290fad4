"""`embedlab serve` as a process: our own client, a key that stays secret, and a clean end after SIGTERM."""

from __future__ import annotations

import importlib.util
import inspect
import os
import signal
import socket
import subprocess
import sys
from concurrent.futures import ThreadPoolExecutor

import httpx
import numpy as np
import pytest

from embedlab.cli import serve as command
from embedlab.deploy.endpoint import server
from embedlab.deploy.endpoint.settings import KEY_VARIABLE, EndpointSettings
from embedlab.errors import EmbedlabError, ModelError, ParameterError
from embedlab.models.api import ApiModel
from embedlab.models.load import load_model, public_name
from embedlab.models.save import save_model
from tests.conftest import TEXTS, tiny_model

SECRET = "a-very-secret-key-0123456789"
LONG = "a private text about many things " * 20


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    path = tmp_path_factory.mktemp("models") / "tiny"
    save_model(tiny_model(layers=4), path)
    return path


@pytest.fixture
def process(folder):
    """A server on a free port: (process, address)."""
    arguments = [sys.executable, "-m", "embedlab.cli", "serve", str(folder), "--port", "0"]
    environment = {**os.environ, KEY_VARIABLE: SECRET}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE, "text": True, "env": environment}
    with subprocess.Popen(arguments, **pipes) as running:
        line = running.stdout.readline()
        assert line.startswith("tiny on http://127.0.0.1:"), running.communicate()
        try:
            yield running, line.split()[2]
        finally:
            running.kill()


def test_from_start_to_sigterm(process, folder, monkeypatch):
    running, url = process
    endpoint = ApiModel.parse(f"openai:tiny@{url}")
    monkeypatch.setenv("OPENAI_API_KEY", "wrong")
    with pytest.raises(ModelError, match="HTTP 401") as refused:
        endpoint.encode(["a"])
    monkeypatch.setenv("OPENAI_API_KEY", SECRET)
    texts = [*TEXTS, "", "two words", "☃ unheard of"] * 30  # more than one batch of the client
    expected = load_model(str(folder)).encode([text.strip() or " " for text in texts], normalize_embeddings=True)
    assert np.abs(endpoint.encode(texts) - expected).max() <= 1e-6
    with pytest.raises(ModelError, match="has the model 'tiny' and no other"):
        ApiModel.parse(f"openai:other@{url}").encode(["a"])

    options = {"headers": {"Authorization": f"Bearer {SECRET}"}, "timeout": 60, "trust_env": False}
    with httpx.Client(**options) as client, ThreadPoolExecutor(1) as pool:
        last = pool.submit(client.post, f"{url}/embeddings", json={"input": [LONG] * 1000})
        page = "embedlab_waiting_texts 0.0"
        while "embedlab_waiting_texts 0.0" in page and not last.done():
            page = client.get(url.replace("/v1", "/metrics")).text
        running.send_signal(signal.SIGTERM)
        assert not last.done()
        assert len(last.result().json()["data"]) == 1000
    stdout, stderr = running.communicate(timeout=60)
    assert running.returncode == 0
    for output in (stdout, stderr, page, str(refused.value)):
        assert SECRET not in output and "private" not in output and "Traceback" not in output
    with pytest.raises(OSError):
        socket.create_connection(("127.0.0.1", int(url.split(":")[2].split("/")[0])), timeout=5)


def test_an_address_in_use_is_an_error_before_the_model_is_loaded():
    with server.bound_socket("127.0.0.1", 0) as first:
        first.listen()
        port = first.getsockname()[1]
        with pytest.raises(ParameterError, match=f"cannot listen on 127.0.0.1:{port} .*--port"):
            server.bound_socket("127.0.0.1", port)


@pytest.mark.parametrize("host", ["no.such.host.invalid", "256.1.1.1", "a" * 300, "bad\x00host"])
def test_an_impossible_address(host):
    with pytest.raises(ParameterError, match="cannot listen"):
        server.bound_socket(host, 0)


def test_addresses_as_clients_write_them():
    with server.bound_socket("localhost", 0) as listener:
        assert server.open_url(listener) in (
            f"http://{host}:{listener.getsockname()[1]}" for host in ("127.0.0.1", "[::1]")
        )


def test_without_the_packages_the_extra_is_named(monkeypatch):
    find = importlib.util.find_spec
    monkeypatch.setattr(importlib.util, "find_spec", lambda name: None if name == "uvicorn" else find(name))
    with pytest.raises(EmbedlabError, match=r"uvicorn not installed.*embedlab\[serve\]"):
        server.require_installed()


def test_the_options_have_the_limits_of_the_server():
    names = {"timeout": "timeout_s"}
    parameters = inspect.signature(command.serve).parameters
    for name in ("batch_tokens", "max_texts", "max_bytes", "max_requests", "max_waiting", "timeout"):
        assert parameters[name].default == getattr(EndpointSettings(), names.get(name, name)), name


def test_names_for_clients(tmp_path):
    (tmp_path / "run-1/model").mkdir(parents=True)
    assert public_name(str(tmp_path / "run-1/model")) == "run-1"
    assert public_name(str(tmp_path)) == tmp_path.name
    assert public_name("all-MiniLM-L6-v2") == "sentence-transformers/all-MiniLM-L6-v2"
