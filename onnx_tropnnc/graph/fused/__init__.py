"""Split the operators that onnxruntime fuses into standard ones when a model is read, and fuse them when it is written.

    layers.py            FusedConv, FusedGemm, FusedMatMul: the layer, its activation, its transposes and its factor
    activations.py       Gelu, BiasGelu, FastGelu, QuickGelu: Gelu, or what older operator sets write it with
    normalizations.py    SkipLayerNormalization and its kin: the sum and the normalization
    attention.py         Attention: the layer of queries, keys and values, and MultiHeadAttention
    einsum.py            Einsum: MatMul, where it is a matrix product

Everything between reading and writing sees standard operators only: a layer in a fused operator is a layer like any
other. A node that came from a fused operator remembers that (parts.py), and where all of them are still there as they
were made, they are written as one fused operator with the weights that they have then.
"""

from onnx_tropnnc.graph.fused.splitting import RULES as SPLIT_RULES
from onnx_tropnnc.graph.fused.splitting import split_fused
from onnx_tropnnc.graph.fused.writing import fused_again

__all__ = ["SPLIT_RULES", "fused_again", "split_fused"]
