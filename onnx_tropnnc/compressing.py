"""`compress`, the function that most programs need: every option is a keyword that editors complete and mypy checks."""

from collections.abc import Mapping
from types import MappingProxyType
from typing import Any

import onnx

from onnx_tropnnc.analysis.rounding import Rounding
from onnx_tropnnc.choices import (
    Blocks,
    Clustering,
    Device,
    Effort,
    Features,
    Heads,
    Linkage,
    MethodName,
    Queries,
    Reconstruct,
    RepresentativeInput,
    RoundingPreset,
    Streams,
    Ties,
    Variant,
)
from onnx_tropnnc.engine import Compression
from onnx_tropnnc.graph.model_io import Source, load, to_proto
from onnx_tropnnc.inputs.readers import Data
from onnx_tropnnc.merging.merge_map import MergeMap
from onnx_tropnnc.merging.representatives import Method
from onnx_tropnnc.options import Options
from onnx_tropnnc.report import Report

__all__ = ["compress"]

_NOTHING: Mapping[str, Any] = MappingProxyType({})


def compress(
    model: Source,
    *,
    ratio: float | None = None,
    threshold: float | None = None,
    target_params: float | None = None,
    target_macs: float | None = None,
    target_latency: float | None = None,
    max_drop: float | None = None,
    lossless: bool = False,
    plan: Mapping[str, MergeMap] | None = None,
    variant: Variant | None = None,
    method: MethodName | str | Method = "auto",
    clustering: Clustering | None = None,
    features: Features | None = None,
    representative: RepresentativeInput = "mean",
    linkage: Linkage = "ward",
    iterations: int = 3,
    sign_fixed: bool = False,
    uniform: bool = False,
    ratio_for: tuple[tuple[str, float], ...] = (),
    include: tuple[str, ...] = (),
    exclude: tuple[str, ...] = (),
    ties: Ties = "auto",
    blocks: Blocks = "remove",
    streams: Streams = "auto",
    queries: Queries = "auto",
    factorize: bool = False,
    heads: Heads = "keep",
    round_to: int | RoundingPreset | Rounding = "auto",
    reconstruct: Reconstruct = "auto",
    refit: bool = True,
    effort: Effort = "quick",
    data: Data | None = None,
    input_shape: Mapping[str, tuple[int, ...]] = _NOTHING,
    input_range: Mapping[str, tuple[float, float]] = _NOTHING,
    min_agreement: float | None = None,
    min_cosine: float | None = None,
    max_latency: float | None = None,
    verify: bool = True,
    bound_radius: float | None = None,
    memory: float = 1.5,
    device: Device = "auto",
    seed: int = 0,
) -> tuple[onnx.ModelProto, Report]:
    """Return a smaller model that computes nearly the same, and what was done.

        model, report = compress("in.onnx", ratio=0.3)
        model, report = compress(proto, target_macs=0.5, data=reader, min_agreement=98)
        onnx.save(model, "out.onnx")

    Exactly one of the first eight options says how much to remove. `Options` explains each option at length.

    Args:
        model: a path, the bytes of a file, or a ModelProto; it is never changed.
        ratio: remove this fraction of the channels, in [0, 1), spread over the layers so that outputs change least.
        threshold: merge channels that are closer than this distance.
        target_params: keep this fraction of the parameters.
        target_macs: keep this fraction of the multiply-accumulates.
        target_latency: keep this fraction of the latency, as measured on this machine.
        max_drop: remove as much as loses at most so many points of top-1 agreement.
        lossless: remove only what changes no output.
        plan: merge as in an earlier run; see `load_plan`.
        variant: the scale of `threshold`.
        method: how channels are merged: a name, or an object of your own.
        clustering: how methods cluster channels.
        features: the vectors that a clustering compares.
        representative: how method tropnnc combines the incoming weights of a cluster.
        linkage: the distance between clusters for `threshold`.
        iterations: the number of iterations of method tropnnc-iterative.
        sign_fixed: use the variant of tropnnc-iterative in the paper's Appendix A.6.
        uniform: remove the fraction `ratio` of every group, without spreading it.
        ratio_for: pairs (pattern, ratio): other ratios for layers whose names match.
        include: change only layers whose names match one of these patterns.
        exclude: do not change layers whose names match one of these patterns.
        ties: keep or merge channels that residual connections tie; `auto` merges them with a budget.
        blocks: let whole residual blocks go where the result is closer to the original so, or keep all.
        streams: rotate residual streams to their principal components, of which the last may go, or keep them; `auto`
            rotates those of transformers with a budget.
        queries: make queries and keys narrower, all heads alike, or keep them; `auto` does with a budget.
        factorize: write large layers and tables as two factors, whose components a budget may remove.
        heads: keep the number of attention heads, or remove whole heads.
        round_to: round channel counts up to a number's multiples, or to what a runtime is fast at; 1: do not round.
        reconstruct: the samples on which to fit the layers that read merged channels; `off` fits none.
        refit: fit the layers before a fitted layer jointly with it.
        effort: how long all weights learn together from the original afterwards: `quick` (not at all), `standard` or
            `thorough`.
        data: samples: an .npz file, a folder of .npy files, arrays by input name, or a CalibrationDataReader.
        input_shape: the shapes of dynamic inputs, by name.
        input_range: (low, high) of an input's values, by name, for samples that are made up.
        min_agreement: undo merges until top-1 agreement reaches this percentage.
        min_cosine: undo merges until the cosine of every output reaches this.
        max_latency: fail where the result takes more than this fraction of the original's latency.
        verify: compare the result with the original.
        bound_radius: report error bounds that hold for inputs of up to this length.
        memory: the gigabytes that samples and activations may take.
        device: where to compute; `auto` takes CUDA where it can be used.
        seed: the seed of everything random; the same seed gives the same bytes.

    Returns:
        The result, and a Report: sizes, every change, what verification found; `to_html()`, `to_json()`.

    Raises:
        TropnncError: the model or an option is refused; see errors.py.
    """
    # The keywords are the fields of Options, with the same types and defaults: tests/test_options.py holds them equal.
    options = Options(**{name: value for name, value in locals().items() if name != "model"})
    working = load(model, input_shapes=options.input_shape, whole_heads=options.merges_heads)
    report = Compression(working, options).run()
    return to_proto(working), report
