"""Ways to export a transformer in int8. `embedlab.models.onnx_int8` has the chosen one."""

from __future__ import annotations

import re
from collections.abc import Callable
from dataclasses import dataclass, field
from pathlib import Path
from typing import Any

import onnx
import torch
from onnxruntime.quantization import QuantType, quantize_dynamic
from onnxruntime.quantization.matmul_nbits_quantizer import MatMulNBitsQuantizer
from torch import Tensor, nn

from embedlab.models.onnx_int8 import Int8Linear, Int8Table, quantise
from embedlab.models.onnx_io import OPSET

Prepare = Callable[[nn.Module], None]
Convert = Callable[[Path, Path], None]
SCOPES = "pkg.torch.onnx.name_scopes"  # where the exporter writes which module a node comes from


@dataclass(frozen=True)
class Scheme:
    """One way to make a graph smaller.

    Attributes:
        name: in the table.
        prepare: changes the network before it is exported; None to export it as it is.
        convert: changes the exported file; None to keep it.
    """

    name: str
    prepare: Prepare | None = field(default=None, repr=False)
    convert: Convert | None = field(default=None, repr=False)


class AsymmetricLinear(Int8Linear):
    """`Int8Linear` whose inputs are rounded to 255 steps between the lowest and the largest value of their token."""

    def forward(self, inputs: Tensor) -> Tensor:
        weight, scales = self.get_buffer("weight"), self.get_buffer("scales")
        flat = inputs.reshape(-1, weight.shape[0]).float()
        lowest = flat.amin(dim=1)
        step = ((flat.amax(dim=1) - lowest) / 255).clamp(min=1e-30)
        rounded = ((flat - lowest.unsqueeze(1)) / step.unsqueeze(1)).round().to(torch.uint8)
        shape = (flat.shape[0], scales.shape[0])
        products = torch.onnx.ops.symbolic(
            "MatMulInteger", [rounded, weight], dtype=torch.int32, shape=shape, version=OPSET
        )
        offsets = lowest.unsqueeze(1) * (weight.float().sum(dim=0) * scales)
        outputs = products.float() * step.unsqueeze(1) * scales + offsets
        if self.bias is not None:
            outputs = outputs + self.bias
        return outputs.reshape(*inputs.shape[:-1], scales.shape[0])


def tables(network: nn.Module) -> None:
    """Quantise the word embeddings only."""
    for parent in list(network.modules()):
        for name, child in list(parent.named_children()):
            if type(child) is nn.Embedding and child.num_embeddings > 10_000:
                setattr(parent, name, Int8Table(child.weight))


def by_token(*, weight_steps: int = 127, skip: str = "", kind: type[Int8Linear] = Int8Linear) -> Prepare:
    """Return our quantisation with options: one scale per token for the inputs of a layer.

    Args:
        weight_steps: 127 for weights of 8 bits, 63 for 7.
        skip: regular expression; layers whose names match stay in fp32.
        kind: of the new layers.
    """

    def prepare(network: nn.Module) -> None:
        tables(network)
        for path, parent in list(network.named_modules()):
            for name, child in list(parent.named_children()):
                if type(child) is nn.Linear and not (skip and re.search(skip, f"{path}.{name}")):
                    setattr(parent, name, kind(child.weight, child.bias, weight_steps))

    return prepare


def dynamic(
    *, every: bool = False, per_channel: bool = True, bits: int = 8, unsigned: bool = False, skip: str = ""
) -> Convert:
    """Return onnxruntime's dynamic quantisation: one scale for the inputs of a layer in the whole batch.

    Args:
        every: quantise all operators that onnxruntime can, and not the products with weights only.
        per_channel: one scale per output of a layer, not one per layer.
        bits: of weights, 7 or 8.
        unsigned: uint8 for weights, asymmetric, not int8.
        skip: regular expression; layers whose names match stay in fp32.
    """

    def convert(source: Path, target: Path) -> None:
        graph = onnx.load(str(source))
        quantize_dynamic(
            graph,
            target,
            op_types_to_quantize=[] if every else ["MatMul"],
            per_channel=per_channel,
            reduce_range=bits == 7,
            weight_type=QuantType.QUInt8 if unsigned else QuantType.QInt8,
            nodes_to_exclude=_named(graph, skip) if skip else [],
            extra_options={"WeightSymmetric": False} if unsigned else {},
        )

    return convert


def blocks(size: int, *, weights_only: bool = False) -> Convert:
    """Return blockwise quantisation (`MatMulNBits`): one scale for `size` weights, and for as many inputs of a token.

    Args:
        size: values of a block.
        weights_only: multiply in fp32, so that the inputs are not rounded.
    """

    def convert(source: Path, target: Path) -> None:
        level = 1 if weights_only else 4
        process = MatMulNBitsQuantizer(
            onnx.load(str(source)), bits=8, block_size=size, is_symmetric=True, accuracy_level=level
        )
        process.process()
        process.model.save_model_to_file(str(target))

    return convert


def _named(graph: Any, pattern: str) -> list[str]:
    """Return the names of the nodes whose module matches a regular expression."""
    scopes = {
        node.name: next((entry.value for entry in node.metadata_props if entry.key == SCOPES), "")
        for node in graph.graph.node
    }
    return [name for name, scope in scopes.items() if re.search(pattern, scope)]


def schemes(layers: int) -> list[Scheme]:
    """Return all schemes for a BERT with so many layers."""
    ends, second = rf"layer\.(0|{layers - 1})\b", r"layer\.\d+\.output\.dense"
    return [
        Scheme("fp32"),
        Scheme("int8 embeddings, layers in fp32", tables),
        Scheme("onnxruntime dynamic, its defaults", None, dynamic(every=True, per_channel=False)),
        Scheme("onnxruntime dynamic, layers only", tables, dynamic(per_channel=False)),
        Scheme("onnxruntime dynamic, per channel", tables, dynamic()),
        Scheme("per channel, 7-bit weights", tables, dynamic(bits=7)),
        Scheme("per channel, asymmetric uint8 weights", tables, dynamic(unsigned=True)),
        Scheme("per channel, first and last layer in fp32", tables, dynamic(skip=ends)),
        Scheme("per channel, attention output in fp32", tables, dynamic(skip=r"attention\.output")),
        Scheme("blocks of 32", tables, blocks(32)),
        Scheme("blocks of 128", tables, blocks(128)),
        Scheme("blocks of 32, weights only", tables, blocks(32, weights_only=True)),
        Scheme("one scale per token, 8-bit weights", by_token()),
        Scheme("one scale per token, 7-bit weights (chosen)", quantise),
        Scheme("per token, 7 bits, asymmetric inputs", by_token(weight_steps=63, kind=AsymmetricLinear)),
        Scheme("per token, 7 bits, second feed-forward in fp32", by_token(weight_steps=63, skip=second)),
    ]
