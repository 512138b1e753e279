"""Memory use of `sspo analyze` on a large file: python benchmarks/analyze_memory.py [--gib 1]

Makes a JSONL (or parquet) file of responses in a temporary folder, runs the command on it in a separate process, and
prints the time and the largest resident set of that process. Exit code 1 if that is over 1 GB.
"""

from __future__ import annotations

import argparse
import json
import random
import resource
import subprocess
import sys
import tempfile
import time
from pathlib import Path

ALLOWED = 10**9  # bytes
TEXT = "so we have that the sum of x and y is even, which gives n = 2k + 1 for some integer k ≥ 0 and hence"


def responses(size: int, long_line: int):
    """Rows of about `size` bytes in total, one of them with a text of `long_line` bytes."""
    rng = random.Random(0)
    lines = [
        " ".join(rng.choices(TEXT.split(), k=rng.randint(3, 20))) + rng.choice((".\n", "\n", "\n\n"))
        for _ in range(5000)
    ]
    done = 0
    while done < size:
        parts = rng.choices(lines, k=rng.randint(1, 80))
        if long_line and done > size // 2:
            parts = rng.choices(lines, k=long_line // 60)
            long_line = 0
        row = {"input": "?", "output": "".join(parts), "score": float(rng.random() < 0.3), "step": 0}
        done += len(json.dumps(row, ensure_ascii=False).encode()) + 1
        yield row


def write(path: Path, size: int, long_line: int) -> None:
    if path.suffix == ".jsonl":
        with open(path, "w") as file:
            file.writelines(json.dumps(row, ensure_ascii=False) + "\n" for row in responses(size, long_line))
        return
    import pyarrow
    import pyarrow.parquet

    writer, part = None, []
    for row in responses(size, long_line):
        part.append(row)
        if len(part) == 20_000:
            table = pyarrow.Table.from_pylist(part)
            writer = writer or pyarrow.parquet.ParquetWriter(
                path, table.schema, compression="none", use_dictionary=False
            )
            writer.write_table(table)
            part = []
    table = pyarrow.Table.from_pylist(part)
    writer = writer or pyarrow.parquet.ParquetWriter(path, table.schema, compression="none", use_dictionary=False)
    writer.write_table(table)
    writer.close()


def main() -> int:
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gib", type=float, default=1.0, help="size of the file")
    parser.add_argument("--long-line", type=int, default=50, help="MiB of the one long response; 0: none")
    parser.add_argument("--parquet", action="store_true")
    parser.add_argument("--model", help="folder with a tokenizer; default: the quickstart's, a token for each byte")
    args = parser.parse_args()

    with tempfile.TemporaryDirectory() as folder:
        model = args.model
        if model is None:
            from sspo_verl.tools.quickstart.tokenizer import build

            model = str(Path(folder) / "model")
            build().save_pretrained(model)
        path = Path(folder) / ("responses.parquet" if args.parquet else "responses.jsonl")
        write(path, int(args.gib * 2**30), args.long_line * 2**20)
        print(f"{path.stat().st_size / 10**9:.2f} GB of {path.suffix[1:]}")
        start = time.monotonic()
        command = [sys.executable, "-m", "sspo_verl.tools", "analyze", str(path), "--model", model, "--json"]
        run = subprocess.run(command, check=True, capture_output=True, text=True)
        seconds = time.monotonic() - start

    print(run.stderr, end="")
    total = json.loads(run.stdout)["all"]
    print(f"{total['responses']:,} responses, {total['tokens_per_segment']['n']:,} segments", end=", ")
    print(f"the longest response {total['tokens_per_response']['max']:,} tokens")
    peak = resource.getrusage(resource.RUSAGE_CHILDREN).ru_maxrss * 1024
    print(f"{seconds:.0f} s, largest resident set {peak / 10**9:.2f} GB")
    return int(peak > ALLOWED)


if __name__ == "__main__":
    sys.exit(main())
