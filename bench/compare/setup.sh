#!/usr/bin/env bash
# Makes the virtual environment of the comparison scripts: PyTorch, galore-torch, bitsandbytes and torchao, from the package
# index that pip is set up for. Runs again without harm.
#   LOWRANK_COMPARE_VENV     where it is (default build/compare-venv)
#   LOWRANK_COMPARE_PYTHON   which Python makes it (default python3)
#   LOWRANK_COMPARE_FULL=1   let torch bring its own CUDA libraries
set -euo pipefail

root=$(cd "$(dirname "${BASH_SOURCE[0]}")/../.." && pwd)
venv=${LOWRANK_COMPARE_VENV:-$root/build/compare-venv}
base_python=${LOWRANK_COMPARE_PYTHON:-python3}
python=$venv/bin/python

refuse() {
    printf 'bench/compare/setup.sh: cannot set up the comparison: %s\n' "$1" >&2
    printf 'Nothing else in this project needs it.\n' >&2
    exit 1
}

report() {
    "$python" - <<'PYTHON'
import importlib.metadata as metadata
import platform
import torch  # must load, not only be installed

packages = ("torch", "numpy", "galore-torch", "bitsandbytes", "torchao")
print(f"python {platform.python_version()}", *(f"{name} {metadata.version(name)}" for name in packages), sep=", ")
PYTHON
}

ready() {
    [ -x "$python" ] && PYTHONPATH="$root/bench/compare" PYTHONDONTWRITEBYTECODE=1 \
        "$python" - <<'PYTHON'
import bitsandbytes
import galore_package
import numpy
import torch
import torchao

assert torch.__version__.startswith("2.11.0"), torch.__version__
assert bitsandbytes.__version__ == "0.50.2", bitsandbytes.__version__
assert torchao.__version__.startswith("0.18.0"), torchao.__version__
galore_package.load()
PYTHON
}

if ready >/dev/null 2>&1; then
    report
    exit 0
fi

[ "$(uname -sm)" = "Linux x86_64" ] || refuse "the recipe is for Linux on x86-64, this is $(uname -sm)"
command -v "$base_python" >/dev/null ||
    refuse "no $base_python; install python3 and python3-venv, or set LOWRANK_COMPARE_PYTHON"
"$base_python" -c 'import sys; sys.exit(not (3, 10) <= sys.version_info[:2] <= (3, 13))' ||
    refuse "torch 2.11.0 needs Python 3.10 to 3.13, $base_python is $("$base_python" -V 2>&1)"
mkdir -p "$(dirname "$venv")" || refuse "cannot create $(dirname "$venv")"
space_gib=$(($(df -Pk "$(dirname "$venv")" | awk 'NR == 2 {print $4}') / 1024 / 1024))
[ "$space_gib" -ge 5 ] || refuse "it needs 5 GiB of disk, $(dirname "$venv") has $space_gib"
[ -x "$python" ] && "$python" -m pip --version >/dev/null 2>&1 || "$base_python" -m venv "$venv" ||
    refuse "$base_python -m venv failed; on Debian: apt install python3-venv"

install() {
    "$python" -m pip install --quiet --disable-pip-version-check "$@" || refuse "pip could not install: $*"
}

# torch's published Linux wheel is the CUDA one and would bring gigabytes of CUDA libraries that a CPU measurement
# never calls; the loader only has to find them. So: the wheel alone, three libraries that a CUDA 13.0 toolkit lacks (at
# the versions that the wheel names), the rest from the machine's toolkit, and torch's pure Python requirements.
if [ "${LOWRANK_COMPARE_FULL:-0}" = 1 ]; then
    install numpy torch==2.11.0
else
    install numpy filelock 'typing-extensions>=4.10' 'setuptools<82' \
        'sympy>=1.13.3' 'networkx>=2.5.1' jinja2 'fsspec>=0.8.5'
    install --no-deps torch==2.11.0 'nvidia-cufile==1.15.1.*' nvidia-cusparselt-cu13==0.8.0 nvidia-nvshmem-cu13==3.4.5
fi
install --no-deps bitsandbytes==0.50.2 torchao==0.18.0 packaging safetensors
install --no-deps galore-torch==1.0 # its other requirements take no part in GaLoreAdamW; see galore_package.py

if ! reason=$(ready 2>&1); then
    case $reason in
    *"cannot open shared object file"*)
        refuse "torch does not load: $(tail -n 1 <<<"$reason")
Install the CUDA 13.0 toolkit with cuDNN 9 and NCCL, or run again with LOWRANK_COMPARE_FULL=1 (several GB more)."
        ;;
    *) refuse "the packages are installed but do not load: $reason" ;;
    esac
fi
report
