"""Sounds made by programs: speech-like and music-like signals, and noise, which take turns.

    speech    a buzz of harmonics, its pitch moving, through three resonances (formants) that change with every
              syllable; bursts of noise for consonants, and silences between words
    music     chords of decaying harmonic tones, and strokes of noise as of drums
    noise     amplitude falling with frequency as f^-0.5
    both      speech or music in noise that is half as loud

A network that detects, recognises or transcribes sounds answers noise alone with hardly more than one output, and what
it does with everything else shows on nothing. Half a minute of speech and of music are made once for a seed, and
samples are cut from them at random places.
"""

import math
from collections.abc import Sequence

import numpy as np
from numpy.lib.stride_tricks import sliding_window_view
from numpy.typing import NDArray
from scipy.fft import dct

from onnx_tropnnc.inputs.synthetic_images import coloured_noise

__all__ = ["CEPSTRA", "MEL_BANDS", "Sounds", "cepstra", "spectrograms"]

Floats = NDArray[np.float32]

# How many coefficients models of speech read for each moment, and how many bands of a spectrogram.
CEPSTRA, MEL_BANDS = (10, 13, 20), (40, 64, 80, 96, 128)

# Most models of speech read 16,000 values a second; those of music read more, and hear these sounds as slower ones.
RATE = 16_000

# Seconds of speech and of music: some 150 syllables and 60 chords, made in about a second.
SECONDS = 30

# Pitches of voices in Hz, from low men's to children's, and how far the pitch moves within a phrase, in octaves.
PITCHES, GLIDE = (80.0, 320.0), 0.25

# The first three formants of vowels, lowest and highest in Hz, and how wide the resonances are: Peterson and Barney's.
FORMANTS, WIDTHS = ((270.0, 850.0), (850.0, 2300.0), (2200.0, 3100.0)), (80.0, 110.0, 160.0)

# Seconds that a syllable, a consonant and a silence last, and what share of all pieces they are.
LASTS, SHARES = ((0.06, 0.3), (0.03, 0.12), (0.05, 0.6)), (0.55, 0.25, 0.2)

# Voices have next to nothing above this frequency, and 8 kHz is all that RATE can hold.
HIGHEST = 5_000.0

# Seconds over which pieces of speech fade into each other.
FADE = 0.01

# Speech, music, either in noise, and noise.
TURNS = 5

# Sounds of up to CHUNK values are what detectors read of a stream, piece by piece: so many pieces follow each other.
CHUNK, STREAM = 2048, 16

# How loud noise is beside a sound, of the five turns' third and fourth: half as loud as the sound.
NOISE = math.sqrt(1 / 5)

# Semitones above the lowest note of a chord: major, minor, a fifth, an octave.
CHORDS = ((0, 4, 7), (0, 3, 7), (0, 7), (0, 12))

# A window of 25 ms every 10 ms is what recognisers of speech read.
WINDOW, HOP = 400, 160

# Spotters of keywords read windows of 30 ms every 20 ms, of words that fill part of a second.
WORD_WINDOW, WORD_HOP, WORD_POINTS, WORD_BANDS, WORD_HIGHEST = 480, 320, 512, 40, 4_000.0

# The part of a second that a spoken word lasts, at least and at most; the rest of the sample is silence.
WORD_SHARES = (0.2, 0.7)


class Sounds:
    """Speech and music that samples are cut from."""

    def __init__(self, rng: np.random.Generator, count: int, length: int) -> None:
        """Make them long enough for so many samples of `length` values, where that is less than SECONDS."""
        self.rng, length = rng, max(2 * length, min(SECONDS * RATE, count * length))
        self.banks = (speech(rng, length), music(rng, length))

    def cut(self, numbers: Sequence[int], length: int) -> Floats:
        """Return (samples, length) sounds of RATE values a second, of about mean 0 and standard deviation 1 each.

        The number of a sample says whose turn it is. Short ones come from a stream: STREAM of them follow each other.
        """
        sounds, stream = coloured_noise(self.rng, (len(numbers), length), 0.5, axes=1), STREAM if length <= CHUNK else 1
        start = 0
        for row, (run, place) in enumerate(divmod(number, stream) for number in numbers):
            turn = run % TURNS
            if turn == TURNS - 1:
                continue
            bank = self.banks[turn % 2]
            drawn = int(self.rng.integers(len(bank) - length + 1))
            start = drawn if row == 0 or place == 0 else (start + length) % (len(bank) - length + 1)
            noise = NOISE if turn >= 2 else 0.0
            sounds[row] = math.sqrt(1 - noise**2) * bank[start : start + length] + noise * sounds[row]
        return sounds


def speech(rng: np.random.Generator, length: int) -> Floats:
    """Return something like speech, standard deviation 1."""
    kinds, pieces = _pieces(rng, length)
    pitch = _moved(
        rng,
        np.exp(rng.uniform(math.log(PITCHES[0]), math.log(PITCHES[1]), len(kinds) // 8 + 1)).repeat(8)[: len(kinds)],
        pieces,
    )
    phase = 2 * math.pi * np.cumsum(pitch / RATE)
    formants = [_smooth(rng.uniform(low, high, len(kinds))[pieces], FADE) for low, high in FORMANTS]
    voiced, hissing = ((_smooth((kinds == kind)[pieces].astype(np.float64), FADE)) for kind in (0, 1))
    loudness = _smooth(np.exp(rng.normal(0, 0.4, len(kinds)))[pieces], 5 * FADE)
    sound = np.zeros(length)
    for harmonic in range(1, math.ceil(HIGHEST / PITCHES[0])):
        frequency = harmonic * pitch
        heard = np.flatnonzero((frequency < HIGHEST) & (voiced > 0))
        near = [1 / (1 + ((frequency[heard] - f[heard]) / w) ** 2) for f, w in zip(formants, WIDTHS, strict=True)]
        # the buzz of vocal cords falls by 12 dB an octave, and lips give 6 dB back
        strength = (near[0] + 0.5 * near[1] + 0.25 * near[2] + 0.02) / math.sqrt(harmonic)
        sound[heard] += strength * np.sin(harmonic * phase[heard])
    hiss = np.diff(rng.standard_normal(length + 1))
    made = loudness * (voiced * sound + 0.1 * hissing * hiss)
    return _standardised(made + 1e-3 * rng.standard_normal(length))


def _pieces(rng: np.random.Generator, length: int) -> tuple[NDArray[np.int64], NDArray[np.int64]]:
    """Return the kind of each piece of speech, and for every value the number of the piece that it belongs to."""
    most = math.ceil(length / (min(low for low, _ in LASTS) * RATE))
    kinds = rng.choice(len(SHARES), most, p=SHARES)
    bounds = np.array(LASTS)[kinds]
    sizes = (rng.uniform(bounds[:, 0], bounds[:, 1]) * RATE).astype(np.int64)
    pieces = np.repeat(np.arange(most), sizes)[:length]
    return kinds, pieces


def _moved(rng: np.random.Generator, pitches: NDArray[np.float64], pieces: NDArray[np.int64]) -> NDArray[np.float64]:
    """Return the pitch at every value: it glides within a phrase, up or down."""
    glide = np.exp2(GLIDE * _smooth(rng.normal(0, 1, len(pitches))[pieces], 0.2))
    return np.asarray(_smooth(pitches[pieces], 0.05) * glide)


def _smooth(values: NDArray[np.float64], seconds: float) -> NDArray[np.float64]:
    """Return the mean over so many seconds around each value."""
    half = max(1, int(seconds * RATE / 2))
    sums = np.concatenate([[0.0], np.cumsum(values)])
    ends = np.arange(len(values))
    low, high = np.maximum(ends - half, 0), np.minimum(ends + half + 1, len(values))
    return np.asarray((sums[high] - sums[low]) / (high - low))


def music(rng: np.random.Generator, length: int) -> Floats:
    """Return something like music, standard deviation 1."""
    made, beat = np.zeros(length), int(rng.uniform(0.2, 0.6) * RATE)
    for start in range(0, length, beat):
        lasts = min(length - start, int(beat * rng.integers(1, 4)))
        time = np.arange(lasts) / RATE
        lowest = 440.0 * 2 ** (rng.integers(-36, 12) / 12)
        for semitones in CHORDS[int(rng.integers(len(CHORDS)))]:
            tone, decay = lowest * 2 ** (semitones / 12), rng.uniform(1.0, 8.0)
            for harmonic in range(1, min(9, math.ceil(RATE / 2 / tone))):
                fading = np.exp(-decay * math.sqrt(harmonic) * time) / harmonic
                made[start : start + lasts] += fading * np.sin(2 * math.pi * harmonic * tone * time)
        if rng.random() < 0.5:
            made[start : start + lasts] += 0.5 * rng.standard_normal(lasts) * np.exp(-40 * time)
    return _standardised(made)


def _standardised(values: NDArray[np.float64]) -> Floats:
    return np.asarray((values - values.mean()) / max(float(values.std()), 1e-12), np.float32)


def spectrograms(rng: np.random.Generator, count: int, frames: int, bands: int) -> Floats:
    """Return (count, frames, bands) logarithms of mel spectrograms, mean 0 and standard deviation 1 over all."""
    found, length = np.empty((count, frames, bands), np.float32), WINDOW + (frames - 1) * HOP
    sounds, filters, window = Sounds(rng, count, length), _mel_filters(bands, WINDOW, RATE / 2), _hann(WINDOW)
    for row in range(count):
        loud = math.exp(rng.normal(0, 0.5)) * sounds.cut([row], length)[0]
        power = np.abs(np.fft.rfft(sliding_window_view(loud, WINDOW)[::HOP] * window, axis=1)) ** 2
        found[row] = np.log(power @ filters + 1e-3)
    return np.asarray((found - found.mean(dtype=np.float64)) / found.std(dtype=np.float64), np.float32)


def cepstra(rng: np.random.Generator, count: int, frames: int, coefficients: int) -> Floats:
    """Return (count, frames, coefficients) mel frequency cepstral coefficients of sounds between silences.

    They are computed as TensorFlow does it for spotters of keywords: from magnitudes in 40 bands up to 4 kHz.
    """
    found, length = np.zeros((count, frames, coefficients), np.float32), WORD_WINDOW + (frames - 1) * WORD_HOP
    sounds, window = Sounds(rng, count, length), _hann(WORD_WINDOW)
    filters = _mel_filters(WORD_BANDS, WORD_POINTS, WORD_HIGHEST)
    for row in range(count):
        sound, lasts = sounds.cut([row], length)[0], int(length * rng.uniform(*WORD_SHARES))
        if row % TURNS < TURNS - 1:  # the fifth turn is noise, which does not stop
            before = (length - lasts) // 2
            sound[:before] = sound[before + lasts :] = 0.0
        loudest = max(float(np.abs(sound).max()), 1e-6)
        windows = sliding_window_view(sound / loudest, WORD_WINDOW)[::WORD_HOP] * window
        magnitude = np.abs(np.fft.rfft(windows, WORD_POINTS, axis=1))
        found[row] = dct(np.log(magnitude @ filters + 1e-6), axis=1)[:, :coefficients] / math.sqrt(2 * WORD_BANDS)
    return found


def _hann(length: int) -> Floats:
    return np.hanning(length + 1)[:-1].astype(np.float32)


def _mel_filters(bands: int, points: int, highest: float) -> Floats:
    """Return (points // 2 + 1, bands) triangles that are equally wide on the mel scale."""
    top = 2595 * math.log10(1 + highest / 700)
    centres = 700 * (10 ** (np.linspace(0, top, bands + 2) / 2595) - 1)
    frequencies = np.fft.rfftfreq(points, 1 / RATE)[:, None]
    rising = (frequencies - centres[:-2]) / (centres[1:-1] - centres[:-2])
    falling = (centres[2:] - frequencies) / (centres[2:] - centres[1:-1])
    return np.maximum(0, np.minimum(rising, falling)).astype(np.float32)
