"""OpenCV whose interpolation does not depend on how it was built."""

from __future__ import annotations

from caffe_compat.errors import DataError


def use_plain_opencv() -> None:
    """IPP's bicubic differs by some grey levels; without it every OpenCV 4 gives the recorded
    pixels.

    Raises
    ------
    DataError : another OpenCV than 4.
    """
    import cv2

    if not cv2.__version__.startswith("4."):
        raise DataError(
            f"OpenCV {cv2.__version__} interpolates otherwise than the original programs did: "
            "install one of version 4 (pip install 'opencv-python-headless<5')"
        )
    if hasattr(cv2, "ipp"):
        cv2.ipp.setUseIPP(False)
