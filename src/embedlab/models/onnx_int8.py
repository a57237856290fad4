"""Quantise a network to int8 before it is exported: embedding tables and linear layers.

Weights have one scale per token or per output of a layer. The inputs of a layer have one scale per token, computed
when the graph runs. onnxruntime's own dynamic quantisation has one scale for all tokens of a batch: it is less exact,
and the vector of a text depends on the other texts of its batch.

LLM.int8() (Dettmers et al., NeurIPS 2022) calls this vector-wise quantisation.
"""

from __future__ import annotations

import torch
import torch.nn.functional as F
from torch import Tensor, nn

from embedlab.models.onnx_io import OPSET

SMALLEST_TABLE = 1024  # rows; position and segment embeddings are small and are added to every token
WEIGHT_STEPS = 63
TINY = torch.finfo(torch.float32).tiny  # keeps the scale of a row of zeros above 0


def quantise(network: nn.Module) -> None:
    """Replace every large embedding table and every linear layer of a network by its int8 form, in place.

    Subclasses of `nn.Embedding` and `nn.Linear` stay: they compute something else.
    """
    tables: dict[int, Int8Table] = {}  # a table that two modules share stays one
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Linear:
                setattr(parent, name, Int8Linear(child.weight, child.bias))
            elif type(child) is nn.Embedding and child.num_embeddings >= SMALLEST_TABLE:
                setattr(parent, name, tables.setdefault(child.weight.data_ptr(), Int8Table(child.weight)))


class Int8Table(nn.Module):
    """An embedding table in int8 with one scale per row.

    A row is rounded to 255 steps between minus and plus its largest value.

    Args:
        weight: float (V, d).
    """

    def __init__(self, weight: Tensor) -> None:
        super().__init__()
        rows, scales = _rounded(weight, 127)
        self.register_buffer("rows", rows)
        self.register_buffer("scales", scales.unsqueeze(1))

    def forward(self, ids: Tensor) -> Tensor:
        """Return float32 (…, d) for int64 ids (…)."""
        rows, scales = F.embedding(ids, self.rows), F.embedding(ids, self.scales)  # type: ignore[arg-type]
        return rows.float() * scales


class Int8Linear(nn.Module):
    """A linear layer whose product runs in integers; only for export, PyTorch cannot run it.

    Inputs are rounded to 255 steps between minus and plus the largest value of their token. Weights are rounded to 127
    steps, 7 bits: on a CPU without VNNI, onnxruntime adds two products in 16 bits, which 8 bits would overflow.

    Args:
        weight: float (n, d).
        bias: float (n,), or None.
        weight_steps: largest rounded weight; 127 for 8 bits.
    """

    def __init__(self, weight: Tensor, bias: Tensor | None, weight_steps: int = WEIGHT_STEPS) -> None:
        super().__init__()
        rows, scales = _rounded(weight, weight_steps)
        self.register_buffer("weight", rows.T.contiguous())
        self.register_buffer("scales", scales)
        self.register_buffer("zero", torch.tensor(128, dtype=torch.uint8))
        self.register_buffer("bias", None if bias is None else bias.detach().float())

    def forward(self, inputs: Tensor) -> Tensor:
        """Return float32 (…, n) for (…, d)."""
        weight, scales, zero = self.get_buffer("weight"), self.get_buffer("scales"), self.get_buffer("zero")
        flat = inputs.reshape(-1, weight.shape[0]).float()
        largest = flat.abs().amax(dim=1).clamp(min=TINY) / 127
        steps = torch.onnx.ops.symbolic(
            "QuantizeLinear",
            [flat, largest, torch.full_like(largest, 128, dtype=torch.uint8)],
            {"axis": 0},
            dtype=torch.uint8,
            shape=flat.shape,
            version=OPSET,
        )
        products = torch.onnx.ops.symbolic(
            "MatMulInteger",
            [steps, weight, zero],
            dtype=torch.int32,
            shape=(flat.shape[0], scales.shape[0]),
            version=OPSET,
        )
        # One factor after the other: onnxruntime 1.32 takes the product of two scales for one number of all rows.
        outputs = products.float() * largest.unsqueeze(1) * scales
        if self.bias is not None:
            outputs = outputs + self.get_buffer("bias")
        return outputs.reshape(*inputs.shape[:-1], scales.shape[0])


def _rounded(weight: Tensor, steps: int) -> tuple[Tensor, Tensor]:
    """Round every row of (n, d) to whole numbers from -steps to steps: int8 (n, d) and float32 scales (n,)."""
    values = weight.detach().float()
    scales = values.abs().amax(dim=1).clamp(min=TINY * steps) / steps
    return (values / scales.unsqueeze(1)).round().to(torch.int8), scales
