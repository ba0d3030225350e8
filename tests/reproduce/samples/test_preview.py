"""Pictures of records."""

from __future__ import annotations

from dataclasses import replace
from pathlib import Path

import numpy as np

from reproduce.people.skeletons import MPII_JOINTS
from reproduce.records.layout import Record
from reproduce.samples.preview import draw_record
from tests.people import annotation
from tests.pictures import read_picture


def test_a_small_record_is_enlarged_with_its_joints(tmp_path: Path) -> None:
    image = np.full((50, 60, 3), 90, np.uint8)
    person = annotation(np.random.default_rng(1), "a.jpg", 60, 50)
    joints = np.full((16, 3), -1.0)  # nobody annotated them
    joints[MPII_JOINTS.index("head")] = (20, 10, 1)
    joints[MPII_JOINTS.index("neck")] = (20, 30, 1)
    joints[MPII_JOINTS.index("Rsho")] = (-40, 30, 0)  # LSPET's way to say that nobody saw it
    record = Record(image, replace(person, joints=joints, objpos=np.array([50.0, 40.0])), 0, 1)
    draw_record(record, tmp_path / "a.png")
    drawn = read_picture(tmp_path / "a.png")
    assert drawn.shape == (350, 420, 3)  # seven times
    changed = (drawn != 90).any(2)
    assert changed[72:215, 140:147].any(1).all()  # the limb from head to neck
    assert tuple(drawn[283, 353]) == (0, 0, 255)  # the centre
    assert not changed[:60].any()
    assert not changed[:, :120].any()  # no limb from the neck to a place outside
    names = changed[70:80, 152:190].any(), changed[212:222, 152:190].any()
    assert names == (True, True)
