"""The CPM data layer, step by step as the original goes: whole canvases, loops over grid cells.

Slow, and plain to read. Of what it judges it takes only the types of its inputs; the tables of
joints are its own.
"""

from __future__ import annotations

import cv2
import numpy as np

from reproduce.people.annotation import Annotation
from reproduce.samples.augment import Augmentation, Settings

# The MPII joint behind each of the 14 parts, and the parts that change places in a mirror image.
MPII_JOINT_OF_PART = (9, 8, 12, 11, 10, 13, 14, 15, 2, 1, 0, 3, 4, 5)
MIRRORED_PARTS = ((2, 5), (3, 6), (4, 7), (8, 11), (9, 12), (10, 13))


def put_gaussian(plane: np.ndarray, x: float, y: float, stride: int, sigma: float) -> None:
    """Add a peak, one cell after the other."""
    start = stride / 2.0 - 0.5
    for gy in range(plane.shape[0]):
        for gx in range(plane.shape[1]):
            d2 = (start + gx * stride - x) ** 2 + (start + gy * stride - y) ** 2
            exponent = d2 / 2.0 / sigma / sigma
            if exponent > 4.6052:
                continue
            plane[gy, gx] = min(1.0, plane[gy, gx] + np.exp(-exponent))


def read_person(rows: np.ndarray, size: tuple[int, int]) -> tuple[np.ndarray, np.ndarray]:
    """A record's joints, one after the other, as (14, 2) 0-based pixels and (14,) visibilities.

    Visibility is 0 (occluded), 1 (visible) or 2 (outside the image).
    """
    joints = np.zeros((14, 2), np.float32)
    visible = np.zeros(14, np.int8)
    for part, joint in enumerate(MPII_JOINT_OF_PART):
        x, y = np.float32(rows[joint, 0]), np.float32(rows[joint, 1])
        joints[part] = x, y
        if x < 0 or y < 0 or x >= size[0] or y >= size[1]:
            visible[part] = 2
        else:
            visible[part] = 1 if rows[joint, 2] else 0
    return joints, visible


def sample(
    image: np.ndarray, annotation: Annotation, settings: Settings, choice: Augmentation
) -> tuple[np.ndarray, np.ndarray]:
    """Data (4, Y, X) and label (2 (P + 1), Y / stride, X / stride)."""
    cv2.ipp.setUseIPP(False)
    records = [annotation.joints, *(other.joints for other in annotation.others)]
    persons = [read_person(joints, annotation.size) for joints in records]
    scale = float(
        np.float32(np.float32(settings.target_dist) / np.float32(annotation.scale))
        * np.float32(choice.scale_multiplier)
    )
    image = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
    people = [(joints * np.float32(scale), visible) for joints, visible in persons]
    objpos = annotation.objpos.astype(np.float32) * np.float32(scale)

    height, width = image.shape[:2]
    matrix = cv2.getRotationMatrix2D((width / 2.0, height / 2.0), choice.degree, 1.0)
    box = cv2.RotatedRect(
        (width / 2.0, height / 2.0), (float(width), float(height)), choice.degree
    ).boundingRect()
    matrix[0, 2] += box[2] / 2.0 - width / 2.0
    matrix[1, 2] += box[3] / 2.0 - height / 2.0
    image = cv2.warpAffine(
        image,
        matrix,
        (box[2], box[3]),
        flags=cv2.INTER_CUBIC,
        borderMode=cv2.BORDER_CONSTANT,
        borderValue=(128, 128, 128),
    )
    people = [
        ((j.astype(np.float64) @ matrix[:, :2].T + matrix[:, 2]).astype(np.float32), v)
        for j, v in people
    ]
    objpos = (matrix[:, :2] @ objpos.astype(np.float64) + matrix[:, 2]).astype(np.float32)

    crop_x, crop_y = settings.crop_size_x, settings.crop_size_y
    cx, cy = int(np.rint(objpos[0])) + choice.x_offset, int(np.rint(objpos[1])) + choice.y_offset
    left, top = cx - crop_x // 2, cy - crop_y // 2
    out = np.full((crop_y, crop_x, 3), 128, np.uint8)
    for y in range(crop_y):
        for x in range(crop_x):
            if 0 <= y + top < image.shape[0] and 0 <= x + left < image.shape[1]:
                out[y, x] = image[y + top, x + left]
    offset = np.array([-left, -top], np.float32)
    people = [(j + offset, v) for j, v in people]
    objpos = objpos + offset

    if choice.flip:
        out = out[:, ::-1]
        objpos = np.array([crop_x - 1 - objpos[0], objpos[1]], np.float32)
        flipped = []
        for joints, visible in people:
            joints = np.stack([crop_x - 1 - joints[:, 0], joints[:, 1]], 1)
            for a, b in MIRRORED_PARTS:
                joints[[a, b]], visible = joints[[b, a]], visible.copy()
                visible[[a, b]] = visible[[b, a]]
            flipped.append((joints, visible))
        people = flipped

    data = np.zeros((4, crop_y, crop_x), np.float32)
    data[:3] = (out.transpose(2, 0, 1).astype(np.float32) - 128) / 256
    put_gaussian(data[3], float(objpos[0]), float(objpos[1]), 1, settings.sigma_center)
    rows, columns = settings.grid
    label = np.zeros((2, settings.num_parts + 1, rows, columns), np.float32)
    for number, (joints, visible) in enumerate(people):
        for part in range(settings.num_parts):
            if visible[part] <= 1:
                for which in (0, 1) if number == 0 else (1,):
                    put_gaussian(
                        label[which, part],
                        float(joints[part, 0]),
                        float(joints[part, 1]),
                        settings.stride,
                        settings.sigma,
                    )
    label[:, -1] = np.maximum(1 - label[:, :-1].max(1), 0)
    return data, label.reshape(-1, rows, columns)
