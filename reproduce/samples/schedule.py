"""Training samples from record files: which record comes when, what the dice say, and worker
processes that make them.

Sample number ``k`` of a training is determined by the seed alone: record ``k mod N`` in key order
as Caffe reads (or the epoch's permutation), and either the C library's ``rand()`` sequence or a
generator of its own per sample. It does not depend on how many workers make it, or on where a
training was interrupted.
"""

from __future__ import annotations

import atexit
import io
import os
import weakref
from collections.abc import Iterator
from dataclasses import dataclass, replace
from pathlib import Path
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from caffe_compat.definition.spec import TRAIN
from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.foreign import read_text, reading
from caffe_compat.layers.base import Layer, Shape
from caffe_compat.layers.data import CPMData
from caffe_compat.training.draws import Draws, glibc_rand
from caffe_compat.training.sources import Batch, find_file, register_source
from reproduce.people import part_names
from reproduce.people.skeletons import known
from reproduce.records.store import Store
from reproduce.runtime.processes import end_with_parent
from reproduce.samples.augment import Augmentation, Sample, Settings, augment, open_records, roll
from reproduce.samples.dice import CaffeDice, SampleDice

DiceKind = Literal["numpy", "caffe"]


@dataclass(frozen=True)
class Order:
    """How samples follow each other.

    Attributes
    ----------
    shuffle : another permutation in each epoch instead of key order.
    dice : "caffe" replays ``rand()`` from ``srand(seed)`` over all samples; "numpy" seeds each
        sample by itself.
    rank, world : this process's share of each global batch.
    """

    shuffle: bool = False
    dice: DiceKind = "numpy"
    seed: int = 1
    rank: int = 0
    world: int = 1


@dataclass(frozen=True)
class SampleJob:
    """One sample to make: record index, epoch, and the dice (None: roll them from the seed in the
    worker)."""

    number: int
    index: int
    epoch: int
    choice: Augmentation | None


class Schedule:
    """Jobs by global sample number."""

    def __init__(self, count: int, settings: Settings, order: Order) -> None:
        self.count, self.settings, self.order = count, settings, order
        self._permutation: tuple[int, npt.NDArray[np.int64]] = (-1, np.zeros(0, np.int64))
        self._dice = CaffeDice(glibc_rand(order.seed))
        self._next = 0

    def job(self, number: int) -> SampleJob:
        """What a worker must know to make the sample with this number."""
        epoch, place = divmod(number, self.count)
        if self.order.shuffle:
            if self._permutation[0] != epoch:
                generator = np.random.Generator(np.random.Philox(key=[self.order.seed, epoch]))
                self._permutation = epoch, generator.permutation(self.count)
            place = int(self._permutation[1][place])
        choice = self._caffe_choice(number) if self.order.dice == "caffe" else None
        return SampleJob(number, place, epoch, choice)

    def _caffe_choice(self, number: int) -> Augmentation:
        """rand() is one sequence over all samples: those before ``number`` must roll first."""
        if number < self._next:
            self._dice, self._next = CaffeDice(glibc_rand(self.order.seed)), 0
        table = (0.0, False) if self.settings.aug_way == "table" else None
        while True:
            choice = roll(self.settings, self._dice, table)
            self._next += 1
            if self._next > number:
                return choice

    def batch(self, number: int, size: int) -> list[SampleJob]:
        """This rank's part of a global batch."""
        first = number * size * self.order.world + self.order.rank * size
        return [self.job(first + i) for i in range(size)]


class Tables:
    """The rotation and flip tables of ``aug_way: "table"``: one row per record, one column per
    augmentation."""

    def __init__(self, folder: Path, augmentations: int, count: int) -> None:
        self.degrees = self._read(
            folder / f"rotate_{augmentations}_{count}.txt", (count, augmentations)
        )
        self.flips = self._read(
            folder / f"flip_{augmentations}_{count}.txt", (count, augmentations)
        )

    @staticmethod
    def _read(path: Path, shape: tuple[int, int]) -> npt.NDArray[np.float64]:
        text = read_text(path, "table of numbers")
        with reading(path, "table of numbers"):
            table = np.loadtxt(io.StringIO(text), ndmin=2)
        if table.shape != shape:
            raise DataError(
                f"{path}: has {table.shape[0]} × {table.shape[1]} numbers, expected {shape[0]} "
                f"× {shape[1]}"
            )
        return table

    def entry(self, write_number: int, epoch: int) -> tuple[float, bool]:
        """(degree, flip) of a record in an epoch.

        Raises
        ------
        DataError : the record's number is beyond the tables.
        """
        if write_number >= len(self.degrees):
            raise DataError(
                f"a record has the write number {write_number}, the tables of aug_way 'table' have "
                f"{len(self.degrees)} rows, counted from 0"
            )
        column = epoch % self.degrees.shape[1]
        return float(self.degrees[write_number, column]), bool(self.flips[write_number, column])


class SampleMaker:
    """Makes samples; picklable, so that each worker process opens its own handle.

    Raises
    ------
    DataError : the settings ask for tables, and none are given.
    """

    def __init__(
        self, store: Store, settings: Settings, seed: int, tables: Tables | None = None
    ) -> None:
        if settings.aug_way == "table" and tables is None:
            raise DataError(
                "aug_way: 'table' takes rotations and flips from tables, which only a training "
                "reads; take 'rand' here"
            )
        self.store, self.settings, self.seed, self.tables = store, settings, seed, tables

    def __call__(self, job: SampleJob) -> Sample:
        """Make one sample."""
        record = self.store.record(job.index)
        choice = job.choice or roll(
            self.settings,
            SampleDice(self.seed, job.epoch, job.index),
            (0.0, False) if self.tables else None,
        )
        if self.tables:
            degree, flip = self.tables.entry(record.write_number, job.epoch)
            choice = replace(choice, degree=degree, flip=flip)
        return augment(record.image, record.annotation, self.settings, choice)

    def batch(self, jobs: list[SampleJob]) -> Batch:
        """(N, 4, Y, X) data and (N, 2 (P + 1), Y / stride, X / stride) labels: own person first,
        then everybody."""
        samples = [self(job) for job in jobs]
        data = np.stack([s.data for s in samples])
        return data, np.stack([np.concatenate([s.label, s.label_1st]) for s in samples])


class CPMDataset:
    """A map-style data set for :class:`torch.utils.data.DataLoader`, one augmented sample per
    record.

    >>> data = CPMDataset("lmdb/MPI", Settings(stride=8, target_dist=41 / 35))  # doctest: +SKIP
    >>> loader = DataLoader(data, batch_size=16, shuffle=True, num_workers=4)  # doctest: +SKIP

    Works with ``DistributedSampler`` and with forked or spawned workers, which open their own
    handles. The dice of a sample follow from seed, epoch and index alone; call :meth:`set_epoch` as
    for a sampler.

    Parameters
    ----------
    path : LMDB folder or HDF5 file.
    settings : fields of the CPM data layer.
    seed : where the dice begin.

    Raises
    ------
    DataError : the records cannot be read or do not fit the settings, or these ask for tables.

    Notes
    -----
    An item is ``{"data": (4, Y, X), "label_1st": (P + 1, y, x), "label": (P + 1, y, x)}``, float32:
    label_1st of everybody (stage 1), label of the own person (later stages).
    """

    def __init__(self, path: str | os.PathLike[str], settings: Settings, *, seed: int = 1) -> None:
        self._maker = SampleMaker(open_records(path, settings), settings, seed)
        self._count = len(self._maker.store)
        self._maker.store.close()
        self.epoch = 0

    def set_epoch(self, epoch: int) -> None:
        """Throw other dice from now on: those of this epoch."""
        self.epoch = epoch

    def __len__(self) -> int:
        return self._count

    def __getitem__(self, index: int) -> dict[str, npt.NDArray[np.float32]]:
        if not 0 <= index < self._count:
            raise IndexError(index)
        sample = self._maker(SampleJob(index, index, self.epoch, None))
        return {"data": sample.data, "label_1st": sample.label_1st, "label": sample.label}


class _Jobs:
    """torch's map-style data set of whole batches: the index is the list of jobs."""

    def __init__(self, maker: SampleMaker) -> None:
        self.maker = maker

    def __getitem__(self, jobs: list[SampleJob]) -> Batch | CaffeCompatError:
        try:
            return self.maker.batch(jobs)
        except CaffeCompatError as error:
            return error  # as a value: torch would wrap it in a page of traceback

    def __len__(self) -> int:
        return 1 << 40


class _Sampler:
    """Lists of jobs from a batch number on, without end."""

    def __init__(self, schedule: Schedule, size: int, start: int) -> None:
        self.schedule, self.size, self.start = schedule, size, start

    def __iter__(self) -> Iterator[list[SampleJob]]:
        number = self.start
        while True:
            yield self.schedule.batch(number, self.size)
            number += 1


def _start_worker(_: int) -> None:
    """One thread; and Ctrl-C or a SIGTERM to the whole group is the training's business, which ends
    its workers itself. A worker whose training was killed ends by itself."""
    import signal

    import cv2
    import torch

    signal.signal(signal.SIGINT, signal.SIG_IGN)
    signal.signal(signal.SIGTERM, signal.SIG_IGN)
    end_with_parent()
    cv2.setNumThreads(0)
    torch.set_num_threads(1)


def _end(iterator: weakref.ref[Any]) -> None:
    """End the workers of a loader that is still there."""
    alive = iterator()
    if alive is not None:
        alive._shutdown_workers()


def _identity(batch: Any) -> Any:
    return batch


class CPMSource:
    """The CPMData layer: augmented batches by number, made ahead by worker processes.

    Parameters
    ----------
    maker : makes samples.
    size : batch size of this process.
    order : how samples follow each other.
    workers : processes; 0 makes them when asked.
    start_method : "fork" or "spawn"; default: the platform's.
    tops : how many blobs the layer makes: images alone, or labels too.
    """

    def __init__(
        self,
        maker: SampleMaker,
        size: int,
        order: Order,
        *,
        workers: int = 0,
        start_method: str | None = None,
        tops: int = 2,
    ) -> None:
        self.tops = tops
        self.maker, self.size, self.order = maker, size, order
        self.workers, self.start_method = workers, start_method
        self._schedule = Schedule(len(maker.store), maker.settings, order)
        self._iterator: Iterator[Batch | CaffeCompatError] | None = None
        self._expected = -1
        s = maker.settings
        images: Shape = (size, 4, s.crop_size_y, s.crop_size_x)
        labels: Shape = (size, 2 * (s.num_parts + 1), *s.grid)
        self.shapes = (images, labels)[:tops]

    def batch(self, number: int) -> Batch:
        """The batch with this number; asking in sequence is fast, anything else restarts the
        workers.

        Raises
        ------
        DataError : a record cannot be read, or a process that makes samples died.
        """
        if not self.workers:
            return self.maker.batch(self._schedule.batch(number, self.size))[: self.tops]
        if number != self._expected or self._iterator is None:
            import torch
            from torch.utils.data import DataLoader

            self.maker.store.close()
            loader: Any = DataLoader(
                _Jobs(self.maker),  # type: ignore[arg-type]
                sampler=_Sampler(self._schedule, self.size, number),
                batch_size=None,
                num_workers=self.workers,
                prefetch_factor=4,
                collate_fn=_identity,
                worker_init_fn=_start_worker,
                multiprocessing_context=self.start_method,
            )
            # torch draws a seed for the workers from its global generator, which the solver has
            # just set for this iteration's dropout: nothing here uses that seed
            with torch.random.fork_rng(devices=[]):
                self._iterator = iter(loader)
            # before multiprocessing's own hook, which would wait for ever for workers that ignore
            # SIGTERM
            atexit.register(_end, weakref.ref(self._iterator))
        self._expected = number + 1
        try:
            made = next(self._iterator)
        except RuntimeError as error:  # torch's word for a worker that died
            raise DataError(
                f"a process that makes samples died ({str(error).splitlines()[0]})"
            ) from None
        if isinstance(made, CaffeCompatError):
            raise made
        return made[: self.tops]


def settings_of(layer: Layer, parts: tuple[str, ...] = ()) -> Settings:
    """The settings of a CPMData layer in its phase.

    Parameters
    ----------
    parts : names of the parts, where they are not the authors'; left and right are told by them.

    Raises
    ------
    PrototxtError : another number of parts is named; a mirror image would mix up unknown sides.
    """
    assert isinstance(layer, CPMData)
    settings = Settings.of(layer.transform()[1])
    if parts and len(parts) != settings.num_parts:
        raise layer.error(
            f"{len(parts)} parts are named, the definition has num_parts {settings.num_parts}",
            "num_parts",
        )
    in_training = layer.phase == TRAIN
    mirrored = settings.flip_prob > 0 and settings.transform_body_joint and settings.num_parts
    if in_training and mirrored and not parts and not known(settings.num_parts):
        raise layer.error(
            f"left and right of {settings.num_parts} parts are not known, mirror images would "
            "mix them up: name the parts (cpm-train --parts left_shoulder,right_shoulder,..., "
            "cpm-export proto --part-names) or set flip_prob: 0",
            "flip_prob",
        )
    return replace(settings, parts=parts, in_training=in_training)


def source_for(
    layer: Layer,
    root: Path,
    order: Order | None = None,
    *,
    workers: int = 0,
    data: str | None = None,
    parts: tuple[str, ...] = (),
) -> CPMSource:
    """The source of a CPMData layer.

    Parameters
    ----------
    root : folder that the layer's ``source`` counts from.
    order : how samples follow each other; default: as in Caffe, with its dice.
    workers : processes that make samples; 0 makes them when asked.
    data : record file to read instead of ``source``.
    parts : names of the parts, as :func:`settings_of` takes them.

    Raises
    ------
    CaffeCompatError : the definition or the records cannot be used; a mirror image would mix up
        unknown sides.
    """
    assert isinstance(layer, CPMData)
    settings = settings_of(layer, parts)
    if layer.options.backend == 0 and layer.options.HasField("backend") and data is None:
        raise layer.error("LEVELDB is not supported: write the records as LMDB", "backend")
    path = (
        Path(data) if data else find_file(layer.options.source, root, f"layer '{layer.name}': LMDB")
    )
    store = open_records(path, settings)
    tables = None
    if settings.aug_way == "table":
        tables = Tables(root / ".." / "..", settings.num_total_augs, len(store))
    order = order or Order(dice="caffe")
    maker = SampleMaker(store, settings, order.seed, tables)
    tops = len(layer.spec.tops)
    return CPMSource(maker, layer.batch_size(), order, workers=workers, tops=tops)


def open_cpm_source(layer: Layer, root: Path, draws: Draws) -> CPMSource:
    """The source of a CPMData layer, as any net opens it; its dice do not depend on ``draws``, and
    the network's name tells the parts, where they are not the authors'."""
    return source_for(layer, root, parts=part_names.in_name(layer.spec.network))


register_source("CPMData", open_cpm_source)
