"""Pictures of records and of augmented samples, for people to look at before they train."""

from __future__ import annotations

import os

import cv2
import numpy as np
import numpy.typing as npt

from reproduce.drawing.pictures import draw_skeleton, save_picture
from reproduce.people.matlab_pixels import annotated
from reproduce.people.skeletons import SKELETON_14, skeleton
from reproduce.records.layout import Record
from reproduce.records.store import Store
from reproduce.samples.augment import Sample, Settings
from reproduce.samples.schedule import Order, SampleMaker, Schedule

Image = npt.NDArray[np.uint8]

_READABLE = 400  # longer side of a drawn record, pixels, at the least


def draw_record(record: Record, path: str | os.PathLike[str]) -> None:
    """A record's image with the person's skeleton, its centre, and the other people's joints; small
    images are enlarged, so that the parts' names can be read."""
    a = record.annotation
    factor = -(-_READABLE // max(record.image.shape[:2]))
    image = np.repeat(np.repeat(record.image, factor, 0), factor, 1)

    def place(points: npt.NDArray[np.float64]) -> npt.NDArray[np.float64]:
        """Pixels of the enlarged image."""
        return np.asarray((points + 0.5) * factor - 0.5, np.float64)

    count = len(a.joints)
    # records of 16 joints show the 14 parts that the authors' networks have
    skeletal = SKELETON_14 if count == 16 else skeleton(count)
    sources = [s[0] for s in skeletal.sources] if count == 16 else list(range(count))
    rows = a.joints[sources]
    joints = np.where(_has_place(rows, a.size)[:, None], place(rows[:, :2]), np.nan)
    image = draw_skeleton(image, joints, skeletal, names=True)
    x, y = place(a.objpos)
    center = (round(float(x)), round(float(y)))
    cv2.drawMarker(image, center, (0, 0, 255), cv2.MARKER_CROSS, 16, 2)
    for other in a.others:
        for x, y in place(other.joints[_has_place(other.joints, a.size)][:, :2]):
            cv2.circle(image, (round(x), round(y)), 3, (255, 128, 0), -1, cv2.LINE_AA)
    save_picture(image, path)


def _has_place(joints: npt.NDArray[np.float64], size: tuple[int, int]) -> npt.NDArray[np.bool_]:
    """Which of some joints (J, 3) somebody annotated inside the image of that width and height;
    LSPET gives joints that nobody saw negative numbers."""
    inside = (joints[:, :2] >= 0) & (joints[:, :2] < size)
    return np.asarray(annotated(joints) & inside.all(1))


def draw_sample(sample: Sample, settings: Settings) -> Image:
    """A sample's pixels with the person's label peaks in colour, everybody's background dimmed,
    joints and centre on top."""
    shown = slice(0, -1) if settings.num_parts else slice(None)  # without the background
    heat = np.clip(sample.label[shown].max(0), 0, 1)
    size = (settings.crop_size_x, settings.crop_size_y)
    wide = cv2.resize(heat, size, interpolation=cv2.INTER_LINEAR)[..., None]
    others = cv2.resize(
        np.clip(sample.label_1st[shown].max(0) - heat, 0, 1), size, interpolation=cv2.INTER_LINEAR
    )[..., None]
    tint = np.array([0, 200, 255], np.float32) * wide + np.array([255, 128, 0], np.float32) * others
    image = np.clip(
        sample.pixels * (1 - 0.5 * np.maximum(wide, others)) + 0.5 * tint, 0, 255
    ).astype(np.uint8)
    person = sample.scene.people[0]
    joints = np.where((person.visible <= 1)[:, None], person.joints, np.nan)
    image = draw_skeleton(image, joints, settings.skeleton, names=True)
    x, y = sample.scene.objpos
    cv2.drawMarker(image, (round(float(x)), round(float(y))), (0, 0, 255), cv2.MARKER_CROSS, 14, 2)
    return image


def contact_sheet(
    store: Store, settings: Settings, count: int, seed: int, path: str | os.PathLike[str]
) -> None:
    """Augmented samples of the first records, side by side.

    Raises
    ------
    DataError : a record cannot be read; the settings ask for tables.
    """
    make, order = SampleMaker(store, settings, seed), Schedule(len(store), settings, Order())
    tiles = [draw_sample(make(order.job(i)), settings) for i in range(count)]
    columns = min(count, max(1, round(np.sqrt(count) * 1.2)))
    rows = -(-count // columns)
    height, width = tiles[0].shape[:2]
    sheet = np.full((rows * (height + 4), columns * (width + 4), 3), 255, np.uint8)
    for i, tile in enumerate(tiles):
        y, x = i // columns * (height + 4), i % columns * (width + 4)
        sheet[y : y + height, x : x + width] = tile
    save_picture(sheet, path)
