"""Normalizations that are fused with the sums before them, or that the model's operator set does not have.

    SkipLayerNormalization(x, skip, g, b, [bias])     LayerNormalization(x + bias + skip)
    SkipSimplifiedLayerNormalization                  the same with RMSNormalization
    SimplifiedLayerNormalization                      RMSNormalization
    LayerNormalization                                in files of opsets below 17, as onnxruntime writes them
    EmbedLayerNormalization                           LayerNormalization of the sum of three Gathers

Where the operator set lacks LayerNormalization (17) or RMSNormalization (23), it is written out with ReduceMean.
"""

from collections.abc import Mapping, Sequence

import onnx_ir as ir

from onnx_tropnnc.graph.fused.parts import Split, SplitRule
from onnx_tropnnc.graph.uses import is_read

__all__ = ["OPSET", "RULES"]

OPSET = 17
"""The operator set in which onnx has got a LayerNormalization."""
_RMS_NORMALIZATION = 23
"""The operator set in which onnx has got an RMSNormalization."""
_HALF = (ir.DataType.FLOAT16, ir.DataType.BFLOAT16)


def skip_layer_normalization(split: Split) -> bool:
    """Split the sum with the shortcut from the normalization behind it."""
    simplified = "Simplified" in split.node.op_type
    bias, x, skip = split.input(3 if simplified else 4), split.input(0), split.input(1)
    if _reads_statistics(split.node, 1, 2):
        return False
    if bias is not None:
        # the bias belongs to the layer before it, on whichever side that is
        if _is_product(skip) and not _is_product(x):
            skip = split.add("Add", [skip, bias])
        else:
            x = split.add("Add", [x, bias])
    total = split.add("Add", [x, skip])
    scale, epsilon = split.input(2), split.node.attributes.get_float("epsilon", 1e-12)
    if simplified:
        made = _rms(split, total, scale, epsilon)
    else:
        made = _normalized(split, total, scale, split.input(3), epsilon)
    return split.apply([made, None, None, total][: len(split.node.outputs)])


def layer_normalization(split: Split) -> bool:
    """Write LayerNormalization and SimplifiedLayerNormalization in operators of the model's operator set."""
    node = split.node
    rank, axis = split.facts.rank(split.input(0)), node.attributes.get_int("axis", -1)
    last = axis == -1 or (rank is not None and axis == rank - 1)
    if not last or _reads_statistics(node, 1, 2):
        return False
    epsilon = node.attributes.get_float("epsilon", 1e-5)
    if node.op_type == "SimplifiedLayerNormalization":
        made = _rms(split, split.input(0), split.input(1), epsilon)
    else:
        made = _normalized(split, split.input(0), split.input(1), split.input(2), epsilon)
    return split.apply([made, None, None][: len(node.outputs)])


def embed_layer_normalization(split: Split) -> bool:
    """Split the lookups in up to three tables, and their sum, from the normalization behind them."""
    ids, segments, words, places, kinds = (split.input(slot) for slot in range(5))
    gamma, beta, mask, numbers = (split.input(slot) for slot in range(5, 9))
    opset, outputs = split.facts.opset, split.node.outputs
    if None in (ids, words, places, gamma, beta):
        return False
    counts_mask = len(outputs) > 1 and is_read(outputs[1])
    # Shape has had a start since opset 15, and ReduceSum axes as an input since 13.
    if opset < 15 or (counts_mask and mask is None) or split.node.attributes.get_int("mask_index_type", 0) != 0:
        return False
    total = split.add("Gather", [words, ids])
    if numbers is None:
        length = split.add("Shape", [ids], {"start": 1, "end": 2})
        zero = split.integers([0])
        total = split.add("Add", [total, split.add("Slice", [places, zero, length, zero])])
    else:
        total = split.add("Add", [total, split.add("Gather", [places, numbers])])
    if segments is not None and kinds is not None:
        total = split.add("Add", [total, split.add("Gather", [kinds, segments])])
    epsilon = split.node.attributes.get_float("epsilon", 1e-12)
    made = _normalized(split, total, gamma, beta, epsilon, dtype=split.facts.type(words))
    lengths = split.add("ReduceSum", [mask, split.integers([1])], {"keepdims": 0}) if counts_mask else None
    return split.apply([made, lengths, total][: len(outputs)])


def _reads_statistics(node: ir.Node, *slots: int) -> bool:
    """Return whether the model reads the mean or the deviation that the node returns."""
    outputs = [node.outputs[slot] for slot in slots if slot < len(node.outputs)]
    return any(map(is_read, outputs))


def _is_product(value: ir.Value | None) -> bool:
    maker = None if value is None else value.producer()
    return maker is not None and maker.op_type in ("Gemm", "MatMul")


def _normalized(
    split: Split,
    x: ir.Value | None,
    scale: ir.Value | None,
    shift: ir.Value | None,
    epsilon: float,
    dtype: ir.DataType | None = None,
) -> ir.Value:
    if split.facts.opset >= OPSET:
        inputs: Sequence[ir.Value | None] = [x, scale] if shift is None else [x, scale, shift]
        return split.add("LayerNormalization", inputs, {"axis": -1, "epsilon": epsilon})
    dtype = dtype or split.dtype
    wide = _widened(split, x, dtype)
    centred = split.add("Sub", [wide, _mean(split, wide)])
    divided = split.add("Div", [centred, _root(split, centred, epsilon)])
    made = split.add("Mul", [_narrowed(split, divided, dtype), scale])
    return made if shift is None else split.add("Add", [made, shift])


def _rms(split: Split, x: ir.Value | None, scale: ir.Value | None, epsilon: float) -> ir.Value:
    if split.facts.opset >= _RMS_NORMALIZATION:
        return split.add("RMSNormalization", [x, scale], {"axis": -1, "epsilon": epsilon})
    wide = _widened(split, x, split.dtype)
    divided = split.add("Div", [wide, _root(split, wide, epsilon)])
    return split.add("Mul", [_narrowed(split, divided, split.dtype), scale])


def _root(split: Split, x: ir.Value | None, epsilon: float) -> ir.Value:
    """Return sqrt(mean(x^2) + epsilon)."""
    mean = _mean(split, split.add("Mul", [x, x]))
    return split.add("Sqrt", [split.add("Add", [mean, split.scalar(epsilon, ir.DataType.FLOAT)])])


def _mean(split: Split, x: ir.Value | None) -> ir.Value:
    if split.facts.opset >= 18:
        return split.add("ReduceMean", [x, split.integers([-1])], {"keepdims": 1})
    return split.add("ReduceMean", [x], {"axes": [-1], "keepdims": 1})


def _widened(split: Split, x: ir.Value | None, dtype: ir.DataType) -> ir.Value | None:
    # onnxruntime computes statistics in float32; squares leave the range of float16
    return split.add("Cast", [x], {"to": int(ir.DataType.FLOAT)}) if dtype in _HALF else x


def _narrowed(split: Split, x: ir.Value, dtype: ir.DataType) -> ir.Value:
    return split.add("Cast", [x], {"to": int(dtype)}) if dtype in _HALF else x


RULES: Mapping[tuple[str, str], SplitRule] = {
    ("", "LayerNormalization"): layer_normalization,
    ("", "SimplifiedLayerNormalization"): layer_normalization,
    ("com.microsoft", "EmbedLayerNormalization"): embed_layer_normalization,
    ("com.microsoft", "SimplifiedLayerNormalization"): layer_normalization,
    ("com.microsoft", "SkipLayerNormalization"): skip_layer_normalization,
    ("com.microsoft", "SkipSimplifiedLayerNormalization"): skip_layer_normalization,
}
