"""The values that options choose among, as types.

Signatures, the checks of `Options` and the command line's help all take them from here. Nothing but typing is imported,
so that `onnx-tropnnc --help` need not wait for numpy or onnx.
"""

from typing import Literal, TypeAlias

__all__ = [
    "Amount",
    "Blocks",
    "Clustering",
    "Device",
    "Effort",
    "Features",
    "Heads",
    "Linkage",
    "MethodName",
    "Queries",
    "Reconstruct",
    "RepresentativeInput",
    "RoundingPreset",
    "Streams",
    "Ties",
    "Variant",
]

Amount: TypeAlias = Literal["ratio", "threshold", "target_params", "target_macs"]
"""The options that a sweep may go over: those that are numbers and need no search of their own."""

Blocks: TypeAlias = Literal["keep", "remove"]
"""Whether residual blocks may go as a whole."""

Clustering: TypeAlias = Literal["kmeans", "ward"]
"""How channels are clustered to a given count: the paper's k-means, or Ward's tree."""

Device: TypeAlias = Literal["auto", "cpu", "cuda"]
"""Where models and heavy products run; `auto` takes CUDA where it can be used."""

Effort: TypeAlias = Literal["quick", "standard", "thorough"]
"""How long the weights that are left may learn from the original after the layers were solved."""

Features: TypeAlias = Literal["weights", "fused-bias", "weighted-bias", "fused", "cosine", "shifted", "cup", "cup-code"]
"""The vectors that a clustering compares; merging/features.py defines each."""

Heads: TypeAlias = Literal["keep", "merge"]
"""Whether attention keeps all its heads and makes them narrower, or loses whole heads too."""

Linkage: TypeAlias = Literal["ward", "complete", "average"]
"""The distance between clusters in the tree that a threshold cuts."""

MethodName: TypeAlias = Literal[
    "auto",
    "select",
    "thinet",
    "tropnnc",
    "tropnnc-iterative",
    "tropnnc-single",
    "neural-path",
    "zonotope",
    "cup",
    "l1",
    "random",
]
"""The methods that come with this package; installed plugins add names, and Python callers may give an object."""

Queries: TypeAlias = Literal["auto", "keep", "narrow"]
"""Whether the features of queries and keys stay, or may go as those of values do; `auto` lets them with a budget."""

Reconstruct: TypeAlias = Literal["auto", "off", "synthetic", "data"]
"""What samples the layers that read merged channels are solved on."""

RepresentativeInput: TypeAlias = Literal["mean", "sum"]
"""What becomes of a cluster's incoming weights; the paper advises against the sum."""

RoundingPreset: TypeAlias = Literal[
    "auto", "onnxruntime-cpu", "onnxruntime-cpu-avx2", "onnxruntime-cpu-avx512", "cuda", "tensorrt", "openvino", "arm"
]
"""Where the result will run, which says what counts are fast; `auto` is this machine."""

Streams: TypeAlias = Literal["auto", "keep", "rotate"]
"""Whether residual streams that only linear layers write and read are rotated, so that they may become narrower; `auto`
rotates those of transformers with a budget."""

Ties: TypeAlias = Literal["auto", "keep", "merge"]
"""What happens to channels that a residual connection ties to others."""

Variant: TypeAlias = Literal["raw", "1", "2"]
"""What a threshold is scaled by: nothing, the dimension of the vectors, or their mean norm."""
