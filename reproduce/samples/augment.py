"""The CPM data layer: a record and some dice make a training sample, pixel for pixel as the
original did.

Steps: optional CLAHE; resize by ``target_dist / scale × random``; rotate about the centre on a
grown canvas; crop around the person; flip. Only the crop of the rotated canvas is computed, with
the fixed-point coordinates that OpenCV 4's ``warpAffine`` uses, handed to ``remap``: the pixels are
those of warping the whole canvas.

The pixels must not depend on how OpenCV was built. IPP, which interpolates otherwise, is switched
off. OpenCV 5 interpolates otherwise as well (in ``resize``, up to half a percent of the pixels
change by some levels): it is refused.

Source: ``cpm_data_transformer.cpp`` of the CPM release (steps, constants; recorded samples in the
golden data) and ``imgwarp.cpp`` of OpenCV 4 (coordinate precision: 10 bits, rounded to 1/32 pixel).
"""

from __future__ import annotations

import os
from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt

from caffe_compat.errors import DataError
from caffe_compat.picturesize import pixel_limit
from reproduce.people.annotation import Annotation
from reproduce.people.skeletons import Skeleton, known, named, skeleton
from reproduce.records.joints import usual_joints
from reproduce.records.opening import open_store
from reproduce.records.store import Store
from reproduce.runtime.plain_opencv import resize_cv, use_plain_opencv
from reproduce.samples import labels
from reproduce.samples.dice import Dice

BORDER = 128
_MAX_SIDE = 30000  # of the enlarged image: OpenCV's fixed-point coordinates have 16 bits
Image = npt.NDArray[np.uint8]
Floats = npt.NDArray[np.float32]
_F = np.float32  # what the original computes with


@dataclass(frozen=True)
class Settings:
    """Fields of ``transform_param``; lengths in pixels of the network's input, angles in degrees.

    The defaults are those of the fork's schema. ``num_parts`` 0 asks for the labels of the person
    network, one map of body centres (Caffe's own layer has no such thing). ``in_training`` is the
    layer's phase: in a test the image is taken as it is, and must have the crop's size.
    """

    stride: int = 4
    crop_size_x: int = 368
    crop_size_y: int = 368
    target_dist: float = 1.0
    scale_prob: float = 0.5
    scale_min: float = 0.9
    scale_max: float = 1.1
    max_rotate_degree: float = 5.0
    center_perterb_max: float = 10.0
    flip_prob: float = 0.5
    sigma: float = 7.0
    sigma_center: float = 21.0
    do_clahe: bool = False
    clahe_tile_size: float = 8.0
    clahe_clip_limit: float = 4.0
    num_parts: int = 14
    np_in_lmdb: int = 16
    gray: int = 0
    aug_way: str = "rand"
    num_total_augs: int = 82
    transform_body_joint: bool = True
    # names of the user's own; empty: the authors' skeleton of this size
    parts: tuple[str, ...] = ()
    in_training: bool = True

    @classmethod
    def of(cls, message: Any) -> Settings:
        """From a ``transform_param`` (or ``cpm_transform_param``) message; its defaults are the
        schema's."""
        values = {
            name: getattr(message, name)
            for name in cls.__dataclass_fields__
            if hasattr(message, name)
        }
        if (
            getattr(message, "crop_size", 0)
            and message.DESCRIPTOR.name == "CPMTransformationParameter"
        ):
            values["crop_size_x"] = values["crop_size_y"] = message.crop_size
        return cls(**values)

    @property
    def skeleton(self) -> Skeleton:
        """The parts that the labels have."""
        if self.parts:
            return named(self.parts, mirrored=self.flip_prob > 0)
        return skeleton(self.num_parts)

    @property
    def exchanged(self) -> tuple[tuple[int, int], ...]:
        """Pairs of parts that change places in a mirror image. A definition that transforms no
        joints leaves the authors' parts where they are, as in Caffe; parts with names of the user's
        own always change places."""
        return self.skeleton.flip if self.transform_body_joint or self.parts else ()

    def sources(self, joints: int) -> tuple[tuple[int, int], ...]:
        """For each part, the two of a record's joints that it is the mean of."""
        if self.transform_body_joint:
            return self.skeleton.sources
        return tuple((joint, joint) for joint in range(joints))

    @property
    def joints_needed(self) -> int:
        """How many of a record's joints there must be for the parts."""
        used = [joint for pair in self.sources(self.np_in_lmdb) for joint in pair]
        return 1 + max(used, default=-1)

    @property
    def keeps_order(self) -> bool:
        """Is each part the record's joint of the same number?"""
        sources = self.sources(self.np_in_lmdb)
        return all(pair == (part, part) for part, pair in enumerate(sources))

    @property
    def grid(self) -> tuple[int, int]:
        """Height and width of the label maps."""
        return self.crop_size_y // self.stride, self.crop_size_x // self.stride


@dataclass(frozen=True)
class Person:
    """A person inside the layer: 0-based pixels, float32.

    Attributes
    ----------
    joints : (P, 2).
    visible : (P,) 0 occluded, 1 visible, 2 outside the image ("cropped": no peak).
    """

    joints: Floats
    visible: npt.NDArray[np.int8]

    def moved(self, joints: Floats) -> Person:
        """The same visibility at other places."""
        return replace(self, joints=joints)


@dataclass(frozen=True)
class Scene:
    """Everybody in a record, the person to train on first.

    Attributes
    ----------
    objpos : (2,) centre of the person to train on.
    scale : that person's height / 200 px.
    people : everybody's parts.
    others : (N, 2) the other people's centres.
    """

    objpos: Floats
    scale: float
    people: tuple[Person, ...]
    others: Floats

    def map(self, change: Callable[[Floats], Floats]) -> Scene:
        """Apply a change of coordinates (N, 2) -> (N, 2) to everything."""
        people = tuple(p.moved(change(p.joints)) for p in self.people)
        return replace(
            self,
            objpos=change(self.objpos[None])[0],
            people=people,
            others=change(self.others) if len(self.others) else self.others,
        )


@dataclass(frozen=True)
class Augmentation:
    """What the dice decided for one sample.

    Attributes
    ----------
    scale_multiplier : of the person's size.
    degree : of the rotation.
    x_offset, y_offset : of the crop's middle from the person's, in pixels of the network's input.
    flip : is it a mirror image?
    """

    scale_multiplier: float
    degree: float
    x_offset: int
    y_offset: int
    flip: bool


@dataclass(frozen=True)
class Sample:
    """A training sample.

    Attributes
    ----------
    data : (4, Y, X) float32: B, G, R as (pixel - 128) / 256, then the centre map.
    label : (P + 1, Y / stride, X / stride) float32 of the own person, background last; with P = 0
        one map, of the person's centre.
    label_1st : the same of everybody.
    pixels : (Y, X, 3) uint8 that ``data`` was made from.
    scene : everybody in the coordinates of the crop.
    choice : what the dice decided.
    """

    data: Floats
    label: Floats
    label_1st: Floats
    pixels: Image
    scene: Scene
    choice: Augmentation


def open_records(path: str | os.PathLike[str], settings: Settings) -> Store:
    """The record file that samples are made of, if its joints are those that the settings expect.

    Raises
    ------
    DataError : no such records, or records of other joints: the labels would be of other parts.
    """
    store = open_store(path, settings.np_in_lmdb)
    shown = store.joints_shown
    if not shown or _fit(shown, settings):
        return store
    raise DataError(
        f"{os.fspath(path)}: its records have {shown} joints per person, {settings.joints_needed} "
        f"are expected for {settings.num_parts} parts: correct num_parts and np_in_lmdb of the "
        f"definition (cpm-export proto {_advice(shown)})"
    )


def _fit(shown: int, settings: Settings) -> bool:
    """Can records that show so many joints be those that the settings are for?"""
    needed = settings.joints_needed
    if not needed:
        return True
    if settings.keeps_order:  # the last ones may never be labelled: np_in_lmdb counts them, too
        return needed in (shown, settings.np_in_lmdb)
    return usual_joints(shown) >= needed


def _advice(shown: int) -> str:
    """Options of ``cpm-export proto`` for records that show so many joints."""
    if usual_joints(shown) == 16:
        return "--parts 14"
    if known(shown):
        return f"--parts {shown} --np-in-lmdb {shown}"
    return "--part-names and --np-in-lmdb, one for each joint"


def read_scene(annotation: Annotation, settings: Settings) -> Scene:
    """Joints become the network's parts in single precision, visibility 0, 1 or 2.

    Raises
    ------
    DataError : the record's numbers of joints do not fit each other or the network's parts.
    """
    width, height = annotation.size
    count = len(annotation.joints)
    if any(len(other.joints) < count for other in annotation.others):
        raise DataError("another person in the record has fewer joints than its own")
    sources = np.array(settings.sources(count), np.intp).reshape(-1, 2)
    if sources.max(initial=0) >= count or len(sources) != settings.num_parts:
        raise DataError(
            f"the record has {count} joints per person, which cannot give the network's "
            f"{settings.num_parts} parts: np_in_lmdb or num_parts is wrong"
        )

    def person(rows: npt.NDArray[np.float64]) -> Person:
        joints = rows[:, :2].astype(_F)
        outside = (
            (joints[:, 0] < 0)
            | (joints[:, 1] < 0)
            | (joints[:, 0] >= width)
            | (joints[:, 1] >= height)
        )
        visible = np.where(outside, 2, (rows[:, 2] != 0).astype(np.int8)).astype(np.int8)
        a, b = sources.T
        both = (joints[a] + joints[b]) * _F(0.5)
        seen = np.where((visible[a] == 2) | (visible[b] == 2), 2, visible[a] & visible[b])
        return Person(np.where((a == b)[:, None], joints[a], both).astype(_F), seen.astype(np.int8))

    people = (person(annotation.joints), *(person(o.joints) for o in annotation.others))
    others = np.array([o.objpos for o in annotation.others], _F).reshape(-1, 2)
    return Scene(annotation.objpos.astype(_F), float(_F(annotation.scale)), people, others)


def roll(settings: Settings, dice: Dice, table: tuple[float, bool] | None = None) -> Augmentation:
    """Take the dice of a sample, in the original's order.

    Parameters
    ----------
    table : (degree, flip) in ``aug_way: "table"``, which rolls neither.
    """
    multiplier = _F(1)
    if dice.roll() <= _F(settings.scale_prob):
        least, most = _F(settings.scale_min), _F(settings.scale_max)
        multiplier = (most - least) * dice.roll() + least
    if table is None:
        # the constant 0.5 makes this a double product, rounded once (unlike the scale, all float)
        degree = _F((float(dice.roll()) - 0.5) * 2 * float(_F(settings.max_rotate_degree)))
    else:
        degree = _F(table[0])
    x, y = (
        int((float(dice.roll()) - 0.5) * 2 * float(_F(settings.center_perterb_max)))
        for _ in range(2)
    )
    flip = bool(dice.roll() <= _F(settings.flip_prob)) if table is None else table[1]
    return Augmentation(float(multiplier), float(degree), x, y, flip)


def clahe(image: Image, settings: Settings) -> Image:
    """Contrast-limited equalisation of the lightness."""
    lab = cv2.cvtColor(image, cv2.COLOR_BGR2LAB)
    tiles = int(settings.clahe_tile_size)
    limit = int(settings.clahe_clip_limit)  # whole numbers, as in Caffe
    lab[:, :, 0] = cv2.createCLAHE(limit, (tiles, tiles)).apply(lab[:, :, 0])
    return np.asarray(cv2.cvtColor(lab, cv2.COLOR_LAB2BGR), np.uint8)


def _rotation(width: int, height: int, degree: float) -> tuple[npt.NDArray[np.float64], int, int]:
    """Matrix of the rotation on the grown canvas, and the canvas' width and height."""
    center = (width / 2.0, height / 2.0)
    matrix = cv2.getRotationMatrix2D(center, degree, 1.0)
    # the rotated rectangle's corners in float32, as cv::RotatedRect computes them
    angle = float(_F(degree)) * np.pi / 180.0
    b, a = _F(_F(np.cos(angle)) * _F(0.5)), _F(_F(np.sin(angle)) * _F(0.5))
    w, h, cx, cy = _F(width), _F(height), _F(center[0]), _F(center[1])
    x0, y0 = cx - a * h - b * w, cy + b * h - a * w
    x1, y1 = cx + a * h - b * w, cy - b * h - a * w
    xs, ys = (x0, x1, 2 * cx - x0, 2 * cx - x1), (y0, y1, 2 * cy - y0, 2 * cy - y1)
    left, right = int(np.floor(min(xs))), int(np.ceil(max(xs)))
    top, bottom = int(np.floor(min(ys))), int(np.ceil(max(ys)))
    canvas_w, canvas_h = right - left + 1, bottom - top + 1
    matrix[0, 2] += canvas_w / 2.0 - center[0]
    matrix[1, 2] += canvas_h / 2.0 - center[1]
    return np.asarray(matrix, np.float64), canvas_w, canvas_h


_BITS, _FRACTION = 10, 5  # OpenCV's AB_BITS and INTER_BITS


def _inverse(matrix: npt.NDArray[np.float64]) -> list[float]:
    """The inverse map, in the order of operations of cv::warpAffine."""
    m = [float(v) for v in matrix.ravel()]
    d = m[0] * m[4] - m[1] * m[3]
    d = 1.0 / d if d != 0 else 0.0
    a11, a22 = m[4] * d, m[0] * d
    m[0], m[1], m[3], m[4] = a11, m[1] * -d, m[3] * -d, a22
    b1 = -m[0] * m[2] - m[1] * m[5]
    b2 = -m[3] * m[2] - m[4] * m[5]
    m[2], m[5] = b1, b2
    return m


def warp_region(
    image: Image, matrix: npt.NDArray[np.float64], left: int, top: int, width: int, height: int
) -> Image:
    """A rectangle of what ``cv::warpAffine(image, matrix, bicubic, border 128)`` of OpenCV 4 gives.

    Parameters
    ----------
    left, top, width, height : the rectangle, in pixels of the warped image.
    """
    m = _inverse(matrix)
    x = np.arange(left, left + width, dtype=np.float64)
    y = np.arange(top, top + height, dtype=np.float64)
    scale = float(1 << _BITS)
    round_delta = 1 << (_BITS - _FRACTION - 1)
    ax, bx = np.rint(m[0] * x * scale).astype(np.int32), np.rint(m[3] * x * scale).astype(np.int32)
    ay = np.rint((m[1] * y + m[2]) * scale).astype(np.int32) + round_delta
    by = np.rint((m[4] * y + m[5]) * scale).astype(np.int32) + round_delta
    px = (ay[:, None] + ax[None]) >> (_BITS - _FRACTION)
    py = (by[:, None] + bx[None]) >> (_BITS - _FRACTION)
    whole = np.empty((height, width, 2), np.int16)
    whole[..., 0] = np.clip(px >> _FRACTION, -32768, 32767)
    whole[..., 1] = np.clip(py >> _FRACTION, -32768, 32767)
    mask = (1 << _FRACTION) - 1
    fraction = ((py & mask) * (1 << _FRACTION) + (px & mask)).astype(np.uint16)
    return np.asarray(
        cv2.remap(
            image,
            whole,
            fraction,
            cv2.INTER_CUBIC,
            borderMode=cv2.BORDER_CONSTANT,
            borderValue=(BORDER,) * 3,
        ),
        np.uint8,
    )


def augment(
    image: Image, annotation: Annotation, settings: Settings, choice: Augmentation
) -> Sample:
    """Make a training sample.

    Parameters
    ----------
    image : (H, W, 3) uint8 B, G, R, as stored in the record (narrow images already padded).
    annotation : of the record.
    choice : what the dice decided, see :func:`roll`.
    """
    use_plain_opencv()
    scene = read_scene(annotation, settings)
    if settings.do_clahe:
        image = clahe(image, settings)
    if settings.gray == 1:
        image = np.asarray(
            cv2.cvtColor(cv2.cvtColor(image, cv2.COLOR_BGR2GRAY), cv2.COLOR_GRAY2BGR), np.uint8
        )
    if not settings.in_training:
        _check_whole(image, settings)
        return _finish(image, scene, settings, Augmentation(1.0, 0.0, 0, 0, flip=False))
    scale = float(_F(_F(settings.target_dist) / _F(scene.scale)) * _F(choice.scale_multiplier))
    _check_size(image, scale)
    image = resize_cv(image, scale)
    scene = scene.map(lambda p: p * _F(scale))
    pixels, scene = _rotate_and_crop(image, scene, settings, choice)
    if choice.flip:
        pixels, scene = _flip(pixels, scene, settings)
    return _finish(pixels, scene, settings, choice)


def _check_whole(image: Image, settings: Settings) -> None:
    """Refuse an image of another size in a test, where Caffe would write beyond its blob."""
    height, width = image.shape[:2]
    if (height, width) != (settings.crop_size_y, settings.crop_size_x):
        raise DataError(
            f"a CPMData layer of phase TEST takes images as they are: this one is {width} × "
            f"{height}, its crop {settings.crop_size_x} × {settings.crop_size_y}; give it records "
            "of that size, or test with cpm-predict"
        )


def _check_size(image: Image, scale: float) -> None:
    """Refuse a person whose scale would make the image vanish, or fill the memory."""
    height, width = (side * scale for side in image.shape[:2])
    fits = min(height, width) >= 1 and max(height, width) <= _MAX_SIDE
    if not (fits and height * width <= pixel_limit()):  # also where a size is no number
        raise DataError(
            f"the person's scale makes the {image.shape[1]} × {image.shape[0]} image "
            f"{width:.0f} × {height:.0f}: scale_provided or target_dist is wrong"
        )


def _rotate_and_crop(
    image: Image, scene: Scene, settings: Settings, choice: Augmentation
) -> tuple[Image, Scene]:
    matrix, width, height = _rotation(image.shape[1], image.shape[0], choice.degree)

    def rotate(points: Floats) -> Floats:
        return np.asarray(points.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2], _F)

    scene = scene.map(rotate)
    x, y = settings.crop_size_x, settings.crop_size_y
    # OpenCV converts the sum, a float point, to an integer one by rounding, halves to even
    cx, cy = (
        int(np.rint(_F(place) + _F(offset)))
        for place, offset in zip(scene.objpos, (choice.x_offset, choice.y_offset), strict=True)
    )
    left, top = cx - x // 2, cy - y // 2
    pixels = np.full((y, x, 3), BORDER, np.uint8)
    x0, x1 = max(0, left), min(width, left + x)
    y0, y1 = max(0, top), min(height, top + y)
    if x0 < x1 and y0 < y1:
        pixels[y0 - top : y1 - top, x0 - left : x1 - left] = warp_region(
            image, matrix, x0, y0, x1 - x0, y1 - y0
        )
    offset = np.array([-left, -top], _F)
    return pixels, scene.map(lambda p: p + offset)


def _flip(pixels: Image, scene: Scene, settings: Settings) -> tuple[Image, Scene]:
    last = _F(settings.crop_size_x - 1)
    flipped = scene.map(lambda p: np.stack([last - p[:, 0], p[:, 1]], 1))
    order = np.arange(len(scene.people[0].joints))
    for a, b in settings.exchanged:
        order[[a, b]] = b, a
    people = tuple(Person(p.joints[order], p.visible[order]) for p in flipped.people)
    return np.ascontiguousarray(pixels[:, ::-1]), replace(flipped, people=people)


def _finish(pixels: Image, scene: Scene, settings: Settings, choice: Augmentation) -> Sample:
    y, x = settings.crop_size_y, settings.crop_size_x
    data = np.empty((4, y, x), _F)
    np.subtract(pixels.transpose(2, 0, 1), _F(128), out=data[:3], dtype=_F)
    data[:3] *= _F(1 / 256)
    data[3] = labels.center_map(scene.objpos, y, x, settings.sigma_center)
    height, width = settings.grid
    if settings.num_parts == 0:
        centres = np.concatenate([scene.objpos[None], scene.others])
        grid = height, width, settings.stride, settings.sigma_center
        own = labels.body_centres(centres[:1], *grid)
        return Sample(data, own, labels.body_centres(centres, *grid), pixels, scene, choice)
    everybody = [(p.joints, p.visible <= 1) for p in scene.people]
    own = labels.part_maps(everybody[:1], height, width, settings.stride, settings.sigma)
    label_1st = (
        own
        if len(everybody) == 1
        else labels.part_maps(everybody, height, width, settings.stride, settings.sigma)
    )
    return Sample(data, own, label_1st, pixels, scene, choice)
