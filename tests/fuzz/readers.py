"""The table of readers: each takes the path of a file, and may raise our own errors alone."""

from __future__ import annotations

import contextlib
import os
import shutil
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from types import SimpleNamespace
from typing import Any

import numpy as np

from caffe_compat.errors import CaffeCompatError

Call = Callable[[Path], object]
_LARGEST = 20_000_000  # values of a network that is still built and run
_PASSES = 100  # of one step of a solver that is still run
_NET = """
name: "n" input: "data" input_shape { dim: 1 dim: 3 dim: 8 dim: 8 }
layer { name: "conv" type: "Convolution" bottom: "data" top: "conv"
  convolution_param { num_output: 2 kernel_size: 3 } }
"""
_TRAINED = """
layer { name: "d" type: "DummyData" top: "data" top: "label" dummy_data_param {
  shape { dim: 2 dim: 3 } shape { dim: 2 dim: 3 } data_filler { type: "gaussian" } } }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "loss" type: "EuclideanLoss" bottom: "ip" bottom: "label" top: "loss" }
"""


@dataclass(frozen=True)
class Reader:
    """A reader of files.

    Attributes
    ----------
    call : reads a file and goes on with what is in it.
    endings : of the files that it reads, as they are called.
    """

    call: Call
    endings: tuple[str, ...]


def _run_net(spec: Any, weights: Any = None) -> None:
    """Graph, network and one forward pass, where they are small enough for it."""
    import torch

    from caffe_compat import Net
    from caffe_compat.network.graph import build

    graph = build(spec)
    sizes = [*graph.blobs.values(), *(p.shape for node in graph.nodes for p in node.params)]
    if sum(int(np.prod(shape, dtype=np.float64)) for shape in sizes) > _LARGEST:
        return
    net = Net(graph, weights, strict=False)
    with torch.no_grad():
        net(*(torch.zeros(graph.blobs[name]) for name in graph.inputs))


def _net(path: Path) -> None:
    from caffe_compat import read_net

    _run_net(read_net(path))


def _weights(path: Path) -> None:
    from caffe_compat.conversion.deploy import derive
    from caffe_compat.weights import containers

    weights = containers.read_weights(path)
    if weights.net is not None:
        net, _ = derive(weights.net, weights)
        _run_net(net, weights)


def _solver(path: Path) -> None:
    """A solver beside a small network: three steps."""
    from caffe_compat import read_solver
    from caffe_compat.training.solver import Solver

    (path.parent / "net.prototxt").write_text(_TRAINED)
    spec = read_solver(path)
    if spec.message.iter_size > _PASSES:  # years of work are asked for, not wrong
        return
    solver = Solver(spec, root=path.parent)
    for _ in range(3):
        solver.step()


def _state(path: Path) -> None:
    from caffe_compat.training.snapshots import read_state

    read_state(path)


def _dump(path: Path) -> None:
    from caffe_compat import Net, parse_net
    from caffe_compat.conversion.verify import load_dump, verify

    verify(Net(parse_net(_NET)), load_dump(path))


def _hdf5_data(path: Path) -> None:
    """A list of HDF5 files, or one such file, as HDF5Data reads them."""
    import caffe_compat.training.rows  # noqa: F401  (it registers the source)
    from caffe_compat import parse_net
    from caffe_compat.layers import make
    from caffe_compat.training.draws import Draws
    from caffe_compat.training.sources import open_source

    listing = path
    if not path.name.endswith(".txt"):
        listing = path.with_name("list.txt")
        listing.write_text(path.name + "\n")
    text = (
        'layer { name: "d" type: "HDF5Data" top: "data" top: "label" hdf5_data_param { '
        f'source: "{listing.name}" batch_size: 2 }} }}'
    )
    layer = make(parse_net(text).layers[0], "TRAIN")
    open_source(layer, path.parent, Draws(1)).batch(0)


def _image_data(path: Path) -> None:
    """A list of pictures, as ImageData reads it; the sound one names a.png."""
    import cv2

    import caffe_compat.training.pictures  # noqa: F401  (it registers the source)
    from caffe_compat import parse_net
    from caffe_compat.layers import make
    from caffe_compat.training.draws import Draws
    from caffe_compat.training.sources import open_source

    cv2.imwrite(str(path.with_name("a.png")), np.zeros((9, 7, 3), np.uint8))
    text = (
        'layer { name: "d" type: "ImageData" top: "data" top: "label" image_data_param { '
        f'source: "{path.name}" batch_size: 2 shuffle: true }} }}'
    )
    layer = make(parse_net(text).layers[0], "TRAIN")
    open_source(layer, path.parent, Draws(1)).batch(0)


def _mean(path: Path) -> None:
    from caffe_compat.training.transformer import read_mean

    read_mean(path)


def _training_log(path: Path) -> None:
    """A log of ``caffe train``, as ``parse-log`` reads it."""
    from caffe_compat.tools.training_logs import parse_log_command

    assert parse_log_command.callback is not None
    parse_log_command.callback(str(path), str(path.parent / "tables"), ",")


def _store(store: Any) -> None:
    """Records as samples and as pictures."""
    from reproduce.samples.augment import Settings, augment, roll
    from reproduce.samples.dice import SampleDice
    from reproduce.samples.preview import draw_record

    settings = Settings(stride=8, crop_size_x=96, crop_size_y=96)
    for index in range(min(len(store), 3)):
        record = store.record(index)
        choice = roll(settings, SampleDice(1, 0, index))
        with contextlib.suppress(CaffeCompatError):
            augment(record.image, record.annotation, settings, choice)
        draw_record(record, store.path.with_suffix(".png"))


def _records(path: Path) -> None:
    from reproduce.records.hdf5 import HDF5Store

    store = HDF5Store(path)
    store.path = path  # type: ignore[assignment]
    _store(store)


class _OneRecord:
    """A single value of an LMDB as a store of records."""

    def __init__(self, path: Path) -> None:
        self.path, self._value = path, path.read_bytes()

    def __len__(self) -> int:
        return 1

    def record(self, index: int) -> Any:
        from caffe_compat.training import datum
        from reproduce.records import layout

        found = datum.decode(self._value)
        layout.stored_of(found)
        return layout.decode(found, 16)


def _lmdb(path: Path) -> None:
    from reproduce.records.store import LMDBStore

    store = LMDBStore(path)
    for index in range(len(store)):
        with contextlib.suppress(CaffeCompatError):
            store.record(index)
    store.close()


def _image(path: Path) -> None:
    from reproduce.people.imagesize import image_size
    from reproduce.records.images import read_image

    with contextlib.suppress(CaffeCompatError):
        image_size(path)
    read_image(path, upright=True)


def _video(path: Path) -> None:
    from reproduce.predict.capture import frames_of, open_capture

    with open_capture(str(path)) as capture:
        for _ in frames_of(capture, 5):
            pass


def _authors(path: Path) -> None:
    from reproduce.people.annotation import read_json, to_json

    to_json(read_json(path))


def _each(*works: Callable[[], object]) -> None:
    """Read a file in several ways, whatever some of them refuse.

    Raises
    ------
    CaffeCompatError : all of them refused it.
    """
    refused = []
    for work in works:
        try:
            work()
        except CaffeCompatError as error:
            refused.append(error)
    if len(refused) == len(works):
        raise refused[-1]


def _coco(path: Path) -> None:
    from reproduce.people import coco_files

    def work(own: bool) -> None:
        coco_files.write(path.with_suffix(".out"), coco_files.read(path, own=own))

    _each(lambda: work(False), lambda: work(True))


def _boxes(path: Path) -> None:
    from reproduce.predict.boxes import read_boxes
    from reproduce.predict.inputs import scale_person
    from reproduce.predict.protocol import PROTOCOLS

    image = np.zeros((60, 40, 3), np.uint8)
    for boxes in list(read_boxes(path).values())[:3]:
        for protocol in (PROTOCOLS["demo"].at(96), PROTOCOLS["mpi"].at(96)):
            with contextlib.suppress(CaffeCompatError):
                scale_person(image, protocol.placement((60, 40), boxes[0]), protocol)


def _joints(path: Path) -> None:
    from reproduce.predict import joint_files

    joint_files.read(path)


def _below(path: Path, *parts: str) -> Path:
    """The file at another place below its folder, as a benchmark's layout wants it."""
    place = path.parent.joinpath("data", *parts)
    place.parent.mkdir(parents=True, exist_ok=True)
    shutil.copyfile(path, place)
    return path.parent / "data"


def _flic(path: Path) -> None:
    from reproduce.benchmarks.flic import Flic
    from reproduce.people import flic_files

    root = _below(path, "flic", "examples.mat")
    _each(
        lambda: flic_files.read_training(path, root / "flic" / "images", skip_missing=True),
        lambda: Flic(root).people(),
        lambda: (Flic(root).truth(9), Flic(root).truth(11), Flic(root).annotated_lengths("box")),
    )


def _mpi(path: Path) -> None:
    from reproduce.benchmarks.mpii import MpiiTest
    from reproduce.people import mpii_files

    _each(
        lambda: MpiiTest(path.parent, path).people(),
        lambda: mpii_files.read(path, path.parent, set(), skip_missing=True),
    )


def _split(path: Path) -> None:
    from reproduce.people.mpii_files import read_split

    read_split(path)


def _valid(path: Path) -> None:
    from reproduce.benchmarks.mpii import MpiiValidation

    test = MpiiValidation(_below(path, "mpii", "valid.h5"))
    test.score(np.zeros((len(test.people()), 16, 2)))


def _lsp(path: Path) -> None:
    from reproduce.people import lsp_files

    lsp_files.read_joints(_below(path, "lsp", "joints.mat"), "lsp")


def _keypoints(path: Path) -> None:
    from reproduce.people.skeletons import skeleton
    from reproduce.predict.result_files import read_result, write_all

    write_all(path.with_name("all"), [read_result(path, 14)], skeleton(14))


def _page_part(path: Path) -> None:
    """What ``cpm-predict`` kept of a picture, and its page made of that."""
    from reproduce.people.skeletons import skeleton
    from reproduce.predict import photographs

    target: Any = SimpleNamespace(page_part=path)
    predictor = SimpleNamespace(outputs=("stage1",), skeleton=skeleton(14))
    run: Any = SimpleNamespace(out=path.parent, predictor=predictor, say=lambda text: None)
    photographs._write_page(run, [target])


def _result(path: Path) -> None:
    """A training's result, and what figures and the report make of it."""
    from reproduce.experiments import results

    found = results.read_result(path)
    results.rows({found.experiment: found})
    found.at(0.2)
    found.epoch(3)


def _journal(path: Path) -> None:
    from reproduce.runtime.journal import Journal

    prefix = path.with_name("run")
    shutil.copyfile(path, f"{prefix}_journal0.jsonl")
    with Journal(prefix, {"model": "x"}, resume=True):
        pass


def _note(path: Path) -> None:
    """What an interrupted export left, found by the next one."""
    from reproduce.records import store
    from tests.people import dataset

    root = path.parent / "root"
    shutil.rmtree(root, ignore_errors=True)
    people = dataset(root, 2)
    plan = store.plan(people, seed=0)
    partial = path.parent / "out.partial"
    shutil.rmtree(partial, ignore_errors=True)
    shutil.rmtree(path.parent / "out", ignore_errors=True)
    partial.mkdir()
    store._note(partial / store._PLAN, {"people": plan.digest, "order": plan.order})
    shutil.copyfile(path, partial / store._NOTE)
    store.export_lmdb(plan, root, path.parent / "out")


READERS: dict[str, Reader] = {
    "prototxt": Reader(_net, (".prototxt",)),
    "solver": Reader(_solver, (".prototxt",)),
    "caffemodel": Reader(_weights, (".caffemodel",)),
    "caffemodel-h5": Reader(_weights, (".caffemodel.h5",)),
    "containers": Reader(_weights, (".npz", ".pth", ".safetensors")),
    "solverstate": Reader(_state, (".solverstate", ".solverstate.h5")),
    "dump": Reader(_dump, (".npz",)),
    "hdf5-data": Reader(_hdf5_data, (".h5", ".txt")),
    "image-data": Reader(_image_data, (".txt",)),
    "mean": Reader(_mean, (".binaryproto",)),
    "training-log": Reader(_training_log, (".log",)),
    "records": Reader(_records, (".h5",)),
    "datum": Reader(lambda path: _store(_OneRecord(path)), (".datum",)),
    "lmdb": Reader(_lmdb, (".mdb",)),
    "images": Reader(_image, (".png", ".jpg", ".gif", ".bmp", ".webp", ".tif")),
    "video": Reader(_video, (".avi",)),
    "authors": Reader(_authors, (".json",)),
    "coco": Reader(_coco, (".json",)),
    "boxes": Reader(_boxes, (".json", ".csv")),
    "joints": Reader(_joints, (".mat", ".h5", ".npz", ".json")),
    "flic": Reader(_flic, (".mat",)),
    "mpi": Reader(_mpi, (".mat",)),
    "split": Reader(_split, (".mat",)),
    "lsp": Reader(_lsp, (".mat",)),
    "valid": Reader(_valid, (".h5",)),
    "keypoints": Reader(_keypoints, (".json",)),
    "page-part": Reader(_page_part, (".json",)),
    "result": Reader(_result, (".json",)),
    "journal": Reader(_journal, (".jsonl",)),
    "note": Reader(_note, (".json",)),
}


def imported() -> None:
    """Import what the readers need, before processes are forked."""
    import cv2
    import h5py  # noqa: F401
    import lmdb  # noqa: F401
    import scipy.io
    import scipy.sparse  # noqa: F401
    import torch

    import reproduce.benchmarks.registry
    import reproduce.experiments.lab
    import reproduce.experiments.results
    import reproduce.predict.predictor
    import reproduce.records.hdf5
    import reproduce.report.page
    import reproduce.samples.preview  # noqa: F401

    cv2.setNumThreads(0)
    torch.set_num_threads(1)
    os.environ["OPENCV_LOG_LEVEL"] = "SILENT"
