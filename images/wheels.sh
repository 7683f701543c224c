#!/usr/bin/env bash
# Collect what images are built from: wheels for the Python of the base image, by the pip of this machine
# with whatever index, proxy and certificates it is configured for.
# usage: wheels.sh PIP CONTEXT PYTHON_VERSION TORCH_INDEX
set -euo pipefail
pip=$1 context=$2 version=$3 torch_index=$4
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
root=$(dirname "$here")
third=$context/third-party

mkdir -p "$third"
cp "$root/constraints.txt" "$here/install.sh" "$context"
cp "$here"/requirements/*.txt "$third"
target=(--only-binary :all: --implementation cp --python-version "$version")
# One tag for each glibc: pip takes none that is not named, and CUDA's wheels come with many.
for glibc in {28..17}; do target+=(--platform "manylinux_2_${glibc}_x86_64"); done
target+=(--platform manylinux2014_x86_64)
fetch() { "$pip" download --quiet -c "$root/constraints.txt" "${target[@]}" --dest "$third" --find-links "$third" "$@"; }

# torch first and alone: only its index is asked for the CPU build, and later look-ups find the file.
echo "PyTorch, from ${torch_index:-wherever pip finds it} ..."
if [ -n "$torch_index" ]; then
  fetch --quiet --retries 1 --timeout 15 --no-deps --index-url "$torch_index" -r "$here/requirements/torch.txt" 2>/dev/null || {
    echo "error: no PyTorch for the CPU at $torch_index; TORCH_INDEX=... names another place (empty: wherever pip looks), TORCH=cuda takes the large build" >&2
    exit 2
  }
else
  fetch --no-deps -r "$here/requirements/torch.txt"
fi
echo "What it and unio4 need: some minutes the first time ..."
fetch --no-deps -r "$here/requirements/executor.txt"
sets=()
for name in core sim data torch report; do sets+=(-r "$here/requirements/$name.txt"); done
fetch "${sets[@]}"
rm -rf "$context/unio4" "$root/build/lib"  # of an earlier build: files that are gone would be in the wheel
"$pip" wheel --quiet --no-deps --wheel-dir "$context/unio4" "$root"
