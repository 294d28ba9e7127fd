"""A pass of Olive that compresses an ONNX model with onnx-tropnnc.

From the root of the repository, with this folder on the path of modules:

    PYTHONPATH=examples/olive olive run --config examples/olive/run.json --package-config examples/olive/packages.json
"""

from pathlib import Path

import onnx
from olive.hardware.accelerator import AcceleratorSpec
from olive.model import ONNXModelHandler
from olive.passes import Pass
from olive.passes.pass_config import BasePassConfig, PassConfigParam

import onnx_tropnnc as tropnnc


class OnnxTropnnc(Pass):
    """Keeps a share of the multiply-accumulates."""

    @classmethod
    def _default_config(cls, accelerator_spec: AcceleratorSpec) -> dict[str, PassConfigParam]:
        return {"target_macs": PassConfigParam(type_=float, default_value=0.7, description="The share to keep.")}

    def _run_for_config(
        self, model: ONNXModelHandler, config: type[BasePassConfig], output_model_path: str
    ) -> ONNXModelHandler:
        result, _ = tropnnc.compress(model.model_path, target_macs=config.target_macs)
        path = Path(output_model_path).with_suffix(".onnx")
        onnx.save(result, path)
        return ONNXModelHandler(str(path))
