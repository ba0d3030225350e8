"""From a person's image on disk to the bytes of a record."""

from __future__ import annotations

import os
from collections import deque
from collections.abc import Iterator, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from pathlib import Path

from caffe_compat.errors import DataError
from reproduce.people.annotation import Annotation
from reproduce.records import layout
from reproduce.records.images import read_image

# path of the image, person, number of the record and of all, keep the image's own bytes
Job = tuple[str, Annotation, int, int, bool]
# number of the record, its bytes, and what is wrong with it
Encoded = tuple[int, bytes | bytearray, str]


def image_path(
    root: str | os.PathLike[str], annotation: Annotation, *, outside: bool = False
) -> Path:
    """Where an annotation's image is: below the authors' folder of its data set, or directly below
    ``root``.

    Parameters
    ----------
    outside : follow an absolute name, or one that climbs out of ``root`` with ``..``.

    Raises
    ------
    DataError : such a name without ``outside``.
    """
    name = Path(annotation.image)
    if not outside and (name.is_absolute() or ".." in name.parts):
        raise DataError(
            f"{annotation.image}: this image name leads out of the folder of images; use "
            "--allow-outside to follow it"
        )
    folders = [*layout.ROOTS.get(annotation.dataset, ()), ""]
    places = [Path(root) / below / name for below in folders]
    return next((path for path in places if path.exists()), places[-1])


def _encode_one(job: Job) -> Encoded:
    path, annotation, number, total, jpeg = job
    try:
        # what the reader refuses would stop a training on it
        layout.check_person(annotation, annotation.image)
        image = read_image(path)
        _check_size(annotation, image.shape[1], image.shape[0], path)
        if jpeg:
            height, width = layout.pad_narrow(image).shape[:2]
            stored = Path(path).read_bytes()
            value = layout.encode_stored(annotation, stored, (height, width), number, total)
            return number, value, ""
        return number, layout.encode(annotation, image, number, total), ""
    except (DataError, OSError) as error:
        return number, b"", str(error)


def _check_size(annotation: Annotation, width: int, height: int, path: str) -> None:
    """Raise where the joints were annotated on a picture of another size: they would be elsewhere
    in this one."""
    if annotation.size == (width, height):
        return
    hint = "annotate it as it is stored, or resize it"
    if annotation.size == (height, width):
        hint = "is it turned by its EXIF orientation? Store it turned"
    raise DataError(
        f"{path}: is {width} × {height} pixels, but was annotated as {annotation.size[0]} × "
        f"{annotation.size[1]}: {hint}"
    )


def encode_all(jobs: Sequence[Job], workers: int) -> Iterator[Encoded]:
    """Encoded records in order.

    Parameters
    ----------
    workers : threads, which decoding and copying leave free, while records are too large to send
        between processes; 0: none.
    """
    if workers < 1:
        yield from map(_encode_one, jobs)
        return
    with ThreadPoolExecutor(workers) as pool:
        waiting: deque[Future[Encoded]] = deque()
        try:
            for job in jobs:
                waiting.append(pool.submit(_encode_one, job))
                if len(waiting) > 16 * workers:
                    yield waiting.popleft().result()
            while waiting:
                yield waiting.popleft().result()
        finally:
            for future in waiting:
                future.cancel()
