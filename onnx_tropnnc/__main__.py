"""`python -m onnx_tropnnc` is the command line."""

from onnx_tropnnc.command.cli import main

main()
