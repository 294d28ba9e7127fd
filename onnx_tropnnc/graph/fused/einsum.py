"""Einsum in the forms that are a matrix product.

Einsum("bsd,dhk->bshk", x, W)        Reshape(MatMul(x, W'))          W' = W as d x hk: such a product stays a MatMul
Einsum("bqhd,bkhd->bhqk", q, k)      MatMul(Transpose(q), Transpose(k))
"""

import math
from collections.abc import Mapping

import numpy as np
import onnx_ir as ir

from onnx_tropnnc.graph.constants import array_of, set_array
from onnx_tropnnc.graph.fused.parts import Split, SplitRule

__all__ = ["RULES"]


def einsum(split: Split) -> bool:
    """Write a product of two matrices, or of two stacks of matrices, as MatMul."""
    text = (split.node.attributes.get_string("equation", "") or "").replace(" ", "")
    left, _, result = text.partition("->")
    terms = left.split(",")
    letters = [*terms, result]
    plain = all(term.isalpha() and len(set(term)) == len(term) for term in letters)
    # a letter of one term only would be summed over by itself
    if (
        not plain
        or len(terms) != 2
        or any(sum(letter in term for term in letters) < 2 for letter in set("".join(letters)))
    ):
        return False
    array = array_of(split.input(1))
    if array is not None:
        return _with_weight(split, terms[0], terms[1], result)
    return _of_activations(split, terms[0], terms[1], result)


def _with_weight(split: Split, data: str, stored: str, result: str) -> bool:
    """Write x W, whose last axes are summed over."""
    summed = [letter for letter in data if letter in stored and letter not in result]
    free, passed = (
        [letter for letter in stored if letter not in data],
        [letter for letter in data if letter not in stored],
    )
    weight, array = split.input(1), array_of(split.input(1))
    # the axes that pass come first in the data and in the result, so that a Reshape can copy them
    fits = data == "".join([*passed, *summed]) and list(result) == [*passed, *sorted(free, key=result.index)]
    if weight is None or array is None or len(weight.uses()) != 1 or not (fits and summed and free and passed):
        return False
    order = [*summed, *sorted(free, key=result.index)]
    moved = np.transpose(array, [stored.index(letter) for letter in order])
    read, made = moved.shape[: len(summed)], moved.shape[len(summed) :]
    x, kept = split.input(0), [0] * len(passed)
    if len(summed) > 1:
        x = split.add("Reshape", [x, split.integers([*kept, math.prod(read)], own=True)])
    y = split.add("MatMul", [x, weight])
    if len(free) > 1:
        y = split.add("Reshape", [y, split.integers([*kept, *made], own=True)])
    for part in split.parts:
        if part.op_type == "MatMul" and part is not split.parts[0]:
            part.name, split.parts[0].name = split.parts[0].name, part.name
    set_array(weight, moved.reshape(math.prod(read), math.prod(made)))
    return split.apply([y], returns=False)


def _of_activations(split: Split, left: str, right: str, result: str) -> bool:
    """Write a product of two stacks, whose matrices may lie along any two axes."""
    shared = [letter for letter in result if letter in left and letter in right]
    summed = [letter for letter in left if letter in right and letter not in result]
    rows, columns = ([letter for letter in term if letter in result and letter not in shared] for term in (left, right))
    if not len(summed) == len(rows) == len(columns) == 1:
        return False
    a = _moved(split, split.input(0), left, [*shared, *rows, *summed])
    b = _moved(split, split.input(1), right, [*shared, *summed, *columns])
    made = _moved(split, split.add("MatMul", [a, b]), "".join([*shared, *rows, *columns]), list(result))
    return made is not None and split.apply([made])


def _moved(split: Split, value: ir.Value | None, letters: str, wanted: list[str]) -> ir.Value | None:
    order = [letters.index(letter) for letter in wanted]
    return value if order == sorted(order) else split.add("Transpose", [value], {"perm": order})


RULES: Mapping[tuple[str, str], SplitRule] = {("", "Einsum"): einsum}
