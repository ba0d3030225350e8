"""The maintainers' benchmarks: their arithmetic with made-up timings, and what they keep."""

from __future__ import annotations

import dataclasses
import json
import sys
from pathlib import Path
from typing import Any

import pytest

from caffe_compat.errors import DataError
from caffe_compat.files import write_json
from reproduce.report.measured import Measurement, SpeedRow, read_parity, read_speed
from reproduce.runtime.provenance import provenance
from tests.tools.loaded import tool

NOW = Measurement(command="c", machine="m", date="2026-01-01", data="d", torch="2", code="abc")


def test_the_network_alone_is_never_slower_than_the_whole_pass_around_it() -> None:
    """A round on a loaded machine makes its whole pass slow, not the network's share of it."""
    bench = tool("bench_predict")
    passes = [bench.Pass(2.0, 1.6), bench.Pass(9.0, 7.2), bench.Pass(2.2, 1.76)]
    report = bench.summary(passes, {"direct": [8.0, 30.0, 8.8], "opencv": [22.0]}, people=4)
    assert report["ours_in_one_process_people_per_s"] == pytest.approx(4 / 2.2)
    assert report["ours_people_per_s"] == report["ours_in_one_process_people_per_s"]
    assert report["network_alone_people_per_s"] == pytest.approx(4 / 1.76)
    assert report["direct_people_per_s"] == pytest.approx(4 / 8.8)
    assert report["overhead"] == pytest.approx(0.25)


def test_worker_processes_are_a_number_of_their_own() -> None:
    bench = tool("bench_predict")
    report = bench.summary([bench.Pass(2.0, 1.5)], {"ours": [1.0]}, people=2)
    assert report["ours_people_per_s"] == 2
    assert report["ours_in_one_process_people_per_s"] == 1


def test_what_is_timed_in_a_pass() -> None:
    bench = tool("bench_predict")
    calls: list[str] = []

    class Predictor:
        def forward(self, data: str) -> str:
            calls.append(data)
            return data

        def predict_job(self, job: Any) -> list[Any]:
            self.forward("maps")
            return [dataclasses.make_dataclass("P", ["joints"])(3)]

    predictor = Predictor()
    known = predictor.forward
    one = bench.timed_pass(predictor, [bench.Job("a", None, bench.PROTOCOLS["lsp"])] * 2)
    assert calls == ["maps", "maps"]
    assert one.joints == [3, 3]
    assert 0 < one.network < one.whole
    assert predictor.forward == known


def _row(part: Any, **changes: Any) -> SpeedRow:
    speed = tool("measure_speed")
    found = dict.fromkeys((part.ours, *part.peers.values()), 2.0)
    row: SpeedRow = speed.row_of(part, found, dataclasses.replace(NOW, **changes))
    return row


def test_only_what_this_machine_has_not_measured_is_measured() -> None:
    speed = tool("measure_speed")
    first, second, *_ = speed.PARTS
    predict = next(part for part in speed.PARTS if part.photographs)
    parts = [first, second, predict]
    stored = [_row(first), _row(second, code="older"), _row(predict)]
    assert speed.missing(parts, stored, NOW) == [second]
    assert speed.missing(parts, stored, dataclasses.replace(NOW, machine="other")) == parts
    # photographs count where they are read
    assert speed.missing(parts, stored, dataclasses.replace(NOW, data="e")) == [second, predict]
    assert speed.missing(parts, [], NOW) == parts


def test_a_new_number_replaces_its_own_part_alone() -> None:
    speed = tool("measure_speed")
    first, second, *_, last = speed.PARTS
    stored = [_row(last), _row(first)]
    rows = speed.merged(stored, _row(second)).rows
    assert [row.part for row in rows] == [first.name, second.name, last.name]
    again = speed.merged(rows, _row(first, date="2026-01-02")).rows
    assert [row.provenance.date for row in again] == ["2026-01-02", "2026-01-01", "2026-01-01"]


def test_a_script_that_wrote_too_little_is_said() -> None:
    speed = tool("measure_speed")
    with pytest.raises(DataError, match=r"bench_load\.py wrote no number opencv_s"):
        speed.row_of(next(p for p in speed.PARTS if p.name == "load"), {"ours_s": 1.0}, NOW)


def test_parts_have_names_of_their_own_and_scripts() -> None:
    speed = tool("measure_speed")
    names = [part.name for part in speed.PARTS]
    assert len(names) == len(set(names))
    for part in speed.PARTS:
        assert (speed.TOOLS / f"bench_{part.bench}.py").is_file()


@pytest.mark.long
@pytest.mark.parametrize("name", ["load", "train"])
def test_a_part_is_measured_and_kept(
    name: str, tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    speed = tool("measure_speed")
    target = tmp_path / "speed.json"
    arguments = ["measure_speed.py", "--only", name, "--small", "--target", str(target)]
    monkeypatch.setattr(sys, "argv", arguments)
    assert speed.main() == 0
    (row,) = read_speed(target).rows
    assert row.part == name
    assert row.ours > 0
    before = target.read_bytes()
    assert speed.main() == 0  # nothing is left to do
    assert target.read_bytes() == before


def test_stored_numbers_come_back(tmp_path: Path) -> None:
    speed = tool("measure_speed")
    rows = speed.merged([], _row(speed.PARTS[0]))
    write_json(tmp_path / "speed.json", dataclasses.asdict(rows))
    assert read_speed(tmp_path / "speed.json") == rows
    assert read_speed(tmp_path / "none.json").rows == ()
    assert read_parity(tmp_path / "none.json") is None
    parity = read_parity()
    assert parity is None or parity.rows


def test_the_comparison_with_recordings_says_where_it_was_made(
    tmp_path: Path, monkeypatch: pytest.MonkeyPatch
) -> None:
    measure = tool("measure_parity")

    def noted(*_: object, env: dict[str, str], **more: object) -> None:
        Path(env["CPM_PARITY"] + ".1").write_text('["Caffe", 0.5]')

    about = provenance("python tools/measure_parity.py", "")
    monkeypatch.setattr(measure.subprocess, "run", noted)
    monkeypatch.setattr(measure, "TARGET", tmp_path / "parity.json")
    measure.main()
    parity = read_parity(tmp_path / "parity.json")
    assert parity is not None
    assert (parity.provenance.machine, parity.provenance.commit) == (
        about["machine"],
        about["commit"],
    )


@pytest.mark.parametrize(
    ("change", "said"),
    [
        (lambda row: row.pop("ours"), "the field 'ours' is missing in forward pass"),
        (lambda row: row["provenance"].pop("date"), "the field 'date' is missing in provenance"),
        (lambda row: row.update(ours="fast"), "'ours' is 'fast', not a number"),
        (lambda row: row.update(more_is_better=1), "'more_is_better' is 1, not true or false"),
        (lambda row: row.update(peers=[]), r"'peers' is \[\], not an object"),
        (lambda row: row.update(peers={"torch": True}), "'torch' is True, not a number"),
        (lambda row: row.update(peers={}), "needs a peer"),
        (lambda row: row.update(ours=0), "numbers above 0"),
        (lambda row: row.update(what=3), "'what' is 3, not a text"),
    ],
)
def test_a_damaged_file_of_speeds_is_one_line(change: Any, said: str, tmp_path: Path) -> None:
    speed = tool("measure_speed")
    content = dataclasses.asdict(speed.merged([], _row(speed.PARTS[0])))
    change(content["rows"][0])
    path = tmp_path / "speed.json"
    path.write_text(json.dumps(content), encoding="utf-8")
    with pytest.raises(DataError, match=said) as caught:
        read_speed(path)
    assert str(caught.value).startswith(f"{path}: ")
    assert "tools/measure_speed.py" in str(caught.value)
    assert "\n" not in str(caught.value)


def test_the_lowest_versions_say_where_torch_is_not_the_lowest() -> None:
    lowest = tool("lowest_versions")
    setup = """[options]
install_requires =
    torch>=2.4
    numpy>=1.26
    tomli>=2; python_version < "3.11"
[options.extras_require]
test =
    click>=8.2
baseline =
    scikit-learn>=1.4
"""
    lines = lowest.constraints(setup)
    assert lines == ["torch==2.4.*", "numpy==1.26.*", "click==8.2.*", "scikit-learn==1.4.*"]
    assert lowest.with_torch_of(lines, "six==1\ntorch==2.9.1\n") == ["torch==2.9.1", *lines[1:]]


def test_a_damaged_file_of_differences_is_one_line(tmp_path: Path) -> None:
    path = tmp_path / "parity.json"
    about = {"command": "c", "machine": "m", "date": "d"}
    path.write_text(json.dumps({"provenance": about, "rows": [{"what": "w", "largest": 1e-6}]}))
    with pytest.raises(DataError, match="the field 'cases' is missing in w"):
        read_parity(path)
