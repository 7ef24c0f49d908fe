"""A search server of our own from its Maven artifact: started, stopped, shared by the processes of a run."""

import errno
import fcntl
import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import zipfile
from contextlib import suppress
from pathlib import Path

VERSIONS = ("9.2.0", "8.19.21")
OPENSEARCH = ("opensearch-3.8.0", "opensearch-2.19.6")
UNPRIVILEGED = 65534  # these servers refuse to run as root
START_SECONDS = 120
OTHERS_SECONDS = 1800  # for which others may need a server whose process has no test left
JAVA_OPTS = "-Xms512m -Xmx512m -XX:TieredStopAtLevel=1"  # compiled fully, they start for half as long again
TRIES = 3  # at fetching a server


class ServerMissing(Exception):
    """No search server can be had on this machine."""


class ElasticsearchServer:
    """One server of its own data folder; keeps its port and data over `stop` and `start`.

    `version`: of Elasticsearch, or of OpenSearch with `opensearch-` before it, the same but in names.

    It runs while somebody holds its pipe `lifeline`: when the last process that does dies, so does it, even
    by SIGKILL.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self._kind = "opensearch" if version in OPENSEARCH else "elasticsearch"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
        self._held: int | None = None
        self._work = Path(tempfile.mkdtemp(prefix=f"search-{version}-", dir=tempfile.gettempdir()))
        try:
            self._home = installed(self._kind, version.rpartition("-")[2])
            self._java = java_home(range(17, 24) if version == OPENSEARCH[-1] else range(21, 99))
        except ServerMissing:
            shutil.rmtree(self._work)
            raise
        shutil.copytree(self._home / "config", self._work / "config")
        options = self._work / "config" / "jvm.options"  # OpenSearch's name a file below its home
        options.write_text(options.read_text().replace("file=logs/", f"file={self._work}/logs/"))
        for folder in ("data", "logs", "tmp"):
            (self._work / folder).mkdir()
        self.lifeline = self._work / "lifeline"
        os.mkfifo(self.lifeline)
        if os.geteuid() == 0:
            for path in (self._work, *self._work.rglob("*")):
                os.chown(path, UNPRIVILEGED, UNPRIVILEGED)

    @property
    def url(self) -> str:
        return f"http://127.0.0.1:{self._port}"

    def start(self) -> None:
        """Start and wait until the server answers."""
        if self._process is not None:
            return
        ports = self._work / "logs" / "http.ports"
        ports.unlink(missing_ok=True)
        settings = {
            "discovery.type": "single-node",
            "network.host": "127.0.0.1",
            "http.port": self._port,
            "transport.port": 0,
            "node.portsfile": "true",
            "path.data": self._work / "data",
            "path.logs": self._work / "logs",
            "cluster.routing.allocation.disk.threshold_enabled": "false",
        }
        if self._kind == "elasticsearch":
            settings["xpack.security.enabled"] = "false"
        prefix = {"elasticsearch": "ES", "opensearch": "OPENSEARCH"}[self._kind]
        command = [str(self._home / "bin" / self._kind)]
        for name, value in settings.items():
            command += ["-E", f"{name}={value}"]
        if os.geteuid() == 0:
            ids = [f"--reuid={UNPRIVILEGED}", f"--regid={UNPRIVILEGED}", "--clear-groups"]
            command = ["setpriv", *ids, *command]
        watched = 'exec 3<&0; { read -r _ <&3; kill -TERM 0; } & exec "$@"'
        self._held = os.open(self.lifeline, os.O_RDWR)
        console = (self._work / "logs" / "console.txt").open("wb")
        with console, self.lifeline.open("rb") as lifeline:
            self._process = subprocess.Popen(
                ["sh", "-c", watched, "sh", *command],
                stdin=lifeline,
                stdout=console,
                stderr=subprocess.STDOUT,
                start_new_session=True,
                cwd=self._work,
                env={
                    "PATH": os.environ["PATH"],
                    f"{prefix}_JAVA_HOME": str(self._java),
                    f"{prefix}_JAVA_OPTS": JAVA_OPTS,
                    f"{prefix}_PATH_CONF": str(self._work / "config"),
                    "CLI_JAVA_OPTS": f"-Djava.io.tmpdir={self._work / 'tmp'}",
                    f"{prefix}_TMPDIR": str(self._work / "tmp"),
                },
            )
        self._wait(ports)

    def _wait(self, ports: Path) -> None:
        assert self._process is not None
        deadline = time.monotonic() + START_SECONDS
        while time.monotonic() < deadline and self._process.poll() is None:
            found = re.search(r"^127\.0\.0\.1:(\d+)$", ports.read_text(), re.M) if ports.exists() else None
            if found:
                self._port = int(found[1])
                health = f"{self.url}/_cluster/health?wait_for_status=yellow&timeout=30s"
                with urllib.request.urlopen(health, timeout=60):
                    return
            time.sleep(0.1)
        console = (self._work / "logs" / "console.txt").read_text(errors="replace")[-2000:]
        self.stop()
        raise RuntimeError(f"{self._kind} {self.version} did not start:\n{console}")

    def stop(self) -> None:
        """Stop the server and whatever it started; data and port are kept."""
        if self._process is None:
            return
        for number in (signal.SIGTERM, signal.SIGKILL):
            try:
                os.killpg(self._process.pid, number)
                self._process.wait(timeout=30)
                self._gone()
            except (ProcessLookupError, subprocess.TimeoutExpired):
                continue
        self._process = None
        self.let_go()

    def let_go(self) -> None:
        """Hold it no longer: it ends when nobody else does."""
        if self._held is not None:
            os.close(self._held)
            self._held = None

    def outlast(self) -> None:
        """Wait until the others that hold it let go, and remove the data."""
        self.let_go()
        if self._process is not None:
            with suppress(subprocess.TimeoutExpired):
                self._process.wait(OTHERS_SECONDS)
        self.close()

    def _gone(self) -> None:
        """Wait until no process of the group is left: the second JVM ends after the shell."""
        assert self._process is not None
        deadline = time.monotonic() + 30
        while time.monotonic() < deadline:
            os.killpg(self._process.pid, 0)
            time.sleep(0.05)

    def close(self) -> None:
        """Stop for good and remove the data."""
        self.stop()
        shutil.rmtree(self._work, ignore_errors=True)


class SharedServers:
    """Servers that all processes of a test run use: whoever needs one first starts it, for 15 s of CPU.

    `folder`: the run's own.
    """

    def __init__(self, folder: Path) -> None:
        self._folder = folder
        self._started: list[ElasticsearchServer] = []
        self._held: list[int] = []

    def url(self, version: str) -> str:
        """The URL of the server of this version, which runs until `close` at least."""
        with (self._folder / f"{version}.lock").open("w") as lock:
            fcntl.flock(lock, fcntl.LOCK_EX)
            told = self._folder / f"{version}.server"
            if told.exists():
                url, lifeline = told.read_text().splitlines()
                try:
                    self._held.append(os.open(lifeline, os.O_WRONLY | os.O_NONBLOCK))
                    return url
                except OSError as error:
                    if error.errno not in (errno.ENOENT, errno.ENXIO):  # it ended
                        raise
            server = ElasticsearchServer(version)
            self._started.append(server)
            server.start()
            told.write_text(f"{server.url}\n{server.lifeline}")
            return server.url

    def close(self) -> None:
        """Let go of all of them, and remove those that this process started once nobody needs them."""
        for held in self._held:
            os.close(held)
        for server in self._started:
            server.let_go()
        for server in self._started:
            server.outlast()


def java_home(versions: range) -> Path:
    """A JDK of one of these versions; the `java` on the PATH may be another one."""
    homes = [Path(os.environ["JAVA_HOME"])] if os.environ.get("JAVA_HOME") else []
    homes += sorted(Path("/usr/lib/jvm").glob("*"), reverse=True)
    if java := shutil.which("java"):
        homes.append(Path(java).resolve().parents[1])
    for home in homes:
        release = home / "release"
        found = re.search(r'JAVA_VERSION="(\d+)', release.read_text()) if release.is_file() else None
        if found and int(found[1]) in versions and (home / "bin" / "java").exists():
            return home
    raise ServerMissing(
        f"no JDK from {versions[0]} to {versions[-1]} among JAVA_HOME, /usr/lib/jvm and the PATH"
    )


def installed(kind: str, version: str) -> Path:
    """The unzipped server, fetched through Maven the first time and kept in a cache folder."""
    root = os.geteuid() == 0  # the server's user must be able to read the cache, so not under /root
    cache = Path(tempfile.gettempdir()) if root else Path.home() / ".cache"
    home = cache / "listing-enrichment-tests" / f"{kind}-{version}"
    if home.is_dir():
        return home
    maven = shutil.which("mvn")
    if maven is None:
        raise ServerMissing("Maven (mvn) is needed to fetch the server")
    home.parent.mkdir(parents=True, exist_ok=True)
    with tempfile.TemporaryDirectory(dir=home.parent) as scratch:
        artifact = f"org.{kind}.distribution.integ-test-zip:{kind}:{version}:zip"
        for _ in range(TRIES):
            done = subprocess.run(
                [
                    maven,
                    "-B",
                    "-q",
                    "dependency:copy",
                    f"-Dartifact={artifact}",
                    f"-DoutputDirectory={scratch}",
                ],
                capture_output=True,
                text=True,
                cwd=scratch,
            )
            if done.returncode == 0:
                break
        if done.returncode:
            raise ServerMissing(f"Maven could not fetch {artifact}: {done.stdout[-500:]}")
        with zipfile.ZipFile(next(Path(scratch).glob("*.zip"))) as archive:
            archive.extractall(scratch)
        unzipped = Path(scratch) / f"{kind}-{version}"
        for script in (unzipped / "bin").iterdir():
            script.chmod(0o755)
        for folder in ("plugins", "logs"):
            (unzipped / folder).mkdir(exist_ok=True)
        try:
            unzipped.rename(home)
        except OSError:
            if not home.is_dir():  # another process was first
                raise
    return home
