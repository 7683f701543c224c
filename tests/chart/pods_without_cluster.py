"""Containers of rendered manifests, started as processes with exactly their arguments and environment.

Each gets what its pod would have: its user, a root file system that cannot be written, no capabilities, its
volumes at their paths. All share one network of their own, in which the services' names are loopback, so that
names and ports of the manifests hold as they are. The image is the Python environment that runs the tests.
"""

import base64
import os
import re
import shlex
import shutil
import signal
import subprocess
import sys
import tempfile
from contextlib import suppress
from pathlib import Path
from typing import Any

from end_with_suite import MARK
from rendered_chart import Manifest, find, pod_spec

REPOSITORY = Path(__file__).parents[2]  # unio4 itself, as it is installed in its images
POD_IP = "10.9.8.7"
TOOLS = ("unshare", "nsenter", "setpriv", "chroot", "mount", "ip")
SYSTEM_PATH = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin"


def missing() -> str | None:
    """Why pods cannot be started here."""
    if os.geteuid() != 0:
        return "needs root, for a network and file systems of their own"
    if absent := [tool for tool in TOOLS if shutil.which(tool) is None]:
        return f"needs {', '.join(absent)} (util-linux, iproute2)"
    probe = subprocess.run(["unshare", "--net", "--mount", "true"], capture_output=True, text=True)
    return f"no namespaces here: {probe.stderr.strip()}" if probe.returncode else None


class Pods:
    """A place to start pods of one release in."""

    def __init__(self, manifests: list[Manifest], hosts: list[str]) -> None:
        self.manifests = manifests
        self.home = Path(tempfile.mkdtemp(prefix="unio4-pods-"))
        self.home.chmod(0o755)
        self.hosts = self.home / "hosts"
        self.hosts.write_text(f"127.0.0.1 localhost {' '.join(hosts)}\n")
        holder = "ip link set lo up && exec sleep infinity"
        self.network = subprocess.Popen(["unshare", "--net", "sh", "-c", holder], start_new_session=True)
        self.running: list[subprocess.Popen[bytes]] = []
        self.count = 0

    def close(self) -> None:
        """Everything that was started ends at once: nobody needs what it would still write."""
        for process in [*reversed(self.running), self.network]:
            with suppress(ProcessLookupError):
                os.killpg(process.pid, signal.SIGKILL)
            process.wait()
        shutil.rmtree(self.home, ignore_errors=True)

    def in_network(self, command: list[str]) -> list[str]:
        """A command inside the network of the pods."""
        return ["nsenter", f"--net=/proc/{self.network.pid}/ns/net", *command]

    def background(self, command: list[str], log: str) -> subprocess.Popen[bytes]:
        """A process until the end, with its output in a file."""
        with (self.home / log).open("ab") as file:
            process = subprocess.Popen(
                self.in_network(command), stdout=file, stderr=file, cwd="/", start_new_session=True
            )
        self.running.append(process)
        return process

    def start(self, kind: str, name: str, container: str, log: str) -> subprocess.Popen[bytes]:
        """A container that goes on."""
        return self.background(self.command(kind, name, container), log)

    def run(
        self, kind: str, name: str, container: str, timeout: float = 600
    ) -> subprocess.CompletedProcess[str]:
        """A container that ends."""
        command = self.in_network(self.command(kind, name, container))
        return subprocess.run(command, capture_output=True, text=True, timeout=timeout, cwd="/")

    def command(self, kind: str, name: str, container: str) -> list[str]:
        """The command line that makes the container's surroundings and becomes the container."""
        spec = pod_spec(find(self.manifests, kind, name))
        assert spec is not None
        listed = [*spec.get("initContainers", []), *spec["containers"]]
        [wanted] = [one for one in listed if one["name"] == container]
        environment = self.environment(wanted)
        line = [self._expand(part, environment) for part in [*wanted["command"], *wanted.get("args", [])]]
        # The image's own: where its programs are.
        environment |= {"PATH": f"{sys.prefix}/bin:{SYSTEM_PATH}", "PYTHONPATH": str(REPOSITORY)}
        environment[MARK] = os.environ[MARK]  # it ends with the suite
        who = spec["securityContext"]
        become = ["setpriv", f"--reuid={who['runAsUser']}", f"--regid={who['runAsGroup']}", "--clear-groups"]
        become += ["--no-new-privs", "--inh-caps=-all", "--bounding-set=-all"]
        variables = [f"{key}={value}" for key, value in environment.items()]
        script = self._surroundings(name, wanted, spec.get("volumes", []), who["fsGroup"])
        inside = shlex.join([*become, "env", "-i", *variables, *line])
        unshare = ["unshare", "--mount", "--propagation", "private", "sh", "-euc"]
        return [*unshare, f"{script}\nexec chroot {shlex.quote(str(self._root()))} {inside}"]

    def environment(self, container: dict[str, Any]) -> dict[str, str]:
        """A container's variables, with references read from the manifests."""
        found: dict[str, str] = {}
        for variable in container.get("env", []):
            source = variable.get("valueFrom", {})
            if "secretKeyRef" in source:
                value = self.secret(source["secretKeyRef"]["name"], source["secretKeyRef"]["key"])
            elif "fieldRef" in source:
                assert source["fieldRef"]["fieldPath"] == "status.podIP"
                value = POD_IP
            else:
                value = self._expand(variable["value"], found)
            found[variable["name"]] = value
        return found

    def secret(self, name: str, key: str) -> str:
        """A value of a secret of the release."""
        return base64.b64decode(find(self.manifests, "Secret", name)["data"][key]).decode()

    @staticmethod
    def _expand(text: str, environment: dict[str, str]) -> str:
        return re.sub(r"\$\((\w+)\)", lambda found: environment.get(found[1], found[0]), str(text))

    def _root(self) -> Path:
        return self.home / f"root-{self.count}"

    def _surroundings(
        self, pod: str, container: dict[str, Any], volumes: list[dict[str, Any]], group: int
    ) -> str:
        """A root made of this machine's programs, read-only, with the container's volumes."""
        self.count += 1
        root = self._root()
        root.mkdir()
        lines = [f"mount -t tmpfs -o mode=755 tmpfs {root}"]
        for entry in ("bin", "lib", "lib64", "sbin"):
            if (link := Path("/") / entry).is_symlink():
                lines.append(f"ln -s {link.readlink()} {root}/{entry}")
        lines += [f"cp -a /etc {root}/etc", f"cp {self.hosts} {root}/etc/hosts"]
        for part in ("/proc", "/dev"):
            lines += [f"mkdir -p {root}{part}", f"mount --rbind {part} {root}{part}"]
        sources = {volume["name"]: self._volume(pod, volume, group) for volume in volumes}
        for mount in container.get("volumeMounts", []):
            source, writable = sources[mount["name"]]
            lines += self._bind(source, root, mount["mountPath"], writable)
        # After the volumes: these programs may lie below /tmp, which a volume would cover.
        for part in ("/usr", sys.base_prefix, sys.prefix, str(REPOSITORY)):
            lines += self._bind(Path(part), root, part, writable=False)
        return "\n".join([*lines, f"mount -o remount,ro {root}"])

    @staticmethod
    def _bind(source: Path, root: Path, target: str, writable: bool) -> list[str]:
        # The same folder twice, or one inside another that is bound already, is no harm.
        lines = [f"[ -d {root}{target} ] || mkdir -p {root}{target}", f"mount --bind {source} {root}{target}"]
        return lines if writable else [*lines, f"mount -o remount,bind,ro {root}{target}"]

    def _volume(self, pod: str, volume: dict[str, Any], group: int) -> tuple[Path, bool]:
        """A folder with what Kubernetes would put there, and whether the pod may write."""
        if "configMap" in volume:
            name = volume["configMap"]["name"]
            folder = self.home / f"configmap-{name}"
            folder.mkdir(exist_ok=True)
            for file, text in find(self.manifests, "ConfigMap", name)["data"].items():
                (folder / file).write_text(text)
            return folder, False
        if "persistentVolumeClaim" in volume:
            folder = self.home / f"claim-{volume['persistentVolumeClaim']['claimName']}"
        else:
            assert "emptyDir" in volume, volume
            folder = self.home / f"{pod}-{volume['name']}-{self.count}"
        folder.mkdir(exist_ok=True)
        os.chown(folder, 0, group)
        folder.chmod(0o2775)
        return folder, True
