"""Make up what the inputs of a model that describe texts read: by its tokenizer if there is one, else by chance."""

from collections.abc import Collection, Mapping, Sequence
from pathlib import Path

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.graph.input_specs import ResolvedInput
from onnx_tropnnc.inputs.input_hints import InputHints
from onnx_tropnnc.inputs.texts import arranged, made_up_rows, text_inputs, vocabulary_of, wanted_lengths
from onnx_tropnnc.inputs.tokenized import load_tokenizer, sentence_rows

__all__ = ["made_up_texts"]

# BERT's graphs have a table of two token types; others compute them, and take 0 and 1 too.
USUAL_TYPES = 2


def made_up_texts(
    inputs: Sequence[ResolvedInput],
    count: int,
    seed: int,
    hints: Mapping[str, InputHints],
    *,
    given: Collection[str] = (),
    tokenizer: Path | None = None,
) -> dict[str, tuple[str, NDArray[np.int64]]]:
    """Return the arrays of the inputs that describe texts, and what a report calls each.

    Args:
        inputs: all inputs of the model.
        count: how many texts to make.
        seed: of everything drawn.
        hints: what the graph says of the inputs.
        given: the inputs whose range the user gave; they are not made here.
        tokenizer: the file beside the model.

    Raises:
        SampleError: that file is damaged.
    """
    found: dict[str, tuple[str, NDArray[np.int64]]] = {}
    shapes = {entry.name: entry.shape for entry in inputs}
    for number, text in enumerate(text_inputs(inputs, hints)):
        if text.ids in given:
            continue
        rng, own = np.random.default_rng((seed, number)), hints[text.ids]
        vocabulary, length = vocabulary_of(own), shapes[text.ids][-1]
        cut = all(entry.elastic and entry.shape == shapes[text.ids] for entry in inputs)
        wanted = wanted_lengths(count, length, rng, masked=bool(text.masks), cut=cut)
        texts = made_up_rows(wanted, length, own, rng)
        kind = "words"
        if tokenizer is not None:
            sentences = sentence_rows(load_tokenizer(tokenizer), wanted, length, vocabulary, rng)
            # a tokenizer of another model may lie in the same folder
            if (
                own.indices is not None
                and own.indices[0] <= sentences.ids.min() <= sentences.ids.max() <= own.indices[1]
            ):
                texts, kind = sentences, "sentences"
        kinds = {**dict.fromkeys(text.masks, "mask"), **dict.fromkeys(text.types, "types"), text.ids: kind}
        known = [hints[name].indices for name in text.types if name in hints]
        types = min((bounds[1] + 1 for bounds in known if bounds is not None), default=USUAL_TYPES)
        for name, values in arranged(text, texts, types).items():
            if name not in given:
                found[name] = (kinds.get(name, "positions"), values)
    return found
