"""The page that the report is written to, in a browser: it draws, sorts, and fetches nothing."""

from __future__ import annotations

import html
import json
from collections.abc import Iterator
from dataclasses import replace
from pathlib import Path

import pytest
from daskexec_testing.browser import Browser, Page, find_chromium
from daskexec_testing.services import require

from daskexec.logs import Report, analyze
from daskexec.logs.demo import write_demo
from daskexec.logs.html import to_html
from daskexec.select import SerialExecutor

ATTACK = "</script></style><script>window.stolen = 1</script><img src=x onerror='stolen = 1'>"
LINE = (
    '1.1.1.1<b id=inserted>x</b> - - [17/May/2015:10:05:03 +0000] "GET /{0} HTTP/1.1" 404 9 '
    '"http://x/{0}" "\\" onload=\\"stolen=1 {0} {{{{7*7}}}}"\n'
)


@pytest.fixture(scope="module")
def report(tmp_path_factory: pytest.TempPathFactory) -> Report:
    """On a made-up log, and on one written by somebody who hopes that it is shown on a page."""
    folder = tmp_path_factory.mktemp("page")
    made = write_demo(folder, seed=3, lines=3_000)
    hostile = folder / "<img src=y onerror=stolen=1>.log"
    attack = ATTACK.replace(" ", "&#32;")
    text = LINE.format(attack) * 300 + f"malformed {ATTACK}\n"
    hostile.write_text(text)
    with SerialExecutor() as executor:
        return analyze([made.plain, hostile, folder / "gone<script>"], executor)


def test_what_strangers_write_is_escaped(report: Report) -> None:
    """No text of a log comes into the page as markup, nor ends the embedded JSON."""
    page = to_html(report)
    assert page.count("<script") == page.count("</script>") == 2
    assert "<img" not in page
    assert "<b " not in page
    assert "&lt;img src=y onerror=stolen=1&gt;.log" in page
    assert "{{7*7}}" in page
    data = page.split('id="report">')[1].split("</script>")[0]
    assert json.loads(data) == report.to_dict()


def test_what_must_be_known_is_on_the_page(report: Report) -> None:
    """What is missing from the numbers is said, and found host names stand by their clients."""
    client = report.top["clients"][0][0]
    page = to_html(
        replace(report, partial=True, excluded=17, host_names={client: "crawl-1.example.net"})
    )
    assert "Interrupted" in page
    assert "17 requests were left out by filters." in page
    assert f"{client.decode()}  crawl-1.example.net" in html.unescape(page)
    assert "gone&lt;script&gt;</code>: No such file" in page
    assert "at byte 50: no status of three digits" in page


def test_a_page_of_nothing(tmp_path: Path) -> None:
    """Without a file, or a request, there is a page all the same."""
    (tmp_path / "empty").touch()
    with SerialExecutor() as executor:
        for files in ([], [tmp_path / "empty"]):
            assert "Requests" in to_html(analyze(files, executor))


@pytest.fixture(scope="module")
def browser(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    program = find_chromium()
    if program is None:
        require("chromium", "no Chromium is installed")
    browser = Browser(program, tmp_path_factory.mktemp("chromium"))
    yield browser
    browser.close()


@pytest.fixture(scope="module")
def page(browser: Browser, report: Report, tmp_path_factory: pytest.TempPathFactory) -> Page:
    path = tmp_path_factory.mktemp("written") / "report.html"
    path.write_text(to_html(report), encoding="utf-8")
    return Page(browser, path.as_uri())


@pytest.fixture(scope="module")
def fresh(browser: Browser, page: Page) -> Page:
    """The page once more, for the test that watches it from the beginning."""
    return Page(browser, page.run("location.href"))


def test_charts_are_drawn(page: Page) -> None:
    """Each chart has its bars or cells, of a size that can be seen, in proportion."""
    sizes = page.run(
        """Object.fromEntries(["hours", "days", "week", "statuses"].map(id => [id,
        [...document.querySelectorAll(`#${id} svg rect`)].map(r => {
            const box = r.getBoundingClientRect();
            return [box.width, box.height, Number((r.textContent.match(/: ([\\d,]+)$/) ?? [0, "0"])
                [1].replaceAll(",", ""))];
        })]))"""
    )
    assert len(sizes["week"]) == 7 * 24
    assert all(width > 4 and height > 4 for width, height, _ in sizes["week"])
    for name in ("hours", "days"):
        highest = max(sizes[name], key=lambda row: row[2])
        assert highest[1] > 80
        for width, height, number in sizes[name]:
            assert width > 0.5
            assert height == pytest.approx(highest[1] * number / highest[2], abs=0.1)
    total = sum(number for *_, number in sizes["statuses"])
    whole = page.run("document.querySelector('#statuses svg').getBoundingClientRect().width")
    for width, _, number in sizes["statuses"]:
        assert width == pytest.approx(whole * number / total, abs=1)


def test_every_chart_has_its_table(page: Page, report: Report) -> None:
    """What a chart shows can be read as numbers, and the chart is named for screen readers."""
    tables = page.run(
        """[...document.querySelectorAll("svg[role=img]")].map(svg => [
        document.getElementById(svg.getAttribute("aria-labelledby")).textContent,
        [...svg.closest("section").querySelectorAll("tbody [data-value]")]
            .reduce((sum, cell) => sum + Number(cell.dataset.value), 0)])"""
    )
    assert len(tables) == 3
    for name, total in tables:
        assert name.startswith("Hits")
        assert total == report.requests


COLUMN = """[...document.querySelectorAll('#paths tbody tr')].map(r => r.cells[{}].textContent)"""


def test_tables_sort(page: Page, report: Report) -> None:
    """A click on a heading sorts by it, another one the other way; the heading says which."""
    shown = [f"{number:,}" for _, number in report.top["paths"]]
    assert page.run(COLUMN.format(0)) == shown
    page.click("#paths thead th:last-child button")
    names = page.run(COLUMN.format(3))
    assert names == sorted(names)
    assert page.run("document.querySelector('#paths [aria-sort]').ariaSort") == "ascending"
    page.click("#paths thead th:last-child button")
    assert page.run(COLUMN.format(3)) == names[::-1]
    page.click("#paths thead th:first-child button")
    assert page.run(COLUMN.format(0)) == shown
    assert page.run("[...document.querySelectorAll('#paths [aria-sort]')].length") == 1
    page.click("#paths thead th:first-child button")
    assert page.run(COLUMN.format(0)) == shown[::-1]


BACKGROUND = "getComputedStyle(document.body).backgroundColor"


def test_dark_and_light(page: Page) -> None:
    """The page follows the system, and a switch overrides it."""
    page.media(scheme="light")
    light = page.run(BACKGROUND)
    page.media(scheme="dark")
    dark = page.run(BACKGROUND)
    assert sum(map(int, dark[4:-1].split(","))) < 150 < sum(map(int, light[4:-1].split(",")))
    page.click("#theme")
    assert page.run(BACKGROUND) == light
    page.click("#theme")
    assert page.run(BACKGROUND) == dark
    page.media(scheme="light")
    assert page.run(BACKGROUND) == dark
    page.run("localStorage.clear()")


@pytest.mark.parametrize("width", [320, 700, 1600])
def test_nothing_is_wider_than_the_screen(page: Page, width: int) -> None:
    """On no screen does the page scroll sideways."""
    page.resize(width, 900)
    assert page.run("document.documentElement.scrollWidth") <= width


def test_print(page: Page) -> None:
    """On paper it is black on white, without what can only be clicked."""
    page.media(scheme="dark", kind="print")
    try:
        assert page.run(BACKGROUND) == "rgb(255, 255, 255)"
        assert page.run("getComputedStyle(document.querySelector('.tools')).display") == "none"
    finally:
        page.media()


def test_strangers_text_stays_text(page: Page) -> None:
    """What a log says is shown as it is written there, and is no part of the page."""
    assert page.run("typeof window.stolen") == "undefined"
    assert page.run("document.querySelectorAll('img, #inserted, [onerror], [onload]').length") == 0
    shown = page.run("document.getElementById('not_found').textContent")
    assert "</script></style><script>window.stolen&#32;=" in shown


def test_the_policy_holds(page: Page) -> None:
    """Even a script that got into the page would not run, and an address not be fetched."""
    blocked = page.run(
        """new Promise(done => {
            const seen = [];
            document.addEventListener("securitypolicyviolation", event => {
                seen.push(event.effectiveDirective);
                if (seen.length === 2) done(seen.sort());
            });
            const script = document.createElement("script");
            script.textContent = "window.stolen = 1";
            document.body.append(script);
            const image = document.createElement("img");
            image.src = "http://127.0.0.1:9/";
            document.body.append(image);
        })"""
    )
    assert blocked == ["img-src", "script-src-elem"]
    assert page.run("typeof window.stolen") == "undefined"


def test_no_error_and_no_request(fresh: Page) -> None:
    """Loading and using the page logs nothing, and nothing but the file itself is asked for."""
    fresh.click("#save")
    fresh.click("#clients thead th button")
    fresh.run("document.querySelectorAll('details').forEach(d => d.open = true)")
    for event in ("Log.entryAdded", "Runtime.exceptionThrown", "Runtime.consoleAPICalled"):
        assert fresh.events(event) == []
    asked = {
        r["request"]["url"].split(":")[0]: r for r in fresh.events("Network.requestWillBeSent")
    }
    assert {kind for kind in asked if kind not in ("data", "blob")} == {"file"}
    assert asked["file"]["request"]["url"] == fresh.run("location.href")
