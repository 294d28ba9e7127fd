"""The method that makes the merge maps, from a name and the options that vary it."""

from dataclasses import replace

from onnx_tropnnc.choices import Clustering, Features, RepresentativeInput
from onnx_tropnnc.errors import OptionError, Setting
from onnx_tropnnc.merging.baselines import Cup, NeuralPath
from onnx_tropnnc.merging.plugins import method_named
from onnx_tropnnc.merging.representatives import Iterative, Method, TropNNC
from onnx_tropnnc.option_rules import SELECTING

__all__ = ["chosen_method"]


def chosen_method(
    method: str | Method,
    *,
    clustering: Clustering | None,
    features: Features | None,
    representative: RepresentativeInput,
    iterations: int,
    sign_fixed: bool,
) -> Method:
    """Return the method of a name, or the object that was given; Options explains each argument.

    Raises:
        OptionError: there is no method of this name, or it compares no vectors that `features` could choose.
    """
    if method in ("auto", *SELECTING):
        found: Method = TropNNC(clustering=clustering or "ward")
    elif method == "tropnnc":
        found = TropNNC(representative, clustering=clustering or "kmeans")
    elif method == "tropnnc-iterative":
        found = Iterative(iterations, sign_fixed, clustering=clustering or "kmeans")
    else:
        found = method_named(method) if isinstance(method, str) else method
    if features is None:
        return found
    if method in SELECTING or not isinstance(found, TropNNC | Iterative | NeuralPath | Cup):
        name = method if isinstance(method, str) else method.name
        raise OptionError(
            "{} has no effect on {}, which compares no vectors", Setting("features", features), Setting("method", name)
        )
    return replace(found, features=features)
