"""Sound files of every kind, small, made anew: what the mutations start from."""

from __future__ import annotations

import json
from pathlib import Path
from typing import Any

import cv2
import h5py
import numpy as np
from scipy.io import savemat

from caffe_compat import Net, parse_net
from caffe_compat.definition import schema
from caffe_compat.training import snapshots
from caffe_compat.weights import containers
from reproduce.drawing.viewer import ViewedPerson, ViewedPicture, picture_data
from reproduce.people import annotation
from reproduce.people.coco_files import KEYPOINTS
from reproduce.records import hdf5, store
from tests.fuzz.readers import _NET, READERS
from tests.nets import TEXT
from tests.people import dataset

_SOLVER = """net: "net.prototxt" base_lr: 0.1 lr_policy: "step" gamma: 0.5 stepsize: 2
momentum: 0.9 weight_decay: 0.001 max_iter: 5 display: 1 snapshot: 0 random_seed: 1
snapshot_prefix: "s" solver_mode: CPU type: "SGD" iter_size: 1
"""
_LOSSES = """input: "data" input: "label" input_shape { dim: 2 dim: 4 } input_shape { dim: 2 }
layer { name: "ip" type: "InnerProduct" bottom: "data" top: "ip"
  inner_product_param { num_output: 3 weight_filler { type: "gaussian" std: 0.1 } } }
layer { name: "loss" type: "SoftmaxWithLoss" bottom: "ip" bottom: "label" top: "loss"
  loss_weight: 2 loss_param { ignore_label: 1 normalization: VALID } }
layer { name: "h" type: "HingeLoss" bottom: "ip" bottom: "label" top: "h"
  hinge_loss_param { norm: L2 } }
"""
_MANY = """input: "data" input_shape { dim: 2 dim: 4 dim: 9 dim: 7 }
layer { name: "c" type: "Convolution" bottom: "data" top: "c" convolution_param { num_output: 4
  kernel_h: 3 kernel_w: 2 stride: 2 pad: 1 dilation: 1 group: 2 engine: CAFFE } }
layer { name: "p" type: "Pooling" bottom: "c" top: "p" pooling_param { pool: AVE kernel_size: 3
  stride: 2 pad: 1 } }
layer { name: "d" type: "Deconvolution" bottom: "p" top: "d" convolution_param { num_output: 2
  kernel_size: 4 stride: 2 } }
layer { name: "n" type: "LRN" bottom: "d" top: "n" lrn_param { local_size: 3 alpha: 0.1 } }
layer { name: "s" type: "Slice" bottom: "n" top: "s1" top: "s2" slice_param { axis: 1 } }
layer { name: "e" type: "Eltwise" bottom: "s1" bottom: "s2" top: "e"
  eltwise_param { operation: SUM coeff: 1 coeff: -1 } }
layer { name: "r" type: "Reshape" bottom: "e" top: "r" reshape_param { shape { dim: 0 dim: -1 } } }
layer { name: "x" type: "Softmax" bottom: "r" top: "x" include { phase: TEST } }
"""
_LOG = """I0725 23:59:58.100000 7 solver.cpp:218] Iteration 0, loss = 2.5
I0725 23:59:58.200000 7 solver.cpp:330] Iteration 0, Testing net (#0)
I0725 23:59:58.300000 7 solver.cpp:397]     Test net output #0: accuracy = 0.25
I0725 23:59:58.400000 7 solver.cpp:237]     Train net output #0: loss = 2.5 (* 1 = 2.5 loss)
I0725 23:59:58.500000 7 sgd_solver.cpp:105] Iteration 0, lr = 1e-05
I0726 00:00:03.500000 7 solver.cpp:218] Iteration 100 (20 iter/s), loss = nan
I0726 00:00:03.600000 7 solver.cpp:237]     Train net output #0: loss = nan (* 1 = nan loss)
I0726 00:00:03.700000 7 sgd_solver.cpp:105] Iteration 100, lr = 0.005
"""


def _models(folder: Path) -> None:
    net = Net(parse_net(TEXT), seed=7)
    weights, spec = net.weights(), net.graph.spec
    for kind, ending in (
        ("caffemodel", ".caffemodel"),
        ("h5", ".caffemodel.h5"),
        ("npz", ".npz"),
        ("pth", ".pth"),
        ("safetensors", ".safetensors"),
    ):
        containers.write(folder / f"model{ending}", weights, spec, kind)
    history = [blob.data for layer in weights.layers for blob in layer.blobs]
    for hdf5_form in (False, True):
        snapshots.write(str(folder / "s"), 3, weights, spec, history, 1, hdf5=hdf5_form)
    small = Net(parse_net(_NET), seed=1)
    blobs = {"in:data": np.ones((1, 3, 8, 8), np.float32)}
    blobs["blob:conv"] = np.zeros((1, 2, 6, 6), np.float32)
    np.savez(folder / "dump.npz", **blobs)  # type: ignore[arg-type]
    np.savez_compressed(folder / "dump2.npz", **blobs)  # type: ignore[arg-type]
    del small


def _records(folder: Path) -> None:
    people = dataset(folder / "root", 5)
    annotation.write_json(folder / "authors.json", people)
    plan = store.plan(people, seed=1)
    for jpeg in (False, True):
        out = folder / f"lmdb{int(jpeg)}"
        store.export_lmdb(plan, folder / "root", out, jpeg=jpeg)
        opened = store.LMDBStore(out)
        hdf5.from_lmdb(opened, folder / f"records{int(jpeg)}.h5")
        (folder / f"value{int(jpeg)}.datum").write_bytes(opened.reader.raw(0))
        opened.close()
        (folder / f"records{int(jpeg)}.mdb").write_bytes((out / "data.mdb").read_bytes())
    note = {"done": 1, "skipped": []}
    (folder / "note.json").write_text(json.dumps(note))


def _training(folder: Path) -> None:
    """What trainings read and write beside records: lists of pictures, means, logs."""
    (folder / "pictures.txt").write_text("a.png 0\na.png 2\n\na.png -1\n")
    (folder / "train.log").write_text(_LOG)
    mean = schema.new("BlobProto", num=1, channels=3, height=2, width=2)
    mean.data.extend([0.5] * 12)
    (folder / "old.binaryproto").write_bytes(mean.SerializeToString())
    mean = schema.new("BlobProto", double_data=[0.25] * 12)
    mean.shape.dim.extend((1, 3, 2, 2))
    (folder / "new.binaryproto").write_bytes(mean.SerializeToString())


def _structs(rows: list[dict[str, Any]]) -> Any:
    found = np.zeros((1, len(rows)), [(name, object) for name in rows[0]])
    for i, row in enumerate(rows):
        found[0, i] = tuple(row.values())
    return found


def _matlab(folder: Path) -> None:
    rng = np.random.default_rng(0)
    coords = np.full((2, 29), np.nan)
    coords[:, :11] = rng.uniform(10, 90, (2, 11))
    rows = [
        {
            "filepath": f"a{i}.jpg",
            "coords": coords + i,
            "torsobox": np.array([[20.0, 20, 60, 80]], np.float32),
            "istrain": float(i % 2),
            "istest": float(1 - i % 2),
        }
        for i in range(4)
    ]
    points = _structs(
        [{"id": 1.0 * k, "x": 10.0 + k, "y": 20.0, "is_visible": 1} for k in range(16)]
    )
    person = {
        "scale": 1.5,
        "objpos": _structs([{"x": 50.0, "y": 60.0}]),
        "annopoints": _structs([{"point": points}]),
    }
    entries = [
        {"image": _structs([{"name": f"m{i}.jpg"}]), "annorect": _structs([person, person])}
        for i in range(2)
    ]
    release = {"annolist": _structs(entries), "img_train": np.array([[0, 1]], np.uint8)}
    for packed in (False, True):
        tail = "2" if packed else ""
        savemat(folder / f"flic{tail}.mat", {"examples": _structs(rows)}, do_compression=packed)
        savemat(folder / f"mpi{tail}.mat", {"RELEASE": _structs([release])}, do_compression=packed)
    numbers = np.array([[1.0, 2, 3]])
    savemat(folder / "split.mat", {"RELEASE_img_index": numbers, "RELEASE_person_index": numbers})
    savemat(folder / "lsp.mat", {"joints": rng.uniform(0, 99, (3, 14, 6))})
    joints = rng.uniform(1, 99, (3, 14, 2))
    savemat(folder / "joints.mat", {"prediction_all": joints.transpose(1, 2, 0)})
    cells = np.empty((1, 3), object)
    for i in range(3):
        cells[0, i] = joints[i]
    savemat(folder / "cells.mat", {"pred": cells})
    np.savez(folder / "joints.npz", joints=joints)
    (folder / "joints.json").write_text(json.dumps(joints.tolist()))
    triples = np.dstack([joints, np.ones((3, 14, 1))]).reshape(3, -1)
    rows_ = [{"pose_keypoints_2d": row} for row in triples.tolist()]
    (folder / "openpose.json").write_text(json.dumps({"version": 1.3, "people": rows_}))
    with h5py.File(folder / "joints.h5", "w") as file:
        file["preds"] = joints
    with h5py.File(folder / "v73.mat", "w") as file:
        file["prediction_all"] = joints
    with h5py.File(folder / "valid.h5", "w") as file:
        file["imgname"] = np.array([b"a.jpg", b"b.jpg"])
        file["center"], file["scale"] = rng.uniform(0, 99, (2, 2)), np.ones(2)
        file["part"], file["normalize"] = rng.uniform(0, 99, (2, 16, 2)), np.ones(2)
    with h5py.File(folder / "data.h5", "w") as file:
        file["data"], file["label"] = np.ones((4, 3), np.float32), np.zeros((4, 1), np.float32)
    (folder / "list.txt").write_text("data.h5\n")


def _json(folder: Path) -> None:
    keypoints = [v for i in range(17) for v in (50 + 3 * i, 40 + 5 * i, 2)]
    person = {"id": 7, "image_id": 1, "category_id": 1, "iscrowd": 0, "keypoints": keypoints}
    coco = {
        "images": [{"id": 1, "file_name": "a.jpg", "width": 200, "height": 300}],
        "categories": [{"id": 1, "name": "person", "keypoints": list(KEYPOINTS)}],
        "annotations": [{**person, "bbox": [40, 30, 80, 120]}],
    }
    files: dict[str, Any] = {
        "coco.json": coco,
        "boxes.json": {"a.jpg": [[1, 2, 30, 40]], "b.jpg": [[5, 5, 20, 20], [1, 1, 9, 9]]},
        "keypoints.json": {
            "version": 1.0,
            "image": "a.jpg",
            "size": [40, 60],
            "people": [{"pose_keypoints_2d": [1.5] * 42, "score": 0.5, "box": None}],
        },
    }
    for name, content in files.items():
        (folder / name).write_text(json.dumps(content))
    joints, maps = np.full((14, 2), 20.5), np.full((2, 15, 4, 5), 0.25, np.float32)
    viewed = ViewedPerson(joints, np.full(14, 0.5), maps)
    picture = ViewedPicture("a.jpg", np.zeros((60, 40, 3), np.uint8), (viewed,))
    (folder / "page.json").write_text(json.dumps(picture_data(picture)))
    thresholds = [0.0, 0.1, 0.2]
    result = {
        "experiment": "stages-1",
        "profile": "cpu",
        "scheme": "joint",
        "config": {"stages": 1, "towers": [4, 4, 8]},
        "iterations": 10,
        "batch": 2,
        "seed": 1,
        "people": 3,
        "thresholds": thresholds,
        "total": [0.0, 10.0, 20.0],
        "provenance": {"data": "LSP, 30 people", "machine": "x", "date": "2026-01-01"},
        "hits_of_people": {"0.2": [1, 2, 3]},
        "final_losses": {"loss_stage1": 1.5},
        "seconds": 60.5,
        "machine": {"trees": 3, "images": 4},
        "earlier": {"iteration": 5, "total": [0.0, 9.0, 19.0]},
        "gradients": {"0": {"conv1/weight": [1] * 64}},
    }
    (folder / "result.json").write_text(json.dumps(result))
    (folder / "boxes.csv").write_text("image,x,y,w,h\na.jpg,1,2,30,40\nb.jpg,5,5,20,20\n")
    lines = [{"about": {"model": "x"}}, {"number": 0, "result": [1]}, {"number": 1, "result": {}}]
    (folder / "run.jsonl").write_text("\n".join(map(json.dumps, lines)) + "\n")


def _pictures(folder: Path) -> None:
    rng = np.random.default_rng(0)
    image = cv2.resize(rng.integers(0, 256, (6, 5, 3), np.uint8), (40, 48))
    for ending in READERS["images"].endings:
        if cv2.haveImageWriter(ending):  # older releases of OpenCV write fewer formats
            cv2.imwrite(str(folder / f"image{ending}"), image)
    writer = cv2.VideoWriter(
        str(folder / "video.avi"), cv2.VideoWriter.fourcc(*"MJPG"), 10, (40, 48)
    )
    for _ in range(3):
        writer.write(image)
    writer.release()


def make_seeds(folder: Path) -> dict[str, list[Path]]:
    """Sound files for each reader of the table."""
    folder.mkdir(parents=True, exist_ok=True)
    for make in (_models, _records, _training, _matlab, _json, _pictures):
        make(folder)
    for i, text in enumerate((TEXT, _LOSSES, _MANY)):
        (folder / f"net{i}.prototxt").write_text(text)
    (folder / "solver.prototxt").write_text(_SOLVER)
    named = {
        "prototxt": "net*.prototxt",
        "solver": "solver.prototxt",
        "caffemodel": "*.caffemodel",
        "caffemodel-h5": "model.caffemodel.h5",
        "containers": "model.[nps]*",
        "solverstate": "*.solverstate*",
        "dump": "dump*.npz",
        "hdf5-data": "data.h5",
        "image-data": "pictures.txt",
        "mean": "*.binaryproto",
        "training-log": "train.log",
        "records": "records*.h5",
        "datum": "*.datum",
        "lmdb": "records*.mdb",
        "images": "image.*",
        "video": "video.avi",
        "authors": "authors.json",
        "coco": "coco.json",
        "boxes": "boxes.*",
        "joints": "joints.*",
        "flic": "flic*.mat",
        "mpi": "mpi*.mat",
        "split": "split.mat",
        "lsp": "lsp.mat",
        "valid": "valid.h5",
        "keypoints": "keypoints.json",
        "page-part": "page.json",
        "journal": "run.jsonl",
        "note": "note.json",
    }
    found = {name: sorted(folder.glob(pattern)) for name, pattern in named.items()}
    found["joints"] += [folder / name for name in ("cells.mat", "v73.mat", "openpose.json")]
    found["hdf5-data"].append(folder / "list.txt")
    found["result"] = [folder / "result.json"]
    return found
