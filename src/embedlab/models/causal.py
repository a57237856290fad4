"""A causal language model in this process that writes queries: a Hugging Face folder, a hub name or a GGUF file."""

from __future__ import annotations

import json
from collections.abc import Callable, Sequence
from dataclasses import dataclass, field
from functools import cached_property
from os.path import commonprefix
from pathlib import Path
from threading import Lock
from typing import TYPE_CHECKING, Any, TypeVar

from embedlab.data.chat import UnusableAnswerError, keep_answer, kept_answer
from embedlab.errors import ModelError

if TYPE_CHECKING:
    import torch

Answer = TypeVar("Answer")
Parse = Callable[[str], Answer]
LINE_TOKENS = 32  # of the first line of a continuation, a query
TOP_K, TOP_P = 64, 0.95  # the tokens that sampling chooses from


@dataclass
class CausalModel:
    """A language model that answers prompts, as `chat.Chat` does; answers are kept on disk.

    A model with a chat template gets a prompt as the user's message. Any other model continues it: the first lines of
    `sequences` continuations are its answer, as a JSON array. An answer depends on its own prompt and seed, not on the
    batch (up to rounding).

    Attributes:
        model: folder, hub name, or a `.gguf` file.
        sequences: continuations per prompt, for a model without a chat template.
        temperature: sampling temperature; 0 always takes the most likely token.
        max_tokens: longest answer; a continuation has at most 32 tokens.
        attempts: attempts per prompt, each with another seed.
        seed: of the sampling.
        folder: where answers are kept; `paths.cache_dir()/chat` by default.
        batch_size: prompts that are answered together.
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
    batch_size: int = 16
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
        """The model in float32 and its tokenizer, which pads on the left.

        Raises:
            ModelError: it cannot be loaded.
        """
        import torch
        from transformers import AutoModelForCausalLM, AutoTokenizer

        path = Path(self.model).expanduser()
        options: dict[str, Any] = {}
        source = str(path) if path.exists() else self.model
        if path.suffix == ".gguf":
            source, options = str(path.parent), {"gguf_file": path.name}
        try:
            tokenizer = AutoTokenizer.from_pretrained(source, padding_side="left", **options)
            model = AutoModelForCausalLM.from_pretrained(source, dtype=torch.float32, **options).eval()
        except Exception as error:  # of the library and those that it calls
            reason = (str(error).splitlines() or [type(error).__name__])[0]
            remedy = "Name a folder, a hub name or a .gguf file, for which the package gguf is needed."
            problem = f"the language model {self.model!r} cannot be loaded: {reason}"
            raise ModelError(problem, remedy=remedy, field="model") from error
        if tokenizer.pad_token_id is None:
            tokenizer.pad_token = tokenizer.eos_token
        return model, tokenizer

    @cached_property
    def _ends(self) -> list[int]:
        """The tokens that end an answer; for a model that continues texts, those with a line break too."""
        model, tokenizer = self._loaded
        end_ids = model.generation_config.eos_token_id
        ends = [] if end_ids is None else [end_ids] if isinstance(end_ids, int) else list(end_ids)
        if self.follows_instructions:
            return ends
        texts = tokenizer.batch_decode([[token] for token in range(len(tokenizer))])
        return ends + [token for token, text in enumerate(texts) if "\n" in text]

    def ask(self, prompt: str, parse: Parse[Answer]) -> Answer:
        """Return the parsed answer to a prompt, from disk if it was asked before.

        Args:
            prompt: the user's message, or the text to continue.
            parse: turns the text of an answer into a value, or raises `UnusableAnswerError` to ask again.

        Raises:
            UnusableAnswerError: no usable answer after all attempts.
            ModelError: the model cannot be loaded.
        """
        (answer,) = self.ask_all([(prompt, parse)])
        if isinstance(answer, UnusableAnswerError):
            raise answer
        return answer

    def ask_all(self, questions: Sequence[tuple[str, Parse[Answer]]]) -> list[Answer | UnusableAnswerError]:
        """Answer prompts together.

        Args:
            questions: prompts and their `parse`, see `ask`.

        Returns:
            A value per question, or the reason why there is none.

        Raises:
            ModelError: the model cannot be loaded.
        """
        answers: list[Answer | UnusableAnswerError | None] = [
            kept_answer(self._settings(prompt), parse, self.folder) for prompt, parse in questions
        ]
        waiting = [number for number, answer in enumerate(answers) if answer is None]
        for number in waiting:
            answers[number] = self._too_long(questions[number][0])
        waiting = [number for number in waiting if answers[number] is None]
        for attempt in range(self.attempts):
            texts = self._generate([questions[number][0] for number in waiting], self.seed + attempt)
            for number, text in zip(waiting, texts, strict=True):
                prompt, parse = questions[number]
                try:
                    answers[number] = parse(text)
                    note = {"model": self.model, "prompt": prompt}
                    keep_answer(self._settings(prompt), text, note, self.folder)
                except UnusableAnswerError as error:
                    problem = f"no usable answer after {self.attempts} attempts: {error}"
                    answers[number] = UnusableAnswerError(problem)
            waiting = [number for number in waiting if isinstance(answers[number], UnusableAnswerError)]
        return [UnusableAnswerError("nobody was asked") if answer is None else answer for answer in answers]

    def _settings(self, prompt: str) -> list[Any]:
        """Everything that an answer depends on."""
        return [self.model, self.sequences, self.temperature, self.max_tokens, self.seed, prompt]

    def _written(self, prompt: str) -> str:
        """The prompt as the model reads it."""
        if not self.follows_instructions:
            return prompt
        messages = [{"role": "user", "content": prompt}]
        return str(self._loaded[1].apply_chat_template(messages, tokenize=False, add_generation_prompt=True))

    def _too_long(self, prompt: str) -> UnusableAnswerError | None:
        model, tokenizer = self._loaded
        room = model.config.get_text_config().max_position_embeddings - self.max_tokens
        tokens = len(tokenizer(self._written(prompt))["input_ids"])
        return UnusableAnswerError(f"the prompt has {tokens} tokens, more than {room}") if tokens > room else None

    def _generate(self, prompts: Sequence[str], seed: int) -> list[str]:
        """The answers of a chat model, or the first lines of continuations as JSON arrays."""
        import torch

        if not prompts:
            return []
        model, tokenizer = self._loaded
        count = 1 if self.follows_instructions else self.sequences
        rows = tokenizer([self._written(prompt) for prompt in prompts])["input_ids"]
        seeds = [f"{seed}:{number}:{prompt}" for prompt in prompts for number in range(count)]
        with self._lock, torch.inference_mode():
            self.calls += len(prompts)
            inputs = self._read_start(rows, count)
            outputs = model.generate(
                **inputs,
                max_new_tokens=self.max_tokens if self.follows_instructions else min(self.max_tokens, LINE_TOKENS),
                do_sample=False,
                logits_processor=[_Draw(seeds, self.temperature)] if self.temperature else None,
                eos_token_id=self._ends or None,
                pad_token_id=tokenizer.pad_token_id,
            )
        texts = tokenizer.batch_decode(outputs[:, inputs["input_ids"].shape[1] :], skip_special_tokens=True)
        if self.follows_instructions:
            return [str(text) for text in texts]
        lines = [(text.strip().splitlines() or [""])[0] for text in texts]
        groups = [lines[start : start + count] for start in range(0, len(lines), count)]
        return [json.dumps(group, ensure_ascii=False) for group in groups]

    def _read_start(self, rows: list[list[int]], count: int) -> dict[str, Any]:
        """Return the input of `generate` for tokens of prompts: `count` rows for each, padded on the left.

        What all prompts have in common, such as the examples, is read once: the padding comes after it.
        """
        import torch

        model, tokenizer = self._loaded
        shared = min(len(commonprefix(rows)), min(map(len, rows)) - 1) if len(rows) > 1 else 0
        rest = tokenizer.pad({"input_ids": [row[shared:] for row in rows]}, return_tensors="pt").to(model.device)
        start = torch.tensor([rows[0][:shared]], dtype=torch.long, device=model.device)
        ids = torch.cat([start.expand(len(rows), -1), rest["input_ids"]], dim=1)
        mask = torch.cat([torch.ones_like(start).expand(len(rows), -1), rest["attention_mask"]], dim=1)
        inputs = {"input_ids": ids, "attention_mask": mask}
        inputs = {name: values.repeat_interleave(count, dim=0) for name, values in inputs.items()}
        if shared:
            cache = model(input_ids=start, use_cache=True).past_key_values
            cache.batch_repeat_interleave(len(rows) * count)
            inputs["past_key_values"] = cache
        return inputs


class _Draw:
    """Draws the next token of each row with the row's own random numbers, so that no row depends on the others.

    Args:
        seeds: one per row.
        temperature: greater than 0.
    """

    def __init__(self, seeds: Sequence[str], temperature: float) -> None:
        import random

        self.rows, self.temperature = [random.Random(seed) for seed in seeds], temperature

    def __call__(self, input_ids: torch.Tensor, scores: torch.Tensor) -> torch.Tensor:
        """Return scores (rows, vocabulary) in which only the drawn token is possible."""
        import torch

        best, tokens = (scores / self.temperature).topk(min(TOP_K, scores.shape[1]))
        shares = best.softmax(dim=1)
        below = shares.cumsum(dim=1) - shares  # of the tokens that are more likely
        shares = shares.masked_fill(below >= TOP_P, 0.0).cumsum(dim=1)
        draws = torch.tensor([[row.random()] for row in self.rows], device=scores.device) * shares[:, -1:]
        chosen = tokens.gather(1, (shares > draws).int().argmax(dim=1, keepdim=True))
        return torch.full_like(scores, float("-inf")).scatter(1, chosen, 0.0)
