"""Files of boxes as people's programs write them."""

from __future__ import annotations

from pathlib import Path

import pytest

from caffe_compat.errors import DataError
from reproduce.predict.boxes import of_image, read_boxes


def test_decimal_commas(tmp_path: Path) -> None:
    """Spreadsheets of many countries write them, with semicolons between the cells."""
    path = tmp_path / "boxes.csv"
    path.write_text("a.png;1,5;2,25;30;40,75\nb.png;10;20;30;40;0,875\n")
    found = read_boxes(path)
    assert found == {"a.png": [(1.5, 2.25, 30, 40.75)], "b.png": [(10, 20, 30, 40)]}
    assert not found.skipped


def test_images_of_windows_are_found_by_their_file_names(tmp_path: Path) -> None:
    """A file that was made on another machine names its folders, with backslashes."""
    path = tmp_path / "boxes.csv"
    path.write_text(
        "C:\\photos\\a.png,1,2,30,40\nC:\\one\\b.png,1,2,30,40\nC:\\two\\b.png,5,6,70,80\n"
    )
    found = read_boxes(path)
    for boxes in (found, dict(found)):  # a dict is what Python programs give
        assert of_image(boxes, "/home/somebody/a.png") == [(1, 2, 30, 40)]
        with pytest.raises(DataError, match="has 2 images of this name in different folders"):
            of_image(boxes, "/home/somebody/b.png")
        with pytest.raises(DataError, match="names no person in it"):
            of_image(boxes, "/home/somebody/photos.png")
