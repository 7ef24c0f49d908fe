"""What lies in deploy/ fits the program and each other: settings, commands, ports, probes, users."""

import re
import shlex
from collections.abc import Iterator
from pathlib import Path
from typing import Any

import pytest
import typer
import yaml

from enrich.settings import PREFIX, Settings, secret_variables, variable
from jobs.cli.commands import app
from jobs.metrics.serving import NOT_FOUND
from tools.try_image import copied, instructions

ROOT = Path(__file__).parents[2]
DEPLOY = ROOT / "deploy"
YAMLS = sorted(path.relative_to(DEPLOY) for suffix in ("*.yaml", "*.yml") for path in DEPLOY.rglob(suffix))
TEXTS = sorted(path for path in DEPLOY.rglob("*") if path.is_file() and path.suffix != ".json")
DOCKERFILE = instructions((DEPLOY / "Dockerfile").read_text())
COMPOSE = yaml.safe_load((DEPLOY / "compose.yaml").read_text())
JOBS = {
    name: one for name, one in COMPOSE["services"].items() if one["image"].startswith("listing-enrichment:")
}
METRICS, PAGE, USER = 9464, 8080, 10001
UNITS = sorted((DEPLOY / "systemd").glob("*.service"))


def manifests() -> list[dict[str, Any]]:
    found = []
    for path in sorted((DEPLOY / "k8s").glob("*.yaml")):
        found += [one for one in yaml.safe_load_all(path.read_text()) if one["kind"] != "Kustomization"]
    return found


def pods() -> dict[str, dict[str, Any]]:
    """Name -> pod, of whatever starts one."""
    found = {}
    for one in manifests():
        spec = one["spec"].get("jobTemplate", one)["spec"] if "spec" in one else {}
        if "template" in spec:
            found[one["metadata"]["name"]] = spec["template"]["spec"]
    return found


PODS = pods()


def container(name: str) -> dict[str, Any]:
    (one,) = PODS[name]["containers"]
    return dict(one)


def starts() -> Iterator[tuple[str, list[str]]]:
    """Where it stands, and the arguments with which `enrich` is started there."""
    yield "Dockerfile", yaml.safe_load(dict(DOCKERFILE)["CMD"])
    yield from ((f"compose.yaml: {name}", one["command"]) for name, one in JOBS.items())
    yield from ((f"k8s: {name}", container(name)["args"]) for name in PODS)
    for path in UNITS:
        started = re.search(r"^ExecStart=/opt/enrich/bin/enrich (.*)$", path.read_text(), re.M)
        assert started, path
        yield path.name, shlex.split(started[1])
    for line in cron_lines():
        yield "cron", shlex.split(line.partition('enrich.env"; enrich ')[2].partition(" >")[0])


def cron_lines() -> list[str]:
    lines = (DEPLOY / "cron" / "enrich").read_text().splitlines()
    return [line for line in lines if re.match(r"[0-9*]", line)]


@pytest.mark.parametrize("path", YAMLS, ids=str)
def test_it_is_yaml(path: Path) -> None:
    assert all(isinstance(one, dict) for one in yaml.safe_load_all((DEPLOY / path).read_text()))


@pytest.mark.parametrize("path", TEXTS, ids=lambda path: str(path.relative_to(DEPLOY)))
def test_every_variable_that_is_named_is_a_setting(path: Path) -> None:
    known = {variable(name) for name in Settings.model_fields}
    known |= {f"{name}_FILE" for name in secret_variables()}
    named = set(
        re.findall(r"\b(?:ENRICH|DATABASE|SOURCE_DATABASE|ELASTICSEARCH)_[A-Z_]*[A-Z]\b", path.read_text())
    )
    assert named <= known


@pytest.mark.parametrize(("where", "arguments"), list(starts()))
def test_what_is_started_is_a_command_with_options_that_it_has(where: str, arguments: list[str]) -> None:
    commands = typer.main.get_group(app).commands
    name, *rest = arguments
    assert name in commands
    options = {option for one in commands[name].params for option in one.opts}
    assert {word for word in rest if word.startswith("--")} <= options


def test_the_ports_are_the_same_everywhere() -> None:
    environment = dict(pair.partition("=")[::2] for pair in shlex.split(dict(DOCKERFILE)["ENV"]))
    assert environment["ENRICH_METRICS_PORT"] == str(METRICS)
    assert set(dict(DOCKERFILE)["EXPOSE"].split()) == {str(METRICS), str(PAGE)}
    assert f"127.0.0.1:{METRICS}/healthz" in dict(DOCKERFILE)["HEALTHCHECK"]
    assert COMPOSE["services"]["page"]["ports"] == [f"127.0.0.1:{PAGE}:{PAGE}"]
    assert f"127.0.0.1:{PAGE}/healthz" in COMPOSE["services"]["page"]["healthcheck"]["test"][-1]
    (scrape,) = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["scrape_configs"]
    assert scrape["static_configs"] == [{"targets": [f"worker:{METRICS}"]}]
    for where, arguments in starts():
        if arguments[0] == "serve":
            assert arguments[arguments.index("--port") + 1] == str(PAGE), where
    settings = next(one for one in manifests() if one["kind"] == "ConfigMap")["data"]
    assert settings["ENRICH_METRICS_PORT"] == str(METRICS)
    named = {
        port["name"]: port["containerPort"] for name in PODS for port in container(name).get("ports", ())
    }
    assert named == {"metrics": METRICS, "http": PAGE}
    (service,) = (one for one in manifests() if one["kind"] == "Service")
    assert service["spec"]["ports"][0]["targetPort"] == "http"
    (pod,) = (
        one for one in manifests() if one["kind"] == "Deployment" and one["metadata"]["name"] == "enrich-page"
    )
    assert service["spec"]["selector"].items() <= pod["spec"]["template"]["metadata"]["labels"].items()
    allowed = {
        port["port"]
        for one in manifests()
        if one["kind"] == "NetworkPolicy"
        for rule in one["spec"].get("ingress", ())
        for port in rule["ports"]
    }
    assert allowed == {METRICS, PAGE}


def test_probes_ask_for_what_is_answered() -> None:
    web = pytest.importorskip("jobs.web.app")
    answered = {"metrics": set(re.findall(r"/\w+", NOT_FOUND[2].decode())), "http": set(web._UNGUARDED)}
    probed = [
        (probe["httpGet"]["port"], probe["httpGet"]["path"], {port["name"] for port in one["ports"]})
        for one in map(container, PODS)
        for kind, probe in one.items()
        if kind.endswith("Probe")
    ]
    assert len(probed) == 5
    for port, path, ports in probed:
        assert path in answered[port] and port in ports


def test_images_are_pinned() -> None:
    named = [one["image"] for one in COMPOSE["services"].values() if "build" not in one]
    named += [
        rest.partition("=")[2] for word, rest in DOCKERFILE if word == "ARG" and rest.startswith("BASE=")
    ]
    assert len(named) == 5
    assert [image for image in named if not re.search(r":v?\d+\.\d+", image)] == []
    images = yaml.safe_load((DEPLOY / "k8s" / "kustomization.yaml").read_text())["images"]
    assert {one["name"] for one in images} == {container(name)["image"] for name in PODS}
    assert all(re.fullmatch(r"\d+\.\d+\.\d+", one["newTag"]) for one in images)


def test_the_image_holds_no_secret_and_is_made_of_what_the_context_lets_in() -> None:
    given = " ".join(rest for word, rest in DOCKERFILE if word in ("ARG", "ENV"))
    assert [name for name in secret_variables() if name in given] == []
    sources = {
        source
        for word, rest in DOCKERFILE
        if word == "COPY" and "--from" not in rest
        for source in rest.split()[:-1]
    }
    assert sources == set(copied(ROOT)) and all((ROOT / source).exists() for source in sources)
    assert (ROOT / ".dockerignore").read_text().splitlines()[1] == "*"


def test_files_with_settings_and_secrets_are_not_committed_with_the_rest() -> None:
    """The pages on first steps have `.env` made in the checkout, and deploy/.env."""
    assert ".env" in (ROOT / ".gitignore").read_text().splitlines()


def test_nobody_is_root_and_nothing_of_the_image_is_written_to() -> None:
    assert [rest for word, rest in DOCKERFILE if word == "USER"][-1] == f"{USER}:{USER}"
    for one in JOBS.values():
        assert one["read_only"] and one["cap_drop"] == ["ALL"]
    assert len(PODS) == 4
    for name, pod in PODS.items():
        assert pod["securityContext"]["runAsNonRoot"] and pod["securityContext"]["runAsUser"] == USER
        assert pod["automountServiceAccountToken"] is False
        inside = container(name)["securityContext"]
        assert inside["readOnlyRootFilesystem"] and inside["capabilities"] == {"drop": ["ALL"]}
        assert not inside["allowPrivilegeEscalation"]
    for path in UNITS:
        assert "\nUser=enrich\n" in path.read_text() and "\nNoNewPrivileges=true\n" in path.read_text()


def test_each_night_starts_when_the_settings_say_by_themselves() -> None:
    cron, zone = (Settings.model_fields[name].default for name in ("cron", "timezone"))
    (job,) = (one["spec"] for one in manifests() if one["kind"] == "CronJob")
    assert (job["schedule"], job["timeZone"], job["concurrencyPolicy"]) == (cron, zone, "Forbid")
    assert cron_lines()[0].startswith(cron)
    minute, hour = cron.split()[:2]
    timer = (DEPLOY / "systemd" / "enrich-run.timer").read_text()
    assert f"OnCalendar=*-*-* {int(hour):02}:{int(minute):02}:00 {zone}" in timer


def test_the_cluster_s_variables_of_services_are_not_taken_for_settings() -> None:
    """By itself Kubernetes gives each pod variables of every Service beside it, as ENRICH_PAGE_PORT."""
    services = [one["metadata"]["name"] for one in manifests() if one["kind"] == "Service"]
    assert any(name.upper().replace("-", "_").startswith(PREFIX) for name in services)
    assert {name: pod.get("enableServiceLinks", True) for name, pod in PODS.items()} == dict.fromkeys(
        PODS, False
    )


def test_a_postgres_that_is_away_when_the_night_starts_does_not_cost_the_night() -> None:
    """It ends the run with exit code 2, as wrong settings do."""
    (job,) = (one["spec"]["jobTemplate"]["spec"] for one in manifests() if one["kind"] == "CronJob")
    (ending,) = (rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule)
    patience = Settings.model_fields["outage_seconds"].default
    assert ending["values"] == [1, 3, 70]
    assert sum(10 * 2**number for number in range(job["backoffLimit"])) >= patience
    unit = (DEPLOY / "systemd" / "enrich-run.service").read_text()
    told = dict(re.findall(r"^(\w+)=(.*)$", unit, re.M))
    assert told["Restart"] == "on-failure" and "2" not in told["RestartPreventExitStatus"].split()
    assert int(told["RestartSec"]) * (int(told["StartLimitBurst"]) - 1) >= patience


def test_a_night_that_is_killed_is_tried_again_until_its_own_lock_has_run_out() -> None:
    """Until then the next try finds the lock of the dead one, and ends with exit code 75."""
    lease = Settings.model_fields["lease_seconds"].default
    (job,) = (one["spec"]["jobTemplate"]["spec"] for one in manifests() if one["kind"] == "CronJob")
    (ending,) = (rule["onExitCodes"] for rule in job["podFailurePolicy"]["rules"] if "onExitCodes" in rule)
    assert 75 not in ending["values"]
    assert sum(10 * 2**number for number in range(job["backoffLimit"])) > lease
    unit = (DEPLOY / "systemd" / "enrich-run.service").read_text()
    told = dict(re.findall(r"^(\w+)=(.*)$", unit, re.M))
    assert told["SuccessExitStatus"] == "75" and int(told["RestartSec"]) > lease


def test_a_backfill_that_ended_is_not_begun_anew() -> None:
    """A container that is restarted on any failure would mark all listings again after exit codes 1 and 3,
    and after 75, with which one ends whose listings are done, but not published by another process."""
    operations = (ROOT / "docs" / "operations.md").read_text()
    (told,) = re.findall(r"A backfill is a Job .*?share the work\.", operations, re.S)
    (job,) = (one["spec"]["jobTemplate"]["spec"] for one in manifests() if one["kind"] == "CronJob")
    assert f"restartPolicy: {job['template']['spec']['restartPolicy']}" in told and "OnFailure" not in told
    assert {word for word in ("backoffLimit", "podFailurePolicy") if word in told} <= job.keys()
    assert "`podFailurePolicy`" in told and "nightly.yaml" in told and "`values: [1, 3, 70, 75]`" in told


def test_worker_and_cron_job_are_not_both_at_work() -> None:
    (job,) = (one["spec"] for one in manifests() if one["kind"] == "CronJob")
    (worker,) = (one["spec"] for one in manifests() if one["metadata"]["name"] == "enrich-worker")
    assert (job["suspend"], worker["replicas"]) == (True, 1)


def test_all_that_stays_comes_back_after_a_reboot() -> None:
    restarts = {name: one.get("restart") for name, one in COMPOSE["services"].items()}
    assert restarts.pop("migrate") == "no"
    assert restarts == dict.fromkeys(restarts, "unless-stopped")


def test_a_postgres_that_fills_its_folder_for_the_first_time_is_not_taken_for_ready() -> None:
    """It listens on its socket alone until then, and is shut down once more."""
    _, command, *options = COMPOSE["services"]["postgres"]["healthcheck"]["test"]
    assert command == "pg_isready" and "--host=127.0.0.1" in options


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_the_secrets_of_a_unit_are_those_that_it_is_lent(path: Path) -> None:
    text = path.read_text()
    lent = set(re.findall(r"^LoadCredential=(\w+):/etc/enrich/\1$", text, re.M))
    read = dict(re.findall(r"^Environment=(\w+)_FILE=%d/(\w+)$", text, re.M))
    assert lent == set(read.values()) and set(read) <= set(secret_variables())
    example = (DEPLOY / "systemd" / "env.example").read_text()
    assert all(name in example for name in lent)
    for _, value in re.findall(r"^(\w+)=(.*)$", example, re.M):
        assert len(shlex.split(value)) == 1, "a shell reads it as systemd does"


@pytest.mark.parametrize("path", UNITS, ids=lambda path: path.name)
def test_the_home_of_a_unit_is_a_folder_that_it_may_look_into(path: Path) -> None:
    text = path.read_text()
    assert "\nProtectHome=true\n" in text and "\nCacheDirectory=enrich\n" in text
    assert re.findall(r"^Environment=HOME=(.*)$", text, re.M) == ["%C/enrich"]


def test_what_compose_mounts_is_there_and_where_it_is_looked_for() -> None:
    mounts = dict(
        str(volume).split(":")[:2]
        for one in COMPOSE["services"].values()
        for volume in one.get("volumes", ())
        if str(volume).startswith("./")
    )
    assert len(mounts) == 6 and all((DEPLOY / source).is_file() for source in mounts)
    (provider,) = yaml.safe_load((DEPLOY / "grafana" / "dashboards.yml").read_text())["providers"]
    assert str(Path(mounts["./grafana.json"]).parent) == provider["options"]["path"]
    rules = yaml.safe_load((DEPLOY / "prometheus.yml").read_text())["rule_files"]
    assert Path(mounts["./alerts.yml"]) == Path(mounts["./prometheus.yml"]).parent / rules[0]
    asked = set(re.findall(r"\$\{(\w+):\?", (DEPLOY / "compose.yaml").read_text()))
    assert asked == set(re.findall(r"^(\w+)=$", (DEPLOY / "env.example").read_text(), re.M))
