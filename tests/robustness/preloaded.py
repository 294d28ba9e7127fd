"""What the server of forks imports, so that the runs forked from it need not."""

import importlib
import pkgutil

import matplotlib.pyplot
import onnx.shape_inference
import onnxruntime
import sklearn.cluster

import onnx_tropnnc
from tests.robustness import commands

__all__ = ["commands", "matplotlib", "onnx", "onnxruntime", "sklearn"]

for module in pkgutil.walk_packages(onnx_tropnnc.__path__, "onnx_tropnnc."):
    if not module.name.endswith("__main__"):
        importlib.import_module(module.name)
