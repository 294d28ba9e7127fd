"""`python -m onnx_tropnnc` is the command line."""

from onnx_tropnnc.cli import main

main()
