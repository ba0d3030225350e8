"""The public door: a pose machine with its testing protocol, from pictures to joints."""

from __future__ import annotations

import os
from collections.abc import Iterator, Sequence
from dataclasses import replace
from functools import cached_property
from pathlib import Path
from typing import TYPE_CHECKING

import numpy as np
import numpy.typing as npt

from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.lazy import lazy_import
from reproduce.drawing.pictures import reduced_height
from reproduce.people.skeletons import Skeleton, skeleton
from reproduce.predict.belief import find_in_crop, find_maximum, to_image
from reproduce.predict.boxes import Box
from reproduce.predict.capture import frames_of, open_capture
from reproduce.predict.head_finder import HeadFinder
from reproduce.predict.inputs import PAD_VALUE, ScaledInput, network_input, scale_person
from reproduce.predict.job import Job, check_pixels, prepare
from reproduce.predict.prediction import Prediction
from reproduce.predict.protocol import DEMO, QUICK, Person, Protocol, Standing
from reproduce.records.images import read_image

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

_MAP_VALUES = 1 << 26  # belief values at the image's size that are held at once


class Predictor:
    """A pose machine and its protocol.

    >>> predictor = Predictor.load("pose.caffemodel", device="cpu")
    >>> image = np.zeros((120, 90, 3), np.uint8)  # height, width, R G B
    >>> person = predictor.predict(image, box=(10, 10, 60, 100))
    >>> person.joints.shape, person.scores.shape
    ((14, 2), (14,))
    >>> people = predictor.predict_file("photo.png")

    Parameters
    ----------
    net : the deploy network: of an image and a centre map (one input of 4 channels, or two inputs),
        or of an image alone.
    outputs : blob of each stage's belief maps, stage 1 first.
    protocol : how people are placed, scaled and combined; of the network's input size.
    batch : how many scaled images run at once at most.
    amp : "bf16": the fast mode, half the digits in the network (joints move by a pixel here and
        there; docs/engine.md).
    parts : names, limbs and sides of the network's parts; default: the authors' of this number.
    """

    def __init__(
        self,
        net: Net,
        outputs: Sequence[str],
        protocol: Protocol,
        *,
        batch: int = 16,
        amp: str = "",
        parts: Skeleton | None = None,
    ) -> None:
        self.net = net
        self.outputs = tuple(outputs)
        self.protocol = protocol
        self.batch = batch
        self.amp = amp
        self.skeleton = parts or skeleton(self.parts)
        self._grey: patches.Background | None = None

    @classmethod
    def load(
        cls,
        model: str,
        *,
        prototxt: str | None = None,
        protocol: Protocol = DEMO,
        device: str = "auto",
        stages: int | None = None,
        batch: int = 16,
        engine: Mode = "auto",
        amp: str = "",
    ) -> Predictor:
        """Load any weight file that ``cpm-convert`` reads.

        Parameters
        ----------
        model : the file, or a name of ``cpm-models list`` ("leeds-small").
        prototxt : deploy definition, where the weight file holds none.
        protocol : how people are tested; shrunk to the network's input size. Where it does not say
            the demo's range, the one that belongs to a network of this structure is taken.
        device : "auto", "cpu", "cuda" or "cuda:N".
        stages : use the first stages only.
        engine : how convolutions run on the CPU, see :class:`caffe_compat.network.net.Net`.

        Raises
        ------
        CaffeCompatError : no pose machine, or weights that do not fit.
        """
        from caffe_compat.conversion.convert import convert
        from caffe_compat.network.net import Net
        from reproduce.network.identify import identify, model_file
        from reproduce.people.part_names import skeleton_of
        from reproduce.runtime.device import choose

        asked, model = model, model_file(model)
        made = convert(model, prototxt=prototxt)
        identity = identify(made.graph, model)
        if identity.other and asked != model:
            raise CaffeCompatError(
                f"{model}: is not {asked}: {identity.text}; give the file's own name to use it"
            )
        outputs = identity.outputs
        if not outputs:
            raise CaffeCompatError(
                f"{model}: is no pose machine (no belief maps are handed from stage to stage)"
            )
        if identity.person:
            raise CaffeCompatError(
                f"{model}: finds people and not their parts (one map of body centres); it goes "
                "with a pose network: --person-model"
            )
        if stages is not None and not 1 <= stages <= len(outputs):
            raise CaffeCompatError(f"--stages {stages}: the network has {len(outputs)}")
        boxsize = made.graph.blobs[identity.image][-1]
        net = Net(made.graph, made.weights, engine=engine).to(choose(device)).eval()
        fitted = protocol.at(boxsize)
        if fitted.demo_range is None and identity.candidates:
            least, most = identity.candidates[0].demo_range
            fitted = fitted.ranging((least, most), None)
        return cls(
            net,
            outputs[:stages],
            fitted,
            batch=batch,
            amp=amp,
            parts=skeleton_of(made, identity.parts),
        )

    @property
    def parts(self) -> int:
        """Number of parts, without the background."""
        return self.net.graph.blobs[self.outputs[-1]][1] - 1

    @property
    def device(self) -> torch.device:
        """Where the network is."""
        return next(self.net.parameters()).device

    # ------------------------------------------------------------ what users call

    def predict(
        self, image: Image, box: Person = None, *, bgr: bool = False, keep: bool = False
    ) -> Prediction:
        """Predict one person of an image.

        Parameters
        ----------
        image : (H, W, 3) uint8 R, G, B (B, G, R with ``bgr``).
        box : the person's x, y, width, height in 0-based pixels, or what else the protocol takes
            (:data:`reproduce.predict.protocol.Person`); default: the whole image.
        keep : return the belief maps of every stage, at the image's size.

        Raises
        ------
        CaffeCompatError : a box outside the image, or one that the protocol cannot use.
        """
        check_pixels(image, "B, G, R" if bgr else "R, G, B (B, G, R with bgr=True)")
        rgb = np.ascontiguousarray(image[:, :, ::-1]) if bgr else image
        size = (rgb.shape[0], rgb.shape[1])
        inputs = scale_person(rgb, self.protocol.placement(size, box), self.protocol)
        return self.predict_inputs(inputs, size, keep=keep)

    def predict_file(
        self,
        path: str | os.PathLike[str],
        boxes: Sequence[Box] | None = None,
        *,
        detect: bool = False,
        keep: bool = False,
    ) -> list[Prediction]:
        """Predict the people of an image file.

        Parameters
        ----------
        boxes : x, y, width, height of each person in 0-based pixels; default: the whole image is
            one person.
        detect : find the people, by the network's own heads and necks (:attr:`heads`) or, where it
            has none, by OpenCV's detector; the whole image where nobody is found.
        keep : return the belief maps of every stage, at the image's size.

        Returns
        -------
        One prediction a person, in the order of the boxes.

        Raises
        ------
        CaffeCompatError : no readable image, or a box outside it.
        """
        return self.predict_job(self._prepared(str(path), Path(path), boxes, detect), keep=keep)

    def predict_video(
        self,
        path: str | os.PathLike[str],
        boxes: Sequence[Box] | None = None,
        *,
        detect: bool = False,
        limit: int | None = None,
    ) -> Iterator[list[Prediction]]:
        """Predict the people of each frame of a video file, frame by frame as it is read.

        Parameters
        ----------
        boxes : x, y, width, height of each person in 0-based pixels, the same in every frame;
            default: the whole frame is one person.
        detect : find the people in each frame, as :meth:`predict_file` does; none where nobody is
            found.
        limit : frames at most.

        Yields
        ------
        Predictions of a frame's people.

        Raises
        ------
        CaffeCompatError : no readable video, or a box outside its frames.
        """
        with open_capture(os.fspath(path)) as capture:
            for number, frame in enumerate(frames_of(capture, limit)):
                prepared = self._prepared(f"{path}, frame {number}", frame, boxes, detect)
                yield [] if prepared.nobody else self.predict_job(prepared)

    @cached_property
    def heads(self) -> HeadFinder | None:
        """Finds people by the heads and necks that the first stage sees; None where the network has
        no such parts."""
        try:
            return HeadFinder(self.net, self.protocol.boxsize, self.skeleton.parts, self.look)
        except CaffeCompatError:
            return None

    def look(self, image: Image, people: Sequence[Standing]) -> list[Prediction]:
        """A quick look at people, at one size: their joints to within a few pixels of the network's
        input.

        Parameters
        ----------
        image : (H, W, 3) uint8 B, G, R.
        people : those who were found, or may be there.
        """
        quick = self._quick
        rgb = np.ascontiguousarray(image[:, :, ::-1])
        size = (image.shape[0], image.shape[1])
        seen: list[Prediction] = []
        for first in range(0, len(people), self.batch):
            some = people[first : first + self.batch]
            placements = [quick.protocol.placement(size, person) for person in some]
            inputs = [scale_person(rgb, placement, quick.protocol) for placement in placements]
            seen += quick._predict_people(inputs, size, keep=False, shown=None)
        return seen

    @cached_property
    def _quick(self) -> Predictor:
        """This predictor with the protocol of a quick look."""
        return Predictor(
            self.net,
            self.outputs,
            QUICK.at(self.protocol.boxsize),
            batch=self.batch,
            amp=self.amp,
            parts=self.skeleton,
        )

    def _prepared(
        self, name: str, image: Path | Image, boxes: Sequence[Box] | None, detect: bool
    ) -> Job:
        """An image's job with the network's inputs, its people found if that is asked for.

        Raises
        ------
        DataError : somebody cannot be tested: predictions come in the order of the boxes.
        """
        job = self.job(name, image, boxes, detect=detect and self.heads is None)
        if detect and self.heads is not None:
            pixels = (
                read_image(image, upright=self.protocol.upright)
                if isinstance(image, Path)
                else image
            )
            people = self.heads.search(pixels).people or (None,)
            job = replace(self.job(name, pixels, people), sought=True)
        prepared = prepare(job)
        if prepared.left_out:
            raise DataError(f"{name}: {prepared.left_out[0]}")
        return prepared

    # ------------------------------------------------------------ the way of a job

    def job(
        self,
        name: str,
        image: Path | Image,
        boxes: Sequence[Person] | None = None,
        *,
        detect: bool = False,
        keep: bool = False,
    ) -> Job:
        """An image to be tested by this predictor's protocol, for :func:`prepare`, which may run in
        another process.

        Parameters
        ----------
        name : how messages call the image.
        image : file, or (H, W, 3) uint8 B, G, R.
        boxes : of its people; default: the whole image.
        detect : take the people that OpenCV's detector sees instead.
        keep : give the pixels back with the prepared job.
        """
        people = tuple(boxes) if boxes is not None else (None,)
        return Job(name, image, self.protocol, people, detect=detect, keep=keep)

    def predict_job(
        self, job: Job, *, keep: bool = False, shown: int | None = None
    ) -> list[Prediction]:
        """Predict the people of a prepared job.

        Parameters
        ----------
        keep : return the belief maps at the image's size.
        shown : return the belief maps at this width.

        Raises
        ------
        CaffeCompatError : what was wrong with the image.
        """
        if job.error is not None:
            raise job.error
        return self._predict_people(job.inputs, job.size, keep=keep, shown=shown)

    def predict_inputs(
        self,
        inputs: Sequence[ScaledInput],
        size: tuple[int, int],
        *,
        keep: bool = False,
        shown: int | None = None,
    ) -> Prediction:
        """Predict one person from scaled inputs of an image of ``size`` (rows, columns)."""
        (person,) = self._predict_people([inputs], size, keep=keep, shown=shown)
        return person

    def _predict_people(
        self,
        people: Sequence[Sequence[ScaledInput]],
        size: tuple[int, int],
        *,
        keep: bool,
        shown: int | None,
    ) -> list[Prediction]:
        """All people of an image: their inputs fill common batches."""
        if not people:
            return []
        every_stage = shown is not None or (keep and self.protocol.combination != "benchmark")
        names = self.outputs if every_stage else self.outputs[-1:]
        everything = [one for inputs in people for one in inputs]
        pixels = np.stack([one.pixels for one in everything])
        data = network_input(pixels, self.protocol, self.device)
        stages = self.forward(data, names, [one.inside for one in everything])
        own = torch.split(stages, [len(inputs) for inputs in people], 1)
        return [
            self.combine(maps, inputs, size, keep=keep, shown=shown)
            for maps, inputs in zip(own, people, strict=True)
        ]

    def forward(
        self,
        data: torch.Tensor,
        names: Sequence[str],
        rects: Sequence[tuple[int, int, int, int]] | None = None,
    ) -> torch.Tensor:
        """Belief maps (stages, N, P + 1, B / 8, B / 8) of network inputs (N, 4, B, B); a network
        that takes no centre map sees the image alone.

        Parameters
        ----------
        names : blobs of the stages that are wanted.
        rects : where each input shows its image (:attr:`ScaledInput.inside`); the grey around it
            is then not computed anew.
        """
        found = []
        channels = [self.net.graph.blobs[name][1] for name in self.net.graph.inputs]
        if len(channels) > 1:
            rects = None  # the outputs of an all-grey input are only kept for a single input blob
        if rects is not None and self._grey is None:
            boxsize = self.protocol.boxsize
            grey = np.full((1, boxsize, boxsize, 3), PAD_VALUE, np.uint8)
            with torch.inference_mode(False):
                known_input = network_input(grey, self.protocol, self.device)
                self._grey = patches.Background(known_input[:, : channels[0]].contiguous())
        with (
            torch.inference_mode(),
            torch.autocast(self.device.type, torch.bfloat16, enabled=self.amp == "bf16"),
        ):
            for i in range(0, len(data), self.batch):
                some = slice(i, i + self.batch)
                known = self._grey if rects is not None else None
                given = data[some]
                image_and_centre = {3: given[:, :3], 1: given[:, 3:], 4: given}
                part = self.net(
                    *(image_and_centre[count] for count in channels),
                    blobs=names,
                    background=known,
                    rects=rects[some] if rects is not None else (),
                )
                found.append(torch.stack([part[name].float() for name in names]))
        return torch.cat(found, 1)

    def combine(
        self,
        stages: torch.Tensor,
        inputs: Sequence[ScaledInput],
        size: tuple[int, int],
        *,
        keep: bool = False,
        shown: int | None = None,
    ) -> Prediction:
        """Scores of all scales brought to the image, combined, and the best place of each part.

        Parameters
        ----------
        stages : (stages, scales, P + 1, cells, cells).
        inputs : the scaled inputs that these maps are of.
        size : (H, W) of the image.
        keep : return the maps at the image's size.
        shown : return them at this width.
        """
        with torch.inference_mode():
            maps = self._total(stages, inputs, size) if keep else None
            if self.protocol.combination == "python":
                last = stages[-1, 0, : self.parts].cpu().numpy()
                joints, best = find_in_crop(last, inputs[0], size)
            elif maps is not None:
                joints, best = self._best(maps[-1, :-1])
            else:
                # The maps of all parts of a large photograph would take gigabytes, so that a few
                # parts at a time are brought to the photograph's size.
                step = max(1, _MAP_VALUES // (size[0] * size[1]))
                parts = [
                    stages[-1, :, i : min(i + step, self.parts)] for i in range(0, self.parts, step)
                ]
                chunks = [self._best(self._total(p, inputs, size, background=False)) for p in parts]
                joints, best = (np.concatenate(c) for c in zip(*chunks, strict=True))
            small = None
            if shown is not None:
                reduced = (reduced_height(size, shown), shown)
                small = self._total(stages, inputs, size, reduced).cpu().numpy()
                if self.protocol.combination == "benchmark":
                    small /= len(inputs)
        scores = best / len(inputs) if self.protocol.combination == "benchmark" else best
        return Prediction(joints, scores, None if maps is None else maps.cpu().numpy(), small)

    def _total(
        self,
        stages: torch.Tensor,
        inputs: Sequence[ScaledInput],
        size: tuple[int, int],
        shown: tuple[int, int] | None = None,
        background: bool = True,
    ) -> torch.Tensor:
        """Belief maps (..., scales, P + 1, cells, cells) added up over the scales in the image; the
        demo divides."""
        total: torch.Tensor | None = None
        for i, place in enumerate(inputs):
            one = to_image(stages[..., i, :, :, :], place, size, shown=shown, background=background)
            total = one if total is None else total.add_(one)
        assert total is not None
        return total.div_(len(inputs)) if self.protocol.combination == "demo" else total

    def _best(self, maps: torch.Tensor) -> tuple[Floats, Floats]:
        """Each part's place (P, 2) and the belief there (P,)."""
        joints = find_maximum(maps, self.protocol.combination)
        index = torch.from_numpy(joints.astype(np.int64)).to(maps.device)
        scores = maps[torch.arange(len(maps), device=maps.device), index[:, 1], index[:, 0]]
        return joints, scores.cpu().numpy().astype(np.float64)
