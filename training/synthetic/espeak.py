"""espeak-ng inside this process: text -> samples, through the library of the espeakng_loader package.

The library never resets some of its state (the flutter of the pitch, the phase of the wave), so that
a text would sound a little different each time. It is therefore loaded anew for every text, which takes
4 ms, loses 4 KB of memory and lets forked processes use it freely. The breath of some voices is drawn at random, with
the time of day as the library's seed; here the seed is always the same. It is not thread-safe: one thread of a process
speaks.
"""

from __future__ import annotations

import ctypes
import os
from collections.abc import Iterator
from contextlib import contextmanager
from functools import cache
from multiprocessing.util import get_temp_dir
from pathlib import Path
from typing import Any

import espeakng_loader
import numpy as np

SAMPLE_RATE = 22050  # Hz, of all that it says

SYNCHRONOUS = 2  # no audio device and no thread: the callback runs inside espeak_Synth
DONT_EXIT = 0x8000
UTF8 = 1
RATE, PITCH, RANGE = 1, 3, 4  # espeak_PARAMETER
BREATH_SEED = 1

OWN = "own"
VARIANT = f"voices/!v/{OWN}"
NEEDED = ("lang", "phontab", "phonindex", "phondata", "intonations", "en_dict", "cmn_dict")
"""Of the library's data, to speak English and Mandarin."""

_int, _pointer, _chars = ctypes.c_int, ctypes.c_void_p, ctypes.c_char_p
_Listener = ctypes.CFUNCTYPE(_int, ctypes.POINTER(ctypes.c_short), _int, _pointer)
_Initialize = ctypes.CFUNCTYPE(_int, _int, _int, _chars, _int)
_SetSynthCallback = ctypes.CFUNCTYPE(None, _Listener)
_SetVoiceByName = ctypes.CFUNCTYPE(_int, _chars)
_SetRandSeed = ctypes.CFUNCTYPE(_int, ctypes.c_long)
_SetParameter = ctypes.CFUNCTYPE(_int, _int, _int, _int)
_Synth = ctypes.CFUNCTYPE(
    _int, _chars, ctypes.c_size_t, ctypes.c_uint, _int, ctypes.c_uint, ctypes.c_uint, _pointer, _pointer
)
_Terminate = ctypes.CFUNCTYPE(_int)

# ctypes.CDLL would leave a reference cycle for each time that the library is loaded.
_linker = ctypes.CDLL(None)
_linker.dlopen.argtypes, _linker.dlopen.restype = (_chars, _int), _pointer
_linker.dlsym.argtypes, _linker.dlsym.restype = (_pointer, _chars), _pointer
_linker.dlclose.argtypes = (_pointer,)

_blocks: list[np.ndarray] = []


@_Listener
def _listen(samples: Any, count: int, events: Any) -> int:
    if samples and count:
        _blocks.append(np.ctypeslib.as_array(samples, (count,)).copy())
    return 0  # go on


def say(text: str, voice: str, rate: int, pitch: int, pitch_range: int, speaker: str = "") -> np.ndarray:
    """int16 [n] at 22050 Hz. `rate` is words per minute; `pitch` and its range are 0 to 100. `speaker` is the text of a
    variant that the library doesn't bring, instead of one that is named after the "+".

    The same arguments give the same samples. An unknown variant is ignored.
    """
    _blocks.clear()
    with _loaded() as library:
        data = _data_with(speaker)
        voice = f"{voice}+{OWN}" if speaker else voice
        rate_hz = _Initialize(_find(library, "espeak_Initialize"))(SYNCHRONOUS, 0, str(data).encode(), DONT_EXIT)
        if rate_hz != SAMPLE_RATE:
            raise OSError(f"espeak-ng can't be initialised ({rate_hz})")
        try:
            _SetSynthCallback(_find(library, "espeak_SetSynthCallback"))(_listen)
            _check(_SetVoiceByName(_find(library, "espeak_SetVoiceByName"))(voice.encode()), f"voice {voice!r}")
            set_parameter = _SetParameter(_find(library, "espeak_SetParameter"))
            for parameter, value in ((RATE, rate), (PITCH, pitch), (RANGE, pitch_range)):
                _check(set_parameter(parameter, value, 0), f"parameter {parameter}={value}")
            _SetRandSeed(_find(library, "espeak_ng_SetRandSeed"))(BREATH_SEED)
            words = text.encode()
            synth = _Synth(_find(library, "espeak_Synth"))
            _check(synth(words, len(words) + 1, 0, 0, 0, UTF8, None, None), f"text {text!r}")
        finally:
            _Terminate(_find(library, "espeak_Terminate"))()
    return np.concatenate(_blocks) if _blocks else np.zeros(0, np.int16)


def _data_with(speaker: str) -> Path:
    """The library's data; with another speaker, in a directory that has nobody but him."""
    data = Path(espeakng_loader.get_data_path())
    if not speaker:
        return data
    own = _own_data(data, os.getpid())
    (own / VARIANT).write_text(speaker, encoding="utf-8")
    return own


@cache
def _own_data(data: Path, process: int) -> Path:
    """A directory of this process, which multiprocessing removes when the process ends."""
    own = Path(get_temp_dir()) / f"espeak-{process}"
    (own / VARIANT).parent.mkdir(parents=True)
    for needed in NEEDED:
        (own / needed).symlink_to(data / needed)
    return own


@contextmanager
def _loaded() -> Iterator[int]:
    library = _linker.dlopen(str(espeakng_loader.get_library_path()).encode(), os.RTLD_NOW)
    if not library:
        raise OSError("espeak-ng can't be loaded")
    try:
        yield library
    finally:
        _linker.dlclose(library)


def _find(library: int, name: str) -> int:
    if not (address := _linker.dlsym(library, name.encode())):
        raise OSError(f"espeak-ng has no {name}")
    return int(address)


def _check(status: int, what: str) -> None:
    if status:
        raise ValueError(f"espeak-ng refuses {what} (status {status})")
