#!/usr/bin/env bash
# Runs all checks that need a GPU: 25 minutes with verl and vLLM, 10 with only torch and transformers.
# If models/SmolLM2-135M-Instruct exists (scripts/smollm2.py), then also runs the study's real model, up to 15 minutes:
# its results are in FOLDER, and the same command continues with what is left.
#
#   bash scripts/gpu_check.sh [FOLDER]     logs and check.md, to paste into docs/performance.md; default: runs/gpu_check
#
# SSPO_PYTHON: the interpreter; default .venv's, else python3. SSPO_CHECK_DEVICE=cpu: without a GPU, with small sizes.
# A part that fails, or that lacks a package, is listed at the end, and the others still run.
set -uo pipefail
cd "$(dirname "${BASH_SOURCE[0]}")/.."
out=${1:-runs/gpu_check}
device=${SSPO_CHECK_DEVICE:-cuda}
python=${SSPO_PYTHON:-$([[ -x .venv/bin/python ]] && echo .venv/bin/python || echo python3)}
export PYTHONPATH=$PWD PYTHONUNBUFFERED=1
mkdir -p "$out"
table=$out/check.md

has() { "$python" -c "import importlib.util as u, sys; sys.exit(not all(map(u.find_spec, sys.argv[1:])))" "$@"; }

if ! has torch jaxtyping; then
    echo "gpu_check.sh: $python has no torch or no jaxtyping. pip install jaxtyping, or SSPO_PYTHON=PATH." >&2
    exit 2
fi
if [[ $device == cuda ]] && ! "$python" -c 'import sys, torch; sys.exit(not torch.cuda.is_available())'; then
    echo "gpu_check.sh: torch sees no CUDA device. SSPO_CHECK_DEVICE=cpu tries the script without one." >&2
    exit 2
fi

echo -e "| part | result | seconds |\n|---|---|---|" > "$table"
failed=0

# part NAME SECONDS "PACKAGES" COMMAND...: the command's output goes to NAME.txt.
part() {
    local name=$1 limit=$2 needs=$3 began=$SECONDS result
    shift 3
    if [[ -n $needs ]] && ! has $needs; then
        result="not run: needs $needs"
    elif timeout "$limit" "$@" > "$out/$name.txt" 2>&1 < /dev/null; then
        result=passed
    else
        result="FAILED ($?; see $name.txt)"
        failed=1
    fi
    echo "| $name | $result | $((SECONDS - began)) |" | tee -a "$table"
}

# The arguments of the full check, and those for a trial on a CPU.
if [[ $device == cuda ]]; then
    small=() loss=(--seconds 10) entropy=() steps=() shape=() platform=gpu variables=() study=(--grid gpu)
else
    small=(--size 4,64 --seconds 0.05) loss=(--sizes 4,64 --seconds 0.1) entropy=(--tokens 16 --vocabulary 512)
    steps=(trainer.total_training_steps=2 trainer.test_freq=2) platform=cpu
    shape=(--hidden-size 64 --intermediate-size 128 --layers 2 --heads 2) study=(--grid one_core --most 1)
    variables=(OMP_NUM_THREADS=1 VLLM_CPU_OMP_THREADS_BIND=nobind TORCHDYNAMO_DISABLE=1)
fi
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
shaped=(
    env HF_HUB_OFFLINE=1 "${variables[@]}" "SSPO_START_DIR=$work/shaped" "SSPO_RUN_DIR=$work/shaped_run"
    "VERL_FILE_LOGGER_PATH=$out/shaped_1_5b.jsonl" "$python" -m verl.trainer.main_ppo
    --config-path "$PWD/recipes" --config-name quickstart algorithm=sspo "platform=$platform"
    trainer.total_training_steps=2 trainer.test_freq=-1 trainer.save_freq=-1 trainer.val_before_train=false
)

part bits 300 "pytest beartype" "$python" -m pytest -q tests/method/test_determinism.py
part method 600 "" "$python" -m benchmarks.device --device "$device" "${small[@]}"
part entropy 300 "" "$python" benchmarks/entropy.py --device "$device" "${entropy[@]}"
part segments 300 "transformers" "$python" benchmarks/segments.py --device "$device" --threads 1 "${small[@]}"
part loss 300 "verl" "$python" benchmarks/loss.py --device "$device" --threads 1 --settings "${loss[@]}"
part quickstart 900 "verl vllm" "$python" -m sspo_verl.tools.quickstart.command --runs "$work/runs" "${steps[@]}"
part shaped_model 120 "transformers" "$python" scripts/shaped_model.py "$work/shaped" "${shape[@]}"
part shaped_1_5b 600 "verl vllm" "${shaped[@]}"
if [[ -d ${SSPO_MODEL:-models/SmolLM2-135M-Instruct} ]]; then
    part study 900 "transformers yaml" "$python" -m benchmarks.study run smollm2 "${study[@]}" --device "$device" --results "$out"
else
    echo "| study | not run: python scripts/smollm2.py makes its model | 0 |" | tee -a "$table"
fi

for name in method entropy segments loss; do
    [[ -s $out/$name.txt ]] && echo -e "\n### $name\n\n$(cat "$out/$name.txt")"
done >> "$table"
echo "Written: $table"
exit "$failed"
