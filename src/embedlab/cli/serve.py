"""`embedlab serve MODEL`: an embeddings endpoint."""

from __future__ import annotations

from typing import Annotated

import typer

from embedlab.cli.console import out
from embedlab.cli.options import number

LOCAL = ("127.0.0.1", "::1", "localhost")
INPUT_TYPE_HELP = "query, document or text: what texts are if a request does not say it"

Model = Annotated[str, typer.Argument(help="short name, folder or hub name")]
Host = Annotated[str, typer.Option(help="address to listen on; the default is this machine only")]
Port = Annotated[int, typer.Option(help="0: any free port", callback=number(at_least=0, below=65536))]
Name = Annotated[str, typer.Option(help="name for clients; default: the model's")]
InputType = Annotated[str, typer.Option(help=INPUT_TYPE_HELP)]
BatchTokens = Annotated[int, typer.Option(help="tokens that are encoded together", callback=number(at_least=1))]
MaxTexts = Annotated[int, typer.Option(help="texts in a request", callback=number(at_least=1))]
MaxBytes = Annotated[int, typer.Option(help="bytes of a request", callback=number(at_least=1024))]
MaxRequests = Annotated[int, typer.Option(help="requests at the same time", callback=number(at_least=1))]
MaxWaiting = Annotated[int, typer.Option(help="texts that may wait", callback=number(at_least=1))]
Timeout = Annotated[float, typer.Option(help="most seconds for a request", callback=number(above=0))]


def serve(
    model: Model,
    host: Host = "127.0.0.1",
    port: Port = 8080,
    name: Name = "",
    input_type: InputType = "",
    batch_tokens: BatchTokens = 4096,
    max_texts: MaxTexts = 2048,
    max_bytes: MaxBytes = 4 << 20,
    max_requests: MaxRequests = 256,
    max_waiting: MaxWaiting = 8192,
    timeout: Timeout = 60,
) -> None:
    """Serve a model over HTTP with OpenAI's embeddings protocol and the /embed of text-embeddings-inference.

    Clients must send the key in the environment variable EMBEDLAB_SERVE_KEY, if it is set.
    """
    from embedlab.deploy.endpoint import server
    from embedlab.deploy.endpoint.settings import KEY_VARIABLE, EndpointSettings, Key

    server.require_installed()
    key = Key.from_environment()
    sizes = {"batch_tokens": batch_tokens, "max_texts": max_texts, "max_bytes": max_bytes}
    queue = {"max_requests": max_requests, "max_waiting": max_waiting, "timeout_s": float(timeout)}
    settings = EndpointSettings.checked({"input_type": input_type or None, **sizes, **queue})
    listener = server.bound_socket(host, port)
    served = server.load(model, name, settings)
    if key is None and host not in LOCAL:
        out.print(f"Warning: everybody who reaches this machine can use the server. Set {KEY_VARIABLE}.")
    out.print(
        f"{served.name} on {server.open_url(listener)}/v1 · {served.dimension} dimensions, space "
        f"{served.space.fingerprint} · Ctrl-C stops",
        highlight=False,
        soft_wrap=True,
        markup=False,
    )
    server.run(served, listener, settings, key)
