#!/usr/bin/env bash
# Creates `.venv` at the top of the checkout from the pinned versions in requirements/, and installs this package in it.
# A correct environment is left as it is; any other is repaired or created again.
#
#   bash scripts/env.sh            what training needs
#   bash scripts/env.sh --test     also what the tests need
#
# PYTHON=/path/to/python3.11   the Python to use (3.11 or 3.12)
# SSPO_PLATFORM=cpu|cuda       instead of detecting whether the machine has an NVIDIA GPU
# SSPO_TORCH_INDEX=URL         the index for the CPU build of torch, if pip's own settings do not lead to it
#
# This file finds a Python and chooses the platform; the rest is env.py.
set -euo pipefail
root=$(cd "$(dirname "${BASH_SOURCE[0]}")/.." && pwd -P)

if [[ $(uname -sm) != "Linux x86_64" ]]; then
    echo "env: the pinned versions are for Linux on x86_64, and this is $(uname -sm). Install verl as its documentation" \
        "says, and then this package (pip install '.[math,tools]')." >&2
    exit 1
fi
case ${SSPO_PLATFORM:=} in
    cpu | cuda) ;;
    "") # nvidia-smi can take seconds: it is only run if there is no device file (as in WSL)
        SSPO_PLATFORM=cpu
        if compgen -G "/dev/nvidia[0-9]*" >/dev/null || timeout 30 nvidia-smi -L 2>/dev/null | grep "GPU " >/dev/null; then
            SSPO_PLATFORM=cuda
        fi ;;
    *)
        echo "env: SSPO_PLATFORM=$SSPO_PLATFORM: set it to cpu or cuda, or unset it to go by what the machine has." >&2
        exit 2 ;;
esac
export SSPO_PLATFORM

# Exit status 0 if this Python can create the environment; else prints why not.
check() {
    local found
    # It has to be run to find out: a name on the PATH may be a shim that leads nowhere.
    if ! found=$("$1" -I -S -c 'import sys, importlib.util as u
print("%d.%d" % sys.version_info[:2], u.find_spec("ensurepip") is not None)' 2>/dev/null); then
        echo "$1: is missing, or does not run"
        return 1
    fi
    case $found in
        "3.11 True" | "3.12 True") ;;
        "3.11 False" | "3.12 False") echo "$1: has no module ensurepip" && return 1 ;;
        *) echo "$1: is ${found% *}" && return 1 ;;
    esac
}

candidates=("$root/.venv/bin/python" python3.11 python3.12 python3)
if [[ -n ${PYTHON:-} ]]; then
    candidates=("$PYTHON")
fi
tried=()
for python in "${candidates[@]}"; do
    if reason=$(check "$python"); then
        exec "$python" -E -s -S "$root/scripts/env.py" "$@"
    fi
    [[ $python == "$root"/* ]] || tried+=("$reason")
done

{
    echo "env: no suitable Python. The pinned packages need Python 3.11 or 3.12, with its modules venv and ensurepip. Tried:"
    printf 'env:   %s\n' "${tried[@]}"
    echo "env: Install one (Debian, Ubuntu: python3.11 and python3.11-venv, or the same of 3.12; without root: conda, pyenv),"
    echo "env: or name the one to use: PYTHON=/path/to/python3.11 bash scripts/env.sh"
} >&2
exit 1
