#!/bin/sh
# Inside a build: install one set of wheels below /opt, without what the core has already.
set -eu
set_name=$1
python=/opt/unio4/bin/python
site=$("$python" -c 'import sysconfig; print(sysconfig.get_path("purelib"))')
pip="/opt/pip/bin/python -m pip --disable-pip-version-check --no-cache-dir --python $python"
offline="--no-index --find-links /build/wheels --only-binary :all: --quiet"

case $set_name in
core)
    $pip install $offline -c /build/constraints.txt -r /build/wheels/core.txt
    $pip install $offline -c /build/constraints.txt -r /build/wheels/executor.txt --no-deps
    # Folders that an image lacks are passed over.
    printf '%s\n' /opt/app /opt/torch /opt/sim /opt/data /opt/report > "$site/unio4-folders.pth"
    ln -s /opt/app/bin/unio4 /opt/unio4/bin/unio4
    ;;
unio4)
    $pip install $offline --no-deps --target /opt/app unio4
    ;;
*)
    folder=/opt/$set_name
    $pip install $offline -c /build/constraints.txt -r "/build/wheels/$set_name.txt" --target "$folder"
    for entry in "$folder"/*; do
        if [ -e "$site/${entry##*/}" ]; then rm -rf "$entry"; fi
    done
    rm -rf "$folder/bin"
    # For compiling against these; there is no compiler here.
    rm -rf "$folder/torch/include" "$folder/torch/share" "$folder/torch/test" "$folder/pyarrow/include"
    rm -rf "$folder/pyarrow/tests" "$folder/pandas/tests"
    ;;
esac
