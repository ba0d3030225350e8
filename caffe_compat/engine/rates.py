"""How fast this machine does the steps of a convolution: the rates of the cost model.

They are measured once per machine and kept in the user's cache folder. Only their ratios matter,
and only for which way a convolution runs: results agree to 1e-5 of the largest value in any way.
They are measured on one thread in processor time. What else the machine does at that moment then
counts little, whereas wall time on a busy machine says that many small steps cost ten times as much
as one large one, and such rates would stay in the file.
``CPM_RATES=default`` takes the built-in rates instead and measures nothing.
"""

from __future__ import annotations

import dataclasses
import hashlib
import json
import os
import platform
import time
from collections.abc import Callable
from dataclasses import dataclass
from functools import cache, partial
from pathlib import Path

import torch
import torch.nn.functional as F

from caffe_compat.files import TargetError, make_folder, write_json

BUILT_IN_OF = "two cores of an AMD EPYC"


@dataclass(frozen=True)
class Rates:
    """Operations (two per multiply-add) or bytes per second.

    The built-in numbers are those of ``BUILT_IN_OF`` with AVX-512 and torch 2.13; ``products`` was
    not measured there and is taken to be what ``groups`` is.

    Attributes
    ----------
    direct : torch's convolution, 16 input channels or more.
    direct_narrow : the same with fewer.
    lines, columns : products with the constant matrices of the tiled way, along each axis.
    mix : the channels' mixing of the tiled way, a product for each frequency.
    groups : the channels' mixing of minimal filtering by oneDNN's grouped convolution.
    products : the same by batched products.
    thin : products with the 6×6 matrices of minimal filtering.
    kernel_bytes : reading a transformed kernel.
    copy : copying maps.
    """

    direct: float = 230e9
    direct_narrow: float = 190e9
    lines: float = 90e9
    columns: float = 135e9
    mix: float = 150e9
    groups: float = 180e9
    products: float = 180e9
    thin: float = 50e9
    kernel_bytes: float = 30e9
    copy: float = 10e9


# Rates further than this factor from the built-in ratios are a sign of a disturbed measurement.
_PLAUSIBLE = 3.0
# What all threads share: a second one adds little.
_SHARED = ("kernel_bytes", "copy")
# Bytes that one thread reads and writes per second where the built-in rates come from.
_COPY = 40e9
# Channels of the maps that are measured with.
_CHANNELS = 64
# How the rates were measured. Files of an older way have another name and are not read.
_METHOD = "processor time of one thread"


def rates_file() -> Path:
    """Where this machine's rates are kept: one file for each processor, torch and thread count."""
    base = os.environ.get("XDG_CACHE_HOME") or os.path.join(os.path.expanduser("~"), ".cache")
    key = f"{_processor()}|{torch.__version__}|{torch.get_num_threads()}|{_METHOD}"
    name = hashlib.sha256(key.encode()).hexdigest()[:16]
    return Path(base) / "convolutional-pose-machines" / f"rates-{name}.json"


def _processor() -> str:
    try:
        lines = Path("/proc/cpuinfo").read_text(encoding="utf-8").splitlines()
        return next(line for line in lines if line.startswith("model name"))
    except (OSError, StopIteration):
        return platform.processor() or platform.machine()


@cache
def rates_in_use() -> tuple[Rates, str]:
    """The stored rates of this machine, else measured ones, which are then stored.

    A cache folder that cannot be written is no error: the rates then hold for this process.

    Returns
    -------
    The rates, and in words where they come from.
    """
    if os.environ.get("CPM_RATES") == "default":
        return Rates(), f"built in, {BUILT_IN_OF}"
    stored = stored_rates()
    return (stored, _kept()) if stored else calibrate()


def _kept() -> str:
    return f"measured on this machine, kept in {rates_file()}"


def stored_rates() -> Rates | None:
    """The rates in this machine's file; None where there is none or it is damaged."""
    try:
        content = json.loads(rates_file().read_text(encoding="utf-8"))["rates"]
        found = Rates(**{f.name: float(content[f.name]) for f in dataclasses.fields(Rates)})
    except (OSError, ValueError, KeyError, TypeError):
        return None
    return found if all(v > 0 for v in dataclasses.astuple(found)) else None


def calibrate() -> tuple[Rates, str]:
    """Measure this machine's rates, in about a second, and store them.

    Returns
    -------
    The rates, and in words where they are kept, or why they are not.
    """
    threads = torch.get_num_threads()
    torch.set_num_threads(1)
    try:
        one = _measure()
    finally:
        torch.set_num_threads(threads)
    rates = {
        name: value * (1 if name in _SHARED else threads)
        for name, value in dataclasses.asdict(one).items()
    }
    found = _plausible(Rates(**rates), Rates())
    content = {
        "processor": _processor(),
        "torch": torch.__version__,
        "threads": threads,
        "rates": dataclasses.asdict(found),
    }
    path = rates_file()
    try:
        make_folder(path.parent)
        write_json(path, content)
    except TargetError as error:
        return found, f"measured on this machine, not kept: {error}"
    return found, _kept()


def _best(work: Callable[[], object], seconds: float = 0.06) -> float:
    """The shortest processor time of some runs: what else the machine does only makes runs
    longer."""
    fine = time.get_clock_info("thread_time").resolution < 1e-5
    clock = time.thread_time if fine else time.perf_counter
    work()
    times: list[float] = []
    end = time.perf_counter() + seconds
    while len(times) < 3 or (time.perf_counter() < end and len(times) < 50):
        start = clock()
        work()
        times.append(clock() - start)
    return min(times)


@torch.no_grad()
def _measure() -> Rates:
    """The rates of one thread."""
    direct, direct_narrow = _direct(_CHANNELS, 5, 46), _direct(3, 9, 92)
    lines, columns, mix = _tiled_steps()
    groups, products = _mixing(grouped=True), _mixing(grouped=False)
    thin = _thin()
    # a copy's rate and the reading of kernels are bound by the same memory
    memory = _copying() / _COPY
    return Rates(
        direct=direct,
        direct_narrow=direct_narrow,
        lines=lines,
        columns=columns,
        mix=mix,
        groups=groups,
        products=products,
        thin=thin,
        kernel_bytes=Rates.kernel_bytes * memory,
        copy=Rates.copy * memory,
    )


def _direct(inputs: int, kernel: int, size: int) -> float:
    """Rate of torch's convolution of size×size maps by square kernels."""
    x = torch.randn(1, inputs, size, size).contiguous(memory_format=torch.channels_last)
    weight = torch.randn(_CHANNELS, inputs, kernel, kernel)
    weight = weight.contiguous(memory_format=torch.channels_last)
    operations = 2.0 * _CHANNELS * inputs * kernel**2 * size**2
    return operations / _best(lambda: F.conv2d(x, weight, padding=kernel // 2))


def _tiled_steps() -> tuple[float, float, float]:
    """Rates of the tiled way's steps: products along the width, along the height, and mixing."""
    from caffe_compat.engine.tiled import Tiling

    n, tiles = 24, 64
    tiling = Tiling(n, (9, 9), (4, 4))
    h = tiling.half
    row = torch.randn(2 * h, n).expand(4 * n, -1, -1)
    pixels = torch.randn(4 * n, n, _CHANNELS)
    rows = torch.empty(4 * n, 2 * h, _CHANNELS)
    operations = 2.0 * 2 * h * n * _CHANNELS * 4 * n
    lines = operations / _best(lambda: torch.bmm(row, pixels, out=rows))

    column = torch.randn(2 * n, 2 * n).expand(8, -1, -1)
    half = torch.randn(8, 2 * n, h * _CHANNELS)
    made = torch.empty(8, 2 * n, h * _CHANNELS)
    operations = 2.0 * 4 * n * n * h * _CHANNELS * 8
    columns = operations / _best(lambda: torch.bmm(column, half, out=made))

    kernel = tiling.prepare(torch.randn(_CHANNELS, _CHANNELS, 9, 9))
    plain = torch.randn(tiles, tiling.frequencies * _CHANNELS)
    mixed = torch.empty_like(plain)
    operations = 4.0 * tiling.frequencies * _CHANNELS * _CHANNELS * tiles
    mix = operations / _best(lambda: kernel.mix(tiling.all, plain, plain, mixed))
    return lines, columns, mix


def _thin() -> float:
    """Rate of products with the 6×6 matrices of minimal filtering."""
    from caffe_compat.engine.minimal import SIDE

    count = 4 * 256
    matrix = torch.randn(SIDE, SIDE).expand(count, -1, -1)
    cells = torch.randn(count, SIDE, _CHANNELS)
    made = torch.empty_like(cells)
    operations = 2.0 * SIDE * SIDE * _CHANNELS * count
    return operations / _best(lambda: torch.bmm(matrix, cells, out=made))


def _copying() -> float:
    """Bytes that a copy reads and writes per second."""
    source = torch.randn(4_000_000)
    target = torch.empty_like(source)
    return 8.0 * source.numel() / _best(lambda: target.copy_(source))


def _mixing(grouped: bool) -> float:
    """Rate of minimal filtering's mixing of channels.

    On some processors oneDNN wants another layout of the kernel for some numbers of tiles, and
    brings it there in each call: the mixing then takes twenty times as long. Hence several
    numbers of tiles, of which some show it, and narrow and wide kernels.
    """
    from caffe_compat.engine.minimal import SIDE, Filtering

    inputs, seconds, operations = _CHANNELS, 0.0, 0.0
    for outputs in (64, 256):
        way = Filtering((3, 3), (1, 1), grouped)
        kernel = way.prepare(torch.randn(outputs, inputs, 3, 3))
        for count in (39, 78, 256):
            tiles = torch.randn(count, SIDE * inputs)
            seconds += _best(partial(kernel.mix, 0, tiles), 0.02)
            operations += 2.0 * SIDE * inputs * outputs * count
    return operations / seconds


def _plausible(found: Rates, default: Rates) -> Rates:
    """Rates whose ratio to the direct one is far from the built-in one's are cut back."""
    unit = found.direct / default.direct
    limited = {}
    for name, built_in in dataclasses.asdict(default).items():
        expected = built_in * unit
        lowest, highest = expected / _PLAUSIBLE, expected * _PLAUSIBLE
        limited[name] = min(max(getattr(found, name), lowest), highest)
    return Rates(**limited)
