"""Memory that was freed is given back, whatever the order in which it was taken."""

import os
import subprocess
import sys

from onnx_tropnnc.running.heap import map_large_arrays

PROGRAM = """
import subprocess
import sys
import numpy as np
from onnx_tropnnc.running.heap import map_large_arrays

def kilobytes(name):
    with open("/proc/self/status") as status:
        return next(int(line.split()[1]) for line in status if line.startswith(name))

if sys.argv[1] != "plain":
    assert map_large_arrays()
if sys.argv[1] == "in a process that it starts":
    sys.exit(subprocess.run([sys.executable, "-c", sys.argv[2], "plain"]).returncode)
before = kilobytes("VmSize")
np.ones(30 * 2**17)  # once an array of 30 MB is freed, smaller ones come from the heap
held = [np.ones(2**21) for _ in range(20)]
for number in range(0, 20, 2):
    held[number] = np.ones(3 * 2**20)
# addresses and not pages: the system may take pages that nobody reads away from a process on a busy machine
print(kilobytes("VmPeak") - before)
"""


def test_arrays_of_another_size_do_not_take_memory_beside_freed_ones() -> None:
    """Every other one of 20 arrays of 16 MB is replaced by one of 24 MB, which does not fit into the hole."""
    if sys.platform != "linux":
        # other systems have no such threshold, and nothing is done there
        assert not map_large_arrays()
        return

    # Other tests run the command, or libraries that set a threshold, in this process, after which all that it starts
    # would map arrays: any threshold that is set ends that glibc raises it.
    variables = {name: value for name, value in os.environ.items() if not name.startswith("MALLOC_")}

    def peak(how: str) -> int:
        command = [sys.executable, "-c", PROGRAM, how, PROGRAM]
        done = subprocess.run(command, capture_output=True, text=True, check=True, env=variables)
        return int(done.stdout)

    plain = peak("plain")
    assert peak("mapped") < 0.85 * plain
    assert peak("in a process that it starts") < 0.85 * plain
