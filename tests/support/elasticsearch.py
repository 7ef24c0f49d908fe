"""A real search server for the tests: `ELASTICSEARCH_URL`, or one of our own from its Maven artifact."""

import os
import re
import shutil
import signal
import subprocess
import tempfile
import time
import urllib.request
import uuid
import zipfile
from collections.abc import Callable, Iterator
from pathlib import Path
from typing import Any

import pytest
from elastic_transport import HttpHeaders, Urllib3HttpNode
from elastic_transport._node import NodeApiResponse
from elasticsearch import Elasticsearch

from enrich.index.elastic.server import Server
from enrich.index.open import connect
from enrich.settings import load_settings
from tests.support.proxy import PRODUCT, Proxy

VERSIONS = ("9.2.0", "8.19.21")
OPENSEARCH = ("opensearch-3.8.0", "opensearch-2.19.6")
UNPRIVILEGED = 65534  # these servers refuse to run as root
START_SECONDS = 120
JAVA_OPTS = "-Xms512m -Xmx512m -XX:TieredStopAtLevel=1"  # compiled fully, they start for half as long again
TRIES = 3  # at fetching a server
_opensearches: set[str] = set()  # the URLs of those that we started


class ServerMissing(Exception):
    """No search server can be had on this machine."""


class ElasticsearchServer:
    """One server of its own data folder; keeps its port and data over `stop` and `start`.

    `version`: of Elasticsearch, or of OpenSearch with `opensearch-` before it, the same but in names.
    """

    def __init__(self, version: str) -> None:
        self.version = version
        self._kind = "opensearch" if version in OPENSEARCH else "elasticsearch"
        self._port = 0
        self._process: subprocess.Popen[bytes] | None = None
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
        # The watcher reads our pipe: when this process dies, even by SIGKILL, so does the server.
        watched = 'exec 3<&0; { read -r _ <&3; kill -TERM 0; } & exec "$@"'
        with (self._work / "logs" / "console.txt").open("wb") as console:
            self._process = subprocess.Popen(
                ["sh", "-c", watched, "sh", *command],
                stdin=subprocess.PIPE,
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
                if self._kind == "opensearch":
                    _opensearches.add(self.url)
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


def backend_of(url: str) -> str:
    """`ENRICH_INDEX_BACKEND` for the server at this URL."""
    return "opensearch" if url in _opensearches else "elasticsearch"


def reached(url: str) -> Server:
    """The server at this URL as the job reaches it."""
    return connect(load_settings(_env_file=None, elasticsearch_url=url, index_backend=backend_of(url)))


class _Compatible(Urllib3HttpNode):
    """Has a test's own client of Elasticsearch speak to OpenSearch, which neither of the two allows."""

    def perform_request(  # type: ignore[override]
        self, method: str, target: str, body: bytes | None = None, headers: Any = None, **more: Any
    ) -> NodeApiResponse:
        plain = {
            name: re.sub("vnd.elasticsearch\\+|; *compatible-with=8", "", headers[name]) for name in headers
        }
        meta, data = super().perform_request(method, target, body=body, headers=plain, **more)
        meta.headers = HttpHeaders({**meta.headers, **PRODUCT})
        return NodeApiResponse(meta, data)


def client_of(url: str, **options: Any) -> Elasticsearch:
    """A client for what a test does and asks by itself, of whichever server."""
    if url in _opensearches:
        options["node_class"] = _Compatible
    return Elasticsearch(url, **options)


@pytest.fixture(scope="session")
def elasticsearch_servers() -> Iterator[Callable[[str], ElasticsearchServer]]:
    """Started servers by version, each at the first asking, stopped at the end of the session."""
    servers: dict[str, ElasticsearchServer] = {}

    def started(version: str) -> ElasticsearchServer:
        try:
            if version not in servers:
                servers[version] = ElasticsearchServer(version)
        except ServerMissing as error:
            message = f"no search server {version}: {error}; or set ELASTICSEARCH_URL to a running one"
            if os.environ.get("CI"):
                pytest.fail(message)
            pytest.skip(message)
        servers[version].start()
        return servers[version]

    try:
        yield started
    finally:
        for server in servers.values():
            server.close()


@pytest.fixture(scope="session")
def elasticsearch_url(elasticsearch_servers: Callable[[str], ElasticsearchServer]) -> str:
    """A running server: `ELASTICSEARCH_URL`, or our own of the newest version that we are tested with."""
    return os.environ.get("ELASTICSEARCH_URL") or elasticsearch_servers(VERSIONS[0]).url


@pytest.fixture(params=(*VERSIONS, OPENSEARCH[0]))
def each_server(
    request: pytest.FixtureRequest, elasticsearch_servers: Callable[[str], ElasticsearchServer]
) -> str:
    """The URL of a server of each kind and version that the job promises to work with."""
    return elasticsearch_servers(request.param).url


@pytest.fixture
def elasticsearch_server(
    elasticsearch_servers: Callable[[str], ElasticsearchServer],
) -> Iterator[ElasticsearchServer]:
    """Our own server, for tests that stop and start it; running again for whoever comes next."""
    server = elasticsearch_servers(VERSIONS[0])
    yield server
    server.start()


@pytest.fixture
def index_name() -> Iterator[str]:
    """A name for an alias or index that no other test uses."""
    name = f"test-{uuid.uuid4().hex[:12]}"
    yield name
    if url := os.environ.get("ELASTICSEARCH_URL"):
        with Elasticsearch(url) as client:
            for index in client.indices.get(index=f"{name}*", expand_wildcards="all"):
                client.indices.delete(index=index, ignore_unavailable=True)


@pytest.fixture
def elasticsearch_proxy(elasticsearch_url: str) -> Iterator[Proxy]:
    """A proxy before the real server, for failures that the real one cannot be made to show."""
    proxy = Proxy(elasticsearch_url)
    yield proxy
    proxy.close()
