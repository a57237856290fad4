"""Several processes that train one model: they share the forward passes of every batch and average their gradients.

Every process draws the same batches, so data order, steps and schedule are those of one process. In a training step
the model encodes only this process's share of the texts (`sharing`). The embeddings of all processes are then gathered
with their gradients. So a loss sees the embeddings of the whole batch, whatever it does with them: in-batch negatives,
masks, Matryoshka dimensions, GradCache. The gradient is that of one process up to rounding.

Outside of a group every function here does what one process needs: nothing.
"""

from __future__ import annotations

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from datetime import timedelta
from itertools import pairwise
from pathlib import Path
from typing import Any, TypeVar

import torch
import torch.distributed as dist
from torch import Tensor, nn

Result = TypeVar("Result")

BUCKET = 2**24  # gradients that travel in one message; each message needs memory of its size
TIMEOUT = timedelta(days=30)  # one process may evaluate or mine for hours; the launcher ends a group with a dead one
_CPU = torch.device("cpu")


def join(folder: Path, rank: int, size: int, *, cuda: bool) -> None:
    """Make this process a member of a group; waits for all members.

    Args:
        folder: where the members find each other.
        rank: number of this process, from 0.
        size: number of processes.
        cuda: whether models are on GPUs.
    """
    backend = "cpu:gloo,cuda:nccl" if cuda else "gloo"
    dist.init_process_group(
        backend, init_method=f"file://{folder / 'members'}", rank=rank, world_size=size, timeout=TIMEOUT
    )


def leave() -> None:
    """Leave the group."""
    if dist.is_initialized():
        dist.destroy_process_group()


def size() -> int:
    """Number of processes; 1 outside of a group."""
    return dist.get_world_size() if dist.is_available() and dist.is_initialized() else 1


def rank() -> int:
    """Number of this process, from 0. The first one evaluates, reports and writes files."""
    return dist.get_rank() if size() > 1 else 0


def wait() -> None:
    """Wait until all processes are here."""
    if size() > 1:
        dist.all_reduce(torch.zeros(1))


def from_first(compute: Callable[[], Result]) -> Result:
    """Call `compute` in the first process only; every process gets its result."""
    if size() == 1:
        return compute()
    box = [compute() if rank() == 0 else None]
    dist.broadcast_object_list(box, src=0, device=_CPU)
    return box[0]  # type: ignore[return-value] # set by the first process


def require_equal(value: int | str, name: str) -> None:
    """Check that all processes have the same value: different batches or weights would train on silently.

    Raises:
        RuntimeError: they differ.
    """
    if size() == 1:
        return
    values: list[Any] = [None] * size()
    dist.all_gather_object(values, value)
    if len(set(values)) > 1:
        raise RuntimeError(f"the processes of this training have different {name}: {values}")


def average(value: Tensor) -> Tensor:
    """Return the mean of a tensor over all processes, without gradient."""
    if size() == 1:
        return value
    total = value.detach().clone()
    dist.all_reduce(total)
    return total / size()


class _Gather(torch.autograd.Function):
    """Concatenate the rows of all processes.

    Every process computes the same loss from the result, and `average_gradients` takes the mean over processes. So the
    gradient of a process's own rows counts `size` times.
    """

    @staticmethod
    def forward(ctx: Any, rows: Tensor, counts: Sequence[int]) -> Tensor:
        """Return (sum of counts, …) rows in the order of the processes."""
        ctx.start, ctx.count = sum(counts[: rank()]), counts[rank()]
        message = rows.new_zeros(max(counts), *rows.shape[1:])  # messages must have the same length
        message[: len(rows)] = rows
        messages = [torch.empty_like(message) for _ in counts]
        dist.all_gather(messages, message)
        return torch.cat([received[:count] for received, count in zip(messages, counts, strict=True)])

    @staticmethod
    def backward(ctx: Any, *gradients: Tensor) -> tuple[Tensor, None]:
        """Return the gradient of the own rows."""
        return gradients[0].narrow(0, ctx.start, ctx.count) * size(), None


def average_gradients(parameters: Iterable[nn.Parameter]) -> None:
    """Replace every gradient by its mean over all processes.

    A parameter without a gradient in some processes counts as 0 there; without one in all of them, it keeps none, as
    AdamW would decay it otherwise.
    """
    if size() == 1:
        return
    trained = [parameter for parameter in parameters if parameter.requires_grad]
    used = torch.tensor([parameter.grad is not None for parameter in trained], dtype=torch.int32)
    dist.all_reduce(used)
    gradients = []
    for parameter, count in zip(trained, used.tolist(), strict=True):
        if count:
            parameter.grad = torch.zeros_like(parameter) if parameter.grad is None else parameter.grad
            gradients.append(parameter.grad)
    for bucket in _buckets(gradients):
        flat = torch.cat([gradient.flatten() for gradient in bucket])
        dist.all_reduce(flat)
        flat /= size()
        for gradient, mean in zip(bucket, flat.split([gradient.numel() for gradient in bucket]), strict=True):
            gradient.copy_(mean.view_as(gradient))


def _buckets(tensors: Iterable[Tensor]) -> Iterator[list[Tensor]]:
    """Group neighbours of one type into messages of about `BUCKET` values."""
    bucket: list[Tensor] = []
    for tensor in tensors:
        full = sum(other.numel() for other in bucket) + tensor.numel() > BUCKET
        if bucket and (full or tensor.dtype != bucket[0].dtype):
            yield bucket
            bucket = []
        bucket.append(tensor)
    if bucket:
        yield bucket


@dataclass(frozen=True)
class Share:
    """The texts of a batch that this process encodes.

    Attributes:
        features: their features. A process without texts gets the first one, because a model cannot encode none.
        bounds: (size + 1,) where the share of each process begins, in texts; the last entry is the number of texts.
        tokens: where this process's tokens lie in a packed batch or a batch of token bags; None if padded.
    """

    features: dict[str, Any]
    bounds: list[int]
    tokens: slice | None = None

    @property
    def texts(self) -> slice:
        """Where this process's texts lie in the batch; empty if it has none."""
        return slice(*self.bounds[rank() : rank() + 2])

    def of_tokens(self, values: Tensor) -> Tensor:
        """Return this process's part of values in the layout of `input_ids`: (tokens,) if packed, else (B, length)."""
        return values[self.texts if self.tokens is None else self.tokens]

    def gather(self, rows: Tensor) -> Tensor:
        """Concatenate the rows (own texts, d) of all processes to (texts, d)."""
        own_rows = rows[: self.texts.stop - self.texts.start]
        counts = [end - start for start, end in pairwise(self.bounds)]
        gathered: Tensor = _Gather.apply(own_rows, counts)  # type: ignore[no-untyped-call] # of torch
        return gathered


def share_of(features: Mapping[str, Any]) -> Share:
    """Cut this process's share out of the features of a batch, which may be padded, packed or token bags."""
    if "cu_seq_lens_q" in features:
        return _packed_share(features)
    if "offsets" in features:
        return _bag_share(features)
    count = len(features["input_ids"])
    bounds = [count * number // size() for number in range(size() + 1)]
    texts = _at_least_one(bounds)
    per_text = {key for key, value in features.items() if isinstance(value, Tensor) and value.shape[:1] == (count,)}
    return Share({key: value[texts] if key in per_text else value for key, value in features.items()}, bounds)


def _at_least_one(bounds: Sequence[int]) -> slice:
    start, stop = bounds[rank()], bounds[rank() + 1]
    return slice(start, stop) if stop > start else slice(0, 1)


def _balanced(ends: Sequence[int]) -> list[int]:
    """Cut texts into one share per process with about the same number of tokens.

    Args:
        ends: (texts + 1,) where each text begins; the last entry is the number of tokens.

    Returns:
        (size + 1,) where each share begins, in texts.
    """
    starts = torch.tensor(ends[:-1], dtype=torch.double)
    cuts = torch.tensor([ends[-1] * number / size() for number in range(1, size())], dtype=torch.double)
    return [0, *torch.searchsorted(starts, cuts).tolist(), len(ends) - 1]


def _packed_share(features: Mapping[str, Any]) -> Share:
    ends = features["cu_seq_lens_q"].tolist()
    bounds = _balanced(ends)
    texts = _at_least_one(bounds)
    tokens = slice(ends[texts.start], ends[texts.stop])
    boundaries = features["cu_seq_lens_q"][texts.start : texts.stop + 1] - ends[texts.start]
    longest = max(end - start for start, end in pairwise(ends[texts.start : texts.stop + 1]))
    cut = {key: value[:, tokens] if _is_per_token(value, ends[-1]) else value for key, value in features.items()}
    cut |= dict.fromkeys(("cu_seq_lens_q", "cu_seq_lens_k"), boundaries)
    cut |= dict.fromkeys(("max_length_q", "max_length_k"), longest)
    if "seq_idx" in cut:
        cut["seq_idx"] = cut["seq_idx"] - texts.start
    return Share(cut, bounds, slice(ends[bounds[rank()]], ends[bounds[rank() + 1]]))


def _is_per_token(value: Any, tokens: int) -> bool:
    return isinstance(value, Tensor) and value.shape == (1, tokens)


def _bag_share(features: Mapping[str, Any]) -> Share:
    ends = [*features["offsets"].tolist(), len(features["input_ids"])]
    bounds = _balanced(ends)
    texts = _at_least_one(bounds)
    cut = {"input_ids": features["input_ids"][ends[texts.start] : ends[texts.stop]]}
    cut["offsets"] = features["offsets"][texts] - ends[texts.start]
    return Share({**features, **cut}, bounds, slice(ends[bounds[rank()]], ends[bounds[rank() + 1]]))


SHARE = "share"  # key of the share in what a shared forward pass returns


def whole(rows: Tensor, output: Mapping[str, Any]) -> Tensor:
    """Return the rows of all texts, (texts, d).

    Args:
        rows: one per text of this process, computed from `output`.
        output: what a forward pass returned; if it was not shared, the rows are those of all texts already.
    """
    return output[SHARE].gather(rows) if SHARE in output else rows


_shared: list[nn.Module] = []  # the model whose forward passes are shared at the moment


def own_share(model: nn.Module, features: Mapping[str, Any]) -> Share | None:
    """Return this process's share of a batch, for losses that need more of the model than sentence embeddings.

    Such a loss returns the `share_of_mean` of this share.

    Returns:
        None if the forward passes of `model` are not shared: outside of a training step, or without a group.
    """
    return share_of(features) if any(shared is model for shared in _shared) else None


def share_of_mean(mean: Callable[[], Tensor], own_count: int, count: int) -> Tensor:
    """Return this process's part of a mean, so that the mean over all processes is the mean over the whole batch.

    Args:
        mean: computes the mean over this process's values, without the other processes.
        own_count: number of its values.
        count: number of values of all processes.
    """
    if not own_count:
        return torch.zeros((), device=next(_shared[-1].parameters()).device, requires_grad=True)
    shared = _shared[:]
    _shared.clear()
    try:
        return mean() * (size() * own_count / count)
    finally:
        _shared.extend(shared)


@contextmanager
def sharing(model: nn.Module) -> Iterator[None]:
    """Share the forward passes of `model` inside the block: each process encodes a part of the texts.

    `model(features)` returns the `sentence_embedding` of all texts. What it returns besides, such as token embeddings,
    belongs to this process's texts only; `whole` gathers what is computed from it.
    """
    if size() == 1:
        yield
        return
    pending: list[Share] = []

    def cut(module: nn.Module, arguments: tuple[Any, ...]) -> tuple[Any, ...] | None:
        if (share := own_share(module, arguments[0])) is None:
            return None
        pending.append(share)
        return (share.features, *arguments[1:])

    def gather(module: nn.Module, arguments: tuple[Any, ...], output: dict[str, Any]) -> dict[str, Any]:
        if not pending:
            return output
        share = pending.pop()
        return {**output, "sentence_embedding": share.gather(output["sentence_embedding"]), SHARE: share}

    hooks = (model.register_forward_pre_hook(cut), model.register_forward_hook(gather))
    _shared.append(model)
    try:
        yield
    finally:
        _shared.remove(model)
        for hook in hooks:
            hook.remove()
