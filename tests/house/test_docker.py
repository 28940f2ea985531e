"""The image and the compose files: valid, and in step with the settings."""

import os
import re
import shutil
import stat
import subprocess
from collections.abc import Iterator
from ipaddress import ip_address, ip_network
from pathlib import Path
from typing import Any

import jsonschema
import pytest
import yaml
from check_jsonschema.builtin_schemas import get_builtin_schema

from app.config import Settings, takes_file, variable
from app.worker import GIVE_BACK_SECONDS

ROOT = Path(__file__).parents[2]
DOCKER = ROOT / "docker"
COMPOSE = sorted(DOCKER.glob("compose*.yml"))


class Loader(yaml.SafeLoader):  # type: ignore[misc]
    """Knows what Compose adds to YAML."""


def reset(loader: Loader, node: yaml.Node) -> Any:
    return loader.construct_sequence(node) if isinstance(node, yaml.SequenceNode) else None


Loader.add_constructor("!reset", reset)


def read(path: Path) -> dict[str, Any]:
    document: dict[str, Any] = yaml.load(path.read_text("utf-8"), Loader)
    return document


def together(name: str) -> dict[str, Any]:
    """A part of all files: `services`, `secrets`, ..."""
    return {key: value for path in COMPOSE for key, value in read(path).get(name, {}).items()}


def services() -> Iterator[tuple[str, dict[str, Any]]]:
    for path in COMPOSE:
        yield from read(path)["services"].items()


@pytest.mark.parametrize("path", COMPOSE, ids=lambda path: path.name)
def test_compose_file_is_valid(path: Path) -> None:
    jsonschema.validate(read(path), get_builtin_schema("vendor.compose-spec"))


def test_services_name_only_what_there_is() -> None:
    names, secrets, configs = together("services"), together("secrets"), together("configs")
    for name, service in services():
        assert set(service.get("depends_on", {})) <= set(names), name
        assert set(service.get("secrets", ())) <= set(secrets), name
        assert {config["source"] for config in service.get("configs", ())} <= set(configs), name
    for path in COMPOSE:
        for config in read(path).get("configs", {}).values():
            assert (path.parent / config["file"]).is_file()
        for service in read(path)["services"].values():
            build = service.get("build", {})
            folder = path.parent / build.get("context", ".")
            assert (folder / build.get("dockerfile", "Dockerfile")).is_file() or not build


def test_compose_files_set_only_what_is_a_setting_and_secrets_by_file() -> None:
    known = {variable(name, field): field for name, field in Settings.model_fields.items()}
    files = {f"{name}_FILE" for name, field in known.items() if takes_file(field)}
    secret = {name for name, field in known.items() if takes_file(field)}
    seen = set()
    for name, service in services():
        if "rowcast" not in service.get("image", "rowcast") or name in ("haproxy", "pgbouncer"):
            continue
        for setting, value in service.get("environment", {}).items():
            assert setting in (set(known) | files) - secret, f"{name}: {setting}"
            seen.add(setting)
            if setting in files:
                path = value.removeprefix("/run/secrets/")
                # What an overlay names it may have of the file below.
                given = set(service.get("secrets", ())) | set(
                    together_secrets(name) | together_secrets("gateway")
                )
                assert path in given, f"{name}: {path}"
    assert "ROWCAST_DATABASE_URL_FILE" in seen


def together_secrets(name: str) -> set[str]:
    """The secrets a service has by all files."""
    return {
        secret
        for other, service in services()
        if other == name
        for secret in service.get("secrets", ())
    }


def test_fixed_addresses_are_not_given_to_others() -> None:
    file = read(DOCKER / "compose.ha.yml")
    (pool,) = file["networks"]["default"]["ipam"]["config"]
    given = [
        ip_address(service["networks"]["default"]["ipv4_address"])
        for service in file["services"].values()
        if "networks" in service
    ]
    assert len(set(given)) == 3
    for address in given:
        assert address in ip_network(pool["subnet"])
        assert address not in ip_network(pool["ip_range"])


def test_worker_is_asked_where_it_answers() -> None:
    """By the healthcheck of the image, which asks port 8000, and by Prometheus."""
    worker = read(DOCKER / "compose.yml")["services"]["worker"]
    port = worker["environment"]["ROWCAST_WORKER_PORT"]
    assert "healthcheck" not in worker
    assert f"get('PORT', '{port}')" in (DOCKER / "Dockerfile").read_text()
    jobs = yaml.safe_load((DOCKER / "metrics/prometheus.yml").read_text())["scrape_configs"]
    assert {"names": ["worker"], "type": "A", "port": port} in [
        found for job in jobs for found in job["dns_sd_configs"]
    ]


def test_who_drains_is_not_killed_before() -> None:
    for name, after in (("gateway", 5), ("worker", 2 * GIVE_BACK_SECONDS + GIVE_BACK_SECONDS)):
        service = read(DOCKER / "compose.yml")["services"][name]
        drain = service["environment"].get(
            "ROWCAST_DRAIN_SECONDS", Settings.model_fields["drain_seconds"].default
        )
        assert float(service["stop_grace_period"].removesuffix("s")) > float(drain) + after


def test_no_secret_is_among_the_arguments_of_a_process() -> None:
    """The whole machine can see those."""
    for name, service in services():
        for key in ("command", "entrypoint"):
            said = service.get(key, [])
            text = said if isinstance(said, str) else " ".join(said)
            rest = re.sub(r"PGPASSWORD=\"\$\$\(cat [^)]+\)\" exec", "", text)
            assert "cat /run/secrets" not in rest, name


def test_variables_of_haproxy_are_those_of_its_configuration() -> None:
    wanted = set(re.findall(r"\$\{(ROWCAST_\w+)", (ROOT / "app" / "haproxy.cfg").read_text()))
    assert set(together("services")["haproxy"]["environment"]) == wanted


def test_image_holds_no_more_than_it_says() -> None:
    text = (DOCKER / "Dockerfile").read_text()
    final = text.rpartition("\nFROM ")[2]
    assert "USER 10001:10001" in final
    assert "HEALTHCHECK" in final
    for tool in ("pip", "venv", "npm", "gcc", "build-essential"):
        assert not re.search(rf"\b{tool}\b", final.replace("/opt/rowcast", "")), tool
    for line in re.findall(r"pip install.+?(?=&&|\n\w)", text, re.DOTALL):
        assert "--require-hashes" in line or "--no-deps --offline" in line, line


def test_secrets_are_made_once_and_kept(tmp_path: Path) -> None:
    shutil.copy(DOCKER / "secrets.sh", tmp_path)
    script = [str(tmp_path / "secrets.sh")]
    subprocess.run(script, check=True, capture_output=True)
    folder = tmp_path / "secrets"
    assert stat.S_IMODE(folder.stat().st_mode) == 0o700
    made = {path.name: path.read_text() for path in folder.iterdir()}
    declared = {Path(secret["file"]).name for secret in together("secrets").values()}
    assert set(made) == declared
    assert len({len(made[name]) for name in ("jwt_secret", "gateway_password")}) == 1
    assert Settings(jwt_secret=made["jwt_secret"]).jwt_secret == made["jwt_secret"]
    # One that is missing is made again; the others are in use.
    (folder / "jwt_secret").unlink()
    subprocess.run(script, check=True, capture_output=True)
    again = {path.name: path.read_text() for path in folder.iterdir()}
    assert {name for name in made if made[name] != again[name]} == {"jwt_secret"}
    assert not os.access(folder / "jwt_secret", os.X_OK)
