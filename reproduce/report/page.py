"""One static page: every figure, every claim with published and own numbers, the checks, receptive
fields.

This module gathers what the page says; how it looks stands in ``template.html`` and ``style.css``.
"""

from __future__ import annotations

import base64
import dataclasses
import re
from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass, field
from importlib import resources
from pathlib import Path
from typing import Any, get_args

from markupsafe import Markup, escape

from caffe_compat import __version__
from caffe_compat.errors import CaffeCompatError
from caffe_compat.files import atomic_write, write_json
from reproduce.benchmarks import check
from reproduce.benchmarks.published import published
from reproduce.drawing import viewer
from reproduce.drawing.curves import narrow_path
from reproduce.experiments import plans
from reproduce.experiments.results import HEAD, Result, read_results, rows
from reproduce.figures import fig04, fig05, fig06, fig08, fig09, fig10, fig12
from reproduce.figures.claims import without_training
from reproduce.figures.verdicts import Claim, Verdict, absent
from reproduce.network import netgen, receptive
from reproduce.report.measured import PARITY_HEAD, parity_rows, read_parity, read_speed
from reproduce.report.samples import embedded_score, sample_pictures
from reproduce.runtime.provenance import provenance

Say = Callable[[str], None]
# colours of verdicts, as classes of the style sheet
_CLASS = {
    "confirmed": "yes",
    "equal": "yes",
    "contradicted": "no",
    "differs": "no",
    "undecided": "open",
    "missing": "open",
    "refused": "no",
}


@dataclass
class Cell:
    """A cell of a table.

    Attributes
    ----------
    text : what it says.
    source : where the number is from, in small print.
    again : the command that makes it again, in small print.
    """

    text: str
    source: str = ""
    again: str = ""

    @property
    def css(self) -> str:
        """Class of a verdict; "" for any other text."""
        return _CLASS.get(self.text, "")


@dataclass
class PageTable:
    """A table; on a phone one of many columns becomes a list of cards.

    Attributes
    ----------
    head : titles of the columns.
    rows : cells, as many as titles.
    kind : classes of the style sheet.
    """

    head: Sequence[str]
    rows: Sequence[Sequence[Cell]]
    kind: str = ""


@dataclass
class Picture:
    """A figure inside the page.

    Attributes
    ----------
    caption : below it, and for people who cannot see it.
    svg : the drawing as SVG, where there is one.
    narrow : the same for a phone, where there is one.
    png : otherwise the picture in base64.
    """

    caption: str
    svg: str = ""
    narrow: str = ""
    png: str = ""


@dataclass
class Section:
    """A part of the page, from top to bottom.

    Attributes
    ----------
    title : its heading.
    notes : paragraphs.
    markup : a part that is HTML already.
    picture, table : what it shows.
    gaps : what is missing in it.
    again : the command that makes it again.
    missing : why all of it is not here.
    """

    title: str
    notes: Sequence[str] = ()
    markup: Markup = field(default_factory=Markup)
    picture: Picture | None = None
    table: PageTable | None = None
    gaps: Sequence[str] = field(default_factory=tuple)
    again: str = ""
    missing: str = ""


def _table(head: Sequence[str], rows: Sequence[Sequence[str]]) -> PageTable:
    cells = [[Cell(text) for text in row] for row in rows]
    return PageTable(head, cells, "cards" if len(head) > 4 else "")


def _picture(path: Path, caption: str, number: str) -> Picture:
    """The figure of a file: vector where there is one, and an edition for a phone."""
    vector, narrow = path.with_suffix(".svg"), narrow_path(path.with_suffix(".svg"))
    if not vector.exists():
        data = path.with_suffix(".png").read_bytes()
        return Picture(caption, png=base64.b64encode(data).decode())
    small = _vector(narrow, caption, f"n{number}") if narrow.exists() else ""
    return Picture(caption, svg=_vector(vector, caption, f"f{number}"), narrow=small)


def _vector(path: Path, caption: str, mark: str) -> Markup:
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
    label = escape(caption)
    return Markup(text.replace("<svg ", f'<svg role="img"{style} aria-label="{label}" ', 1))


def _from_predictions(data: Path, out: Path, say: Say) -> list[Section]:
    """Figures 8, 9, 10, 12."""
    test = published()["mpii_test"]
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
            "The released predictions on test images that are here, evenly spread over them.",
        ),
        ("12", fig12, "Figure 12: FLIC", "PCK of elbows and wrists, observer-centric."),
    ):
        try:
            paths = module.make(data, out)
        except CaffeCompatError as error:
            say(f"{title}: left out: {error}")
            found.append(Section(title, missing=str(error)))
            continue
        picture = next(p for p in paths if p.suffix == ".png")
        again = f"cpm-reproduce fig{number} --data DIR"
        found.append(Section(title, picture=_picture(picture, caption, number), again=again))
        say(f"{title}: drawn")
    return found


def _seeds(stored: Mapping[str, Result], *, fields: bool) -> int:
    """How often networks were trained: those of Figure 4, or the others."""
    mine = (r.seed for name, r in stored.items() if name.startswith("field-") == fields)
    return max(mine, default=1)


def _trained(
    data: Path, out: Path, results: Path, profile: str, stages: int, say: Say
) -> tuple[list[Section], list[Claim]]:
    """Figures 4, 5, 6 from stored results."""
    found, claims = [], []
    stored = read_results(results)
    profile = next((result.profile for result in stored.values()), profile)
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
        options = f" --profile {profile}"
        found_claims = module.claims(stored, stages)
        if profile == "smoke":  # a few iterations prove that it runs, nothing else
            found_claims = [
                absent(c.figure, c.text, c.published, "smoke profile") for c in found_claims
            ]
        if module is not fig04:  # whose networks have one stage
            options += f" --stages {stages}"
        if (seeds := _seeds(stored, fields=module is fig04)) > 1:
            options += f" --seeds {seeds}"
        again = f"cpm-reproduce fig{number}{options} --data DIR"
        claims += [
            dataclasses.replace(c, source=f"trainings of profile '{profile}'", again=again)
            for c in found_claims
        ]
        try:
            paths = module.make(stored, out, about, stages, data)
        except CaffeCompatError as error:  # Figure 6 shows released predictions, too
            say(f"{title}: left out: {error}")
            found.append(Section(title, missing=str(error)))
            continue
        if not paths:
            text = (
                f"no results of profile '{profile}' yet; cpm-reproduce fig{number} --profile "
                f"{profile} --data DIR makes them"
            )
            say(f"{title}: left out: {text}")
            found.append(Section(title, missing=text))
            continue
        picture = next(p for p in paths if p.suffix == ".png")
        found.append(Section(title, picture=_picture(picture, caption, number), again=again))
        say(f"{title}: drawn from stored results")
    if stored:
        found.append(_trainings(profile, stored))
    return found, claims


def _trainings(profile: str, stored: Mapping[str, Result]) -> Section:
    """Every result with its provenance."""
    said = f"{plans.PROFILES[profile].about}. " if profile in plans.PROFILES else ""
    data = "; ".join(dict.fromkeys(str(r.provenance.get("data", "")) for r in stored.values()))
    title = f"Trainings of profile '{profile}'"
    return Section(title, notes=[f"{said}{data}."], table=_table(HEAD, rows(stored)))


def _checks(outcomes: Sequence[check.Outcome]) -> Section:
    """Published numbers beside ours."""
    rows, missing = [], []
    for outcome in outcomes:
        published = " ".join(f"{value:g}" for value in outcome.published)
        ours = difference = "-"
        if outcome.ours is not None:
            ours = " ".join(_two_digits(value) for value in outcome.ours)
        if outcome.difference is not None:
            difference = f"{outcome.difference:+.3f}"
        rows.append((outcome.name, published, ours, difference, outcome.verdict, outcome.source))
        if outcome.missing:
            missing.append(f"{outcome.verdict.capitalize()}: {outcome.missing}")
    head = ("number", "published", "ours", "difference", "verdict", "source")
    return Section(
        "Published numbers, computed again",
        table=_table(head, rows),
        gaps=list(dict.fromkeys(missing)),
        again="cpm-reproduce check --data DIR",
    )


def _two_digits(value: float) -> str:
    """A number with two digits after the point; a whole one without."""
    return f"{value:g}" if value == int(value) else f"{value:.2f}"


def _fields() -> Section:
    """What each stage of the released network sees, and what the paper says."""
    from caffe_compat.network.graph import build

    graph, said = build(netgen.deploy(netgen.CPMConfig())), published()["receptive"]
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
        "Computed from the graph of the released 6-stage network. The paper: "
        f"{said['stage1']} px after stage 1, {said['belief']}×{said['belief']} and "
        f"{said['stage2']} px after 2."
    )
    return Section("Receptive fields", notes=[text], table=_table(head, rows))


def _speed() -> Section | None:
    """Ours and the peers, each row one run with all in turn."""
    speed = read_speed()
    if not speed.rows:
        return None
    names = list(dict.fromkeys(name for row in speed.rows for name in row.peers))
    rows = []
    for row in speed.rows:
        peers = [f"{row.peers[name]:.3g}" if name in row.peers else "-" for name in names]
        times = f"{row.times(row.fastest):.1f} × the fastest peer"
        rows.append((row.what, row.unit, f"{row.ours:.3g}", *peers, times))
    made = dict.fromkeys(
        f"{m.date}, {m.machine}, torch {m.torch}, OpenCV {m.opencv}"
        for m in (row.provenance for row in speed.rows)
    )
    commands = dict.fromkeys(row.provenance.command for row in speed.rows)
    text = (
        f"Medians, ours and the peers in turn in one run; {'; '.join(made)}. "
        f"Again: {', '.join(commands)} --data DIR"
    )
    table = _table(("what", "unit", "this toolkit", *names, "ratio"), rows)
    return Section("Speed", notes=[text], table=table)


def _parity() -> Section | None:
    """What the recorded cases of the original programs measured, where it was."""
    parity = read_parity()
    if parity is None:
        return None
    about = parity.provenance
    text = (
        f"Largest differences to recorded outputs; measured {about.date}, "
        f"{about.machine}, by {about.command}."
    )
    table = _table(PARITY_HEAD, parity_rows(parity))
    return Section("Equal to the original programs", notes=[text], table=table)


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
        return Section(title, missing=str(error))
    text = (
        f"The embedded network {name} ({benchmark} {total:.1f}) on photographs that came with the "
        "authors' release. Choose a part and move through the stages."
    )
    say(f"{title}: {len(pictures)} photographs predicted")
    return Section(title, notes=[text], markup=Markup(viewer.viewer(pictures, skeletal)))


def _computed(outcomes: Sequence[check.Outcome]) -> int:
    """How many numbers could be computed again."""
    return sum(outcome.ours is not None for outcome in outcomes)


def _summary(claims: Sequence[Claim], outcomes: Sequence[check.Outcome]) -> list[str]:
    """The page in four lines."""
    verdicts = {v: sum(c.verdict == v for c in claims) for v in get_args(Verdict)}
    tested = ", ".join(f"{n} {v}" for v, n in verdicts.items() if n)
    there = _computed(outcomes)
    equal = sum(o.verdict == "equal" for o in outcomes)
    name, total, benchmark = embedded_score()
    lines = [
        f"Of {len(claims)} claims of the paper: {tested}.",
        f"Of {len(outcomes)} numbers, published or stored, {there} could be computed again here; "
        f"{equal} are equal.",
        f"The embedded network {name}, trained with this toolkit: {benchmark} {total:.1f}.",
    ]
    parity = read_parity()
    if parity is not None:
        count = sum(row.cases for row in parity.rows)
        lines.append(
            f"{count:,} comparisons were made with recorded outputs of the original programs."
        )
    return lines


def _claims(claims: Sequence[Claim]) -> Section:
    """How many hold, then each with both numbers, where ours is from and how to make it again."""
    counts = {v: sum(c.verdict == v for c in claims) for v in get_args(Verdict)}
    head = ("where", "claim", "published", "ours", "verdict", "note")
    table_rows = [
        [
            *map(Cell, (c.figure, c.text, c.published, c.ours, c.verdict)),
            Cell(c.why, source=c.source, again=c.again),
        ]
        for c in claims
    ]
    summary = ", ".join(f"{n} {verdict}" for verdict, n in counts.items())
    return Section(
        "The paper's claims, one by one",
        notes=[f"Of {len(claims)} claims: {summary}."],
        table=PageTable(head, table_rows, "claims cards"),
    )


def _html(summary: Sequence[str], sections: Sequence[Section], about: Mapping[str, Any]) -> str:
    """The page as text; every value is escaped by the template but the drawings themselves."""
    from jinja2 import Environment, StrictUndefined

    files = resources.files("reproduce.report")
    style = files.joinpath("style.css").read_text(encoding="utf-8")
    environment = Environment(
        autoescape=True, undefined=StrictUndefined, trim_blocks=True, lstrip_blocks=True
    )
    template = environment.from_string(files.joinpath("template.html").read_text(encoding="utf-8"))
    return template.render(
        summary=summary,
        sections=sections,
        about=about,
        version=__version__,
        style=Markup(style + viewer.style()),
        script=Markup(viewer.script()),
    )


@dataclass(frozen=True)
class Made:
    """A page that was written.

    Attributes
    ----------
    page : its file.
    numbers : how many numbers, published or stored, are to be computed again.
    computed : how many of them could be, from the data that are there.
    """

    page: Path
    numbers: int
    computed: int


def make(data: Path, out: Path, results: Path, profile: str, say: Say, stages: int = 3) -> Made:
    """Draw everything that the data allow and write ``index.html``."""
    out.mkdir(parents=True, exist_ok=True)
    trained, claims = _trained(data, out, results, profile, stages, say)
    outcomes = check.run(data)
    checks = _checks(outcomes)
    claims = sorted([*without_training(data), *claims], key=_order)
    drawn = [*_from_predictions(data, out, say), *trained]
    figures = [section for section in drawn if section.title.startswith("Figure")]
    others = [section for section in drawn if not section.title.startswith("Figure")]
    figures.sort(key=lambda section: _number(section.title))
    sections = [_samples(data, say), _claims(claims), checks, *figures, *others, _fields()]
    sections += [section for section in (_parity(), _speed()) if section is not None]
    about = provenance("cpm-reproduce report", str(data))
    page = out / "index.html"
    with atomic_write(page) as stream:
        stream.write(_html(_summary(claims, outcomes), sections, about).encode())
    summary: dict[str, Any] = {
        "provenance": about,
        "claims": [c.__dict__ for c in claims],
        "missing": {s.title: s.missing for s in sections if s.missing},
    }
    write_json(out / "report.json", summary)
    return Made(page, len(outcomes), _computed(outcomes))
