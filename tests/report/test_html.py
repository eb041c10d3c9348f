"""Tests of the report's text, without a browser."""

import itertools
import json
import re
from html.parser import HTMLParser
from pathlib import Path

import plotly.graph_objects as go
import pytest
from plotly.offline import get_plotlyjs

from report import sample


class Tags(HTMLParser):
    """Every tag with its attributes."""

    def __init__(self, text: str) -> None:
        super().__init__()
        self.tags: list[tuple[str, dict[str, str | None]]] = []
        self.feed(text)

    def handle_starttag(self, tag: str, attrs: list[tuple[str, str | None]]) -> None:
        self.tags.append((tag, dict(attrs)))


def written(tmp_path: Path, **changes: object) -> str:
    return sample.write(tmp_path / "report.html", figures={}, **changes).read_text("utf-8")


def embedded(text: str, name: str) -> object:
    found = re.findall(rf'<script type="application/json" id="{name}">(.*?)</script>', text, re.S)
    assert len(found) == 1
    return json.loads(found[0])


def test_the_library_is_inside_exactly_once(tmp_path: Path):
    text = written(tmp_path)
    assert text.count(get_plotlyjs()) == 1


def test_nothing_is_loaded_from_elsewhere(tmp_path: Path):
    tags = Tags(written(tmp_path).replace(get_plotlyjs(), "")).tags
    links = [a[key] for _, a in tags for key in ("src", "href") if a.get(key)]
    assert links
    assert all(link.startswith(("#", "data:,")) for link in links if link)
    policy = next(a["content"] for _, a in tags if "http-equiv" in a)
    assert policy is not None
    assert policy.startswith("default-src 'none'; script-src 'sha256-")
    assert "http" not in policy
    assert "unsafe-inline" not in policy.split("style-src")[0]


def test_hostile_strings_add_no_tag(tmp_path: Path):
    benign = Tags(written(tmp_path, claims=[sample.claim()], config={"a": "b"})).tags
    text = written(
        tmp_path,
        title=sample.HOSTILE,
        summary=sample.HOSTILE,
        claims=[sample.claim(statement=sample.HOSTILE, sentence=sample.HOSTILE)],
        config={sample.HOSTILE: sample.HOSTILE},
        environment={sample.HOSTILE: sample.HOSTILE},
        numbers={sample.HOSTILE: [sample.HOSTILE]},
    )
    assert [tag for tag, _ in Tags(text).tags] == [tag for tag, _ in benign]
    record = embedded(text, "record")
    assert isinstance(record, dict)
    assert record["config"] == {sample.HOSTILE: sample.HOSTILE}
    assert record["numbers"] == {sample.HOSTILE: [sample.HOSTILE]}


def test_the_parts_come_in_order_with_claims_first(tmp_path: Path):
    text = sample.write(tmp_path / "report.html").read_text("utf-8")
    parts = ("<h1>", "Every gradient was", ">Claims</h2>", ">Figures</h2>", ">Configuration</h2>")
    places = [text.index(part) for part in (*parts, ">Environment</h2>", ">Downloads</h2>")]
    assert places == sorted(places)
    for line in ("What is seen.", "How it was computed.", "When it misleads."):
        assert text.count(f"<b>{line}</b>") == len(sample.figures())


def test_every_figure_is_labelled_and_every_heading_has_its_level(tmp_path: Path):
    text = sample.write(tmp_path / "report.html").read_text("utf-8")
    tags = Tags(text).tags
    assert ("html", {"lang": "en"}) in tags
    levels = [int(tag[1]) for tag, _ in tags if re.fullmatch(r"h\d", tag)]
    assert levels[0] == 1
    assert levels.count(1) == 1
    assert all(b - a <= 1 for a, b in itertools.pairwise(levels))
    ids = {a["id"] for _, a in tags if "id" in a}
    labelled = [a for tag, a in tags if tag in ("figure", "section")]
    assert all(a["aria-labelledby"] in ids for a in labelled)
    drawings = [a for _, a in tags if a.get("class") == "drawing"]
    assert len(drawings) == len(sample.figures())
    assert all(len(a["aria-label"] or "") > 40 for a in drawings)


def test_claims_show_value_interval_unit_seeds_null_and_verdict(tmp_path: Path):
    text = written(tmp_path, claims=[sample.claim(), *sample.CLAIMS[4:]])
    for part in (
        "91.25 [84, 97.5] singular values",
        "10 independent seeds",
        "norm null: 93.2",
        '<span class="verdict reproduced">reproduced</span>',
        '<span class="verdict not-tested">not tested</span>',
        "not measured",
        "Decided by: the 95% interval meets [80.9, 104.1]",
    ):
        assert part in text


def test_claims_on_which_runs_say_nothing_are_folded_behind_the_others(tmp_path: Path):
    silent = sample.CLAIMS[4]
    assert silent.n_seeds == 0
    some = written(tmp_path, claims=[silent, sample.claim()])
    shown, folded = some.split("<details>")
    assert "1 more claim on which these runs say nothing" in folded
    assert f"<strong>{silent.id}</strong>" in folded
    assert f"<strong>{silent.id}</strong>" not in shown
    assert "91.25 [84, 97.5]" in shown
    assert "<details open>" in written(tmp_path, claims=[silent])
    assert "<details" not in written(tmp_path, claims=[sample.claim()])


def test_configuration_shows_nested_names_and_numbers_as_they_are(tmp_path: Path):
    text = written(tmp_path)
    for name, value in {"optimizer.lr": "0.1", "hidden": "[128]", "clip": "inf"}.items():
        assert f'<th scope="row">{name}</th><td>{value}</td>' in text


def test_a_report_without_anything_says_so(tmp_path: Path):
    text = written(tmp_path, claims=[], config={}, environment={}, numbers={})
    assert "Claims" not in text.split("<script")[0]  # neither a section nor downloads
    assert text.count("None given.") == 2
    assert "Figures</h2>" not in text


@pytest.mark.parametrize(
    ("meta", "missing"),
    [
        (None, "title, seen, computed, misleads"),
        ({"title": "a", "seen": "b", "misleads": ""}, "computed, misleads"),
    ],
)
def test_a_figure_without_a_caption_is_refused(tmp_path: Path, meta: object, missing: str):
    figure = go.Figure(layout={"meta": meta})
    with pytest.raises(ValueError, match=f"layout.meta of figure 'f' has no {missing}. Set"):
        sample.write(tmp_path / "report.html", figures={"f": figure})


def test_numbers_without_a_json_form_are_refused_by_name(tmp_path: Path):
    with pytest.raises(TypeError, match=r"report.numbers.a must be .* but it is object"):
        written(tmp_path, numbers={"a": object()})
    assert list(tmp_path.iterdir()) == []
