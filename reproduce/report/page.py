"""One static page: every figure, every claim with published and own numbers, the checks, receptive
fields."""

from __future__ import annotations

import base64
import dataclasses
import html
import json
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from caffe_compat import __version__
from caffe_compat.errors import CaffeCompatError, DataError
from caffe_compat.files import atomic_write, write_json
from reproduce.benchmarks import check
from reproduce.benchmarks.benchmark import Missing
from reproduce.drawing import viewer
from reproduce.drawing.curves import narrow_path
from reproduce.experiments import plans
from reproduce.experiments.results import HEAD, Result, read_results, rows
from reproduce.figures import fig04, fig05, fig06, fig08, fig09, fig10, fig12
from reproduce.figures.claims import without_training
from reproduce.figures.verdicts import Claim, Verdict, absent
from reproduce.network import netgen, receptive
from reproduce.report.samples import embedded_score, sample_pictures
from reproduce.runtime.provenance import provenance

Say = Callable[[str], None]
_STYLE = """
:root { color-scheme: light; }
body { font: 16px/1.5 system-ui, sans-serif; max-width: 62rem; margin: 0 auto; padding: 1rem; }
body { color: #1b1b1b; background: #fff; }
h1, h2, h3 { line-height: 1.25; } h2 { margin-top: 2.5rem; border-bottom: 1px solid #ccc; }
figure { margin: 1rem 0; } figure > div { overflow-x: auto; }
figure svg, figure img { width: 100%; height: auto; display: block; } figure img { min-width: 46rem; }
.narrow { display: none; } .summary { padding-left: 1.2rem; }
figcaption, .small { font-size: .875rem; color: #444; }
.scroll { overflow-x: auto; } table { border-collapse: collapse; font-size: .875rem; min-width: 34rem; }
th, td { text-align: left; vertical-align: top; padding: .3rem .6rem; border-bottom: 1px solid #ddd; }
th { border-bottom: 2px solid #888; } .claims { min-width: 58rem; table-layout: fixed; }
.claims th:nth-child(1) { width: 7%; } .claims th:nth-child(2) { width: 25%; } .claims th:nth-child(3) { width: 13%; }
.claims th:nth-child(4) { width: 19%; } .claims th:nth-child(5) { width: 9%; } td small { display: block; color: #444; }
code { background: #f2f2f2; padding: 0 .2rem; overflow-wrap: anywhere; }
.yes { color: #00664b; } .no { color: #a33c00; } .open { color: #555; }
@media (max-width: 42rem) {
.wide { display: none; } .narrow { display: block; } figure img { min-width: 0; }
.cards, .cards tbody, .cards tr, .cards td { display: block; min-width: 0; } .cards thead { display: none; }
.cards tr { border-bottom: 2px solid #888; padding: .5rem 0; } .cards td { border: 0; padding: .1rem 0; }
.cards td::before { content: attr(data-label) ": "; font-weight: 600; } }
@media print { @page { margin: 1.2cm; } body { max-width: none; padding: 0; font-size: 11pt; }
figure svg, figure img { min-width: 0 !important; max-height: 22cm; } figure, tr { break-inside: avoid; }
h2, h3 { break-after: avoid; } .scroll, figure > div { overflow: visible; }
table, .claims { min-width: 0; width: 100%; font-size: 8.5pt; } th, td { padding: .2rem .3rem; overflow-wrap: break-word; } }
"""
_CLASS = {
    "confirmed": "yes",
    "equal": "yes",
    "not confirmed": "no",
    "differs": "no",
    "not testable here": "open",
    "missing": "open",
}


@dataclass
class Section:
    """A part of the page. ``missing``: why a figure is not there."""

    title: str
    body: str
    missing: str = ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> str:
    """A table; on a phone one of many columns becomes a list of cards."""
    return _raw_table(
        head, [[_cell(c) for c in row] for row in rows], "cards" if len(head) > 4 else ""
    )


def _cell(text: str) -> str:
    return f'<span class="{_CLASS[text]}">{text}</span>' if text in _CLASS else html.escape(text)


def _raw_table(head: Sequence[str], rows: Sequence[Sequence[str]], kind: str) -> str:
    """A table of cells that are HTML already."""
    titles = "".join(f"<th>{html.escape(h)}</th>" for h in head)
    labels = [html.escape(h, quote=True) for h in head]
    lines = []
    for row in rows:
        cells = "".join(
            f'<td data-label="{label}">{cell}</td>' for label, cell in zip(labels, row, strict=True)
        )
        lines.append(f"<tr>{cells}</tr>")
    table = f'<table class="{kind}"><thead><tr>{titles}</tr></thead><tbody>{"".join(lines)}</tbody></table>'
    return f'<div class="scroll">{table}</div>'


def _picture(path: Path, caption: str, number: str) -> str:
    """A figure inside the page: vector where there is one, and an edition for a phone."""
    vector, narrow = path.with_suffix(".svg"), narrow_path(path.with_suffix(".svg"))
    if vector.exists():
        image = _vector(vector, caption, f"f{number}")
        if narrow.exists():
            small = _vector(narrow, caption, f"n{number}")
            image = f'<div class="wide">{image}</div><div class="narrow">{small}</div>'
    else:
        data = base64.b64encode(path.with_suffix(".png").read_bytes()).decode()
        image = f'<img alt="{html.escape(caption, quote=True)}" src="data:image/png;base64,{data}">'
    return f"<figure><div>{image}</div><figcaption>{html.escape(caption)}</figcaption></figure>"


def _vector(path: Path, caption: str, mark: str) -> str:
    """An SVG file as a part of the page."""
    text = path.read_text(encoding="utf-8")
    text = text[text.index("<svg") :]
    # ids are unique in a file, not in a page of several
    text = re.sub(r'\b(id="|url\(#|href="#)', lambda m: f"{m[1]}{mark}-", text)
    for size in ("width", "height"):  # the page's width counts
        text = re.sub(rf'<svg ([^>]*)\b{size}="[^"]*"', r"<svg \1", text, count=1)
    # never so small that a label of 7 points cannot be read; a narrower window scrolls
    view = re.search(r'viewBox="0 0 ([\d.]+)', text)
    style = f' style="min-width: {1.1 * float(view[1]):.0f}px"' if view else ""
    label = html.escape(caption, quote=True)
    return text.replace("<svg ", f'<svg role="img"{style} aria-label="{label}" ', 1)


def _from_predictions(data: Path, out: Path, say: Say) -> list[Section]:
    """Figures 8, 9, 10, 12."""
    test = check.published()["mpii_test"]
    found = []
    for number, module, title, caption in (
        (
            "8",
            fig08,
            "Figure 8: MPII",
            "PCKh on MPII's validation split; the paper's figure is on the test set, where the "
            f"authors published {test['total']:g} ({test['total_with_lsp']:g} with LSP) and later "
            f"{test['total_vgg']:g} with the front end of VGG-19.",
        ),
        (
            "9",
            fig09,
            "Figure 9: Leeds Sports Pose",
            "PCK, person-centric, from the released and others' predictions.",
        ),
        (
            "10",
            fig10,
            "Figure 10: predictions",
            "The released predictions on test images, at equal distances in the sets.",
        ),
        ("12", fig12, "Figure 12: FLIC", "PCK of elbows and wrists, observer-centric."),
    ):
        try:
            paths = module.make(data, out)
        except (Missing, DataError) as error:
            say(f"{title}: left out: {error}")
            found.append(Section(title, "", str(error)))
            continue
        picture = next(p for p in paths if p.suffix == ".png")
        rerun = f'<p class="small">Again: <code>cpm-reproduce fig{number} --data DIR</code></p>'
        found.append(Section(title, _picture(picture, caption, number) + rerun))
        say(f"{title}: drawn")
    return found


def _trained(
    data: Path, out: Path, results: Path, profile: str, stages: int, say: Say
) -> tuple[list[Section], list[Claim]]:
    """Figures 4, 5, 6 from stored results."""
    found, claims = [], []
    stored = read_results(results)
    about = provenance(f"cpm-reproduce report --profile {profile}", str(results))
    for number, module, title, caption in (
        (
            "4",
            fig04,
            "Figure 4: receptive field",
            "One-stage networks of about equal size; field computed from the graph.",
        ),
        (
            "5",
            fig05,
            "Figure 5: gradients",
            "Distribution of |gradient| per layer; each row is a moment of the training.",
        ),
        (
            "6",
            fig06,
            "Figure 6: training schemes and stages",
            "PCK on LSP's test images, person-centric.",
        ),
    ):
        found_claims = module.claims(stored, stages)
        if profile == "smoke":  # a few iterations prove that it runs, nothing else
            found_claims = [
                absent(c.figure, c.text, c.published, "smoke profile") for c in found_claims
            ]
        again = f"cpm-reproduce fig{number} --profile {profile} --stages {stages} --data DIR"
        claims += [
            dataclasses.replace(c, source=f"trainings of profile '{profile}'", again=again)
            for c in found_claims
        ]
        paths = module.make(stored, out, about, stages, data)
        if not paths:
            text = (
                f"no results of profile '{profile}' yet; cpm-reproduce fig{number} --profile "
                f"{profile} --data DIR makes them"
            )
            say(f"{title}: left out: {text}")
            found.append(Section(title, "", text))
            continue
        picture = next(p for p in paths if p.suffix == ".png")
        rerun = f'<p class="small">Again: <code>{again}</code></p>'
        found.append(Section(title, _picture(picture, caption, number) + rerun))
        say(f"{title}: drawn from stored results")
    if stored:
        found.append(_trainings(profile, stored))
    return found, claims


def _trainings(profile: str, stored: Mapping[str, Result]) -> Section:
    """Every result with its provenance."""
    said = f"{plans.PROFILES[profile].about}. " if profile in plans.PROFILES else ""
    data = "; ".join(dict.fromkeys(str(r.provenance.get("data", "")) for r in stored.values()))
    table = _table(HEAD, rows(stored))
    return Section(
        f"Trainings of profile '{profile}'", f"<p>{html.escape(said + data)}.</p>{table}"
    )


def _checks(outcomes: Sequence[check.Outcome]) -> Section:
    rows, missing = [], []
    for o in outcomes:
        ours = (
            "-"
            if o.ours is None
            else " ".join(f"{v:g}" if v == int(v) else f"{v:.2f}" for v in o.ours)
        )
        difference = "-" if o.difference is None else f"{o.difference:+.3f}"
        rows.append(
            (o.name, " ".join(f"{v:g}" for v in o.published), ours, difference, o.verdict, o.source)
        )
        missing += [o.missing] if o.missing else []
    body = _table(("number", "published", "ours", "difference", "verdict", "source"), rows)
    note = "".join(f"<p>Missing: {html.escape(text)}</p>" for text in dict.fromkeys(missing))
    again = '<p class="small">Again: <code>cpm-reproduce check --data DIR</code></p>'
    return Section("Published numbers, computed again", body + note + again)


def _fields() -> Section:
    from caffe_compat.network.graph import build

    graph = build(netgen.deploy(netgen.CPMConfig()))
    rows = []
    both = zip(receptive.stages(graph), receptive.stages(graph, small_pools=True), strict=True)
    for (name, own, maps), (_, paper, _) in both:
        rows.append(
            (name, str(own.size), str(paper.size), f"{maps.size}×{maps.size}" if maps else "-")
        )
    head = (
        "output",
        "pixels, as released (3×3 pools)",
        "pixels, 2×2 pools as the paper counts",
        "of the previous belief maps",
    )
    text = (
        "Computed from the graph of the released 6-stage network. The paper: 160 px after "
        "stage 1, 31×31 and 400 px after 2."
    )
    return Section("Receptive fields", f"<p>{text}</p>" + _table(head, rows))


def _measured(name: str) -> dict[str, Any] | None:
    """What was measured once and comes with the package."""
    file = Path(str(resources.files("reproduce"))) / "results" / f"{name}.json"
    return dict(json.loads(file.read_text(encoding="utf-8"))) if file.exists() else None


def _speed() -> Section | None:
    """Ours and the peers, each row one run with all in turn."""
    content = _measured("speed")
    if content is None:
        return None
    names = list(dict.fromkeys(n for r in content["rows"] for n in r["peers"]))
    rows = []
    for r in content["rows"]:
        peers = [f"{r['peers'][n]:.3g}" if n in r["peers"] else "-" for n in names]
        best = max(r["peers"].values()) if r["more_is_better"] else min(r["peers"].values())
        times = r["ours"] / best if r["more_is_better"] else best / r["ours"]
        rows.append(
            (r["what"], r["unit"], f"{r['ours']:.3g}", *peers, f"{times:.1f} × the fastest peer")
        )
    about = content["provenance"]
    text = (
        f"Medians, ours and the peers in turn in one run; {about['date']}, {about['machine']}, "
        f"torch {about['torch']}, "
        f"OpenCV {about['opencv']}. Again: {about['command']} --data DIR"
    )
    table = _table(("what", "unit", "this toolkit", *names, "ratio"), rows)
    return Section("Speed", f"<p>{html.escape(text)}</p>" + table)


def _parity() -> Section | None:
    """What the recorded cases of the original programs measured, where it was."""
    content = _measured("parity")
    if content is None:
        return None
    rows = [
        (r["what"], str(r["cases"]), f"{r['largest']:.1e}" if r["largest"] else "0")
        for r in content["rows"]
    ]
    about = content["provenance"]
    text = (
        f"Largest differences to recorded outputs; measured {about['date']}, "
        f"{about['machine']}, by {about['command']}."
    )
    table = _table(("recorded from", "values compared", "largest difference"), rows)
    return Section("Equal to the original programs", f"<p>{html.escape(text)}</p>" + table)


def _number(text: str) -> int:
    """The first number in a text; 0 without any."""
    found = re.search(r"\d+", text)
    return int(found[0]) if found else 0


def _order(claim: Claim) -> tuple[bool, int, str]:
    """Sections of the paper first, then its figures by number and panel."""
    panel = re.match(r"\(\w\)", claim.text)
    return claim.figure.startswith("Figure"), _number(claim.figure), panel[0] if panel else ""


def _samples(data: Path, say: Say) -> Section:
    """The sample people, to be looked through."""
    name, total, benchmark = embedded_score()
    title = "What the network believes"
    try:
        pictures, skeletal = sample_pictures(data)
    except CaffeCompatError as error:
        say(f"{title}: left out: {error}")
        return Section(title, "", str(error))
    text = (
        f"The embedded network {name} ({benchmark} {total:.1f}) on photographs that came with the "
        "authors' release. Choose a part and move through the stages."
    )
    say(f"{title}: {len(pictures)} photographs predicted")
    return Section(title, f"<p>{html.escape(text)}</p>{viewer.viewer(pictures, skeletal)}")


def _summary(claims: Sequence[Claim], outcomes: Sequence[check.Outcome]) -> str:
    """The page in four lines."""
    verdicts = {v: sum(c.verdict == v for c in claims) for v in get_args(Verdict)}
    tested = ", ".join(f"{n} {v}" for v, n in verdicts.items() if n)
    equal = sum(o.verdict == "equal" for o in outcomes)
    there = sum(o.verdict != "missing" for o in outcomes)
    name, total, benchmark = embedded_score()
    lines = [
        f"Of {len(claims)} claims of the paper: {tested}.",
        f"Of {len(outcomes)} numbers, published or stored, {there} could be computed again here; "
        f"{equal} are equal.",
        f"The embedded network {name}, trained with this toolkit: {benchmark} {total:.1f}.",
    ]
    parity = _measured("parity")
    if parity is not None:
        cases = sum(r["cases"] for r in parity["rows"])
        lines.append(
            f"{cases:,} values were compared with recorded outputs of the original programs."
        )
    items = "".join(f"<li>{html.escape(line)}</li>" for line in lines)
    return f'<ul class="summary">{items}</ul>'


def _claims(claims: Sequence[Claim]) -> str:
    """How many hold, then each with both numbers, where ours is from and how to make it again."""
    counts = {v: sum(c.verdict == v for c in claims) for v in get_args(Verdict)}
    head = ("where", "claim", "published", "ours", "verdict", "note")
    rows = []
    for c in claims:
        cells = [html.escape(text) for text in (c.figure, c.text, c.published, c.ours)]
        cells += [_cell(c.verdict), html.escape(c.why)]
        if c.source:
            cells[-1] += (
                f"<small>From {html.escape(c.source)}. Again: "
                f"<code>{html.escape(c.again)}</code></small>"
            )
        rows.append(cells)
    summary = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    return f"<p>Of {len(claims)} claims: {summary}.</p>" + _raw_table(head, rows, "claims cards")


def make(data: Path, out: Path, results: Path, profile: str, say: Say, stages: int = 3) -> Path:
    """Draw everything that the data allow and write ``index.html``.

    Returns
    -------
    The page.
    """
    out.mkdir(parents=True, exist_ok=True)
    trained, claims = _trained(data, out, results, profile, stages, say)
    outcomes = check.run(data)
    checks = _checks(outcomes)
    sections = [checks, *_from_predictions(data, out, say), *trained, _fields()]
    claims = sorted([*without_training(data), *claims], key=_order)
    sections.sort(
        key=lambda s: (
            _number(s.title) if s.title.startswith("Figure") else -1 if s is checks else 100
        )
    )
    sections.insert(0, Section("The paper's claims, one by one", _claims(claims)))
    sections.insert(0, _samples(data, say))
    sections += [s for s in (_parity(), _speed()) if s is not None]
    about = provenance("cpm-reproduce report", str(data))
    parts = [
        "<!doctype html><html lang='en'><head><meta charset='utf-8'><meta name='viewport' "
        "content='width=device-width, "
        "initial-scale=1'><title>Convolutional Pose Machines, reproduced</title><link "
        "rel='icon' href='data:,'>"
        f"<style>{_STYLE}{viewer.style()}</style></head><body><h1>Convolutional Pose Machines, reproduced</h1>",
        "<p>What was reproduced of Wei et al., CVPR 2016, how closely, and what not. Version "
        f"{__version__}, "
        f"{about['date']}, {html.escape(about['machine'])}.</p>",
        _summary(claims, outcomes),
    ]
    for section in sections:
        body = section.body or f'<p class="open">Not here: {html.escape(section.missing)}</p>'
        parts.append(f"<h2>{html.escape(section.title)}</h2>{body}")
    page = out / "index.html"
    with atomic_write(page) as stream:
        program = f"<script>{viewer.script()}</script>"
        stream.write(("\n".join(parts) + program + "</body></html>\n").encode())
    summary: dict[str, Any] = {
        "provenance": about,
        "claims": [c.__dict__ for c in claims],
        "missing": {s.title: s.missing for s in sections if s.missing},
    }
    write_json(out / "report.json", summary)
    return page
