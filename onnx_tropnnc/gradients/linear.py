"""Gemm and MatMul.

Gemm     Y = alpha A' B' + beta C     dA' = alpha dY B'^T    dB' = alpha A'^T dY    dC = beta dY, summed
MatMul   Y = A B                      dA = dY B^T            dB = A^T dY            summed over what was broadcast
"""

import math

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.gradients.step import Gradients, Step

__all__ = ["RULES"]


def _gemm(step: Step) -> Gradients:
    a, b, dy, attributes = step.input(0), step.input(1), step.gradient, step.node.attributes
    turned_a, turned_b = (attributes.get_int(name, 0) for name in ("transA", "transB"))
    alpha, found = attributes.get_float("alpha", 1.0), {}

    def product(left: ir.Value, right: ir.Value, turned_left: int, turned_right: int) -> ir.Value:
        turns = {"alpha": alpha, "transA": turned_left, "transB": turned_right}
        return step.tape.op("Gemm", left, right, attributes=turns)

    if 0 in step.wanted:
        found[0] = product(b, dy, turned_b, 1) if turned_a else product(dy, b, 0, 1 - turned_b)
    if 1 in step.wanted:
        found[1] = product(dy, a, 1, turned_a) if turned_b else product(a, dy, 1 - turned_a, 0)
    if 2 in step.wanted:
        scaled = step.tape.scaled(dy, attributes.get_float("beta", 1.0))
        found[2] = step.tape.sum_to(scaled, step.shape(step.output), step.shape(step.input(2)))
    return found


def _matmul(step: Step) -> Gradients:
    """Write dA and dB; a vector counts as a matrix of one row (on the left) or of one column (on the right)."""
    tape, a, b = step.tape, step.input(0), step.input(1)
    shape_a, shape_b = step.shape(a), step.shape(b)
    full_a = (1, *shape_a) if len(shape_a) == 1 else shape_a
    full_b = (*shape_b, 1) if len(shape_b) == 1 else shape_b
    a = a if full_a == shape_a else tape.reshape(a, full_a)
    b = b if full_b == shape_b else tape.reshape(b, full_b)
    stack = np.broadcast_shapes(full_a[:-2], full_b[:-2])
    rows, inner, columns = full_a[-2], full_a[-1], full_b[-1]
    dy = step.gradient
    if (*stack, rows, columns) != step.shape(step.output):
        dy = tape.reshape(dy, (*stack, rows, columns))
    found = {}
    if 0 in step.wanted:
        found[0] = _fitted(step, tape.op("MatMul", dy, _turned(step, b, len(full_b))), (*stack, rows, inner), 0)
    if 1 in step.wanted and len(full_b) == 2 and len(full_a) > 2:
        # one product over all rows of the stack, instead of one for each matrix of it
        count = math.prod(full_a[:-1])
        flat_a, flat_dy = tape.reshape(a, (count, inner)), tape.reshape(dy, (count, columns))
        found[1] = _fitted(step, tape.op("Gemm", flat_a, flat_dy, attributes={"transA": 1}), full_b, 1)
    elif 1 in step.wanted:
        found[1] = _fitted(step, tape.op("MatMul", _turned(step, a, len(full_a)), dy), (*stack, inner, columns), 1)
    return found


def _turned(step: Step, value: ir.Value, rank: int) -> ir.Value:
    return step.tape.transpose(value, [*range(rank - 2), rank - 1, rank - 2])


def _fitted(step: Step, value: ir.Value, shape: tuple[int, ...], slot: int) -> ir.Value:
    """Sum what was broadcast, and give a vector its own shape again."""
    wanted = step.shape(step.input(slot))
    if len(wanted) > 1:
        return step.tape.sum_to(value, shape, wanted)
    summed = step.tape.sum(value, list(range(len(shape) - 2)))
    return step.tape.reshape(summed, wanted)


RULES = {"Gemm": _gemm, "MatMul": _matmul}
