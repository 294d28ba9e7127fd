"""Sizes to try for the dimensions that a model leaves open, when it does not run at the first guess.

A text recogniser may leave its height open and run at 32 or 48 only, a voice detector read chunks of 512 samples or of
576. These sizes are tried, in this order:

    1. fixed dimensions of inputs and outputs, and those of stored tensors that are added to computed ones or
       concatenated with them
    2. heights and widths of lines of text, for pictures whose height and width are both open
    3. sizes that public models take (COMMON); for pictures those of 32 and more first
    4. multiples of the largest product of strides along a path, and numbers in small constants, as Reshape has
    5. one dimension a size of its own while the others have a common one

In 1, 3 and 4 all open dimensions get the same size. Sizes below 8 come last: nearly every model runs on pictures of
1 x 1, but computes nothing of interest there.
"""

import math
from collections.abc import Iterable, Iterator, Mapping, Sequence
from itertools import islice, product

import numpy as np
import onnx

from onnx_tropnnc.graph.input_specs import GivenShapes, InputSpec, counts_samples, stacked_inputs
from onnx_tropnnc.inputs.proto_graph import ProtoGraph

__all__ = ["has_open_sizes", "shapes_to_try"]

# Sides of pictures, lengths of texts, spectrograms and sound, as public models take them, the commonest first.
COMMON = (
    *(8, 16, 32, 48, 64, 224, 320, 512, 640, 16000, 128, 256, 96, 112, 160, 192, 384, 416, 448, 299, 80, 100, 40, 20),
    *(10, 49, 98, 101, 400, 480, 576, 1024, 1536, 2048, 3000, 4000, 4096, 8000, 15600, 24000, 32000, 48000),
)

# What is tried last, the largest first: a dimension that runs at no usual size may count a few things only.
TINY = (7, 6, 5, 4, 3, 2, 1)

# Pictures of smaller sides shrink to single positions in most networks.
SMALLEST_SIDE = 32

# Text recognisers read lines of one of these heights, newer ones of 48, and of a width that is some multiple of it.
HEIGHTS, WIDTHS = (48, 32, 64, 80), (320, 128, 100, 256, 160, 640)

# A try is one run of one sample, and most tries fail early. A hundred take seconds for a small model, and cover COMMON
# and the sizes from a graph for two open dimensions.
MOST_TRIES = 100

# The graph's own numbers are many in a large model; so many of each kind leave COMMON most of the tries.
MOST_FROM_GRAPH = 12

# Numbers in a sample: 4 million are a colour picture of 1182 x 1182 or four minutes of sound.
MOST_VALUES = 2**22

# Larger numbers in a graph's constants are bounds ("to the end"), not sizes.
LARGEST_SIZE = 2**16

_SIZED = ("Add", "Sub", "Mul", "Concat", "Where")

# How a variable dimension is told from others: by its symbol, or by its place.
_Variable = str | tuple[str, int]


def shapes_to_try(
    model: onnx.ModelProto, specs: Sequence[InputSpec], given: GivenShapes
) -> Iterator[dict[str, tuple[int | None, ...]]]:
    """Yield the given shapes with those of other open inputs; the number of samples in a run stays open.

    Args:
        model: the graph, as `structure` gives it.
        specs: its inputs.
        given: shapes that the user gave; those inputs and the symbols in them stay as given.
    """
    variables = _variables(specs, given)
    names = list(dict.fromkeys(variable for places in variables.values() for variable in places.values()))
    if not names:
        return
    stacked = stacked_inputs(specs)
    tried: set[tuple[tuple[int | None, ...], ...]] = set()
    for sizes in islice(_assignments(model, names, variables), 4 * MOST_TRIES):
        found = {s.name: _shape(s, sizes, variables[s.name], s.name in stacked) for s in specs if variables.get(s.name)}
        shapes = {**given, **found}
        key = tuple(shapes.values())
        values = sum(math.prod(size or 1 for size in shape) for shape in shapes.values())
        if key not in tried and values <= MOST_VALUES:
            tried.add(key)
            yield shapes
        if len(tried) == MOST_TRIES:
            return


def has_open_sizes(specs: Sequence[InputSpec], given: GivenShapes) -> bool:
    """Return whether a dimension is open that the user gave no size for, and that counts no samples."""
    return any(_variables(specs, given).values())


def _variables(specs: Sequence[InputSpec], given: GivenShapes) -> dict[str, dict[int, _Variable]]:
    """Return, for each input, the axes whose sizes are open and are no number of samples."""
    bound = {d for s in specs if s.name in given for d in s.shape if isinstance(d, str)}
    return {
        spec.name: {
            axis: dimension or (spec.name, axis)
            for axis, dimension in enumerate(spec.shape)
            if not isinstance(dimension, int) and dimension not in bound and not counts_samples(spec, axis, specs)
        }
        for spec in specs
        if spec.name not in given
    }


def _shape(
    spec: InputSpec, sizes: Mapping[_Variable, int], axes: Mapping[int, _Variable], stacked: bool
) -> tuple[int | None, ...]:
    fixed = [dimension if isinstance(dimension, int) else None for dimension in spec.shape]
    shape = [sizes[axes[axis]] if axis in axes else size for axis, size in enumerate(fixed)]
    # what is still open counts samples; a symbol of them that stands in several inputs is 1 in all
    return tuple(1 if size is None and not (stacked and axis == 0) else size for axis, size in enumerate(shape))


def _assignments(
    model: onnx.ModelProto, names: Sequence[_Variable], variables: Mapping[str, Mapping[int, _Variable]]
) -> Iterator[dict[_Variable, int]]:
    """Yield a size for each variable, in the order of the module's docstring."""
    pairs = [tuple(axes.values())[-2:] for axes in variables.values() if len(set(axes.values())) >= 2]
    common = sorted(COMMON, key=lambda size: size < SMALLEST_SIDE) if pairs else list(COMMON)
    likely, possible = (
        list(islice(sizes, MOST_FROM_GRAPH)) for sizes in (_likely_sizes(model), _possible_sizes(model))
    )
    for size in likely:
        yield dict.fromkeys(names, size)
    for (height, width), (first, second) in product(((h, w) for h in HEIGHTS for w in WIDTHS), pairs):
        yield {**dict.fromkeys(names, width), first: height, second: width}
    for size in (*common, *possible, *TINY):
        yield dict.fromkeys(names, size)
    if len(names) > 1:
        for size, other, name in product((*likely, *common), (64, 224, 512), names):
            yield {**dict.fromkeys(names, other), name: size}


def _likely_sizes(model: onnx.ModelProto) -> Iterator[int]:
    """Yield dimensions that an open one must often be equal to."""
    tensors = ProtoGraph(model).tensors
    declared = (*model.graph.input, *model.graph.output)
    yield from _plausible(d.dim_value for v in declared for d in v.type.tensor_type.shape.dim[1:])
    for node in model.graph.node:
        if node.op_type in _SIZED:
            stored = [tensors[name].dims for name in node.input if name in tensors]
            yield from _plausible(size for dims in stored if len(dims) > 1 for size in dims[:-1])


def _possible_sizes(model: onnx.ModelProto) -> Iterator[int]:
    """Yield other numbers in the graph that may be sizes."""
    stride = _total_stride(model)
    yield from _plausible(stride * multiple for multiple in (1, 2, 4, 8, 3, 6))
    graph = ProtoGraph(model)
    for name, tensor in graph.tensors.items():
        if tensor.data_type == onnx.TensorProto.INT64 and math.prod(tensor.dims) <= 8:
            constant = graph.constant(name)
            yield from _plausible(() if constant is None else np.ravel(constant).tolist())


def _plausible(sizes: Iterable[int]) -> Iterator[int]:
    return (int(size) for size in sizes if TINY[0] < size <= LARGEST_SIZE)


def _total_stride(model: onnx.ModelProto) -> int:
    """Return the largest product of strides along any path of the graph: sizes are often multiples of it."""
    strides: dict[str, int] = {}
    for node in model.graph.node:
        own = next((max(a.ints, default=1) for a in node.attribute if a.name == "strides"), 1)
        down = own if node.op_type in ("Conv", "MaxPool", "AveragePool") else 1
        total = max((strides.get(name, 1) for name in node.input), default=1) * down
        strides.update(dict.fromkeys(node.output, min(total, LARGEST_SIZE)))
    return max(strides.values(), default=1)
