"""Serve a model over HTTP: OpenAI's `/v1/embeddings` and the `/embed` of text-embeddings-inference."""
