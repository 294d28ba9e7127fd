"""Texts from the sentences of this package, by the tokenizer that lies beside a model.

    model.onnx, tokenizer.json          or          onnx/model.onnx, tokenizer.json

A text is one sentence or several, until it has a length that is drawn. Every fourth one is a pair, where the tokenizer
says how pairs are written. Every fifth text, which verification gets, consists of sentences that the others do not
have: else a model that was fitted to these very sentences would look better than it is. The others are put together
within parts, for the same reason. Without the package `tokenizers` texts are made up by texts.py.
"""

import importlib
import importlib.util
from collections.abc import Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.errors import SampleError
from onnx_tropnnc.inputs.batches import PARTS
from onnx_tropnnc.inputs.sentences import SENTENCES
from onnx_tropnnc.inputs.texts import PAIRS, Rows, Vocabulary

__all__ = ["load_tokenizer", "parts_of", "sentence_rows", "tokenizer_beside"]

# Samples.split holds every so many back.
EVERY = 5

# Sentences of the package have five tokens at least; a pair of two of them fits twice into so many.
SHORTEST_PAIR = 24


# Bytes and special tokens make ten tokens of a short word at most; a rule that replaces each letter by a thousand words
# would take minutes and gigabytes for all sentences.
SHORT_WORD, MOST_TOKENS = "the", 64


def tokenizer_beside(source: object) -> Path | None:
    """Return the tokenizer.json beside a model's file, or above its folder `onnx`; None where there is none to read."""
    if not isinstance(source, Path) or importlib.util.find_spec("tokenizers") is None:
        return None
    folders = [source.parent, source.parent.parent] if source.parent.name == "onnx" else [source.parent]
    return next((path for folder in folders if (path := folder / "tokenizer.json").is_file()), None)


def load_tokenizer(path: Path) -> Any:
    """Return the tokenizer, which neither shortens texts nor fills them up.

    Raises:
        SampleError: the file is damaged, or makes a text of any length of a short word.
    """
    with _failures_told():
        tokenizer = importlib.import_module("tokenizers").Tokenizer.from_file(str(path))
        tokenizer.no_truncation()
        tokenizer.no_padding()
        made = len(tokenizer.encode(SHORT_WORD).ids)
    if made > MOST_TOKENS:
        raise SampleError(
            f"the tokenizer beside the model makes {made} tokens of {SHORT_WORD!r}; move tokenizer.json away"
        )
    return tokenizer


@contextmanager
def _failures_told() -> Iterator[None]:
    """Turn everything that the package `tokenizers` raises for a damaged file into a SampleError.

    Its errors have no class of their own; where Rust code ends, what is raised is no Exception at all.
    """
    try:
        yield
    except BaseException as error:
        if not isinstance(error, Exception) and type(error).__name__ != "PanicException":
            raise
        reason = " ".join(str(error).split())[:200]
        raise SampleError(f"tokenizer.json beside the model cannot be used: {reason}; move it away") from error


def parts_of(count: int) -> NDArray[np.int64]:
    """Return the part of each of so many sentences or texts: those that verification gets are left out of the count."""
    numbers = np.arange(count)
    return (numbers - numbers // EVERY) % PARTS


def sentence_rows(
    tokenizer: Any, wanted: NDArray[np.int64], length: int, vocabulary: Vocabulary, rng: np.random.Generator
) -> Rows:
    """Return texts of sentences, about as long as wanted, in rows of this length.

    Raises:
        SampleError: the tokenizer fails on them.
    """
    with _failures_told():
        sizes = [len(encoded.ids) for encoded in tokenizer.encode_batch(list(SENTENCES))]
    numbers = np.arange(len(SENTENCES))
    is_held, part = numbers % EVERY == EVERY - 1, parts_of(len(numbers))
    pools = [numbers[~is_held & (part == number)] for number in range(PARTS)]
    own_part = parts_of(len(wanted))
    texts: list[Any] = []
    for number, most in enumerate(wanted):
        total, chosen = 0, list[str]()
        held = number % EVERY == EVERY - 1
        for place in rng.permutation(numbers[is_held] if held else pools[own_part[number]]):
            if chosen and total + sizes[place] > most:
                break
            chosen.append(SENTENCES[place])
            total += sizes[place]
        half = len(chosen) // 2
        paired = number % PAIRS == PAIRS - 1 and half and most >= SHORTEST_PAIR
        texts.append((" ".join(chosen[:half]), " ".join(chosen[half:])) if paired else " ".join(chosen))
    ids = np.full((len(wanted), length), vocabulary.pad)
    lengths, seconds = np.zeros(len(wanted), np.int64), np.zeros(len(wanted), np.int64)
    with _failures_told():
        rows = tokenizer.encode_batch(texts)
    for row, encoded in enumerate(rows):
        own = encoded.ids[:length]
        # a text that was cut off ends as others do
        ids[row, : len(own)] = own if len(own) == len(encoded.ids) else [*own[:-1], encoded.ids[-1]]
        lengths[row] = len(own)
        seconds[row] = next((i for i, kind in enumerate(encoded.type_ids[:length]) if kind), len(own))
    return Rows(ids, lengths, seconds)
