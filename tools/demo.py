"""What ``make demo`` does: convert a Caffe model, predict on a photograph, say what was found.

The model is the one embedded in models/, the photograph lies in docs/ with its licence beside it.
"""

from __future__ import annotations

import argparse
import json
import subprocess
import sys
from pathlib import Path

from reproduce.network.identify import embedded
from reproduce.people.skeletons import skeleton

PHOTOGRAPH = Path(__file__).resolve().parents[1] / "docs" / "photograph.jpg"
BOX = "80,40,190,420"  # around the person, who does not fill the photograph
NEXT = """what to try next:
  cpm-predict YOUR.jpg --detect --out found   people in a photograph of your own
  cpm-models list                             the authors' networks, and where to put their files
  cpm-convert ANY.caffemodel                  any Caffe network in PyTorch, layer by layer
  cpm-reproduce report --data DOWNLOADS       the paper's figures and claims on one page"""


def command(*args: str) -> None:
    """Run one of our commands, as a user would."""
    print("$", " ".join(args), flush=True)
    subprocess.run([str(Path(sys.executable).parent / args[0]), *args[1:]], check=True)


def found(result: Path) -> None:
    """Print the joints of a result's JSON, the surest first."""
    people = json.loads(result.read_text())["people"]
    for person in people:
        numbers = person["pose_keypoints_2d"]
        joints = list(zip(numbers[::3], numbers[1::3], numbers[2::3], strict=True))
        parts = skeleton(len(joints)).parts
        print("  part       x     y  score")
        for part, (x, y, score) in sorted(
            zip(parts, joints, strict=True), key=lambda one: -one[1][2]
        ):
            print(f"  {part:6}{x:6.0f}{y:6.0f}  {score:.2f}")


def main() -> None:
    """Run the demo."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--out", type=Path, default=Path("out/demo"))
    out = parser.parse_args().out
    out.mkdir(parents=True, exist_ok=True)
    model = embedded()
    converted = out / f"{model.parent.name}.safetensors"
    command("cpm-convert", str(model), "-o", str(converted))
    names = ["--model", str(converted), "--out", str(out)]
    command("cpm-predict", str(PHOTOGRAPH), "--box", BOX, *names)
    print(f"\nfound in {PHOTOGRAPH.name}, pixels of the photograph:")
    found(out / f"{PHOTOGRAPH.stem}_keypoints.json")
    print("the pictures:")
    for path in sorted(out.glob(f"{PHOTOGRAPH.stem}_*.png")):
        print(f"  {path}")
    print(NEXT)


if __name__ == "__main__":
    main()
