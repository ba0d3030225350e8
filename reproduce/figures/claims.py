"""The paper's statements that need no training of ours: from released predictions, from the graph,
or not to be tested here."""

from __future__ import annotations

import re
from collections.abc import Callable
from pathlib import Path

from caffe_compat.errors import CaffeCompatError
from caffe_compat.network.graph import build
from reproduce.benchmarks.benchmark import Missing
from reproduce.benchmarks.flic import Flic
from reproduce.benchmarks.lsp import Lsp
from reproduce.benchmarks.published import published
from reproduce.figures import fig12
from reproduce.figures.method_curves import score_methods
from reproduce.figures.verdicts import Claim, Verdict, absent, equal
from reproduce.network import netgen, receptive

LSP = Lsp.released["CPM (LSP)"]
_BOTH = Lsp.released["CPM (MPII + LSP)"]
MACHINE = "predictions/RamakrishnaECCV14/pred_keypoints_lsp_oc.mat"
_ENOUGH = 0.05  # points: published numbers are rounded to 0.1 or 0.01
Found = tuple[str, Verdict, str]


def without_training(data: Path) -> list[Claim]:
    """Claims of section 3 and of Figures 6a, 8, 9, 11 and 12."""
    said = published()
    test, flic, lead, field = (
        said["mpii_test"],
        said["flic"],
        said["fig6"]["lead"],
        said["receptive"],
    )
    hidden = "the test set's truth is not public"
    leads = (
        f"{test['total']:g} ({test['total_with_lsp']:g} with LSP), +{test['lead']:g}, ankle "
        f"+{test['ankle_lead']:g}; after the paper {test['total_vgg']:g} (released model 5, front "
        "end of VGG-19)"
    )
    return [
        _tested(
            "section 3",
            "receptive field: pixels after stage 1, cells of the belief maps and pixels after "
            "stage 2",
            f"{field['stage1']}, {field['belief']}×{field['belief']}, {field['stage2']}",
            _fields,
            "the network's graph",
            "cpm-models rf pose_deploy.prototxt",
        ),
        _tested(
            "Figure 6",
            "(a) the authors' network leads the Pose Machine at 0.1 and 0.2, from released "
            "predictions",
            f"+{lead[0]}, +{lead[1]}",
            lambda: _pose_machine(data, lead),
        ),
        absent("Figure 8", "best on MPII, most of all at the ankle", leads, hidden),
        _tested(
            "Figure 9",
            "PCK@0.2 on Leeds, trained on Leeds alone and with MPII",
            ", ".join(f"{v:g}" for v in said["lsp"]["total"]),
            lambda: _leeds(data, said["lsp"]["total"]),
        ),
        absent("Figure 11", "ahead of the others from all viewpoints of MPII", "-", hidden),
        _tested(
            "Figure 12",
            f"FLIC: lead over the closest competitor at {_listed(flic['thresholds'])}",
            "; ".join(f"{part} {_listed(flic[f'{part}_lead'], '+')}" for part in fig12.PARTS),
            lambda: _flic(data, flic["thresholds"]),
            again="cpm-reproduce fig12 --data DIR",
        ),
    ]


def _tested(
    figure: str,
    text: str,
    wanted: str,
    find: Callable[[], Found],
    source: str = "released predictions",
    again: str = "cpm-reproduce check --data DIR",
) -> Claim:
    """The claim with what is found, or with the file that is missing or damaged."""
    try:
        ours, said, why = find()
    except CaffeCompatError as error:
        return absent(figure, text, wanted, str(error))
    return Claim(
        figure=figure,
        text=text,
        published=wanted,
        ours=ours,
        verdict=said,
        why=why,
        source=source,
        again=again,
    )


def _fields() -> Found:
    graph = build(netgen.deploy(netgen.CPMConfig()))
    wanted = published()["receptive"]
    counted, released = receptive.stages(graph, small_pools=True), receptive.stages(graph)
    belief = counted[1][2].size if counted[1][2] is not None else 0
    values = counted[0][1].size, belief, counted[1][1].size
    why = (
        f"counting pools as 2×2; with the released 3×3 pools {released[0][1].size} and "
        f"{released[1][1].size} px"
    )
    ours = f"{values[0]}, {values[1]}×{values[1]}, {values[2]}"
    return ours, equal(values == (wanted["stage1"], wanted["belief"], wanted["stage2"])), why


def _pose_machine(data: Path, lead: list[float]) -> Found:
    benchmark = Lsp(data)
    network, machine = benchmark.score_file(LSP), benchmark.score_file(MACHINE)
    values = [
        float(network.total[network.at(t)] - machine.total[machine.at(t)]) for t in (0.1, 0.2)
    ]
    why = (
        "equal for the 6-stage model and the Pose Machine's observer-centric predictions "
        "against the person-centric truth; "
    )
    try:
        own = benchmark.score_file(MACHINE, annotation="oc")
    except Missing as error:
        why += f"the leads with each against a truth of its own kind are not known here: {error}"
    else:
        fair = [float(network.total[network.at(t)] - own.total[own.at(t)]) for t in (0.1, 0.2)]
        leads = f"{fair[0]:+.1f} and {fair[1]:+.1f}"
        why += f"each against a truth of its own kind, the leads are {leads}"
    good = all(abs(v - w) <= _ENOUGH for v, w in zip(values, lead, strict=True))
    return ", ".join(f"{v:+.2f}" for v in values), equal(good), why


def _leeds(data: Path, wanted: list[float]) -> Found:
    benchmark = Lsp(data)
    scored = [benchmark.score_file(name) for name in (LSP, _BOTH)]
    values = [float(one.total[one.at(0.2)]) for one in scored]
    good = all(abs(v - w) <= _ENOUGH for v, w in zip(values, wanted, strict=True))
    return (
        ", ".join(f"{v:.2f}" for v in values),
        equal(good),
        "the LSP model, the MPII and LSP model",
    )


def _listed(numbers: list[float], sign: str = "") -> str:
    return " and ".join(f"{sign}{number:g}" for number in numbers)


def _flic(data: Path, thresholds: list[float]) -> Found:
    benchmark = Flic(data)
    benchmark.need(fig12.CPM)
    results = score_methods(benchmark)
    ours = results.pop(fig12.OWN)
    earlier = {
        n: r
        for n, r in results.items()
        if (year := re.search(r"'(\d\d)$", n)) and int(year[1]) < 16
    }
    why = "the closest competitor of the time (Tompson et al.) published no predictions"
    if not earlier:
        raise Missing(
            "no earlier method's predictions on FLIC (predictions/*/pred_keypoints_flic_oc.mat)"
        )
    texts = []
    for part in fig12.PARTS:
        joints, leads = benchmark.groups[part], []
        for threshold in thresholds:
            scores = {name: one.group(joints, threshold) for name, one in earlier.items()}
            best = max(scores, key=lambda name: scores[name])
            leads.append(f"{ours.group(joints, threshold) - scores[best]:+.1f} over {best}")
        texts.append(f"{part} {' and '.join(leads)}")
    return "; ".join(texts), "undecided", why
