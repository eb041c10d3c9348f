"""Tests of the report in a real browser: drawn, harmless, readable, downloadable."""

import csv
import io
import json
from collections.abc import Callable
from pathlib import Path
from typing import Any

import plotly.graph_objects as go
import pytest
from playwright.sync_api import Page

# Chromium keeps 16 contexts for WebGL and plotly takes two per figure: more figures than that.
N_MANY = 9


@pytest.fixture(scope="module")
def path(tmp_path_factory: pytest.TempPathFactory) -> Path:
    from report import sample

    return sample.write(tmp_path_factory.mktemp("report") / "report.html")


@pytest.fixture(scope="module")
def wide(open_report: Callable[..., Any], path: Path) -> Any:
    return open_report(path)


@pytest.fixture(scope="module")
def phone(open_report: Callable[..., Any], path: Path) -> Any:
    return open_report(path, width=390, height=844)


@pytest.fixture(params=["wide", "phone"])
def opened(request: pytest.FixtureRequest) -> Any:
    return request.getfixturevalue(request.param)


def downloaded(page: Page, selector: str) -> tuple[str, str]:
    """Name and text of the file behind a button."""
    with page.expect_download() as waiting:
        page.click(selector)
    return waiting.value.suggested_filename, waiting.value.path().read_text(encoding="utf-8")


def drawn(page: Page) -> list[list[int]]:
    """Number of points of every trace of every figure, as plotly has read them."""
    return page.evaluate(
        """() => [...document.querySelectorAll('.drawing')].map((gd) =>
             gd.calcdata.map((trace, i) => gd._fullData[i].type === 'scattergl'
               ? gd._fullData[i]._length : trace.length))"""
    )


def inked(page: Page, index: int) -> int:
    """Number of pixels that WebGL has drawn in a figure."""
    return page.evaluate(
        """(index) => {
             const holder = document.querySelectorAll('.drawing')[index];
             let inked = 0;
             for (const canvas of holder.querySelectorAll('canvas')) {
               const copy = document.createElement('canvas');
               [copy.width, copy.height] = [canvas.width, canvas.height];
               const context = copy.getContext('2d');
               context.drawImage(canvas, 0, 0);
               const pixels = context.getImageData(0, 0, copy.width, copy.height).data;
               for (let i = 3; i < pixels.length; i += 4) inked += pixels[i] > 0;
             }
             return inked;
           }""",
        index,
    )


def overflow(page: Page) -> list[str]:
    """What is wider than the page, or drawn outside its figure."""
    return page.evaluate(
        """() => {
             const wide = document.documentElement.scrollWidth > innerWidth ? ['page'] : [];
             for (const holder of document.querySelectorAll('.drawing')) {
               const box = holder.getBoundingClientRect();
               for (const text of holder.querySelectorAll('svg text')) {
                 const t = text.getBoundingClientRect();
                 if (t.width && (t.left < box.left - 1 || t.right > box.right + 1
                     || t.top < box.top - 1 || t.bottom > box.bottom + 1))
                   wide.push(text.textContent);
               }
             }
             return wide;
           }"""
    )


def overlapping_labels(page: Page) -> list[str]:
    """Pairs of annotations, axis titles, tick labels and legend entries on each other."""
    return page.evaluate(
        """() => {
             const found = [];
             for (const holder of document.querySelectorAll('.drawing')) {
               const texts = [...holder.querySelectorAll(
                   '.annotation-text, .xtitle, .ytitle, .xtick text, .ytick text, .legendtext')]
                 .map((text) => [text.textContent, text.getBoundingClientRect()])
                 .filter(([, box]) => box.width > 0);
               texts.forEach(([name, a], i) => {
                 for (const [other, b] of texts.slice(i + 1))
                   if (a.left < b.right - 1 && b.left < a.right - 1
                       && a.top < b.bottom - 2 && b.top < a.bottom - 2)
                     found.push(`${name} on ${other}`);
               });
             }
             return found;
           }"""
    )


def test_nothing_fails_and_nothing_is_requested_but_the_file(opened: Any, path: Path):
    assert opened.problems == []
    assert [url for url in opened.requests if not url.startswith("data:")] == [path.as_uri()]


def test_every_figure_is_drawn_with_all_its_points(opened: Any):
    from report import sample

    expected = [[len(trace.x) for trace in f.data] for f in sample.figures().values()]
    assert drawn(opened.page) == expected
    assert expected[0] == [sample.N_STEPS] * 2
    sizes = opened.page.evaluate(
        """() => [...document.querySelectorAll('.drawing .main-svg')].map((svg) =>
             svg.getBoundingClientRect()).map((box) => Math.min(box.width, box.height))"""
    )
    assert len(sizes) >= len(expected)
    assert min(sizes) > 100


def test_dots_are_really_drawn_by_webgl(opened: Any):
    from report import sample

    for index, figure in enumerate(sample.figures().values()):
        if any(trace.type == "scattergl" for trace in figure.data):
            assert inked(opened.page, index) > sample.N_STEPS


def test_nothing_is_wider_than_the_page_or_cut_off(opened: Any):
    assert overflow(opened.page) == []


def test_no_text_stands_on_another(opened: Any):
    assert overlapping_labels(opened.page) == []


def test_claims_are_a_table_on_a_wide_page_and_cards_on_a_phone(wide: Any, phone: Any):
    rows = "() => getComputedStyle(document.querySelector('.claims tr:last-child')).display"
    assert wide.page.evaluate(rows) == "table-row"
    assert phone.page.evaluate(rows) == "block"
    labels = phone.page.eval_on_selector_all(
        ".claims tr:last-child td[data-label]",
        "all => all.map((e) => getComputedStyle(e, '::before').content)",
    )
    # Claims on which the runs say nothing are folded, in a table of their own.
    assert labels == ['"Measured"', '"Null or control"', '"Verdict"'] * 2


def test_text_has_the_contrast_that_readers_need(wide: Any):
    low = wide.page.evaluate(
        """() => {
             const luminance = (color) => {
               const [r, g, b] = color.match(/[\\d.]+/g).map((v) => v / 255)
                 .map((v) => v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4);
               return 0.2126 * r + 0.7152 * g + 0.0722 * b;
             };
             const ground = (e) => {
               if (!e) return 'rgb(255, 255, 255)';
               const color = getComputedStyle(e).backgroundColor;
               return color === 'rgba(0, 0, 0, 0)' ? ground(e.parentElement) : color;
             };
             return [...document.querySelectorAll('h1, h2, h3, p, a, td, th, span, button')]
               .filter((e) => !e.closest('.drawing')).map((e) => {
                 const [a, b] = [getComputedStyle(e).color, ground(e)].map(luminance);
                 const contrast = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
                 return [contrast, e.className, e.textContent];
               }).filter(([contrast]) => contrast < 4.5);
           }"""
    )
    assert low == []


def test_every_number_can_be_downloaded(wide: Any):
    from report import sample

    name, text = downloaded(wide.page, "[data-file='numbers.json']")
    record = json.loads(text)
    assert name == "numbers.json"
    assert record["title"] == "Gradient spectrum"
    assert record["numbers"] == {"counts": {"MLP": [90, 93]}, "loss": [0.5, None]}
    assert record["config"] == sample.CONFIG | {"clip": None}
    assert record["environment"] == {"torch": "2.13.0"}
    assert len(record["claims"]) == 5


def test_claims_can_be_downloaded_as_json_and_csv(wide: Any):
    from report import sample

    _, text = downloaded(wide.page, "[data-file='claims.json']")
    claims = json.loads(text)
    assert claims[0]["interval"] == [84.0, 97.5]
    name, text = downloaded(wide.page, "[data-file='claims.csv']")
    rows = list(csv.DictReader(io.StringIO(text, newline="")))
    assert name == "claims.csv"
    assert [row["verdict"] for row in rows] == [claim.verdict for claim in sample.CLAIMS]
    assert rows[0]["sentence"] == sample.CLAIMS[0].sentence
    assert (rows[0]["value"], rows[0]["interval_low"], rows[0]["interval_high"]) == (
        "91.25",
        "84",
        "97.5",
    )
    assert (rows[4]["value"], rows[4]["interval_low"]) == ("", "")


def test_the_points_of_every_figure_can_be_downloaded_exactly(wide: Any):
    from report import sample

    for index, (name, figure) in enumerate(sample.figures().items()):
        file, text = downloaded(wide.page, f"[data-figure='{index}']")
        rows = list(csv.DictReader(io.StringIO(text, newline="")))
        assert file == f"{name.replace(' ', '-')}.csv"
        expected = [
            (trace.name, x, y)
            for trace in figure.data
            for x, y in zip(trace.x, trace.y, strict=True)
        ]
        found = [(row["trace"], float(row["x"]), float(row["y"])) for row in rows]
        assert found == [(trace, float(x), float(y)) for trace, x, y in expected]


@pytest.fixture(scope="module")
def small(tmp_path_factory: pytest.TempPathFactory) -> Path:
    """A report with one figure that uses WebGL and one that does not."""
    from report import sample

    figures = {name: sample.figures()[name] for name in ("scree", "counts")}
    return sample.write(tmp_path_factory.mktemp("small") / "report.html", figures=figures)


def test_figures_follow_the_width_of_the_window(open_report: Callable[..., Any], small: Path):
    page = open_report(small, width=1000).page
    width = "() => document.querySelector('.drawing .main-svg').getBoundingClientRect().width"
    before = page.evaluate(width)
    page.set_viewport_size({"width": 700, "height": 900})
    page.wait_for_function(f"({width})() <= {before - 250}", timeout=10_000)
    assert overflow(page) == []


def test_figures_fit_the_paper_when_printed_and_come_back(
    open_report: Callable[..., Any], small: Path
):
    page = open_report(small).page
    width = "() => document.querySelector('.drawing .main-svg').getBoundingClientRect().width"
    before = page.evaluate(width)
    page.evaluate("() => dispatchEvent(new Event('beforeprint'))")
    page.wait_for_function(f"({width})() === 680", timeout=10_000)
    page.evaluate("() => dispatchEvent(new Event('afterprint'))")
    page.wait_for_function(f"({width})() === {before}", timeout=10_000)


def test_hostile_strings_do_nothing_and_are_shown(open_report: Callable[..., Any], tmp_path: Path):
    from report import sample

    hostile = sample.HOSTILE
    named = (f"residuals {hostile}", "norms", "counts")
    path = sample.write(
        tmp_path / "report.html",
        title=hostile,
        summary=hostile,
        claims=[sample.claim(statement=hostile, null=hostile, sentence=hostile)],
        figures={name: drawn for name, drawn in sample.figures(hostile).items() if name in named},
        config={hostile: hostile},
        environment={hostile: hostile},
        numbers={hostile: hostile},
    )
    opened = open_report(path)
    page = opened.page
    assert opened.problems == []
    assert page.evaluate("() => window.hacked") is None
    assert page.query_selector("img[src=x]") is None
    assert page.title() == hostile
    for selector in ("h1", ".summary", ".finding", "#configuration th", "#configuration td"):
        assert hostile in (page.text_content(selector) or "")
    entries = page.eval_on_selector_all(".legendtext", "all => all.map((e) => e.textContent)")
    assert hostile in entries
    file, text = downloaded(page, "[data-figure='0']")
    assert "/" not in file
    assert "<" not in file
    assert next(csv.DictReader(io.StringIO(text, newline="")))["trace"].startswith(hostile)
    assert json.loads(downloaded(page, "[data-file='numbers.json']")[1])["numbers"] == {
        hostile: hostile
    }


def test_many_figures_do_not_blank_each_other(open_report: Callable[..., Any], tmp_path: Path):
    from report import sample

    meta = {"title": "Dots", "seen": "Dots.", "computed": "Not.", "misleads": "Never."}
    figure = go.Figure(go.Scattergl(x=list(range(50)), y=list(range(50)), mode="markers"))
    figure.update_layout(meta=meta, height=450, template=None)
    many = {f"dots {i}": figure for i in range(N_MANY)}
    opened = open_report(sample.write(tmp_path / "report.html", claims=[], figures=many))
    page = opened.page
    states = page.eval_on_selector_all(".drawing", "all => all.map((e) => e.dataset.state)")
    assert states.count("live") == 5
    assert states.count("picture") == N_MANY - 5
    pictures = page.eval_on_selector_all(
        ".drawing img", "all => all.map((e) => [e.naturalWidth > 500, e.alt])"
    )
    assert pictures == [[True, "Dots. Dots."]] * (N_MANY - 5)
    for index in (0, N_MANY - 1, 3):
        page.locator(".drawing").nth(index).scroll_into_view_if_needed()
        page.wait_for_selector(f".drawing >> nth={index} >> canvas", state="attached")
        page.wait_for_function(
            "(i) => document.querySelectorAll('.drawing')[i].dataset.state === 'live'", arg=index
        )
        assert inked(page, index) > 500
    assert opened.problems == []
