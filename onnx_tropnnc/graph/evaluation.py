"""Compute single nodes with onnx's own evaluator, where their inputs are known before the model runs."""

from collections.abc import Mapping, Sequence

import numpy as np
import onnx
import onnx.helper
import onnx.reference
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.graph.constants import name_of

__all__ = ["EVALUATION_FAILURES", "evaluate"]

# Shape arithmetic makes lists of a few numbers; a length that a broken file states must not fill the memory.
_MOST_ELEMENTS = 2**24

# What onnx's evaluator raises for inputs that an operator does not take.
EVALUATION_FAILURES = (ArithmeticError, AttributeError, LookupError, RuntimeError, TypeError, ValueError)


def evaluate(node: ir.Node, feeds: Mapping[str, NDArray[np.generic]], opsets: Mapping[str, int]) -> NDArray[np.generic]:
    """Return the first output of one node, computed by onnx's own evaluator in the operator set of its model.

    Raises:
        EVALUATION_FAILURES: the operator does not take these inputs, or its output is huge or made of strings.
    """
    if _result_size(node, list(feeds.values())) > _MOST_ELEMENTS:
        raise ValueError(f"{node.op_type}: more than {_MOST_ELEMENTS} elements")
    unknown = [onnx.helper.make_value_info(name, onnx.TypeProto()) for name in feeds]
    result = [onnx.helper.make_value_info(name_of(node.outputs[0]), onnx.TypeProto())]
    graph = onnx.helper.make_graph([ir.to_proto(node)], "node", unknown, result)
    imports = [onnx.helper.make_opsetid(domain, version) for domain, version in opsets.items()]
    evaluator = onnx.reference.ReferenceEvaluator(onnx.helper.make_model(graph, opset_imports=imports))
    with np.errstate(all="ignore"):
        results: list[NDArray[np.generic]] = list(evaluator.run(None, dict(feeds)))  # type: ignore[arg-type]
    array = np.asarray(results[0])
    if array.dtype.kind in "OSU":
        raise ValueError(f"{node.op_type}: strings")
    return array


def _result_size(node: ir.Node, inputs: Sequence[NDArray[np.generic]]) -> float:
    """Return how many elements the output may have; 0 for operators that make nothing larger than what they read."""
    with np.errstate(all="ignore"):
        if node.op_type in ("ConstantOfShape", "Expand"):
            return float(np.prod(np.abs(inputs[-1].astype(np.float64)))) * (inputs[0].size if len(inputs) > 1 else 1)
        if node.op_type == "Range" and len(inputs) == 3:
            start, limit, delta = (array.astype(np.float64).reshape(-1)[0] for array in inputs)
            return float(np.nan_to_num(abs((limit - start) / delta), nan=0.0, posinf=np.inf))
    return 0.0
