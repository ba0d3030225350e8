"""What a run writes about a person."""

from __future__ import annotations

import numpy as np

from reproduce.predict.prediction import Prediction
from reproduce.predict.protocol import Standing
from reproduce.predict.runs import person_row

_FOUND = Prediction(np.array([[10.0, 20.0], [30.0, 40.0], [50.0, 60.0]]), np.array([0.9, 0.1, 0.2]))


def test_the_score_of_a_person_is_the_mean_of_all_joints() -> None:
    """Hidden joints count as well: the score says how sure the network was of the person."""
    assert person_row(_FOUND, (1.0, 2.0, 30.0, 40.0))["score"] == 0.4
    row = person_row(_FOUND, None, min_score=0.15)
    assert row["score"] == 0.4
    assert row["pose_keypoints_2d"][3:6] == [0, 0, 0]
    assert row["all_keypoints_2d"][3:6] == [30, 40, 0.1]


def test_the_place_of_a_person_is_what_was_given_or_found() -> None:
    given = person_row(_FOUND, (1.0, 2.0, 30.0, 40.0))
    assert given["box"] == [1, 2, 30, 40]
    assert "center" not in given
    assert person_row(_FOUND, None)["box"] is None
    found = person_row(_FOUND, Standing((100.0, 150.0), 0.5, 0.75))
    assert found["box"] == [50, 100, 100, 100]
    assert (found["center"], found["confidence"]) == ([100, 150], 0.75)
    annotated = person_row(_FOUND, Standing((100.0, 150.0), 0.5))
    assert "confidence" not in annotated
