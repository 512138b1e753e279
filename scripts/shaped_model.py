"""The quickstart's data with a random model of another size: python scripts/shaped_model.py FOLDER [--layers 28]

For runs that measure memory and speed, not learning: set SSPO_START_DIR=FOLDER. The defaults have the width and depth
of Qwen2.5-Math-1.5B, 1.4 billion parameters, with the quickstart's 259 tokens instead of its vocabulary.
"""

import argparse
from pathlib import Path

from sspo_verl.tools.quickstart import model, tokenizer
from sspo_verl.tools.tasks import arithmetic

QWEN_1_5B = model.Architecture(hidden_size=1536, intermediate_size=8960, layers=28, heads=12)

parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
parser.add_argument("folder", type=Path)
for name in ("hidden_size", "intermediate_size", "layers", "heads"):
    parser.add_argument(f"--{name.replace('_', '-')}", type=int, default=getattr(QWEN_1_5B, name))
given = vars(parser.parse_args())
folder = given.pop("folder")
tokens = tokenizer.build()
made = model.new_model(tokens, model.Architecture(**given))
model.save(made, tokens, folder / "model")
arithmetic.write_parquet(folder / "data")
print(f"{folder}: {sum(p.numel() for p in made.parameters()):,} parameters")
