"""The original testing protocol: a person at several scales through the network, belief maps back
to the image.

Two protocols, as the release has them: *benchmark* (LSP, FLIC, MPI: seven scales about the
annotated size, scores of the last stage summed) and *demo* (a rectangle around the person, six
scales per octave, heat maps of every stage averaged).

Coordinates are MATLAB's here: 1-based pixels, x before y; :class:`Prediction` gives both. The way
back from a belief map to the image (eight times larger, crop and padding undone, resized to the
original size) is linear in each axis; it is composed into one matrix per axis and applied as two
matrix products to all parts and stages at once.

Source: ``applyModel.m`` and ``run_benchmark.m`` of the CPM release (formulas; recorded intermediate
values).
"""

from __future__ import annotations

import math
from collections.abc import Sequence
from dataclasses import dataclass
from functools import lru_cache
from typing import TYPE_CHECKING, Literal

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError
from caffe_compat.lazy import lazy_import
from reproduce.predict.imresize import axis_map, imresize

if TYPE_CHECKING:
    import torch

    from caffe_compat.engine.plan import Mode
    from caffe_compat.network import patches
    from caffe_compat.network.net import Net
else:
    torch, patches = lazy_import("torch"), lazy_import("caffe_compat.network.patches")

Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float64]
Maps = npt.NDArray[np.float32]
Combination = Literal["benchmark", "demo"]

PAD_VALUE = 128
SEARCH = tuple(0.7 + 0.1 * i for i in range(7))
TARGET_DIST = 41 / 35
_MAP_VALUES = 1 << 26  # belief values at the image's size that are held at once


@dataclass(frozen=True)
class Setting:
    """What a network was trained with.

    Attributes
    ----------
    boxsize : height and width of its input. sigma : of the centre map, in input pixels.
    target_dist : scale of a person in the input: 41/35 at 368 pixels.
    """

    boxsize: int = 368
    sigma: float = 21.0
    target_dist: float = TARGET_DIST

    @classmethod
    def for_boxsize(cls, boxsize: int) -> Setting:
        """The released setting shrunk to another input size."""
        ratio = boxsize / 368
        return cls(boxsize, 21.0 * ratio, TARGET_DIST * ratio)


@dataclass(frozen=True)
class Task:
    """A person in an image.

    Attributes
    ----------
    image : (H, W, 3) uint8 R, G, B.
    center : (x, y), 1-based. scales : resize factors of the image.
    mode : how scores are combined.
    """

    image: Image
    center: tuple[float, float]
    scales: tuple[float, ...]
    mode: Combination = "benchmark"


@dataclass(frozen=True)
class Geometry:
    """Where a scaled image lies in the network's input.

    Attributes
    ----------
    scaled : (rows, columns) of the scaled image.
    pad : up, left, down, right; negative = cropped there.
    """

    scaled: tuple[int, int]
    pad: tuple[int, int, int, int]

    def inside(self, boxsize: int) -> tuple[int, int, int, int]:
        """The rectangle (top, left, bottom, right) of a box that shows the image; the rest is
        grey."""
        up, left, down, right = (max(0, p) for p in self.pad)
        return up, left, boxsize - down, boxsize - right


@dataclass(frozen=True)
class Prepared:
    """A task whose image is resized already: what the network and the way back need of it.

    Attributes
    ----------
    boxes : (scales, B, B, 3) uint8 R, G, B. geometry : where each scaled image lies in its box.
    size : (H, W) of the image. mode : how scores are combined.
    """

    boxes: Image
    geometry: tuple[Geometry, ...]
    size: tuple[int, int]
    mode: Combination


def _round(value: float) -> int:
    """MATLAB's round: halves away from zero."""
    return int(math.copysign(math.floor(abs(value) + 0.5), value))


def colon(first: float, step: float, last: float) -> tuple[float, ...]:
    """MATLAB's ``first:step:last``."""
    count = math.floor((last - first) / step * (1 + np.finfo(np.float64).eps)) + 1
    return tuple(first + i * step for i in range(max(0, count)))


def task_lsp(image: Image, setting: Setting, search: Sequence[float] = SEARCH) -> Task:
    """LSP: the image's centre and height."""
    height, width = image.shape[:2]
    scale = 0.8 / (height / setting.boxsize)
    return Task(image, (width / 2, height / 2), tuple(scale * s for s in search))


def task_flic(
    image: Image, torso: Sequence[float], setting: Setting, search: Sequence[float] = SEARCH
) -> Task:
    """FLIC: from the torso box x1, y1, x2, y2 (float32 in the data set's file, and so is what
    MATLAB makes of it)."""
    box = np.asarray(torso, np.float32)
    scale = np.float32(setting.target_dist) / (np.float32(0.0110) * (box[3] - box[1]))
    center = (box[0] + box[2]) / np.float32(2), np.float32(0.7) * box[1] + np.float32(0.3) * box[3]
    scales = tuple(float(scale * np.float32(s)) for s in search)
    return Task(image, (float(center[0]), float(center[1])), scales)


def task_mpi(
    image: Image,
    objpos: Sequence[float],
    scale: float,
    setting: Setting,
    search: Sequence[float] = SEARCH,
) -> Task:
    """MPII: the annotated centre and scale."""
    return Task(
        image, (objpos[0], objpos[1]), tuple(setting.target_dist / scale * s for s in search)
    )


def task_demo(
    image: Image,
    rectangle: Sequence[float],
    setting: Setting,
    octave: float = 6.0,
    search: Sequence[float] | None = None,
) -> Task:
    """A rectangle x, y, width, height (1-based) around a person.

    Parameters
    ----------
    octave : scales per octave between a third and 1 / 0.8 of the scale that makes the person fill
        the input.
    search : those multiples instead.

    Raises
    ------
    CaffeCompatError : the rectangle has no area inside the image.
    """
    height, width = image.shape[:2]
    x0, y0 = max(rectangle[0], 1.0), max(rectangle[1], 1.0)
    x1, y1 = min(rectangle[0] + rectangle[2], width), min(rectangle[1] + rectangle[3], height)
    if not (x1 > x0 and y1 > y0):
        raise CaffeCompatError(
            f"box {tuple(rectangle)}: no part of it lies inside the {width}×{height} image"
        )
    ratio = (y1 - y0) / height * 1.2
    if search is None:
        start, stop = (math.log2(setting.boxsize / (m * ratio * height)) for m in (3.0, 0.8))
        scales = tuple(2.0**e for e in colon(start, 1 / octave, stop))
    else:
        scales = tuple(s * setting.boxsize / (ratio * height) for s in search)
    return Task(image, ((x0 + x1) / 2, (y0 + y1) / 2), scales, "demo")


@lru_cache(maxsize=8)
def center_map(boxsize: int, sigma: float) -> Maps:
    """The fourth input channel: a Gaussian that peaks at pixel boxsize / 2, counted from 1."""
    axis = np.arange(1, boxsize + 1, dtype=np.float64) - boxsize / 2
    exponent = (axis[:, None] ** 2 + axis[None] ** 2) / 2.0 / sigma / sigma
    return np.exp(-exponent).astype(np.float32)


def pad_around(
    image: Image, boxsize: int, center: tuple[float, float]
) -> tuple[Image, tuple[int, int, int, int]]:
    """Put an image into a box with its centre in the middle, grey outside.

    Returns
    -------
    (boxsize, boxsize, 3) uint8, and pad up, left, down, right.
    """
    height, width = image.shape[:2]
    x, y = _round(center[0]), _round(center[1])
    half = boxsize // 2
    pad = (half - y, half - x, half - (height - y), half - (width - x))
    box = np.full((boxsize, boxsize, image.shape[2]), PAD_VALUE, np.uint8)
    top, left = max(0, pad[0]), max(0, pad[1])
    source = image[
        max(0, -pad[0]) : max(0, height + min(0, pad[2])),
        max(0, -pad[1]) : max(0, width + min(0, pad[3])),
    ]
    source = source[: max(0, boxsize - top), : max(0, boxsize - left)]
    box[top : top + source.shape[0], left : left + source.shape[1]] = source
    return box, pad


def shrink(task: Task, setting: Setting) -> Prepared:
    """A task's image at all scales, in boxes of the network's size."""
    boxes = np.empty((len(task.scales), setting.boxsize, setting.boxsize, 3), np.uint8)
    geometry = []
    for i, scale in enumerate(task.scales):
        scaled = imresize(task.image, scale)
        boxes[i], pad = pad_around(
            scaled, setting.boxsize, (task.center[0] * scale, task.center[1] * scale)
        )
        geometry.append(Geometry((scaled.shape[0], scaled.shape[1]), pad))
    return Prepared(boxes, tuple(geometry), (task.image.shape[0], task.image.shape[1]), task.mode)


def network_input(
    boxes: Image, setting: Setting, device: torch.device | str = "cpu"
) -> torch.Tensor:
    """(N, 4, B, B) float32 of (N, B, B, 3) pixels: B, G, R as ``x / 256 - 0.5``, then the centre
    map.

    The bytes travel to the device; both operations are exact in float32.
    """
    pixels = torch.from_numpy(boxes).to(device)
    data = torch.empty((len(boxes), 4, setting.boxsize, setting.boxsize), device=device)
    data[:, :3] = pixels.permute(0, 3, 1, 2).flip(1)
    data[:, :3].div_(256).sub_(0.5)
    data[:, 3] = torch.from_numpy(center_map(setting.boxsize, setting.sigma)).to(device)
    return data


@lru_cache(maxsize=4096)
def _back(cells: int, boxsize: int, scaled: int, pad: int, size: int) -> tuple[Maps, Maps]:
    """One axis of the way back: matrix (size, cells), and how much of each pixel comes from inside
    the box (size,)."""
    up = axis_map(cells, boxsize, boxsize / cells).dense()
    undone = np.zeros((scaled, cells))
    position = np.arange(scaled) + pad
    inside = (position >= 0) & (position < boxsize)
    undone[inside] = up[position[inside]]
    down = axis_map(scaled, size, size / scaled).dense()
    return (down @ undone).astype(np.float32), (down @ inside.astype(np.float64)).astype(np.float32)


def to_image(
    maps: torch.Tensor,
    geometry: Geometry,
    size: tuple[int, int],
    boxsize: int,
    *,
    shown: tuple[int, int] | None = None,
    background: bool = True,
) -> torch.Tensor:
    """Belief maps of one scale in the original image.

    Parameters
    ----------
    maps : (..., P + 1, cells, cells); the last channel is the background, 1 outside the network's
        input.
    size : (H, W) of the image.
    shown : (h, w): reduced to this size at once, for pictures.
    background : whether the last channel is one.

    Returns
    -------
    (..., P + 1, H, W) float32 on the same device.
    """
    cells = maps.shape[-1]
    axes = []
    for axis in (0, 1):
        back, inside = _back(cells, boxsize, geometry.scaled[axis], geometry.pad[axis], size[axis])
        if shown is not None:
            reduce = _reduce(size[axis], shown[axis])
            back, inside = reduce @ back, reduce @ inside
        axes.append(
            (torch.from_numpy(back).to(maps.device), torch.from_numpy(inside).to(maps.device))
        )
    (rows, inside_rows), (columns, inside_columns) = axes
    out = torch.matmul(torch.matmul(rows, maps.float()), columns.t())
    if background:
        out[..., -1, :, :] += 1 - inside_rows[:, None] * inside_columns[None]
    return out


@lru_cache(maxsize=256)
def _reduce(size: int, shown: int) -> Maps:
    return axis_map(size, shown, shown / size).dense().astype(np.float32)


def find_maximum(maps: Maps | torch.Tensor, mode: Combination) -> Floats:
    """Position of each map's maximum, 1-based x, y; of equals the first in MATLAB's memory order.

    The benchmark looks at H×W arrays (smallest x first), the demo at W×H ones (smallest y first).
    """
    values = torch.as_tensor(maps)
    parts, _, width = values.shape
    values = torch.where(torch.isnan(values), -torch.inf, values)  # MATLAB's max passes over nan
    # torch's argmax gives the first of equals; the far axis' own maxima first, so that no
    # transposed copy is made
    if mode == "demo":
        flat = values.reshape(parts, -1).argmax(1)
        x, y = flat % width, flat // width
    else:
        best, rows = values.max(1).values, values.argmax(1)
        x = best.argmax(1)
        y = rows.gather(1, x[:, None])[:, 0]
    return torch.stack([x + 1, y + 1], 1).cpu().numpy().astype(np.float64)


@dataclass(frozen=True)
class Prediction:
    """Joints of one person.

    Attributes
    ----------
    joints : (P, 2) x, y, 1-based, in the network's part order.
    scores : (P,) the maps' value there, divided by the number of scales.
    maps : belief maps in the image: benchmark (1, P + 1, H, W) summed over scales, demo (stages, P
        + 1, H, W) averaged; None where they were not asked for.
    small : the same maps reduced for a picture, (stages, P + 1, h, w); None where they were not
        asked for.
    """

    joints: Floats
    scores: Floats
    maps: Maps | None = None
    small: Maps | None = None

    @property
    def pixels(self) -> Floats:
        """Joints in 0-based pixels, as OpenCV counts."""
        return self.joints - 1


class Predictor:
    """A pose machine and its protocol.

    >>> predictor = Predictor.load("models/demo/pose.caffemodel")                # doctest: +SKIP
    >>> person = predictor.predict(image, box=(40, 20, 120, 300))                # doctest: +SKIP
    >>> person.pixels                                                            # doctest: +SKIP

    Parameters
    ----------
    net : the deploy network. outputs : blob of each stage's belief maps, stage 1 first.
    setting : input size, centre map, scale.
    batch : how many scaled images run at once at most.
    amp : "bf16": the fast mode, half the digits in the network (joints move by a pixel here and
        there; docs/engine.md).
    """

    def __init__(
        self, net: Net, outputs: Sequence[str], setting: Setting, *, batch: int = 16, amp: str = ""
    ) -> None:
        self.net, self.outputs, self.setting, self.batch, self.amp = (
            net,
            tuple(outputs),
            setting,
            batch,
            amp,
        )
        self._grey: patches.Background | None = None

    @classmethod
    def load(
        cls,
        model: str,
        *,
        prototxt: str | None = None,
        device: str = "auto",
        stages: int | None = None,
        setting: Setting | None = None,
        batch: int = 16,
        engine: Mode = "auto",
        amp: str = "",
    ) -> Predictor:
        """Load any weight file that ``cpm-convert`` reads.

        Parameters
        ----------
        stages : use the first stages only.
        setting : default: the released one, shrunk to the network's input size.
        engine : how convolutions run on the CPU, see :class:`caffe_compat.network.net.Net`.

        Raises
        ------
        CaffeCompatError : no pose machine, or weights that do not fit.
        """
        from caffe_compat.conversion.convert import convert
        from caffe_compat.network.net import Net
        from reproduce.network.identify import stage_outputs
        from reproduce.runtime.device import choose

        made = convert(model, prototxt=prototxt)
        outputs = stage_outputs(made.graph)
        if not outputs:
            raise CaffeCompatError(
                f"{model}: is no pose machine (no layers named ..._stage1, ..._stage2)"
            )
        if stages is not None and not 1 <= stages <= len(outputs):
            raise CaffeCompatError(f"--stages {stages}: the network has {len(outputs)}")
        shape = made.graph.blobs[made.graph.inputs[0]]
        net = Net(made.graph, made.weights, engine=engine).to(choose(device)).eval()
        return cls(
            net, outputs[:stages], setting or Setting.for_boxsize(shape[-1]), batch=batch, amp=amp
        )

    @property
    def parts(self) -> int:
        """Number of parts, without the background."""
        return self.net.graph.blobs[self.outputs[-1]][1] - 1

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.net.parameters()).device

    def forward(
        self,
        data: torch.Tensor,
        names: Sequence[str],
        rects: Sequence[tuple[int, int, int, int]] | None = None,
    ) -> torch.Tensor:
        """Belief maps (stages, N, P + 1, B / 8, B / 8) of network inputs (N, 4, B, B).

        ``rects`` : where each input shows its image (:meth:`Geometry.inside`); the grey around is
        then not computed anew.
        """
        found = []
        if rects is not None and self._grey is None:
            grey = np.full((1, self.setting.boxsize, self.setting.boxsize, 3), PAD_VALUE, np.uint8)
            with torch.inference_mode(False):
                self._grey = patches.Background(network_input(grey, self.setting, self.device))
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp == "bf16"),
        ):
            for i in range(0, len(data), self.batch):
                some = slice(i, i + self.batch)
                known = self._grey if rects is not None else None
                part = self.net(
                    data[some],
                    blobs=names,
                    background=known,
                    rects=rects[some] if rects is not None else (),
                )
                found.append(torch.stack([part[name].float() for name in names]))
        return torch.cat(found, 1)

    def combine(
        self,
        stages: torch.Tensor,
        geometry: Sequence[Geometry],
        size: tuple[int, int],
        mode: Combination,
        *,
        keep: bool = False,
        shown: int | None = None,
    ) -> Prediction:
        """Scores of all scales brought to the image, combined, and the best place of each part.

        Parameters
        ----------
        stages : (stages, scales, P + 1, cells, cells).
        keep : return the maps at the image's size. shown : return them at this width.
        """
        with torch.inference_mode():
            if keep:
                maps = self._total(stages, geometry, size, mode)
                joints, best = self._best(maps[-1, :-1], mode)
            else:
                maps = None
                # a few parts at a time: the maps of a large photograph would take gigabytes
                step = max(1, _MAP_VALUES // (size[0] * size[1]))
                parts = [
                    stages[-1, :, i : min(i + step, self.parts)] for i in range(0, self.parts, step)
                ]
                chunks = [
                    self._best(self._total(p, geometry, size, mode, background=False), mode)
                    for p in parts
                ]
                joints, best = (np.concatenate(c) for c in zip(*chunks, strict=True))
            small = None
            if shown is not None:
                reduced = (max(1, round(shown * size[0] / size[1])), shown)
                small = self._total(stages, geometry, size, mode, reduced).cpu().numpy()
        scores = best / len(geometry) if mode == "benchmark" else best
        return Prediction(joints, scores, None if maps is None else maps.cpu().numpy(), small)

    def _total(
        self,
        stages: torch.Tensor,
        geometry: Sequence[Geometry],
        size: tuple[int, int],
        mode: Combination,
        shown: tuple[int, int] | None = None,
        background: bool = True,
    ) -> torch.Tensor:
        """Belief maps (..., scales, P + 1, cells, cells) added up over the scales in the image; the
        demo divides."""
        total: torch.Tensor | None = None
        for i, place in enumerate(geometry):
            one = to_image(
                stages[..., i, :, :, :],
                place,
                size,
                self.setting.boxsize,
                shown=shown,
                background=background,
            )
            total = one if total is None else total.add_(one)
        assert total is not None
        return total.div_(len(geometry)) if mode == "demo" else total

    @staticmethod
    def _best(maps: torch.Tensor, mode: Combination) -> tuple[Floats, Floats]:
        joints = find_maximum(maps, mode)
        index = torch.from_numpy(joints.astype(np.int64) - 1).to(maps.device)
        scores = maps[torch.arange(len(maps), device=maps.device), index[:, 1], index[:, 0]]
        return joints, scores.cpu().numpy().astype(np.float64)

    def run(self, task: Task, *, keep: bool = False) -> Prediction:
        """Predict one person; ``keep`` returns the belief maps too."""
        return self.run_prepared(shrink(task, self.setting), keep=keep)

    def run_prepared(
        self, prepared: Prepared, *, keep: bool = False, shown: int | None = None
    ) -> Prediction:
        """Predict one person from resized images; see :meth:`combine`."""
        names = (
            self.outputs
            if prepared.mode == "demo" and (keep or shown is not None)
            else self.outputs[-1:]
        )
        data = network_input(prepared.boxes, self.setting, self.device)
        rects = [place.inside(self.setting.boxsize) for place in prepared.geometry]
        stages = self.forward(data, names, rects)
        return self.combine(
            stages, prepared.geometry, prepared.size, prepared.mode, keep=keep, shown=shown
        )

    def predict(
        self,
        image: Image,
        box: Sequence[float] | None = None,
        *,
        bgr: bool = False,
        keep: bool = False,
    ) -> Prediction:
        """Predict the person in a box, by the demo's protocol.

        Parameters
        ----------
        image : (H, W, 3) uint8 R, G, B (B, G, R with ``bgr``).
        box : x, y, width, height in 0-based pixels; default: the whole image.
        keep : return the belief maps of every stage.
        """
        picture = np.ascontiguousarray(image[:, :, ::-1]) if bgr else image
        height, width = picture.shape[:2]
        x, y, w, h = box if box is not None else (0, 0, width, height)
        task = task_demo(picture, (x + 1, y + 1, w, h), self.setting)
        return self.run(task, keep=keep)
