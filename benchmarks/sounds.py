"""Compress models of sound without data, and judge them on words and sentences that a speech synthesiser speaks.

    python benchmarks/sounds.py --kws mlperf_kws.onnx --vad silero_vad.onnx [--ratio 0.25 0.5]

It needs the program espeak-ng (apt-get install espeak-ng), which is none of the package's own ways to make sounds up:

    kws   ten words, spoken by ten voices at four speeds and pitches; half of these 400 can be used as samples
    vad   thirty sentences with pauses; the probability of speech every 32 ms, with each model's own states fed back

Prints a Markdown table with what the command states beside what is true on speech. `--data` compresses on the first
half of the words, which are then not judged on.
"""

import argparse
import subprocess
import tempfile
from pathlib import Path

import numpy as np
import onnx
import onnxruntime
from embeddings import JUDGED
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import dct

from onnx_tropnnc import Report, compress

Floats = NDArray[np.float32]
WORDS = ("down", "go", "left", "no", "off", "on", "right", "stop", "up", "yes")
VOICES = ("en-us", "en-gb", "en-gb-scotland", "en-029", "en-gb-x-rp")
VARIANTS = ("", "+f3", "+m3", "+f5", "+m7")
RATE = 16_000


def spoken(text: str, voice: str = "en-us", speed: int = 150, pitch: int = 50) -> NDArray[np.float64]:
    """Return speech of 16,000 values a second, between -1 and 1."""
    command = ["espeak-ng", "-v", voice, "-s", str(speed), "-p", str(pitch), "--stdout", text]
    content = subprocess.run(command, capture_output=True, check=True).stdout
    made = content[content.index(b"data") + 8 :]
    sound = np.frombuffer(made[: len(made) // 2 * 2], "<i2") / 32768
    count = len(sound) * RATE // 22_050
    return np.asarray(np.interp(np.arange(count) * 22_050 / RATE, np.arange(len(sound)), sound))


def coefficients(word: NDArray[np.float64]) -> Floats:
    """Return the 49 x 10 cepstral coefficients of a word in the middle of a second, as MLPerf Tiny computes them."""
    loud = np.flatnonzero(np.abs(word) > 0.02 * np.abs(word).max())
    cut = word[loud[0] : loud[-1] + 1][:RATE]
    second = np.zeros(RATE)
    start = (RATE - len(cut)) // 2
    second[start : start + len(cut)] = cut / np.abs(cut).max()
    window = 0.5 - 0.5 * np.cos(2 * np.pi * np.arange(480) / 480)
    magnitude = np.abs(np.fft.rfft(sliding_window_view(second, 480)[::320] * window, 512))
    edges = np.linspace(1127 * np.log(1 + 20 / 700), 1127 * np.log(1 + 4000 / 700), 42)
    mel = 1127 * np.log(1 + np.fft.rfftfreq(512, 1 / RATE) / 700)[:, None]
    rising, falling = (mel - edges[:-2]) / np.diff(edges)[:-1], (edges[2:] - mel) / np.diff(edges)[1:]
    bands = np.maximum(0, np.minimum(rising, falling))
    return np.asarray(dct(np.log(magnitude @ bands + 1e-6), axis=1)[:, :10] / np.sqrt(80), np.float32)


def words() -> tuple[Floats, NDArray[np.int64]]:
    """Return the coefficients of all words, spoken in all ways, and which word each is."""
    voices = [VOICES[i % 5] + VARIANTS[(i + i // 5) % 5] for i in range(10)]
    ways = [(voice, speed, pitch) for voice in voices for speed in (130, 170) for pitch in (35, 60)]
    made = [coefficients(spoken(word, *way)) for way in ways for word in WORDS]
    return np.stack(made)[:, None], np.tile(np.arange(len(WORDS)), len(ways))


def run(model: Path, x: Floats) -> Floats:
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    return np.asarray(session.run(None, {session.get_inputs()[0].name: x})[0])


def probabilities(model: Path, sound: NDArray[np.float64]) -> Floats:
    """Return the probability of speech in each chunk of 512 values, read with the 64 values before it."""
    session = onnxruntime.InferenceSession(model, providers=["CPUExecutionProvider"])
    state, found = np.zeros((2, 1, 128), np.float32), []
    padded = np.concatenate([np.zeros(64), sound]).astype(np.float32)
    for start in range(0, len(sound) - 511, 512):
        feed = {"input": padded[start : start + 576][None], "state": state, "sr": np.array(RATE)}
        probability, state = session.run(None, feed)
        found.append(float(np.squeeze(probability)))
    return np.asarray(found, np.float32)


def said(report: Report) -> str:
    """Return what the command states of its result."""
    found = report.verification
    if found is None or found.not_verified:
        return "nothing"
    likely = "" if found.likely_agreement is None else f", agreement {found.likely_agreement}"
    return f"relative error {found.relative_l2:.3f}{likely}"


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--kws", type=Path)
    parser.add_argument("--vad", type=Path)
    parser.add_argument("--ratio", type=float, nargs="*", default=[0.25, 0.5])
    parser.add_argument("--data", action="store_true")
    chosen = parser.parse_args()
    print("| model | ratio | parameters | stated | true |\n| --- | --- | --- | --- | --- |")
    with tempfile.TemporaryDirectory() as folder:
        result = Path(folder, "result.onnx")
        if chosen.kws:
            x, labels = words()
            judged = slice(len(x) // 2, None)
            before = run(chosen.kws, x[judged]).argmax(1)
            for ratio in chosen.ratio:
                samples = {"input": x[: len(x) // 2]} if chosen.data else None
                model, report = compress(chosen.kws, ratio=ratio, data=samples)
                onnx.save(model, result)
                after = run(result, x[judged]).argmax(1)
                right = [100 * float((guess == labels[judged]).mean()) for guess in (before, after)]
                agreement = 100 * float((before == after).mean())
                true = f"agreement {agreement:.1f} %, words right {right[0]:.1f} -> {right[1]:.1f} %"
                share = report.after.parameters / report.before.parameters
                print(f"| {chosen.kws.stem} | {ratio:g} | {share:.3f} | {said(report)} | {true} |", flush=True)
        if chosen.vad:
            pause = np.zeros(RATE // 2)
            voices = [voice + variant for voice in VOICES for variant in VARIANTS]
            parts = [p for i, s in enumerate(JUDGED) for p in (spoken(s, voices[i % len(voices)]), pause)]
            sound = np.concatenate(parts)
            expected = probabilities(chosen.vad, sound)
            for ratio in chosen.ratio:
                model, report = compress(chosen.vad, ratio=ratio)
                onnx.save(model, result)
                errors = np.abs(probabilities(result, sound) - expected)
                flips = 100 * float(((expected > 0.5) != (probabilities(result, sound) > 0.5)).mean())
                true = (
                    f"mean difference {errors.mean():.3f}, largest {errors.max():.2f}, other side of 0.5: {flips:.1f} %"
                )
                share = report.after.parameters / report.before.parameters
                print(f"| {chosen.vad.stem} | {ratio:g} | {share:.3f} | {said(report)} | {true} |", flush=True)


if __name__ == "__main__":
    main()
