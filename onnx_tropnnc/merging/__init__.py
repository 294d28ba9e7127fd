"""Arithmetic on channel vectors, without nodes: Gram matrices, clusters, representatives, merge maps."""
