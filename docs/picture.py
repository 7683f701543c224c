"""The README's picture: the first screens of a run's report, as headless Chromium draws them.

python docs/picture.py runs/latest docs/images/report.png
"""

import argparse
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path

from PIL import Image

BROWSERS = ("chromium", "chromium-browser", "google-chrome")
WIDTH, HEIGHT, SCALE = 1100, 1010, 1.5
COLORS = 96  # a palette: text and charts lose nothing that is seen, and the file becomes small
MOST_BYTES = 300_000


def take_picture(page: Path, target: Path, height: int) -> None:
    """Draw the top of the page into a small PNG."""
    program = next(filter(None, map(shutil.which, BROWSERS)), None)
    if program is None:
        sys.exit(f"error: no browser; expected one of {', '.join(BROWSERS)}")
    if not page.is_file():
        sys.exit(f"error: {page}: no such file; expected the report of a finished run (make run)")
    with tempfile.TemporaryDirectory() as folder:
        shot = Path(folder) / "page.png"
        options = ["--headless=new", "--no-sandbox", "--disable-gpu", "--hide-scrollbars", "--no-first-run"]
        options += [f"--user-data-dir={folder}/profile", f"--window-size={WIDTH},{height}"]
        options += [f"--force-device-scale-factor={SCALE}", f"--screenshot={shot}", page.resolve().as_uri()]
        subprocess.run([program, *options], check=True, capture_output=True, timeout=120)
        target.parent.mkdir(parents=True, exist_ok=True)
        with Image.open(shot) as picture:
            picture.convert("RGB").quantize(COLORS).save(target, optimize=True)
    size = target.stat().st_size
    if size > MOST_BYTES:
        sys.exit(f"error: {target}: {size} bytes; expected at most {MOST_BYTES} (a smaller --height)")


if __name__ == "__main__":
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("run", type=Path, help="a run's folder")
    parser.add_argument("target", type=Path, help="the PNG")
    parser.add_argument("--height", type=int, default=HEIGHT, help="how much of the page is shown")
    given = parser.parse_args()
    take_picture(given.run / "report.html", given.target, given.height)
