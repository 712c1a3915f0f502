"""`make picture`: docs/page.png, the page of the demonstration's runs (build/demo, by `make demo`) as headless Chromium shows
it, with an item of MMLU opened that has a wrong answer."""

from __future__ import annotations

import subprocess
import sys
import tempfile
from pathlib import Path

ROOT = Path(__file__).resolve().parents[1]
sys.path.insert(0, str(ROOT / "tests"))

from browser import Browser  # noqa: E402

PICTURE = ROOT / "docs" / "page.png"
RESULTS = ROOT / "build" / "demo"


def main() -> int:
    """Makes the page, opens it, and stores what the window shows."""
    if not (RESULTS / "mmlu.csv").exists():
        print(f"there is no {RESULTS.relative_to(ROOT)}; run make demo", file=sys.stderr)
        return 2
    with tempfile.TemporaryDirectory() as folder:
        page = Path(folder) / "page.html"
        command = [sys.executable, "eval/report.py", "--results", str(RESULTS), "--html", str(page)]
        subprocess.run(command, cwd=ROOT, check=True, stdout=subprocess.DEVNULL)
        tab = Browser()
        try:
            tab.media(dark=False, width=1280, height=860)
            tab.open(page)
            for box, value in (("benchmark", "mmlu"), ("status", "wrong")):
                tab.run(
                    f"(box => {{ box.value = '{value}'; box.dispatchEvent(new Event('change')) }})"
                    f"(document.getElementById('{box}'))"
                )
            tab.screenshot(PICTURE)
        finally:
            tab.close()
    print(f"{PICTURE.relative_to(ROOT)}: {PICTURE.stat().st_size / 1e3:.0f} kB")
    return 0


if __name__ == "__main__":
    sys.exit(main())
