"""docs/method.md beside the code, and the example without verl."""

import json
import re
import subprocess
import sys
from pathlib import Path

ROOT = Path(__file__).parents[2]


def test_each_equation_has_one_line_of_code_and_the_docs_quote_it():
    marked = re.findall(r"^ +(.+?)  # (\(\d\))$", (ROOT / "sspo_verl" / "loss.py").read_text(), re.MULTILINE)
    quoted = re.findall(
        r"^\| (\(\d\)) \|.*\| `(.+?)` \|[^|]+\|$", (ROOT / "docs" / "method.md").read_text(), re.MULTILINE
    )
    assert [number for number, _ in quoted] == ["(1)", "(2)", "(3)", "(4)", "(5)"]
    assert quoted == [(number, line) for line, number in marked]


def test_the_example_learns_and_does_not_need_verl():
    script = (
        "import json, runpy, sys; sys.modules['verl'] = None; "  # import verl would raise
        "print(json.dumps(runpy.run_path('examples/own_loop.py')['main']()))"
    )
    done = subprocess.run([sys.executable, "-c", script], cwd=ROOT, capture_output=True, text=True, timeout=900)
    assert done.returncode == 0, done.stderr[-4000:]
    history = json.loads(done.stdout)
    assert history[0] < 0.3
    assert history[-1] > 0.9
