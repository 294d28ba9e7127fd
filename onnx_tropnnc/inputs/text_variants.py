"""Make more texts out of few: sentences of the user's put together in other orders.

    [begin] A [end]   [begin] B [end]   [begin] C [end]    ->    [begin] B A [end],  [begin] C B A [end], ...

A hundred sentences have some thousand tokens, fewer than a layer needs to be fitted on. Beside other sentences the
same words stand in other contexts, where the original's outputs are as good to fit.

Sentences are put together within parts: a fit is judged on texts of which it has seen no sentence.
"""

from dataclasses import replace
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.inputs.batches import PARTS, Samples
from onnx_tropnnc.inputs.padding import mask_of
from onnx_tropnnc.inputs.texts import Rows, TextInputs, arranged, log_uniform_lengths, role_of

__all__ = ["with_recombined_texts"]

# Rows are made this long where the user's are shorter: four sentences of the usual length.
LONGEST = 64

# Sentences of a part, at least: with fewer the texts of a part would all be of the same few.
LEAST_OF_PART = 4


def with_recombined_texts(samples: Samples, wanted: int, seed: int = 0) -> Samples:
    """Return the samples with texts put together from theirs until there are `wanted`, sorted by length.

    Samples that are no texts, or not run without their padding, stay as they are. New texts have no labels.
    """
    inputs = _text_of(samples)
    missing = wanted - samples.count
    if inputs is None or samples.lengths is None or missing <= 0:
        return samples
    ids, lengths = samples.arrays[inputs.ids], samples.lengths
    width = max(ids.shape[1], LONGEST)
    texts = [row[:length] for row, length in zip(ids, lengths, strict=True)]
    # what all texts begin and end with are the special tokens of the tokenizer
    begin, end = _shared([text[:1] for text in texts]), _shared([text[-1:] for text in texts])
    bodies = [text[len(begin) : len(text) - len(end)] for text in texts]
    rng = np.random.default_rng(seed)
    pad = ids[np.arange(ids.shape[1]) >= lengths[:, None]][0]
    made, sizes = np.full((missing, width), pad, ids.dtype), np.zeros(missing, np.int64)
    # a new text is made of sentences of one part only, so that parts share none
    count = PARTS if samples.count >= LEAST_OF_PART * PARTS else 1
    part = np.concatenate([np.arange(samples.count), np.arange(missing)]) % count
    pools = [np.arange(number, len(bodies), count) for number in range(count)]
    for row, most in enumerate(log_uniform_lengths(rng, missing, int(np.median(lengths)), width)):
        parts, size = [begin], len(begin) + len(end)
        # one sentence at least, however long, and more as long as the text stays as short as was drawn
        for place in rng.permutation(pools[row % count]):
            if len(parts) > 1 and size + len(bodies[place]) > most:
                break
            parts.append(bodies[place])
            size += len(bodies[place])
        own = np.concatenate([*parts, end])[:width]
        made[row, : len(own)], sizes[row] = own, len(own)
    arrays = arranged(inputs, Rows(made, sizes, sizes))
    grown = {name: _widened(samples.arrays[name], width, pad if name == inputs.ids else 0) for name in arrays}
    if inputs.positions:
        grown.update(dict.fromkeys(inputs.positions, np.broadcast_to(np.arange(width), (samples.count, width))))
    joined = {name: np.concatenate([grown[name], arrays[name].astype(grown[name].dtype)]) for name in arrays}
    entries = tuple(replace(entry, shape=(width,)) for entry in samples.inputs)
    whole = np.concatenate([lengths, sizes])
    found = replace(
        samples, inputs=entries, arrays=joined, labels=None, lengths=whole, parts=part if count > 1 else None
    )
    return found.take(np.argsort(-whole, kind="stable"))


def _text_of(samples: Samples) -> TextInputs | None:
    """Return the roles of the inputs; None where these are not one text and what belongs to it."""
    mask = mask_of(samples)
    names = [entry.name for entry in samples.inputs]
    roles = {name: "mask" if name == mask else role_of(name) for name in names}
    ids = [name for name in names if roles[name] is None]
    if mask is None or len(ids) != 1 or samples.arrays[ids[0]].dtype.kind not in "iu":
        return None
    by_role = {role: tuple(n for n in names if roles[n] == role) for role in ("mask", "type", "position")}
    return TextInputs(ids[0], by_role["mask"], by_role["type"], by_role["position"])


def _shared(ends: list[NDArray[Any]]) -> NDArray[Any]:
    """Return the token that all texts begin or end with, or none."""
    return ends[0] if len({int(end[0]) for end in ends}) == 1 else ends[0][:0]


def _widened(rows: NDArray[Any], width: int, fill: int) -> NDArray[Any]:
    return np.pad(rows, ((0, 0), (0, width - rows.shape[1])), constant_values=fill)
