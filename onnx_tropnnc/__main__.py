"""Run the command line as `python -m onnx_tropnnc`."""

from onnx_tropnnc.command.entry import main

main()
