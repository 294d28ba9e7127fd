"""Check what must hold of a model before anything is built on it or done to it.

    protos.py      the file as it was parsed: names, shapes, tensors, nodes; functions.py: its local functions
    graphs.py      the graph: data, wires, and every node's operands by operands.py, data.py and finiteness.py

What does not hold is told in one line that names the node; nothing is repaired.
"""
