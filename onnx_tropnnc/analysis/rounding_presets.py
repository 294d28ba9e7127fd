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
from dataclasses import replace

import numpy as np

from onnx_tropnnc.analysis.rounding import Rounding
from onnx_tropnnc.choices import RoundingPreset

__all__ = ["PRESETS", "preset_of", "rounding_named"]

# With multiples of 16, a layer of 16 or 32 channels could lose none at a ratio of 0.3, though its weights and those of
# its readers would become smaller.
_PARTS = 4

# A block that is not full takes the time of a full one, but its weights are not there: where the file's size is asked
# for, steps are smaller. ResNet20 at half of its parameters keeps 75.9 % in steps of a quarter.
_PARTS_OF_SIZE = 16

_WIDE = Rounding(convolution=16, depthwise=16, parts=_PARTS)

PRESETS: Mapping[RoundingPreset, Rounding] = {
    "onnxruntime-cpu": _WIDE,
    "onnxruntime-cpu-avx512": _WIDE,
    "onnxruntime-cpu-avx2": Rounding(convolution=8, depthwise=8, parts=_PARTS),
    "cuda": Rounding(8, 8, 8, parts=_PARTS),
    "tensorrt": Rounding(16, 16, 16, parts=_PARTS),
    "openvino": _WIDE,
    "arm": Rounding(convolution=8, depthwise=8, parts=_PARTS),
}
"""The multiples by preset."""


def rounding_named(name: RoundingPreset, device: str = "cpu", *, for_size: bool = False) -> Rounding:
    """Return the multiples of a preset; `auto` is that of the GPU where `device` is cuda, else that of the CPU.

    With `for_size`, where parameters are what is to be saved, those of `auto` become smaller in wider layers too.
    """
    if name != "auto":
        return PRESETS[name]
    found = PRESETS["cuda" if device == "cuda" else _preset_here()]
    return replace(found, parts=_PARTS_OF_SIZE) if for_size else found


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
