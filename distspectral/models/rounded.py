"""A perceptron that learns in bfloat16 on a CPU: the products autocast would round, in fewer passes over memory.

There a step's time goes to passes over activations as much as to products. oneDNN rectifies a product as it writes it,
and rows are standardised and rounded while they lie in the cache; autograd knows the derivative of neither.

Shape letters: B rows, D features, E outputs.
"""

from __future__ import annotations

from collections.abc import Sequence
from typing import Any

import torch
from torch import Tensor

BLOCK_VALUES = 1 << 17
"""Numbers that are standardised and rounded at a time: half a mebibyte, which a core's own cache holds twice."""


def learns_rounded(rows: Tensor) -> bool:
    """Whether autograd follows a pass of such rows, and autocast rounds to bfloat16 what this CPU multiplies in it."""
    return (
        rows.device.type == "cpu"
        and torch.is_grad_enabled()
        and torch.is_autocast_enabled("cpu")
        and torch.get_autocast_dtype("cpu") == torch.bfloat16
        and torch.ops.mkldnn._is_mkldnn_bf16_supported()
    )


def rounded_outputs(rows: Tensor, mean: Tensor, scale: Tensor, parameters: Sequence[Tensor]) -> Tensor:
    """Return the outputs (B, E) bfloat16 of linear layers with a ReLU between one and the next.

    Args:
        rows: (B, D), standardised here.
        mean: (D,), without gradient.
        scale: (D,), without gradient.
        parameters: float32 weight and bias of each layer in turn.

    Gradient: flows to ``rows`` and the parameters, in the type of each; rounded to bfloat16 between layers and, as
    autocast does, before it reaches a parameter.
    """
    outputs: Tensor = _RoundedLayers.apply(rows, mean, scale, *parameters)  # type: ignore[no-untyped-call]
    return outputs


def _standardized(rows: Tensor, mean: Tensor, scale: Tensor) -> Tensor:
    """Return the rows (B, D), centred, scaled and rounded to bfloat16, a block at a time."""
    rounded = torch.empty(rows.shape, dtype=torch.bfloat16)
    size = max(BLOCK_VALUES // max(rows.shape[1], 1), 1)
    for whole, part in zip(torch.split(rows, size), torch.split(rounded, size), strict=True):
        part.copy_((whole - mean).div_(scale))
    return rounded


class _RoundedLayers(torch.autograd.Function):
    @staticmethod
    def forward(ctx: Any, rows: Tensor, mean: Tensor, scale: Tensor, *parameters: Tensor) -> Tensor:
        rounded = [parameter.to(torch.bfloat16) for parameter in parameters]
        weights, biases = rounded[::2], rounded[1::2]
        inputs = [_standardized(rows, mean, scale)]
        for weight, bias in zip(weights[:-1], biases[:-1], strict=True):
            inputs.append(torch.ops.mkldnn._linear_pointwise(inputs[-1], weight, bias, "relu", [], ""))
        outputs: Tensor = torch.ops.mkldnn._linear_pointwise(inputs[-1], weights[-1], biases[-1], "none", [], "")
        ctx.save_for_backward(scale, *weights, *inputs)
        ctx.rows_type = rows.dtype
        return outputs

    @staticmethod
    @torch.autograd.function.once_differentiable
    def backward(ctx: Any, gradient: Tensor) -> tuple[Tensor | None, ...]:
        scale, *saved = ctx.saved_tensors
        n_layers = len(saved) // 2
        weights, inputs = saved[:n_layers], saved[n_layers:]
        of_parameters: list[Tensor | None] = []
        of_rows = None
        for layer in reversed(range(n_layers)):
            if ctx.needs_input_grad[3]:
                of_parameters[:0] = [torch.mm(gradient.T, inputs[layer]).float(), gradient.sum(0).float()]
            if layer:
                gradient = torch.mm(gradient, weights[layer])
                gradient = torch.ops.aten.threshold_backward(gradient, inputs[layer], 0)
            elif ctx.needs_input_grad[0]:
                of_rows = (torch.mm(gradient, weights[0]) / scale).to(ctx.rows_type)
        return of_rows, None, None, *(of_parameters or (2 * n_layers) * [None])
