"""Writes docs/layers.md from the registry, the results in docs/experiments.md with its pictures
from what is stored, and the tables of what was measured in README.md, docs/engine.md and
docs/parity.md.

A test checks that the pages are up to date (pictures differ from one matplotlib to the next).
"""

from __future__ import annotations

import tempfile
from collections.abc import Callable, Sequence
from pathlib import Path

from caffe_compat.conversion.onnx import forms
from caffe_compat.layers import registry
from reproduce.experiments.results import HEAD as RESULT_HEAD
from reproduce.experiments.results import read_results, rows, stored_folder
from reproduce.figures import fig04, fig05, fig06
from reproduce.report.measured import PARITY_HEAD, parity_rows, read_parity, read_speed

ROOT = Path(__file__).resolve().parent.parent
DOCS = ROOT / "docs"
HEAD = """# Supported layers

Made by `tools/make_docs.py` from the registry. Any other type is an error that lists these.

*Held against* says what a layer's results are compared with in the tests: recorded outputs of the
real **Caffe** (blobs and gradients; the SSD fork's for its layers), the outputs of **OpenCV** and a
naive reference of our own, **our reference** alone, or **nothing** where its use is refused. *ONNX*
says whether `cpm-convert --to onnx` can write the layer; a recurrent layer is unrolled and begins
with zeros, layers that look at the size of their input need a fixed one (`--fixed-batch`, and no
`--dynamic-size`).

| type | what it computes | held against | ONNX | Caffe source |
|---|---|---|---|---|
"""
MARK = (
    "<!-- made by tools/make_docs.py from reproduce/results: what stands below is not edited "
    "by hand -->\n"
)


def layers_page() -> str:
    """The page's text."""
    rows, known = [], forms(registry())
    for name, cls in registry().items():
        text = " ".join((cls.__doc__ or "").split())
        first, _, source = text.partition("Source:")
        sentence = first.strip().split(". ")[0].rstrip(".").replace("|", "\\|")
        form = "input" if cls.data else "yes" if known[name] else "no"
        source = source.strip().rstrip(".").replace("|", "")
        rows.append(f"| {name} | {sentence} | {cls.truth} | {form} | {source} |")
    return HEAD + "\n".join(rows) + "\n"


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    lines = [head, ["---"] * len(head), *rows]
    return (
        "\n".join(
            "| " + " | ".join(cell.replace("|", "\\|") for cell in line) + " |" for line in lines
        )
        + "\n"
    )


def experiments_page() -> str:
    """The page as it stands up to the mark, then the results."""
    prose = (DOCS / "experiments.md").read_text(encoding="utf-8").partition(MARK)[0]
    stored = read_results(stored_folder("cpu"))
    claims = [c for figure in (fig04, fig05, fig06) for c in figure.claims(stored, 3)]
    said = _table(
        ("figure", "claim", "published", "ours", "verdict", "rule"),
        [
            (c.figure.removeprefix("Figure "), c.text, c.published, c.ours, c.verdict, c.why)
            for c in claims
        ],
    )
    pictures = "\n\n".join(f"![Figure {number}](fig0{number}.png)" for number in (4, 5, 6))
    trained = _table(RESULT_HEAD, rows(stored))
    return f"{prose}{MARK}\n## Claims\n\n{pictures}\n\n{said}\n## Trainings\n\n{trained}"


def speed_table() -> str:
    """Everything that was timed: our number, and how many times as fast as each peer that is."""
    rows = read_speed().rows
    names = list(dict.fromkeys(name for row in rows for name in row.peers))
    lines = [
        (
            row.what,
            f"{row.ours:.2f} {row.unit}",
            *(f"{row.times(name):.1f} ×" if name in row.peers else "" for name in names),
        )
        for row in rows
    ]
    made = dict.fromkeys(
        f"{m.machine}; torch {m.torch}, OpenCV {m.opencv}; {m.date}"
        for m in (row.provenance for row in rows)
    )
    table = _table(("", "this toolkit", *(f"as fast as {name}" for name in names)), lines)
    return f"{table}\nMedians, ours and the peers in turn in one run. {'. '.join(made)}.\n"


def parity_table() -> str:
    """How far ours is from what the original programs put out."""
    parity = read_parity()
    if parity is None:
        raise ValueError("reproduce/results/parity.json is not there: run tools/measure_parity.py")
    table = _table(PARITY_HEAD, parity_rows(parity))
    about = parity.provenance
    return (
        f"{table}\nA comparison is one recorded case (of a training, one moment), run in one way. "
        f"Measured {about.date}, {about.machine}, by `{about.command}`.\n"
    )


# Pages that hold a table of what was measured: what it is called in the page's two marks, where the
# numbers are from, and the table.
MEASURED: dict[Path, tuple[str, str, Callable[[], str]]] = {
    ROOT / "README.md": ("speeds", "speed.json", speed_table),
    DOCS / "engine.md": ("speeds", "speed.json", speed_table),
    DOCS / "parity.md": ("differences", "parity.json", parity_table),
}


def with_table(path: Path) -> str:
    """A page's text with the table between its two marks made anew."""
    name, source, table = MEASURED[path]
    first = (
        f"<!-- {name}: made by tools/make_docs.py from reproduce/results/{source}, not edited by "
        "hand -->\n"
    )
    last = f"<!-- end of {name} -->\n"
    before, begin, rest = path.read_text(encoding="utf-8").partition(first)
    _, end, after = rest.partition(last)
    if not begin or not end:
        raise ValueError(f"{path} has not both marks, {first!r} and {last!r}")
    return f"{before}{begin}\n{table()}\n{end}{after}"


def pictures() -> None:
    """Figures 4, 5 and 6 of the stored results as docs/fig0N.png."""
    stored = read_results(stored_folder("cpu"))
    with tempfile.TemporaryDirectory() as name:
        for figure in (fig04, fig05, fig06):
            for path in figure.make(stored, Path(name), {}):
                if path.suffix == ".png":
                    (DOCS / path.name).write_bytes(path.read_bytes())


if __name__ == "__main__":
    for page, text in (("layers.md", layers_page()), ("experiments.md", experiments_page())):
        (DOCS / page).write_text(text, encoding="utf-8")
        print(f"written {DOCS / page}")
    for path in MEASURED:
        path.write_text(with_table(path), encoding="utf-8")
        print(f"written {path}")
    pictures()
