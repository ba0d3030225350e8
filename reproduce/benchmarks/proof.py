"""Is a copy of a released model right? The authors published their predictions on photographs; the
copy must give the same.

Source: the prediction files of the CPM release (``testing/predicts``).
"""

from __future__ import annotations

import os
from collections.abc import Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from reproduce.benchmarks.benchmark_run import jobs_of
from reproduce.benchmarks.lsp import FIRST_TEST, Lsp
from reproduce.benchmarks.published import published
from reproduce.network.identify import Identity
from reproduce.predict import joint_files
from reproduce.predict.job import prepare
from reproduce.predict.predictor import Predictor

Floats = npt.NDArray[np.float64]

# A place is the best pixel of a map: the last bits of a sum may choose its neighbour.
NEAR = 1.5


@dataclass(frozen=True)
class PhotographProof:
    """The predictions on one photograph beside the published ones.

    Attributes
    ----------
    photograph : file name.
    model : released model whose predictions these are.
    distances : of LSP's joints, in pixels of the photograph.
    """

    photograph: str
    model: str
    distances: tuple[float, ...]

    @property
    def near(self) -> int:
        """How many joints stand where they were published."""
        return sum(d <= NEAR for d in self.distances)

    @property
    def equal(self) -> bool:
        """Do all?"""
        return self.near == len(self.distances)

    @property
    def worst(self) -> str:
        """The joint that is farthest."""
        return Lsp.joints[int(np.argmax(self.distances))]


@dataclass(frozen=True)
class PublishedPredictions:
    """Predictions of a released model on test images of LSP, as published.toml names them.

    Attributes
    ----------
    model : name of the released model.
    file : the published predictions, below the folder of the data.
    people : numbers of the images; the file's first is 1001.
    """

    model: str
    file: str
    people: tuple[int, ...]


def candidates(identity: Identity) -> list[PublishedPredictions]:
    """The published predictions that a network could have made: those of the model that its file
    name says, or else all."""
    entries = [
        PublishedPredictions(e["model"], e["file"], tuple(e["people"]))
        for e in published()["photographs"]
    ]
    own = [e for e in entries if identity.named and e.model == identity.named.name]
    return own or entries


def prove(
    predictor: Predictor, root: str | os.PathLike[str], entries: Sequence[PublishedPredictions]
) -> list[PhotographProof]:
    """Predict the photographs by LSP's protocol and compare.

    Parameters
    ----------
    predictor : loaded with LSP's protocol.
    root : folder with ``lsp/`` (images, joints.mat) and ``release/`` (published predictions).

    Raises
    ------
    CaffeCompatError : photographs or predictions that are not there; a network of other parts.
    """
    test = Lsp(root)
    everybody = test.people()
    proofs = []
    found: dict[int, Floats] = {}
    for entry in entries:
        theirs = joint_files.read(test.need(entry.file))
        for number in (person - FIRST_TEST for person in entry.people):
            if number not in found:
                (job,) = jobs_of(predictor, test, [everybody[number]])
                (person,) = predictor.predict_job(prepare(job))
                found[number] = test.to_file(person.joints, predictor.skeleton)
            distances = np.linalg.norm(found[number] - theirs[number], axis=1)
            name = everybody[number][0].name
            proofs.append(PhotographProof(name, entry.model, tuple(distances.tolist())))
    return proofs
