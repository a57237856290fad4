"""A plain FastAPI application around `SentenceTransformer.encode`, as a first version is usually written.

`python -m experiments.benchmarks.stock_server` serves the base model on a free port and prints its address.
"""

from __future__ import annotations

import uvicorn
from fastapi import FastAPI
from pydantic import BaseModel

from embedlab.deploy.endpoint.server import bound_socket, open_url
from experiments.benchmarks.workloads import stock_model


class Body(BaseModel):
    """A request with one text."""

    input: str


def build_app() -> FastAPI:
    """Return the application. FastAPI runs a plain function in one of 40 threads, so requests run at the same time."""
    app, model = FastAPI(), stock_model()

    @app.post("/v1/embeddings")
    def embeddings(body: Body):
        vector = model.encode(body.input, normalize_embeddings=True, show_progress_bar=False)
        return {"data": [{"index": 0, "embedding": vector.tolist()}]}

    return app


if __name__ == "__main__":
    listener = bound_socket("127.0.0.1", 0)
    application = build_app()
    print(f"stock on {open_url(listener)}/v1", flush=True)
    uvicorn.Server(uvicorn.Config(application, log_level="warning", access_log=False)).run(sockets=[listener])
