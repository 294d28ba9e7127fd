"""Bound the work of the searches that refit layers, in multiply-accumulates: a result must not depend on a clock."""

from collections.abc import Sequence

__all__ = ["ALL_EFFORT", "STEPS", "affordable_batch", "affordable_steps", "search_macs"]

# The most multiply-accumulates of one search, and of all searches of a model together: one core does about 25 billion a
# second here. Four seconds a search keep an MLP of MNIST at its accuracy (97.2 %), two cost 0.1 points; ResNet20 needs
# 60 billion for all of its searches, ResNet56 170.
EFFORT, ALL_EFFORT = 100_000_000_000, 300_000_000_000

# The most steps of a search. The rate falls to 0 over them, so their number is part of the search, not only its end.
# With 100 of them, the three layers of ResNet20 below come out at 0.245, 0.425 and 0.521.
STEPS = 150

# The fewest steps, where a model needs many searches: beyond, each step looks at fewer outputs.
FEWEST_STEPS = 50

# The most outputs that a step looks at, and the fewest: where not even these can be afforded, nothing is refitted.
# Twice as many bring nothing where the consumer is solved once more behind the search: the errors on held-out rows of
# three layers of ResNet20 are 0.240, 0.422 and 0.516 with 1024, and were 0.239, 0.423 and 0.518 with 2048 and no such
# solution. Fewer than 256 say little of a gradient.
MOST, FEWEST = 1024, 256


def search_macs(sizes: Sequence[int]) -> int:
    """Return the multiply-accumulates of a search for matrices of so many elements; 0 where these are too many."""
    return STEPS * affordable_batch(sizes) * _step_macs(sizes)


def affordable_batch(sizes: Sequence[int], share: float = 1.0) -> int:
    """Return how many outputs a step of a search may look at; 0 where the chain is too wide for a search.

    Args:
        sizes: the elements of the chain's matrices, those of the consumer last.
        share: the part of a usual search that this one may take, where a model needs many of them.
    """
    # what fewer steps do not save
    left = share * STEPS / affordable_steps(share)
    batch = int(left * min(MOST, EFFORT // (STEPS * _step_macs(sizes))))
    return batch if batch >= FEWEST else 0


def affordable_steps(share: float) -> int:
    """Return how many steps a search may take that gets this part of a usual one."""
    return max(FEWEST_STEPS, round(share * STEPS))


def _step_macs(sizes: Sequence[int]) -> int:
    """Return the multiply-accumulates for one output in one step: the first layer needs no gradient of its inputs."""
    first, *others = sizes
    return 2 * first + 3 * sum(others)
