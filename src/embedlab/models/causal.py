"""A causal language model in this process that writes queries: a Hugging Face folder, a hub name or a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Callable
from dataclasses import dataclass, field
from functools import cached_property, partial
from pathlib import Path
from threading import Lock
from typing import Any, TypeVar

from embedlab.data.chat import UnusableAnswerError, asked_once
from embedlab.errors import ModelError

Answer = TypeVar("Answer")
LINE_TOKENS = 32  # of the first line of a continuation, a query


@dataclass
class CausalModel:
    """A language model that answers prompts, as `chat.Chat` does; answers are kept on disk.

    A model with a chat template gets a prompt as the user's message. Any other model continues it: the first lines of
    `sequences` continuations are its answer, as a JSON array.

    Attributes:
        model: folder, hub name, or a `.gguf` file.
        sequences: continuations per prompt, for a model without a chat template.
        temperature: sampling temperature; 0 always takes the most likely token.
        max_tokens: longest answer; a continuation has at most 32 tokens.
        attempts: attempts per prompt, each with another seed.
        seed: of the sampling.
        folder: where answers are kept; `paths.cache_dir()/chat` by default.
        price_per_million: nothing is paid.
        calls: number of answers that were generated, not read from the disk.
    """

    model: str
    sequences: int = 3
    temperature: float = 0.8
    max_tokens: int = 256
    attempts: int = 4
    seed: int = 0
    folder: Path | None = None
    price_per_million: tuple[float, float] | None = (0.0, 0.0)
    calls: int = 0
    _lock: Lock = field(default_factory=Lock, init=False, repr=False)

    @property
    def cost(self) -> float | None:
        """Dollars spent: none."""
        return 0.0

    @property
    def follows_instructions(self) -> bool:
        """Whether the model has a chat template."""
        return bool(self._loaded[1].chat_template)

    @cached_property
    def _loaded(self) -> tuple[Any, Any]:
        """The model and its tokenizer.

        Raises:
            ModelError: it cannot be loaded.
        """
        from transformers import AutoModelForCausalLM, AutoTokenizer

        path = Path(self.model).expanduser()
        options: dict[str, Any] = {}
        source = str(path) if path.exists() else self.model
        if path.suffix == ".gguf":
            source, options = str(path.parent), {"gguf_file": path.name}
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, **options)
            model = AutoModelForCausalLM.from_pretrained(source, **options).eval()
        except Exception as error:  # of the library and those that it calls
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            remedy = "Name a folder, a hub name or a .gguf file, for which the package gguf is needed."
            problem = f"the language model {self.model!r} cannot be loaded: {reason}"
            raise ModelError(problem, remedy=remedy, field="model") from error
        return model, tokenizer

    def ask(self, prompt: str, parse: Callable[[str], Answer]) -> Answer:
        """Return the parsed answer to a prompt, from disk if it was asked before.

        Args:
            prompt: the user's message, or the text to continue.
            parse: turns the text of an answer into a value, or raises `UnusableAnswerError` to ask again.

        Raises:
            UnusableAnswerError: no usable answer after all attempts.
            ModelError: the model cannot be loaded.
        """
        settings = [self.model, self.sequences, self.temperature, self.max_tokens, self.seed, prompt]
        note = {"model": self.model, "prompt": prompt}
        return asked_once(settings, partial(self._ask_model, prompt, parse), parse, note, self.folder)

    def _ask_model(self, prompt: str, parse: Callable[[str], Answer]) -> tuple[str, Answer]:
        """Ask until an answer can be parsed; return its text and the parsed value."""
        problem = ""
        for attempt in range(self.attempts):
            text = self._generate(prompt, self.seed + attempt)
            try:
                return text, parse(text)
            except UnusableAnswerError as error:
                problem = str(error)
        raise UnusableAnswerError(f"no usable answer after {self.attempts} attempts: {problem}")

    def _generate(self, prompt: str, seed: int) -> str:
        """The answer of a chat model, or the first lines of continuations as a JSON array."""
        import torch

        model, tokenizer = self._loaded
        if self.follows_instructions:
            messages = [{"role": "user", "content": prompt}]
            prompt = tokenizer.apply_chat_template(messages, tokenize=False, add_generation_prompt=True)
        room = model.config.get_text_config().max_position_embeddings - self.max_tokens
        inputs = tokenizer(prompt, return_tensors="pt", truncation=False).to(model.device)
        if inputs["input_ids"].shape[1] > room:
            raise UnusableAnswerError(f"the prompt has {inputs['input_ids'].shape[1]} tokens, more than {room}")
        count = 1 if self.follows_instructions else self.sequences
        sampling = {"do_sample": True, "temperature": self.temperature, "top_p": 0.95} if self.temperature else {}
        with self._lock, torch.no_grad():
            self.calls += 1
            torch.manual_seed(seed)
            outputs = model.generate(
                input_ids=inputs["input_ids"],
                attention_mask=inputs["attention_mask"],
                max_new_tokens=self.max_tokens if self.follows_instructions else min(self.max_tokens, LINE_TOKENS),
                num_return_sequences=count,
                pad_token_id=tokenizer.pad_token_id if tokenizer.pad_token_id is not None else tokenizer.eos_token_id,
                **sampling,
            )
        texts = tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        if self.follows_instructions:
            return str(texts[0])
        return json.dumps([(text.strip().splitlines() or [""])[0] for text in texts], ensure_ascii=False)
