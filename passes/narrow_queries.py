"""Let queries and keys lose features: choose a basis for each head, and measure what each feature adds to the scores.

before  scores = (x Wq) (x Wk)^T          all features of a head alike
after   scores = (x Wq A) (x Wk B)^T      A B^T = I: the last features add least (deciding/score_basis.py)
needs   samples; one layer for queries and one for keys whose columns are known. Where they are rotated by positions,
        features stay as they are, and pairs of them may go
also    attention that is one operator: its scale, 1 / sqrt(features), is written down, since features may go
"""

from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import onnx_ir as ir
from numpy.typing import NDArray

from onnx_tropnnc.analysis.column_walk import Side
from onnx_tropnnc.analysis.heads import HeadProduct, head_products
from onnx_tropnnc.analysis.residual_blocks import stream_of
from onnx_tropnnc.changes import Change, Note
from onnx_tropnnc.deciding.moments import HEAD_SAMPLES, HeadMoments
from onnx_tropnnc.deciding.score_basis import score_bases
from onnx_tropnnc.errors import NotRunnable
from onnx_tropnnc.graph.constants import name_of
from onnx_tropnnc.graph.knowledge import set_score_energies
from onnx_tropnnc.graph.memory import MEMORY
from onnx_tropnnc.graph.model import Model
from onnx_tropnnc.graph.shapes import shapes_of
from onnx_tropnnc.inputs.batches import Samples
from onnx_tropnnc.rewriting.head_bases import read_alone, shared_heads, write_bases
from onnx_tropnnc.running.watching import watched

__all__ = ["NarrowQueries"]

Matrix = NDArray[np.float64]


@dataclass(frozen=True)
class NarrowQueries:
    """Prepare every product of queries and keys for a loss of features.

    Attributes:
        samples: what moments are taken on; None: features are marked as free, and nothing is measured.
        memory: the bytes that running the model may take.
    """

    samples: Samples | None = None
    memory: int = MEMORY
    name: str = "choose bases of queries and keys"

    def __call__(self, model: Model) -> tuple[Change, ...]:
        """Return one note for all products, or one that says why there is none."""
        shapes = shapes_of(model)
        found = head_products(model, shapes)
        if self.samples is None:
            for product in found:
                features = shapes.get(name_of(product.features[0])) or (0,)
                count = int(features[-1] or 0) if product.fused is None else product.fused.features
                set_score_energies(product.node.outputs[0], np.zeros(count))
            return ()
        try:
            moments = _moments(model, found, self.samples, self.memory)
        except NotRunnable as error:
            return (Note(f"queries and keys stay as wide as they are: onnxruntime cannot run the model ({error})"),)
        rotated = 0
        for product in found:
            if product not in moments:
                continue
            queries, keys, weight = moments[product]
            if product.sides is not None and read_alone([*product.sides[0].entries, *product.sides[1].entries]):
                queries, keys = _rotate(product.sides, queries, keys)
                rotated += 1
            if product.fused is not None:
                product.node.attributes["scale"] = ir.AttrFloat32("scale", product.scale)
            energies = np.einsum("hjj,hjj->j", queries, keys) / len(queries)
            set_score_energies(product.node.outputs[0], energies * product.scale**2 * weight)
        if not found:
            return ()
        return (Note(f"{rotated} of {len(found)} products of queries and keys were written in bases of their own"),)


_Moments = tuple[Matrix, Matrix, float]
"""The second moments of queries and keys by head, and how much an error of the scores counts."""


def _moments(
    model: Model, products: Sequence[HeadProduct], samples: Samples, memory: int
) -> dict[HeadProduct, _Moments]:
    """Return the moments of each product, without those whose heads do not belong to each other one by one."""
    sides = {(p, side): HeadMoments() for p in products for side in (0, 1)}
    layers = {p: (p.reader.outputs[0], stream_of(p.reader)) for p in products if p.reader is not None}
    outputs = {name_of(value): HeadMoments() for pair in layers.values() for value in pair}
    names = dict.fromkeys((*(name_of(p.features[side]) for p, side in sides), *outputs))
    some = samples.thinned(HEAD_SAMPLES)
    for _, _, tensors in watched(model, tuple(names), (some,), memory=memory) if names else ():
        for (product, side), sums in sides.items():
            name = name_of(product.features[side])
            if name in tensors:
                sums.add(product.by_head(side, tensors[name]).astype(np.float64))
        for name, sums in outputs.items():
            if name in tensors:
                sums.add(tensors[name].reshape(1, -1, tensors[name].shape[-1]).astype(np.float64))
    found = {}
    for product in products:
        second, centred = sides[product, 0].second, sides[product, 1].centred
        if len(centred) == 1:
            centred = np.repeat(centred, len(second), axis=0)
        weight = 1.0
        if product in layers:
            own, stream = (float(np.trace(outputs[name_of(value)].centred[0])) for value in layers[product])
            weight = own / max(own, stream, 1e-30)
        if len(centred) == len(second) and np.isfinite(second).all() and np.isfinite(centred).all():
            found[product] = second, centred, weight
    return found


def _rotate(sides: tuple[Side, Side], queries: Matrix, keys: Matrix) -> tuple[Matrix, Matrix]:
    """Write both sides in the bases of their heads; return the moments there."""
    first, of_head = shared_heads(sides[1].columns, len(queries))
    bases = [score_bases(queries[of_head == i].mean(axis=0), keys[head]) for i, head in enumerate(first)]
    write_bases(sides[0].entries, dict(enumerate(bases[i][0] for i in of_head)))
    write_bases(sides[1].entries, dict(zip(first.tolist(), (keys_basis for _, keys_basis in bases), strict=True)))
    turned = [
        (bases[i][0].T @ queries[h] @ bases[i][0], bases[i][1].T @ keys[h] @ bases[i][1]) for h, i in enumerate(of_head)
    ]
    return np.stack([q for q, _ in turned]), np.stack([k for _, k in turned])
