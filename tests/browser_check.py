"""Open reports in a real browser: `make check-report`, with Debian's chromium; not a part of `make test`.

    python tests/browser_check.py chromium [axe.min.js]

A model whose names hold markup is compressed, inspected and swept. Each page is loaded headless without a network, at
400 and at 1,280 pixels, light and dark. What the browser made of it is asserted: the text, that nothing of a name ran,
that nothing is wider than the window, that text stands out from what is behind it, that sorting works, and a printed
PDF. With axe-core (npm's package) its rules for accessibility are checked, too.
"""

import html
import itertools
import json
import re
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

import onnx
from graphs import graph, random_weights
from pages import Page

NAME = "<img src=x onerror=\"document.title='ran'\">"

# Chromium's names of the two values of prefers-color-scheme.
SCHEMES = {"dark": 0, "light": 1}

# A phone held upright, and the width of a small laptop.
WIDTHS = (400, 1280)

PROBE = """
<script>
const channel = (v) => (v /= 255) <= 0.04045 ? v / 12.92 : ((v + 0.055) / 1.055) ** 2.4;
const light = ([r, g, b]) => 0.2126 * channel(r) + 0.7152 * channel(g) + 0.0722 * channel(b);
const numbers = (colour) => colour.match(/[\\d.]+/g).map(Number);
function behind(element) {
  for (let e = element; e; e = e.parentElement) {
    const found = numbers(getComputedStyle(e).backgroundColor);
    if (found.length < 4 || found[3] > 0) return found;
  }
  return [255, 255, 255];
}
function faint() {
  const found = [];
  for (const e of document.querySelectorAll("main *")) {
    if (![...e.childNodes].some((n) => n.nodeType === 3 && n.textContent.trim()) || e.tagName === "title") continue;
    const style = getComputedStyle(e);
    const [a, b] = [light(numbers(e.closest("svg") ? style.fill : style.color)), light(behind(e))];
    const ratio = (Math.max(a, b) + 0.05) / (Math.min(a, b) + 0.05);
    if (ratio < 4.5) found.push(`${e.tagName} ${e.textContent.slice(0, 30)}: ${ratio.toFixed(2)}`);
  }
  return found;
}
addEventListener("load", async () => {
  const root = document.documentElement;
  const found = { width: innerWidth, content: root.scrollWidth, title: document.title, sorted: [], axe: [] };
  found.faint = faint();
  found.dark = matchMedia("(prefers-color-scheme: dark)").matches;
  const button = document.querySelector("table.sortable th button");
  for (const _ of [1, 2]) {
    button.click();
    found.sorted.push(button.parentElement.getAttribute("aria-sort"));
  }
  for (const part of document.querySelectorAll("details")) part.open = true;
  found.opened = root.scrollWidth;
  if (window.axe) {
    const result = await axe.run(document, { resultTypes: ["violations"] });
    found.axe = result.violations.map((v) => `${v.id}: ${v.nodes.map((n) => n.html.slice(0, 80)).join(" | ")}`);
  }
  parent.postMessage(JSON.stringify(found), "*");
});
</script>
"""
"""Measures the page and sends what it found to the page around it."""

FRAME = """<!doctype html>
<html lang="en" style="color-scheme: light dark">
<title>frame</title>
<script>
addEventListener("message", (event) => {
  const out = document.createElement("pre");
  out.id = "probe";
  out.textContent = event.data;
  document.body.append(out);
});
</script>
<body><iframe src="SOURCE" style="width: WIDTHpx; height: 900px; border: 0"></iframe></body>
</html>
"""
"""Shows a page as wide as a window would: windows of chromium are at least 500 pixels wide."""


def browse(browser: str, page: Path, *options: str) -> str:
    """Return what chromium prints."""
    common = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command = [browser, *common, *options, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def pages(folder: Path) -> dict[str, Path]:
    """Return pages about a small model, made by the command line."""
    model = graph("c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u)", random_weights(w=(4, 64), k=(64,), u=(64, 3)))
    model.graph.node[0].name = NAME
    onnx.save(model, folder / "in.onnx")
    commands = {
        "report": ["out.onnx", "--ratio", "0.5"],
        "inspection": ["--inspect"],
        "curve": ["--sweep", "0.2:0.6:0.2", "--method", "tropnnc", "--method", "l1", "--reconstruct", "off"],
    }
    for name, words in commands.items():
        command = [sys.executable, "-m", "onnx_tropnnc", "in.onnx", *words, "--report", f"{name}.html"]
        subprocess.run(command, check=True, capture_output=True, cwd=folder)
    return {name: folder / f"{name}.html" for name in commands}


def probed(browser: str, page: Path, width: int, scheme: str, axe: str) -> dict[str, Any]:
    """Return what the probe measured in a copy of the page."""
    copy = page.with_name(f"probed-{page.name}")
    text = page.read_text(encoding="utf-8")
    copy.write_text(text.replace("</body>", f"<script>{axe}</script>{PROBE}</body>"), encoding="utf-8")
    frame = page.with_name("frame.html")
    frame.write_text(FRAME.replace("SOURCE", copy.name).replace("WIDTH", str(width)), encoding="utf-8")
    options = "--window-size=1600,1000", f"--blink-settings=preferredColorScheme={SCHEMES[scheme]}"
    shown = browse(browser, frame, *options, "--virtual-time-budget=20000", "--dump-dom")
    found = re.search(r'<pre id="probe">(.*?)</pre>', shown, re.S)
    assert found, f"{page.name} at {width} pixels, {scheme}: the probe wrote nothing"
    measured: dict[str, Any] = json.loads(html.unescape(found[1]))
    return measured


def check(browser: str, page: Path, width: int, scheme: str, axe: str) -> None:
    """Raise where the page is not as it should be at this width in this scheme."""
    found = probed(browser, page, width, scheme, axe)
    where = f"{page.name} at {width} pixels, {scheme}"
    assert found["width"] == width, f"{where}: the window is {found['width']} pixels wide"
    assert found["dark"] is (scheme == "dark"), f"{where}: the browser shows the other scheme"
    assert max(found["content"], found["opened"]) <= width, (
        f"{where}: {found['content']}, opened {found['opened']} pixels"
    )
    assert found["title"].startswith("in.onnx: "), f"{where}: the title is {found['title']}"
    assert found["sorted"] == ["descending", "ascending"], f"{where}: sorting gives {found['sorted']}"
    assert not found["faint"], f"{where}: contrast below 4.5: {found['faint']}"
    assert not found["axe"], f"{where}: axe-core says {found['axe']}"


def main() -> None:
    """Raise where something is not as it should be."""
    browser, *more = sys.argv[1:] or ["chromium"]
    axe = Path(more[0]).read_text(encoding="utf-8") if more else ""
    with tempfile.TemporaryDirectory() as folder:
        found = pages(Path(folder))
        for page, width, scheme in itertools.product(found.values(), WIDTHS, SCHEMES):
            check(browser, page, width, scheme, axe)
        shown = Page.read(browse(browser, found["report"], "--dump-dom"))
        assert NAME in shown.cells
        assert "img" not in shown.tags
        assert shown.text.count(NAME[:10]) >= 2, "in the picture and in the table"
        assert len(shown.captions) == shown.tags.count("table") >= 4
        assert shown.outside == []
        printed = Path(folder) / "page.pdf"
        browse(browser, found["report"], f"--print-to-pdf={printed}")
        assert printed.read_bytes().startswith(b"%PDF")
        assert printed.stat().st_size > 20_000
    rules = "with axe-core's rules" if axe else "without axe-core"
    print(f"{len(found)} pages are as they should be at {WIDTHS} pixels, light and dark, {rules}, and printed")


if __name__ == "__main__":
    main()
