"""What channel counts runtimes are fast at, by name; docs/latency.md says where each number comes from.

    preset                    Conv   depthwise   linear
    onnxruntime-cpu             16          16        1     whole blocks with AVX-512 and without it
    onnxruntime-cpu-avx512      16          16        1
    onnxruntime-cpu-avx2         8           8        1
    cuda                         8           8        8
    tensorrt                    16          16       16
    openvino                    16          16        1
    arm                          8           8        1

`auto` is the preset of the machine at hand, which its processor's features tell: nothing is timed, so that the same
file and options give the same counts on machines of one kind. Linear layers have no multiple on CPUs: for one sample
they wait for their weights to come from memory, so their time follows the number of weights.
"""

import functools
import importlib
import platform
from collections.abc import Mapping

import numpy as np

from onnx_tropnnc.analysis.rounding import Rounding
from onnx_tropnnc.choices import RoundingPreset

__all__ = ["PRESETS", "preset_of", "rounding_named"]

_WIDE = Rounding(convolution=16, depthwise=16, narrows=True)

PRESETS: Mapping[RoundingPreset, Rounding] = {
    "onnxruntime-cpu": _WIDE,
    "onnxruntime-cpu-avx512": _WIDE,
    "onnxruntime-cpu-avx2": Rounding(convolution=8, depthwise=8, narrows=True),
    "cuda": Rounding(8, 8, 8, narrows=True),
    "tensorrt": Rounding(16, 16, 16, narrows=True),
    "openvino": _WIDE,
    "arm": Rounding(convolution=8, depthwise=8, narrows=True),
}
"""The multiples by preset."""


def rounding_named(name: RoundingPreset, device: str = "cpu") -> Rounding:
    """Return the multiples of a preset; `auto` is that of the GPU where `device` is cuda, else that of the CPU."""
    if name == "auto":
        name = "cuda" if device == "cuda" else _preset_here()
    return PRESETS[name]


def preset_of(machine: str, features: Mapping[str, bool]) -> RoundingPreset:
    """Return the preset of a processor.

    onnxruntime's blocks have 16 channels where it finds AVX-512, and 8 on every other x86 processor.

    >>> preset_of("x86_64", {"AVX2": True, "AVX512F": False})
    'onnxruntime-cpu-avx2'
    """
    if machine.lower().startswith(("arm", "aarch")):
        return "arm"
    return "onnxruntime-cpu-avx512" if features.get("AVX512F", False) else "onnxruntime-cpu-avx2"


@functools.cache
def _preset_here() -> RoundingPreset:
    # numpy finds out which instructions there are when it is imported, and has moved the module in version 2
    core = "_core" if np.lib.NumpyVersion(np.__version__) >= "2.0.0" else "core"
    features: Mapping[str, bool] = importlib.import_module(f"numpy.{core}._multiarray_umath").__cpu_features__
    return preset_of(platform.machine(), features)
