"""Make up texts: token ids, with the mask, the token types and the positions that belong to them.

    input_ids        101  2057  2562  1996   102     0     0        beginning, words, end, padding
    attention_mask     1     1     1     1     1     0     0
    token_type_ids     0     0     0     0     0     0     0        1 in the second half of every fourth text
    position_ids       0     1     2     3     4     5     6

An input is the ids where it indexes a table and its sample is a row of whole numbers. The other inputs of the same
shape are recognised by their names, masks also by what the graph computes of them (input_hints.py).

Words are drawn by the law of Zipf and Mandelbrot, since tokenizers number their tokens about in the order of how often
they occur. Half of a text consists of phrases that come back in other texts, as words of a language do not follow each
other at random. Lengths are mixed where a mask says where a text ends; where there is none, texts fill their row.
"""

import math
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from types import MappingProxyType

import numpy as np
from numpy.typing import NDArray

from onnx_tropnnc.graph.input_specs import ResolvedInput
from onnx_tropnnc.inputs.input_hints import InputHints

__all__ = [
    "Rows",
    "TextInputs",
    "Vocabulary",
    "arranged",
    "log_uniform_lengths",
    "made_up_rows",
    "mean_length",
    "role_of",
    "text_inputs",
    "vocabulary_of",
    "wanted_lengths",
]

Integers = NDArray[np.int64]

# Shorter rows of whole numbers are more often categories of a table's columns than texts.
SHORTEST_ROW = 4

# A table of fewer rows tells types or categories apart, not words or characters.
FEWEST_WORDS = 24

# Rank r occurs in proportion to 1 / (r + SHIFT)^EXPONENT: Mandelbrot's figures for English.
SHIFT, EXPONENT = 2.7, 1.0

# Phrases that texts share, and their fewest and most words. With 2000 of them each returns a few times among the 1280
# texts that are usually made, the commonest in every other text.
PHRASES, PHRASE_WORDS = 2000, (2, 5)

# Sentences have six tokens and more; with the length of a row as the other end, the logarithms of lengths are uniform.
SHORTEST_TEXT = 6

# Every so many texts are a pair of texts, as those that compare two sentences read them.
PAIRS = 4


@dataclass(frozen=True)
class Vocabulary:
    """The numbers of the tokens that are no words, and of the first frequent word; None: there is no such token."""

    begin: int | None = None
    end: int | None = None
    pad: int = 0
    first: int = 0


# The vocabularies of tokenizers that many models share, by how many tokens they have.
VOCABULARIES: Mapping[int, Vocabulary] = {
    30522: Vocabulary(101, 102, 0, 1996),  # BERT, uncased: also MiniLM, DistilBERT, BGE, E5, GTE
    28996: Vocabulary(101, 102, 0, 1103),  # BERT, cased
    119547: Vocabulary(101, 102, 0, 106),  # BERT, multilingual
    21128: Vocabulary(101, 102, 0, 670),  # BERT, Chinese
    30527: Vocabulary(0, 2, 1, 2000),  # MPNet
    50265: Vocabulary(0, 2, 1, 4),  # RoBERTa, BART
    250002: Vocabulary(0, 2, 1, 4),  # XLM-RoBERTa
    30000: Vocabulary(2, 3, 0, 13),  # ALBERT
    128100: Vocabulary(1, 2, 0, 260),  # DeBERTa v3
    50368: Vocabulary(50281, 50282, 50283, 200),  # ModernBERT
    49408: Vocabulary(49406, 49407, 49407, 256),  # CLIP
    32128: Vocabulary(None, 1, 0, 3),  # T5
}


@dataclass(frozen=True)
class TextInputs:
    """The inputs that describe one text; all have the shape of `ids`."""

    ids: str
    masks: tuple[str, ...] = ()
    types: tuple[str, ...] = ()
    positions: tuple[str, ...] = ()


@dataclass(frozen=True)
class Rows:
    """Texts in rows of one length: the tokens, how many of them are the text, and where its second part begins."""

    ids: Integers
    lengths: Integers
    seconds: Integers


def text_inputs(inputs: Sequence[ResolvedInput], hints: Mapping[str, InputHints]) -> tuple[TextInputs, ...]:
    """Return the texts that a model reads: one for each input that indexes a vocabulary."""
    rows = [entry for entry in inputs if entry.dtype.kind in "iufb" and _row_length(entry) >= SHORTEST_ROW]
    sizes = {e.name: _table_size(hints, e.name) for e in rows if e.dtype.kind in "iu"}
    sources = [e for e in rows if sizes.get(e.name, 0) >= FEWEST_WORDS and not role_of(e.name, hints)]
    found: dict[str, dict[str, list[str]]] = {e.name: {"mask": [], "type": [], "position": []} for e in sources}
    for entry in rows:
        role = role_of(entry.name, hints)
        alike = [source for source in sources if source.shape == entry.shape]
        if role and alike:
            # decoder_attention_mask belongs to decoder_input_ids where there are input_ids too
            nearest = max(alike, key=lambda source: _shared_beginning(source.name, entry.name))
            found[nearest.name][role].append(entry.name)
    return tuple(TextInputs(n, tuple(f["mask"]), tuple(f["type"]), tuple(f["position"])) for n, f in found.items())


def _row_length(entry: ResolvedInput) -> int:
    """Return the length of a sample that is one row, 0 for others."""
    return entry.shape[-1] if entry.shape and math.prod(entry.shape[:-1]) == 1 else 0


def _table_size(hints: Mapping[str, InputHints], name: str) -> int:
    known = hints.get(name)
    return 0 if known is None or known.indices is None else known.indices[1] + 1


def role_of(name: str, hints: Mapping[str, InputHints] = MappingProxyType({})) -> str | None:
    """Return what an input says of a text: its name tells, or what the graph computes of it."""
    lower = name.lower()
    if "mask" in lower or (name in hints and hints[name].mask):
        return "mask"
    if "type" in lower or "segment" in lower:
        return "type"
    return "position" if "position" in lower else None


def _shared_beginning(one: str, other: str) -> int:
    same = (a == b for a, b in zip(one, other, strict=False))
    return next((i for i, equal in enumerate(same) if not equal), min(len(one), len(other)))


def vocabulary_of(hints: InputHints) -> Vocabulary:
    """Return which tokens are no words, as far as the size of the table and the graph tell."""
    size = hints.indices[1] + 1 if hints.indices else 0
    if size in VOCABULARIES:
        return VOCABULARIES[size]
    # RoBERTa's graphs count positions from where ids differ from the padding
    return Vocabulary(pad=hints.constant) if hints.constant is not None and 0 <= hints.constant < size else Vocabulary()


def wanted_lengths(count: int, length: int, rng: np.random.Generator, *, masked: bool, cut: bool) -> Integers:
    """Return how long texts in rows of this length should be, longest first; more than a row means that they fill it.

    Args:
        count: how many.
        length: of a row.
        rng: what draws them.
        masked: whether a mask tells where a text ends; without one all texts fill their rows.
        cut: whether runs leave out the padding; else every other text fills its row, since layers are fitted on all.
    """
    if not masked:
        return np.full(count, 2 * length)
    lengths = log_uniform_lengths(rng, count, SHORTEST_TEXT, length)
    if not cut:
        lengths[: count // 2] = 2 * length
    return lengths


def made_up_rows(wanted: Integers, length: int, hints: InputHints, rng: np.random.Generator) -> Rows:
    """Return texts of made-up words, as long as wanted, in rows of this length."""
    vocabulary, count = vocabulary_of(hints), len(wanted)
    low, high = hints.indices or (0, 1)
    signs = [token for token in (vocabulary.begin, vocabulary.end, vocabulary.pad) if token is not None]
    words = np.setdiff1d(np.arange(max(low, vocabulary.first), high + 1), signs)
    lengths = np.minimum(wanted, length)
    if vocabulary == Vocabulary() and lengths.min(initial=length) == length and low <= vocabulary.pad:
        words = np.append(words, vocabulary.pad)  # which may be a word like others; then it is the rarest
    weights = 1.0 / (np.arange(len(words)) + SHIFT) ** EXPONENT
    stream = _stream(words, weights / weights.sum(), count * length, rng).reshape(count, length)
    return _framed(stream, lengths, vocabulary)


def log_uniform_lengths(rng: np.random.Generator, count: int, shortest: int, longest: int) -> Integers:
    """Return lengths, longest first, whose logarithms are uniform: as many are short as are twice as long."""
    drawn = np.exp(rng.uniform(math.log(min(shortest, longest)), math.log(longest + 1), count))
    return np.sort(np.minimum(drawn.astype(np.int64), longest))[::-1].copy()


def mean_length(longest: int) -> float:
    """Return the mean of such lengths from SHORTEST_TEXT on."""
    shortest = min(SHORTEST_TEXT, longest)
    return (longest + 1 - shortest) / math.log((longest + 1) / shortest)


def _stream(words: Integers, shares: NDArray[np.float64], count: int, rng: np.random.Generator) -> Integers:
    """Return so many tokens one after the other: single words and phrases by turns."""
    sizes = rng.integers(*PHRASE_WORDS, PHRASES, endpoint=True)
    tokens = rng.choice(words, int(sizes.sum()), p=shares)
    phrases = np.split(tokens, np.cumsum(sizes)[:-1])
    frequencies = 1.0 / (np.arange(PHRASES) + SHIFT) ** EXPONENT
    # a phrase and as many single words as the shortest one has: three tokens at least
    turns = -(-count // (PHRASE_WORDS[0] + 1))
    chosen = rng.choice(PHRASES, turns, p=frequencies / frequencies.sum())
    singles = rng.choice(words, (turns, sum(PHRASE_WORDS) // 2), p=shares)
    pieces = [part for phrase, single in zip(chosen, singles, strict=True) for part in (phrases[phrase], single)]
    return np.asarray(np.concatenate(pieces)[:count], np.int64)


def _framed(ids: Integers, lengths: Integers, vocabulary: Vocabulary) -> Rows:
    """Return the texts with the tokens at their beginnings, ends and middles, and padding behind them."""
    count, length = ids.shape
    rows, seconds = np.arange(count), lengths.copy()
    if vocabulary.begin is not None:
        ids[:, 0] = vocabulary.begin
    if vocabulary.end is not None:
        ids[rows, lengths - 1] = vocabulary.end
        pairs = rows[PAIRS - 1 :: PAIRS]
        middles = lengths[pairs] // 2
        ids[pairs, middles] = vocabulary.end
        seconds[pairs] = middles + 1
    ids[np.arange(length) >= lengths[:, None]] = vocabulary.pad
    return Rows(ids, lengths, seconds)


def arranged(inputs: TextInputs, texts: Rows, types: int = 2) -> dict[str, Integers]:
    """Return what each of the inputs reads of these texts; `types` counts the token types that the model knows."""
    places = np.broadcast_to(np.arange(texts.ids.shape[1]), texts.ids.shape)
    there = places < texts.lengths[:, None]
    second = there & (places >= texts.seconds[:, None])
    found = {inputs.ids: texts.ids}
    found.update(dict.fromkeys(inputs.masks, there.astype(np.int64)))
    found.update(dict.fromkeys(inputs.types, np.minimum(second, types - 1).astype(np.int64)))
    found.update(dict.fromkeys(inputs.positions, places.astype(np.int64)))
    return found
