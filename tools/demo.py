"""What ``make demo`` does: convert a Caffe model, predict on a photograph that a dependency ships,
show pictures and numbers.

The model is the one embedded in models/. Where there is none, the released 6-stage network is
written as a .caffemodel with Caffe's fillers: its maps show that the machinery runs, not where
anybody's joints are.
"""

from __future__ import annotations

import argparse
import os
import subprocess
import sys
from pathlib import Path

import cv2
import matplotlib

from reproduce.network.identify import models_folder


def photograph(out: Path) -> Path:
    """The photograph that ships with matplotlib: a portrait, so grey room is added where the rest
    of the person would be.

    A pose machine takes its scale from the whole person's height.
    """
    image = cv2.imread(str(Path(matplotlib.get_data_path()) / "sample_data" / "grace_hopper.jpg"))
    path = out / "photograph.png"
    cv2.imwrite(
        str(path),
        cv2.copyMakeBorder(image, 60, 900, 200, 200, cv2.BORDER_CONSTANT, value=(128, 128, 128)),
    )
    return path


def command(*args: str) -> None:
    """Run one of our commands, as a user would."""
    print("$", " ".join(args), flush=True)
    subprocess.run([str(Path(sys.executable).parent / args[0]), *args[1:]], check=True)


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    embedded = sorted(models_folder().glob("*/pose.caffemodel"))
    if embedded:
        model = embedded[0]
    else:
        model = out / "random.caffemodel"
        command("cpm-models", "random", "-o", str(model))
    converted = out / f"{model.parent.name if embedded else model.stem}.safetensors"
    command("cpm-convert", str(model), "-o", str(converted))
    picture = photograph(out)
    command("cpm-predict", str(picture), "--model", str(converted), "--out", str(out))
    # the model's stored score, and the paper's numbers, on what data there are
    command("cpm-reproduce", "check", "--data", os.environ.get("CPM_DATA", "."))
    for path in sorted(out.glob("photograph_*")):
        print(f"look at {path}")


if __name__ == "__main__":
    main()
