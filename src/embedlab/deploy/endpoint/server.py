"""Run the application with uvicorn until a signal ends it; requests that are running get their answer first."""

from __future__ import annotations

import importlib.util
import math
import os
import signal
import socket
from collections.abc import Iterator
from contextlib import contextmanager
from typing import TYPE_CHECKING

from embedlab.errors import EmbedlabError, ParameterError
from embedlab.progress import ENVIRONMENT_NAME

if TYPE_CHECKING:
    import uvicorn

    from embedlab.deploy.endpoint.roles import ServedModel
    from embedlab.deploy.endpoint.settings import EndpointSettings, Key

PACKAGES = ("fastapi", "uvicorn", "prometheus_client")


def require_installed() -> None:
    """Check that the packages of the extra `serve` are installed.

    Raises:
        EmbedlabError: they are not.
    """
    if missing := [name for name in PACKAGES if importlib.util.find_spec(name) is None]:
        remedy = "Install what serving needs: pip install 'embedlab[serve]'"
        raise EmbedlabError(f"{', '.join(missing)} not installed", remedy=remedy)


def bound_socket(host: str, port: int) -> socket.socket:
    """Reserve an address, so that a wrong one is an error before a model is loaded.

    Args:
        host: name or address of this machine; 127.0.0.1 for this machine only.
        port: 0 for any that is free.

    Raises:
        ParameterError: the address is unknown or in use, or the port needs more rights.
    """
    listener = None
    try:
        family, kind, _, _, address = socket.getaddrinfo(host or None, port, type=socket.SOCK_STREAM)[0]
        listener = socket.socket(family, kind)
        listener.setsockopt(socket.SOL_SOCKET, socket.SO_REUSEADDR, 1)
        listener.bind(address)
    except (OSError, UnicodeError, OverflowError) as error:
        if listener is not None:
            listener.close()
        problem = f"cannot listen on {host}:{port} ({getattr(error, 'strerror', None) or error})"
        raise ParameterError(problem, remedy="Choose another --host or --port", field="--port") from None
    return listener


def open_url(listener: socket.socket) -> str:
    """Let clients connect, and return the address as they write it. They are answered once `run` is called."""
    listener.listen()
    host, port = listener.getsockname()[:2]
    return f"http://[{host}]:{port}" if listener.family == socket.AF_INET6 else f"http://{host}:{port}"


def load(model: str, name: str, settings: EndpointSettings) -> ServedModel:
    """Load a model for serving.

    Args:
        model: as for `load_model`.
        name: that clients know it by; the model's own if empty.
        settings: its `input_type` is checked.

    Raises:
        ModelError: the model cannot be loaded.
        ParameterError: it cannot encode such texts.
    """
    from embedlab.deploy.endpoint.roles import ServedModel
    from embedlab.models.load import load_model, public_name
    from embedlab.models.names import ModelName

    loaded = load_model(model)
    return ServedModel(loaded, name or public_name(ModelName.parse(model).name), settings.input_type)


def run(model: ServedModel, listener: socket.socket, settings: EndpointSettings, key: Key | None) -> None:
    """Serve until SIGTERM or Ctrl-C. New connections are then refused, and running requests get their answer.

    Args:
        model: from `load`.
        listener: from `bound_socket`.
        settings: limits; after a signal, a running request may still take as long as its timeout.
        key: that clients must send; None for none.
    """
    import uvicorn

    from embedlab.deploy.endpoint.app import build_app

    os.environ.setdefault(ENVIRONMENT_NAME, os.devnull)  # no progress bars
    config = uvicorn.Config(
        build_app(model, settings, key),
        log_config=None,
        log_level="warning",
        access_log=False,
        ws="none",
        lifespan="on",
        server_header=False,
        proxy_headers=False,
        timeout_graceful_shutdown=math.ceil(settings.timeout_s),
    )
    server = uvicorn.Server(config)
    with _signals_end(server):
        server.run(sockets=[listener])


@contextmanager
def _signals_end(server: uvicorn.Server) -> Iterator[None]:
    """Let SIGTERM and Ctrl-C end the server and nothing else, so that it returns as a command that has succeeded.

    uvicorn handles these signals while it runs. Before that they would be lost, and after its shutdown it raises them
    once more for the handlers that were there before.
    """

    def end(number: int, frame: object) -> None:
        server.should_exit = True

    before = {number: signal.signal(number, end) for number in (signal.SIGTERM, signal.SIGINT)}
    try:
        yield
    finally:
        for number, handler in before.items():
            signal.signal(number, handler or signal.SIG_DFL)
