"""The ranges that numbers among the options lie in; a message shows a range with its meaning."""

from onnx_tropnnc.option_checks import Limits

__all__ = [
    "AGREEMENT",
    "COSINE",
    "DIMENSION",
    "DISTANCE",
    "GIGABYTES",
    "ITERATIONS",
    "LEFT",
    "MULTIPLE",
    "RADIUS",
    "REMOVED",
    "SEED",
    "SLOWEST",
]

REMOVED = Limits(0.0, 1.0, "it is the fraction of channels to remove", excludes_high=True)
LEFT = Limits(0.0, 1.0, "it is the fraction to keep", excludes_low=True)
DISTANCE = Limits(0.0, float("inf"), "it is a distance", excludes_high=True)
AGREEMENT = Limits(0.0, 100.0, "it is a percentage of top-1 agreement")
COSINE = Limits(0.0, 1.0, "it is a cosine")
# A thousand times the original's latency is no limit to anything.
SLOWEST = Limits(0.0, 1000.0, "it is the fraction of the latency that the result may take", excludes_low=True)
# Algorithm 3 settles within tens of iterations; more than a thousand would only keep a machine busy.
ITERATIONS = Limits(0, 1000, "it is how often Algorithm 3 alternates")
# A bound multiplies the radius with products of norms; up to here these stay finite in double precision.
RADIUS = Limits(0.0, 1e30, "it is the length of the longest input")
# More than any machine has; much more would overflow where it is counted in bytes.
GIGABYTES = Limits(0.0, 1e6, "it is a number of gigabytes", excludes_low=True)
# The range of seeds that every generator of random numbers here takes.
SEED = Limits(0, 2**32 - 1, "it is the seed of a random generator")
# What ONNX Runtime and numpy index with 32 bits in places.
MULTIPLE = Limits(1, 2**31 - 1, "it is what channel counts are multiples of")
DIMENSION = Limits(1, 2**31 - 1, "it is a dimension of an input")
