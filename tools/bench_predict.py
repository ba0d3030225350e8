"""People per second of the LSP protocol (seven scales), from image files to joints, in turn.

Ours; the step-by-step protocol on plain torch (channels-last) and on OpenCV's Caffe importer, both
as people port it: one scale after the other, maps enlarged eight times, uncropped, resized to the
image, summed. The network's share is measured inside our own passes, with everything else of the
same pass around it: two passes of their own would differ by what other programs do meanwhile, and
the part could come out slower than the whole. The network is the 6-stage one with random weights
(its speed does not hang on their values); images are those of LSP below --data, else made-up ones
of the same size.

    python tools/bench_predict.py --data DIR --json out/predict.json
"""

from __future__ import annotations

import argparse
import statistics
import sys
import tempfile
import time
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from pathlib import Path
from typing import Any

import cv2
import numpy as np
import torch

sys.path.insert(0, str(Path(__file__).resolve().parent))

from bench_forward import plain_torch, write_model
from timing import in_turn, keep, machine, network_parser

from caffe_compat import Net, read_net, read_weights
from reproduce.predict.inputs import center_map, network_input
from reproduce.predict.job import Job, prepare
from reproduce.predict.predictor import Predictor
from reproduce.predict.protocol import PROTOCOLS, SEARCH, Protocol
from reproduce.runtime.prefetch import prefetch

Forward = Callable[[np.ndarray], np.ndarray]


@dataclass(frozen=True)
class Pass:
    """Seconds of one pass of all people through ours, in one process.

    Attributes
    ----------
    whole : from the image files to the joints.
    network : of these, in the network.
    joints : (P, 2) of each person.
    """

    whole: float
    network: float
    joints: Sequence[np.ndarray] = ()


def timed_pass(predictor: Predictor, jobs: Sequence[Job]) -> Pass:
    """All people once, one after the other; the network's calls are timed on the way."""
    inside: list[float] = []
    forward = predictor.forward

    def timed(*args: Any, **options: Any) -> torch.Tensor:
        start = time.perf_counter()
        found = forward(*args, **options)
        inside.append(time.perf_counter() - start)
        return found

    predictor.forward = timed  # type: ignore[method-assign]
    try:
        start = time.perf_counter()
        joints = [predictor.predict_job(prepare(job))[0].joints for job in jobs]
        whole = time.perf_counter() - start
    finally:
        predictor.forward = forward  # type: ignore[method-assign]
    return Pass(whole, sum(inside), joints)


def summary(
    passes: Sequence[Pass], others: Mapping[str, Sequence[float]], people: int
) -> dict[str, float]:
    """The report's numbers: people per second of everything that was timed, and the share of
    decoding, resizing and the way back.

    Parameters
    ----------
    passes : ours in one process, one a round.
    others : seconds of each round of everything else; "ours" where worker processes prepare.
    people : in each pass.
    """
    seconds = {
        "ours_in_one_process": statistics.median(one.whole for one in passes),
        "network_alone": statistics.median(one.network for one in passes),
        **{name: statistics.median(rounds) for name, rounds in others.items()},
    }
    seconds.setdefault("ours", seconds["ours_in_one_process"])
    report = {f"{name}_people_per_s": people / value for name, value in seconds.items()}
    # a ratio of each pass: its two numbers saw the same load
    report["overhead"] = statistics.median(one.whole / one.network - 1 for one in passes)
    return report


def step_by_step(path: Path, forward: Forward, protocol: Protocol) -> np.ndarray:
    """Joints (P, 2) of a person by the protocol as it is usually ported."""
    box = protocol.boxsize
    image = cv2.imread(str(path))
    height, width = image.shape[:2]
    total = np.zeros(0)
    for search in SEARCH:
        scale = 0.8 * box / height * search
        small = cv2.resize(image, None, fx=scale, fy=scale, interpolation=cv2.INTER_CUBIC)
        h, w = small.shape[:2]
        x, y = round(width / 2 * scale), round(height / 2 * scale)
        canvas = np.full((h + box, w + box, 3), 128, np.uint8)
        canvas[box // 2 : box // 2 + h, box // 2 : box // 2 + w] = small
        crop = canvas[y : y + box, x : x + box]
        data = np.empty((1, 4, box, box), np.float32)
        data[0, :3] = crop.transpose(2, 0, 1) / np.float32(256) - np.float32(0.5)
        data[0, 3] = center_map(box, protocol.sigma)
        maps = forward(data)[0]
        large = cv2.resize(maps.transpose(1, 2, 0), (box, box), interpolation=cv2.INTER_CUBIC)
        wide = np.zeros((h + box, w + box, len(maps)), np.float32)
        wide[y : y + box, x : x + box] = large
        back = wide[box // 2 : box // 2 + h, box // 2 : box // 2 + w]
        score = cv2.resize(back, (width, height), interpolation=cv2.INTER_CUBIC)
        total = score if not total.size else total + score
    flat = total[:, :, :-1].reshape(-1, total.shape[2] - 1).argmax(0)
    return np.stack([flat % width, flat // width], 1)


def made_up(folder: Path, count: int) -> list[Path]:
    """Images of the size that LSP's have."""
    rng = np.random.default_rng(0)
    paths = []
    for i in range(count):
        noise = cv2.resize(
            rng.integers(0, 256, (20, 12, 3), np.uint8), (110, 180), interpolation=cv2.INTER_CUBIC
        )
        paths.append(folder / f"{i}.png")
        cv2.imwrite(str(paths[-1]), noise)
    return paths


def ways_of_others(
    net: Net, peer: Any, last: str, paths: Sequence[Path], protocol: Protocol
) -> dict[str, Callable[[], list[np.ndarray]]]:
    """The step-by-step protocol on plain torch and on OpenCV.

    Parameters
    ----------
    peer : OpenCV's network.
    last : the blob of belief maps.
    """
    plain = plain_torch(net)

    def torch_forward(data: np.ndarray) -> np.ndarray:
        with torch.inference_mode():
            return plain(torch.from_numpy(data)).numpy()

    def opencv_forward(data: np.ndarray) -> np.ndarray:
        peer.setInput(data, "data")
        return np.asarray(peer.forward(last))

    return {
        "direct": lambda: [step_by_step(p, torch_forward, protocol) for p in paths],
        "opencv": lambda: [step_by_step(p, opencv_forward, protocol) for p in paths],
    }


@dataclass(frozen=True)
class Measured:
    """What one run measured.

    Attributes
    ----------
    numbers : as :func:`summary` gives them.
    people : in each pass.
    near : share of our joints within 2 pixels of the step-by-step protocol's.
    """

    numbers: dict[str, float]
    people: int
    near: float


def measure(options: argparse.Namespace, folder: Path) -> Measured:
    """All ways in turn."""
    protocol = PROTOCOLS["lsp"].at(options.size)
    prototxt, model = write_model(folder, options.stages, options.size)
    paths = made_up(folder, options.people)
    if options.data is not None:
        images = options.data / "lsp" / "images"
        paths = [images / f"im{1001 + 37 * i:04d}.jpg" for i in range(options.people)]
    net = Net(read_net(prototxt), read_weights(model))
    last = net.graph.outputs[0]
    predictor = Predictor(net, (last,), protocol)
    jobs = [predictor.job(str(path), path) for path in paths]
    prepared = [prepare(job) for job in jobs]
    passes: list[Pass] = []

    def with_workers() -> None:
        for job in prefetch(prepare, jobs, options.workers):
            predictor.predict_job(job)

    def without_sharing() -> None:
        for job in prepared:
            (inputs,) = job.inputs
            pixels = np.stack([one.pixels for one in inputs])
            predictor.forward(network_input(pixels, protocol), (last,))

    peer = cv2.dnn.readNetFromCaffe(str(prototxt), str(model))
    found: list[np.ndarray] = []
    ways = ways_of_others(net, peer, last, paths, protocol)

    def direct() -> None:
        found[:] = ways["direct"]()

    runs: dict[str, Callable[[], object]] = {
        "pass": lambda: passes.append(timed_pass(predictor, jobs)),
        "network_without_sharing": without_sharing,
        **ways,
        "direct": direct,
    }
    if options.workers:
        runs["ours"] = with_workers
    predictor.predict_job(prepared[0])  # transforms are made, buffers are there
    times = in_turn(runs, options.rounds)
    del times["pass"]  # the pass has its own
    distance = np.linalg.norm(np.array(passes[-1].joints) - np.array(found), axis=2)
    return Measured(summary(passes, times, len(paths)), len(paths), float(np.mean(distance <= 2)))


def show(found: Measured, options: argparse.Namespace) -> None:
    """Print speeds and ratios, and keep them where a file was asked for."""
    print(machine())
    print(
        f"{found.people} people, 7 scales, {options.stages} stages, {options.size}x{options.size}"
    )
    print(
        f"joints of ours within 2 pixels of the step-by-step protocol's: {100 * found.near:.1f} %"
    )
    for key, speed in found.numbers.items():
        if key.endswith("_people_per_s"):
            ratio = speed / found.numbers["direct_people_per_s"]
            print(
                f"{key.removesuffix('_people_per_s'):24s} {1 / speed:7.3f} s a person, "
                f"{speed:6.3f} people/s, {ratio:.2f} x direct"
            )
    print(
        "decoding, resizing and the way back, nothing in parallel: "
        f"{100 * found.numbers['overhead']:.1f} % of the network's time"
    )
    keep(options.json, {"machine": machine(), "people": found.people, **found.numbers})


def main() -> None:
    """Run the benchmark."""
    command = network_parser(__doc__, stages=6)
    command.add_argument("--data", type=Path)
    command.add_argument("--people", type=int, default=4)
    command.add_argument("--rounds", type=int, default=3)
    command.add_argument("--workers", type=int, default=0)
    options = command.parse_args()
    torch.set_num_threads(options.threads)
    cv2.setNumThreads(options.threads)
    with tempfile.TemporaryDirectory() as name:
        found = measure(options, Path(name))
    show(found, options)


if __name__ == "__main__":
    main()
