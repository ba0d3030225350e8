"""Mutated definitions and models: only our own exceptions come out, in bounded time."""

from __future__ import annotations

import contextlib
import functools
import tempfile
from pathlib import Path

from hypothesis import HealthCheck, given, settings
from hypothesis import strategies as st

from caffe_compat import parse_net
from caffe_compat.errors import CaffeCompatError
from caffe_compat.network.graph import build
from caffe_compat.training.datum import decode
from caffe_compat.weights.read import parse_weights
from tests.nets import TEXT, model_file

_FUZZ = settings(
    max_examples=300, deadline=2000, derandomize=True, suppress_health_check=list(HealthCheck)
)
_WORDS = [
    *TEXT.split(),
    "layers",
    "{",
    "}",
    "[",
    "]",
    ":",
    "-1",
    "0",
    "99999999999",
    "inf",
    '"x',
    "true",
    "input_dim:",
    "<",
    ">",
    "#",
]


@functools.cache
def _model() -> bytes:
    with tempfile.TemporaryDirectory() as folder:
        return model_file(Path(folder))[0].read_bytes()


@_FUZZ
@given(
    st.lists(
        st.tuples(st.integers(0, len(TEXT.split()) - 1), st.sampled_from(_WORDS)),
        min_size=1,
        max_size=4,
    )
)
def test_mutated_words(changes: list[tuple[int, str]]) -> None:
    words = TEXT.split()
    for place, word in changes:
        words[place] = word
    with contextlib.suppress(CaffeCompatError):
        build(parse_net(" ".join(words)))


@_FUZZ
@given(st.text(alphabet="layer{}[]<>:;,.-+0123456789xeEfF\"'\\#\n abntu\0é", max_size=80))
def test_random_text(text: str) -> None:
    with contextlib.suppress(CaffeCompatError):
        parse_net(text)


@_FUZZ
@given(
    st.lists(st.tuples(st.integers(0, 100000), st.integers(0, 255)), min_size=1, max_size=6),
    st.integers(0, 100000),
)
def test_mutated_model(changes: list[tuple[int, int]], cut: int) -> None:
    data = bytearray(_model())
    for place, value in changes:
        data[place % len(data)] = value
    with contextlib.suppress(CaffeCompatError):
        weights = parse_weights(bytes(data[: len(data) - cut % 50]))
        if weights.net is not None:
            build(weights.net)


@_FUZZ
@given(st.binary(max_size=200))
def test_random_bytes(data: bytes) -> None:
    for read in (parse_weights, decode):
        with contextlib.suppress(CaffeCompatError):
            read(data)
