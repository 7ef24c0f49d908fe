"""Run the steps of deploy/Dockerfile where there is no Docker engine: each stage in a fresh Debian root.

    debootstrap --variant=minbase trixie ROOT && python -m tools.try_image ROOT WORK [NAME=VALUE ...]

ROOT stands for the base image and is copied, not changed; WORK gets a folder per stage; NAME=VALUE are build
arguments. Needs root, for chroot. At the end the image user asks for `enrich --version`, and the health check
is tried on a server that answers. Not checked so: layers, caching, and the container engine itself.
"""

import json
import os
import re
import shlex
import shutil
import subprocess
import sys
from dataclasses import dataclass, field
from pathlib import Path

CHECKOUT = Path(__file__).parents[1]
CERTIFICATES = "/root/certificates.pem"
ANSWERING = (
    "import http.server, threading, subprocess, sys\n"
    "class H(http.server.BaseHTTPRequestHandler):\n"
    "    def do_GET(self): self.send_response(200 if self.path == '/healthz' else 404); self.end_headers()\n"
    "s = http.server.HTTPServer(('127.0.0.1', 9464), H)\n"
    "threading.Thread(target=s.serve_forever, daemon=True).start()\n"
    "sys.exit(subprocess.run(sys.argv[1:]).returncode)\n"
)


@dataclass
class Stage:
    root: Path
    environment: dict[str, str] = field(default_factory=dict)
    arguments: dict[str, str] = field(default_factory=dict)
    folder: str = "/"
    user: str = "0:0"
    health: list[str] = field(default_factory=list)

    def run(self, command: list[str], user: str = "0:0") -> None:
        """Run a command inside. Raises CalledProcessError when it fails."""
        print(f"[{self.root.name}] {' '.join(command)[:150]}", flush=True)  # noqa: T201 (a script)
        uid, gid = user.split(":")
        given = {
            "PATH": "/usr/sbin:/usr/bin:/sbin:/bin",
            "HOME": "/root",
            **self.arguments,
            **self.environment,
        }
        if "PIP_CERT" in os.environ:
            given["PIP_CERT"] = CERTIFICATES
        inside = ["chroot", f"--userspec=+{uid}:+{gid}", str(self.root), "env", "-C", self.folder, *command]
        subprocess.run(inside, check=True, env=given)


def instructions(text: str) -> list[tuple[str, str]]:
    """The Dockerfile's instructions with what stands behind them, comments left out."""
    lines = [line for line in text.splitlines() if line.strip() and not line.lstrip().startswith("#")]
    joined = re.sub(r"\\\n\s*", " ", "\n".join(lines))
    return [(word, rest) for word, _, rest in (line.partition(" ") for line in joined.splitlines())]


def copied(context: Path) -> list[str]:
    """The entries of the context's top that .dockerignore lets in: it lists what is taken, after a `*`."""
    rules = (context / ".dockerignore").read_text().splitlines()
    return [rule[1:] for rule in rules if rule.startswith("!")]


def copy(stages: dict[str, Stage], stage: Stage, rest: str) -> None:
    *sources, target = shlex.split(rest)
    root = CHECKOUT
    if sources[0].startswith("--from="):
        root = stages[sources.pop(0).removeprefix("--from=")].root
    for source in sources:
        if root == CHECKOUT and source not in copied(CHECKOUT):
            raise SystemExit(f"COPY {source}: .dockerignore leaves it out")
        origin = root / source.lstrip("/")
        place = stage.root / str(Path(stage.folder) / target).lstrip("/")
        if origin.is_dir():
            leave = shutil.ignore_patterns("__pycache__", "*.pyc", ".env*")
            shutil.copytree(origin, place, symlinks=True, dirs_exist_ok=True, ignore=leave)
        else:
            place.mkdir(parents=True, exist_ok=True)
            shutil.copy2(origin, place)


def main(base: Path, work: Path, given: dict[str, str]) -> None:
    stages: dict[str, Stage] = {}
    stage = Stage(base)
    for word, rest in instructions((CHECKOUT / "deploy" / "Dockerfile").read_text()):
        if word == "FROM":
            name = rest.partition(" AS ")[2] or "image"
            stage = stages[name] = Stage(work / name)
            subprocess.run(["cp", "-a", base, stage.root], check=True)
            shutil.copy("/etc/resolv.conf", stage.root / "etc")
            if certificates := os.environ.get("PIP_CERT"):  # where packages come through a proxy of one's own
                shutil.copy(certificates, stage.root / CERTIFICATES[1:])
            for kind in ("proc", "dev"):
                subprocess.run(["mount", "--rbind", f"/{kind}", stage.root / kind], check=True)
        elif word == "ARG":
            name, _, default = rest.partition("=")
            stage.arguments[name] = given.get(name, default)
        elif word == "ENV":
            stage.environment |= dict(pair.partition("=")[::2] for pair in shlex.split(rest))
            path = stage.environment.get("PATH", "")
            stage.environment["PATH"] = (
                path.replace("$PATH", "/usr/sbin:/usr/bin:/sbin:/bin") or "/usr/bin:/bin"
            )
        elif word == "WORKDIR":
            stage.folder = rest
            (stage.root / rest[1:]).mkdir(parents=True, exist_ok=True)
        elif word == "COPY":
            copy(stages, stage, rest)
        elif word == "RUN":
            stage.run(["/bin/sh", "-c", rest])
        elif word == "USER":
            stage.user = rest
        elif word == "HEALTHCHECK":
            stage.health = json.loads(rest.partition("CMD ")[2])
        elif word not in ("VOLUME", "EXPOSE", "ENTRYPOINT", "CMD"):
            raise SystemExit(f"{word}: not known here")
    stage.run(["enrich", "--version"], stage.user)
    stage.run(["sh", "-c", "test -w /var/cache/enrich && ! test -w /opt/enrich && id -u"], stage.user)
    stage.run(["python3", "-c", ANSWERING, *stage.health], stage.user)
    stage.run(["tini", "--", "enrich", "settings", "--json"], stage.user)


if __name__ == "__main__":
    if len(sys.argv) < 3:
        raise SystemExit(__doc__)
    main(Path(sys.argv[1]), Path(sys.argv[2]), dict(pair.split("=", 1) for pair in sys.argv[3:]))
