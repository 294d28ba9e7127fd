"""The table of costs: a line for a job, and a machine without a name."""

import platform
import subprocess
import sys
from pathlib import Path

import pytest

from onnx_tropnnc.backend import missing_cuda


@pytest.fixture
def benchmark(monkeypatch: pytest.MonkeyPatch) -> object:
    monkeypatch.syspath_prepend(Path(__file__).parent.parent / "benchmarks")
    import run_all

    return run_all


def test_a_line_has_times_their_ratio_and_memory(benchmark: object, tmp_path: Path) -> None:
    (tmp_path / "m.onnx").write_bytes(b"0" * 10**6)
    quick = [sys.executable, "-S", "-c", "import time; time.sleep(0.2)"]
    slow = [sys.executable, "-S", "-c", "import time; b = bytearray(10**8); time.sleep(0.6)"]
    row = benchmark.Job("work", slow, quick, tmp_path / "m.onnx", limit="3 x").row()  # type: ignore[attr-defined]
    name, seconds, floor, ratio, processor, _, peak, allowed, limit = (
        cell.strip() for cell in row.strip("|").split("|")
    )
    assert (name, allowed, limit) == ("work", "0.50", "3 x")
    assert float(seconds) >= 0.6
    assert float(floor) >= 0.2
    # All three are rounded, the floor to a hundredth of about 0.2.
    assert float(ratio) == pytest.approx(float(seconds) / float(floor), rel=0.1)
    assert float(processor) < float(seconds)
    assert float(peak) > 0.1


def test_a_job_that_fails_stops_the_table(benchmark: object) -> None:
    failing = [sys.executable, "-c", "raise SystemExit(3)"]
    with pytest.raises(SystemExit, match="failed"):
        benchmark.Job("work", failing, failing).row()  # type: ignore[attr-defined]


@pytest.mark.skipif(missing_cuda() is None, reason="there is a GPU here")
def test_without_a_gpu_its_benchmark_says_so_in_one_line() -> None:
    script = Path(__file__).parent.parent / "benchmarks" / "gpu.py"
    found = subprocess.run([sys.executable, str(script)], capture_output=True, text=True)
    assert (found.returncode, found.stdout) == (2, "")
    assert found.stderr == f"no GPU to compare with: {missing_cuda()}\n"


def test_the_machine_is_described_without_its_name(benchmark: object) -> None:
    text = benchmark.machine()  # type: ignore[attr-defined]
    assert platform.node() not in text
    assert f"Python {platform.python_version()}" in text
    assert " cores, " in text
