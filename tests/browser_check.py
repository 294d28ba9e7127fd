"""Open a report in a real browser: `make check-report`, with Debian's chromium; not a part of `make test`.

    python tests/browser_check.py [chromium]

A model whose names hold markup is compressed; the page is loaded headless without a network, and what the browser made
of it is asserted: the text, that nothing ran, the pictures' pixels on the screen, and a printed PDF.
"""

import subprocess
import sys
import tempfile
from pathlib import Path

import numpy as np
import onnx
from graphs import graph, random_weights
from pages import Page
from PIL import Image

BLUE = (27, 108, 168)
"""What the pictures fill channels that stay with."""
NAME = "<img src=x onerror=\"document.title='ran'\">"


def browse(browser: str, page: Path, *options: str) -> str:
    """Return what chromium prints."""
    common = ["--headless", "--no-sandbox", "--disable-gpu", "--host-resolver-rules=MAP * ~NOTFOUND"]
    command = [browser, *common, *options, page.as_uri()]
    return subprocess.run(command, check=True, capture_output=True, text=True, timeout=120).stdout


def compressed(folder: Path) -> Path:
    """Return a page about a small model, made by the command line."""
    model = graph("c = Gemm(x, w, k) r = Relu(c) y = Gemm(r, u)", random_weights(w=(4, 64), k=(64,), u=(64, 3)))
    model.graph.node[0].name = NAME
    onnx.save(model, folder / "in.onnx")
    files = [str(folder / name) for name in ("in.onnx", "out.onnx", "out.html")]
    command = [sys.executable, "-m", "onnx_tropnnc", *files[:2], "--ratio", "0.5", "--report", files[2]]
    subprocess.run(command, check=True, capture_output=True)
    return folder / "out.html"


def main() -> None:
    """Raise where something is not as it should be."""
    browser = sys.argv[1] if len(sys.argv) > 1 else "chromium"
    with tempfile.TemporaryDirectory() as folder:
        page = compressed(Path(folder))
        shown = Page.read(browse(browser, page, "--dump-dom"))
        assert "in.onnx: what onnx-tropnnc did" in shown.text, shown.text[:200]
        assert NAME in shown.cells
        assert "img" not in shown.tags
        assert "64 → 32" in shown.cells
        assert shown.text.count(NAME[:10]) >= 2, "in the picture and in the table"
        assert len(shown.captions) == shown.tags.count("table") >= 4
        assert shown.outside == []
        picture = Path(folder) / "page.png"
        browse(browser, page, "--window-size=1000,1600", f"--screenshot={picture}")
        pixels = np.asarray(Image.open(picture).convert("RGB")).reshape(-1, 3)
        filled = int((np.abs(pixels.astype(int) - BLUE).max(axis=1) < 8).sum())
        assert filled > 5000, f"only {filled} pixels of the pictures are to be seen"
        printed = Path(folder) / "page.pdf"
        browse(browser, page, f"--print-to-pdf={printed}")
        assert printed.read_bytes().startswith(b"%PDF")
        assert printed.stat().st_size > 20_000
    print(f"the report is shown as it should be: {filled} pixels of bars, {len(shown.captions)} tables, printed")


if __name__ == "__main__":
    main()
