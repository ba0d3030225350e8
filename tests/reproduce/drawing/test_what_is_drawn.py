"""What stands in pictures, figures and the report: the right curve, place, stage and column."""

from __future__ import annotations

from pathlib import Path
from types import SimpleNamespace
from typing import Any

import cv2
import numpy as np
import numpy.typing as npt
import pytest

from reproduce.benchmarks.check import Outcome
from reproduce.drawing import curves
from reproduce.drawing.curves import Curve, Mark
from reproduce.drawing.pictures import draw_people, montage
from reproduce.experiments.results import read_results, stored_folder
from reproduce.figures import fig04, fig05, fig06, fig10, verdicts
from reproduce.figures.verdicts import Claim
from reproduce.people.skeletons import SKELETON_14
from reproduce.report import page
from reproduce.samples import preview
from reproduce.samples.augment import Settings

_Image = npt.NDArray[np.uint8]
_GREY = np.full((80, 120, 3), 128, np.uint8)


def _figure(**options: Any) -> Any:
    """A figure of one straight curve from (0, 0) to (0.2, 100)."""
    line = Curve("ours", np.linspace(0, 0.2, 5), np.linspace(0, 100, 5))
    settings = {"xlabel": "x", "ylabel": "y", "columns": 1, "at": 0.2, **options}
    return curves._compose({"panel": [line]}, **settings)


def _legend(figure: Any, own: bool) -> list[str]:
    (legend,) = [figure.axes[0].get_legend()] if own else figure.legends
    return [text.get_text() for text in (legend.get_title(), *legend.get_texts())]


@pytest.mark.parametrize("own", [False, True])
def test_a_legend_says_the_value_at_its_threshold(own: bool) -> None:
    title, ours = _legend(_figure(at=0.1, own_legends=own), own)
    assert "@0.1" in title
    assert ours == "ours  50.0"


def test_a_published_number_is_drawn_where_it_is() -> None:
    figure = _figure(marks={"panel": [Mark(0.05, 90.5, "the paper")]})
    (place,) = [line for line in figure.axes[0].lines if line.get_label() == "the paper"]
    np.testing.assert_array_equal(place.get_xydata(), [[0.05, 90.5]])


def test_a_line_is_drawn_at_its_place(tmp_path: Path, monkeypatch: pytest.MonkeyPatch) -> None:
    """Figure 4 marks where the paper's curve saturates: 250 of 304 pixels."""
    figure = _figure(line=(0.15, "here"), points=True)
    (line,) = [one for one in figure.axes[0].lines if len(set(one.get_xdata())) == 1]
    assert set(line.get_xdata()) == {0.15}
    drawn: dict[str, Any] = {}
    monkeypatch.setattr(fig04, "draw", lambda panels, path, **given: drawn.update(given))
    fig04.make(read_results(stored_folder("cpu")), tmp_path, {})
    place, text = drawn["line"]
    assert place == pytest.approx(100 * 250 / 304)
    assert "82%" in text


def test_curves_of_figure_6_are_those_of_their_results() -> None:
    results = read_results(stored_folder("cpu"))
    panels, marks = fig06._panels(results, 3, None)
    expected = {
        **{f"{n} stage{'s' if n > 1 else ''}": f"joint-{n}" for n in range(1, 7)},
        "our network, 3 stages": "joint-3",
        "our Pose Machine, 3 stages": "pose-machine-3",
        **{label: name.format(3) for label, name in fig06.SCHEMES.items()},
    }
    shown = {curve.label: curve for found in panels.values() for curve in found}
    assert set(shown) == set(expected)
    for label, name in expected.items():
        _, values = verdicts.curve(verdicts.seeds_of(results, name))
        np.testing.assert_array_equal(shown[label].y, values)
    ((mark,),) = marks.values()
    assert (mark.x, mark.y) == (0.2, 84.32)


def test_rows_of_figure_5_are_their_moments() -> None:
    results = read_results(stored_folder("cpu"))
    kept = fig05._pair(results, 3)
    marks = fig05._marks(kept)
    figure = fig05._compose(kept, marks, 4)
    rows = [axis for axis in figure.axes if axis.get_ylabel()]
    assert len(rows) == len(marks) > 1
    layer = fig05.way(next(iter(kept.values()))[0])[0]
    for axis, mark in zip(rows, marks, strict=True):
        assert f"iteration {mark + 1}" in axis.get_ylabel()
        for line, runs in zip(axis.lines, kept.values(), strict=True):
            counts = np.array(fig05._layers(runs, str(mark))[layer], float)
            np.testing.assert_allclose(line.get_ydata(), 100 * counts / counts.sum())


def test_skeletons_of_figure_10_lie_on_their_people() -> None:
    """A person far from the corner: whoever is drawn must be where the picture shows them."""
    image: _Image = np.zeros((400, 400, 3), np.uint8)
    joints = np.full((14, 2), 300.0) + np.arange(14)[:, None] * [2.0, 4.0]
    spot = joints[0]
    cv2.circle(image, (round(spot[0]), round(spot[1])), 2, (255, 255, 255), -1)
    seen: dict[str, Any] = {}

    def look(cut: _Image, points: npt.NDArray[np.float64], _: object) -> _Image:
        seen.update(cut=cut, points=points)
        return cut

    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(fig10, "draw_skeleton", look)
        fig10._tile(image, joints, SKELETON_14)
    # white is what lies outside of the picture, too: only its inside counts
    inside = seen["cut"][: round(seen["points"][:, 1].max()) + 1]
    rows, columns = np.nonzero(inside.min(2) > 200)
    near = np.hypot(columns - seen["points"][0][0], rows - seen["points"][0][1]) < 12
    assert near.any()
    assert (columns[near].mean(), rows[near].mean()) == pytest.approx(seen["points"][0], abs=1.5)


def test_stages_stand_in_the_rows_that_name_them() -> None:
    flat, peaked = np.zeros((2, 2, 10, 15), np.float32)
    peaked[0, 5, 7] = 1
    picture = montage(_GREY, [flat, peaked], ["head", "background"], tile=60)
    height = (picture.shape[0] - 22) // 2
    first, second = (
        picture[22 + row * height : 22 + (row + 1) * height - 4, 64:124].astype(float)
        for row in (0, 1)
    )
    assert first.std((0, 1)).max() < 1
    assert second.std((0, 1)).max() > 10


def test_boxes_of_people_are_drawn_where_they_are() -> None:
    belief = np.zeros((8, 12), np.float32)
    empty = draw_people(_GREY, belief, [], [])
    drawn = draw_people(_GREY, belief, [(-50.0, -50.0)], [(60.0, 20.0, 30.0, 40.0)])
    rows, columns = np.nonzero((drawn != empty).any(2))
    assert (columns.min(), columns.max()) == (60, 90)
    assert (rows.min(), rows.max()) == (20, 60)


def test_a_samples_label_lies_over_its_pixels() -> None:
    """docs/fine-tuning.md tells people to look at this picture before they train."""
    settings = Settings(stride=8, crop_size_x=64, crop_size_y=64, num_parts=14)
    label = np.zeros((15, 8, 8), np.float32)
    label[3, 1, 6] = 1  # row 1 and column 6 of eight
    person = SimpleNamespace(joints=np.zeros((14, 2)), visible=np.full(14, 2))
    sample: Any = SimpleNamespace(
        label=label,
        label_1st=label,
        pixels=np.full((64, 64, 3), 100, np.uint8),
        scene=SimpleNamespace(people=[person], objpos=np.array([-50.0, -50.0])),
    )
    tint = preview.draw_sample(sample, settings).astype(float)[:, :, 2] - 100
    rows, columns = np.nonzero(tint > 0.5 * tint.max())
    assert (rows.mean(), columns.mean()) == (pytest.approx(11.5, abs=1), pytest.approx(51.5, abs=1))


def test_columns_of_the_report_hold_what_their_heads_say() -> None:
    claim = Claim("Figure 9", "it is so", "84.3", "83.9", "undecided", "because")
    table = page._claims([claim]).table
    assert table is not None
    said = {name: cell.text for name, cell in zip(table.head, table.rows[0], strict=True)}
    assert said == {
        "where": "Figure 9",
        "claim": "it is so",
        "published": "84.3",
        "ours": "83.9",
        "verdict": "undecided",
        "note": "because",
    }
    outcome = Outcome(
        name="LSP",
        published=[84.32],
        ours=[83.5],
        difference=-0.82,
        tolerance=0.01,
        verdict="differs",
        source="the paper",
    )
    table = page._checks([outcome]).table
    assert table is not None
    said = {name: cell.text for name, cell in zip(table.head, table.rows[0], strict=True)}
    assert said["published"] == "84.32"
    assert said["ours"].startswith("83.5")
    assert said["difference"] == "-0.820"
