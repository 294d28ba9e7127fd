"""Which library can hold the working graph of a 2.4 GB model?

    python benchmarks/working_graph.py [--gigabytes 2.4] [--folder DIR]

Builds a model with external data, then, each in a process of its own: load it, change one small tensor, save it all.
Prints the seconds and the peak memory beyond start-up (imports done), and beside them a plain copy of the data
file. onnx-graphsurgeon is measured as it comes and as a thin layer over a graph loaded without its external data.
"""

import argparse
import multiprocessing
import resource
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import numpy as np
import onnx
from onnx import TensorProto, helper


def build(path: Path, gigabytes: float) -> None:
    """Write a chain of MatMuls and one small bias; the weights of 144 MB each are in one external file."""
    width = 6000
    count = round(gigabytes * 1e9 / (width * width * 4))
    rng = np.random.default_rng(0)
    data = path.with_name(path.name + ".data")
    initializers, nodes = [helper.make_tensor("small", TensorProto.FLOAT, [width], np.zeros(width, np.float32))], []
    with data.open("wb") as file:
        for i in range(count):
            tensor = TensorProto(name=f"w{i}", data_type=TensorProto.FLOAT, dims=[width, width], raw_data=b"")
            onnx.external_data_helper.set_external_data(tensor, data.name, offset=file.tell(), length=width * width * 4)
            tensor.data_location = TensorProto.EXTERNAL
            tensor.ClearField("raw_data")
            file.write(rng.standard_normal((width, width), dtype=np.float32).tobytes())
            initializers.append(tensor)
            nodes.append(helper.make_node("MatMul", [f"x{i}", f"w{i}"], [f"x{i + 1}"], name=f"MatMul_{i}"))
    nodes.append(helper.make_node("Add", [f"x{count}", "small"], ["y"], name="Add"))
    info = [helper.make_tensor_value_info(name, TensorProto.FLOAT, ["N", width]) for name in ("x0", "y")]
    onnx.save(helper.make_model(helper.make_graph(nodes, "chain", info[:1], info[1:], initializers)), path)


def with_ours(source: Path, target: Path) -> None:
    """Edit with this package's model_io (onnx-ir, memory-mapped tensors)."""
    from onnx_tropnnc.graph import constants, model_io

    model = model_io.load(source)
    value = model.ir.graph.initializers["small"]
    constants.set_array(value, value.const_value.numpy() + 1)
    model_io.save(model, target)


def with_surgeon_thin(source: Path, target: Path) -> None:
    """Edit with onnx-graphsurgeon a graph without its external data; the data file is copied."""
    import onnx_graphsurgeon

    graph = onnx_graphsurgeon.import_onnx(onnx.load(source, load_external_data=False))
    small = graph.tensors()["small"]
    small.values = small.values + 1
    onnx.save(onnx_graphsurgeon.export_onnx(graph), target)
    shutil.copyfile(source.with_name(source.name + ".data"), target.with_name(target.name + ".data"))


def with_surgeon(source: Path, target: Path) -> None:
    """Edit with onnx-graphsurgeon, as its examples use it."""
    import onnx_graphsurgeon

    graph = onnx_graphsurgeon.import_onnx(onnx.load(source))
    small = graph.tensors()["small"]
    small.values = small.values + 1
    onnx.save(onnx_graphsurgeon.export_onnx(graph), target, save_as_external_data=True, location=target.name + ".data")


def copy_only(source: Path, target: Path) -> None:
    """Copy the data file: the floor."""
    shutil.copyfile(source.with_name(source.name + ".data"), target.with_name(target.name + ".data"))


def _measure(work: Callable[[Path, Path], None], source: Path, target: Path, answer: "multiprocessing.Queue") -> None:
    import onnx_graphsurgeon  # noqa: F401  start-up: what a command line has imported anyway

    import onnx_tropnnc.graph.model_io  # noqa: F401

    start, before = time.perf_counter(), resource.getrusage(resource.RUSAGE_SELF).ru_maxrss
    work(source, target)
    answer.put((time.perf_counter() - start, resource.getrusage(resource.RUSAGE_SELF).ru_maxrss - before))


def main() -> None:
    """Build the model, measure each way in a fresh process, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=2.4)
    parser.add_argument("--folder", type=Path)
    arguments = parser.parse_args()
    context = multiprocessing.get_context("spawn")
    with tempfile.TemporaryDirectory(dir=arguments.folder) as folder:
        source = Path(folder) / "in.onnx"
        build(source, arguments.gigabytes)
        print(f"{'':>20}  seconds  GB beyond start-up   (limits: 6 s, 1.5 GB)")
        for work in (copy_only, with_ours, with_surgeon_thin, with_surgeon):
            (Path(folder) / work.__name__).mkdir()
            answer = context.Queue()
            process = context.Process(
                target=_measure, args=(work, source, Path(folder) / work.__name__ / "in.onnx", answer)
            )
            process.start()
            seconds, kilobytes = answer.get()
            process.join()
            print(f"{work.__name__:>20}  {seconds:7.2f}  {kilobytes / 1e6:18.2f}")
            shutil.rmtree(Path(folder) / work.__name__)


if __name__ == "__main__":
    main()
