"""The pages in a real browser: nothing asked for, nothing complained of, everything drawn, at any width."""

from collections.abc import Iterator
from pathlib import Path

import pytest

pytest.importorskip("websocket", reason="websocket-client is not installed")

from browser import CHROMIUM, Browser, browser
from made_records import make_run, write_report

from unio4_lib.report.comparison import write_comparison

pytestmark = pytest.mark.skipif(CHROMIUM is None, reason="no Chromium on this machine")

WIDTHS = (1280, 390)
# What is wider than the window, except inside of what scrolls by itself.
TOO_WIDE = """[...document.querySelectorAll('body *')].filter(e => !e.closest('.scroll, pre, svg, .tip')
  && e.getBoundingClientRect().right > innerWidth + 1).map(e => e.tagName + '.' + e.className)"""
# Pictures that are shown and have marks with a place.
DRAWN = """[...document.querySelectorAll('svg.chart')].filter(e => e.getBoundingClientRect().width > 100)
  .map(e => [...e.querySelectorAll('circle, polyline, rect, .interval')]
    .filter(m => { const b = m.getBBox(); return b.width + b.height > 0; }).length)"""
# How much smaller or larger than meant the text of each shown picture is.
SHRUNK = """[...document.querySelectorAll('svg.chart')].filter(e => e.getBoundingClientRect().width > 0)
  .map(e => e.getBoundingClientRect().width / e.viewBox.baseVal.width).filter(s => s < 0.8 || s > 1.3)"""
# Text of pictures that leaves the page or their picture at the sides.
CUT_TEXT = """[...document.querySelectorAll('svg.chart text')]
  .filter(t => t.textContent && t.getClientRects().length)
  .filter(t => { const b = t.getBoundingClientRect(); return b.left < -1 || b.right > innerWidth + 1; })
  .map(t => t.textContent)"""


@pytest.fixture(scope="module")
def tab(tmp_path_factory: pytest.TempPathFactory) -> Iterator[Browser]:
    with browser(tmp_path_factory.mktemp("profile")) as found:
        yield found


@pytest.fixture(scope="module")
def pages(tmp_path_factory: pytest.TempPathFactory) -> dict[str, Path]:
    folder = tmp_path_factory.mktemp("pages")
    made = {name: folder / f"{name}.html" for name in ("whole", "bare", "comparison")}
    write_report(make_run(), made["whole"])
    write_report(make_run(with_facts=False), made["bare"])
    write_comparison([make_run(seed=seed, online=250.0 + 40 * seed) for seed in range(5)], made["comparison"])
    return made


@pytest.mark.parametrize("scheme", ["light", "dark"])
@pytest.mark.parametrize("width", WIDTHS)
@pytest.mark.parametrize("name", ["whole", "bare", "comparison"])
def test_a_page_is_quiet_whole_and_fits(
    name: str, width: int, scheme: str, tab: Browser, pages: dict[str, Path]
) -> None:
    tab.open(pages[name], width=width, scheme=scheme)
    assert tab.complaints == []
    assert tab.requests == [pages[name].resolve().as_uri()]
    assert tab.evaluate("document.documentElement.scrollWidth") <= width
    assert tab.evaluate(TOO_WIDE) == []
    assert tab.evaluate(CUT_TEXT) == []
    assert tab.evaluate(SHRUNK) == []
    marks = tab.evaluate(DRAWN)
    assert len(marks) >= {"whole": 12, "bare": 7, "comparison": 3}[name]
    assert min(marks) > 0


@pytest.mark.parametrize("scheme", ["light", "dark"])
def test_text_can_be_read(scheme: str, tab: Browser, pages: dict[str, Path]) -> None:
    """Contrast of at least 4.5 to the background for everything that is text (WCAG AA)."""
    tab.open(pages["whole"], width=1280, scheme=scheme)
    worst = tab.evaluate(
        """(() => {
          const light = c => { const [r, g, b] = c.match(/[0-9.]+/g).map(v => { v /= 255;
            return v <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4; });
            return 0.2126 * r + 0.7152 * g + 0.0722 * b; };
          const paper = light(getComputedStyle(document.body).backgroundColor);
          const ratio = c => { const l = light(c);
            return (Math.max(l, paper) + 0.05) / (Math.min(l, paper) + 0.05); };
          const faults = new Set();
          const texts = 'p, h1, h2, td, th, figcaption, .phase, .value, .under, .mark';
          for (const e of document.querySelectorAll(texts))
            if (ratio(getComputedStyle(e).color) < 4.5) faults.add(e.tagName + '.' + e.className);
          for (const e of document.querySelectorAll('svg text:not(.label)'))
            if (ratio(getComputedStyle(e).fill) < 4.5) faults.add('text.' + e.getAttribute('class'));
          return [...faults];
        })()"""
    )
    assert worst == []


def test_words_appear_at_the_pointer(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["whole"], width=1280)
    place = tab.evaluate(
        """(async () => { const mark = [...document.querySelectorAll('.wide circle[data-tip]')]
          .find(m => m.dataset.tip.startsWith('Offline'));
          mark.scrollIntoView({block: 'center', behavior: 'instant'});
          await new Promise(done => setTimeout(done, 200));  // scrolling hides the words, too
          const b = mark.getBoundingClientRect();
          return [b.x + b.width / 2, b.y + b.height / 2]; })()"""
    )
    tab.call("Input.dispatchMouseEvent", type="mouseMoved", x=place[0], y=place[1])
    shown = "document.querySelector('.tip.shown')?.textContent"
    assert tab.evaluate(shown).replace("\N{NO-BREAK SPACE}", " ") == "Offline: 200 ± 5"


def test_the_command_can_be_copied_or_is_selected(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["whole"], width=1280)
    said = tab.evaluate(
        """(async () => { const button = document.querySelector('button'); button.click();
          await new Promise(done => setTimeout(done, 200)); return button.textContent; })()"""
    )
    assert said in ("Copied", "Selected")


def test_it_prints_without_what_only_screens_need(tab: Browser, pages: dict[str, Path]) -> None:
    tab.open(pages["whole"], width=700, media="print")
    assert tab.evaluate("getComputedStyle(document.querySelector('nav')).display") == "none"
    assert tab.evaluate("getComputedStyle(document.querySelector('.wide')).display") == "block"
    assert tab.evaluate("getComputedStyle(document.querySelector('.narrow')).display") == "none"


def test_a_script_that_slipped_in_would_not_run(tab: Browser, pages: dict[str, Path], tmp_path: Path) -> None:
    """The page's own policy refuses every script but ours."""
    source = pages["whole"].read_text().replace("</main>", "<script>window.slipped = 1</script></main>")
    (tmp_path / "slipped.html").write_text(source)
    tab.open(tmp_path / "slipped.html", width=1280)
    assert tab.evaluate("window.slipped") is None
    assert tab.complaints
