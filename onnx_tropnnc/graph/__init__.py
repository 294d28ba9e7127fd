"""A model as a graph: loading, checking, saving, constants, shapes, sizes. Nothing here knows of channels."""
