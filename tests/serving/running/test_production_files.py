"""Production files of the package, read by their parsers or checked with their schemas."""

from __future__ import annotations

from importlib import resources
from pathlib import Path
from typing import Any

import pytest
import yaml
from pydantic import ValidationError

from regraft_core.formats.options.export import ExportOptions
from regraft_core.runtime.errors import InputError
from regraft_core.runtime.version import VERSION
from serving.batching_file import BATCHING_FILE, check_warmup_size
from serving.running.runner import serving_image
from serving.running.serve import GRPC_MAX_THREADS
from serving.server.config import (
    METRICS_PATH,
    BatchingConfig,
    model_configs,
    parse_text,
    read_batching,
    read_metrics_path,
    read_tls,
)
from serving.server.flags import parse_flags

SERVING = Path(str(resources.files("serving")))
CONFIG, BASE = SERVING / "config", SERVING / "k8s" / "base"
KUBERNETES = sorted(
    path
    for path in (SERVING / "k8s").rglob("*.yaml")
    if path.name not in ("kustomization.yaml", "resources.yaml")
)


def documents(path: Path) -> list[dict[str, Any]]:
    return [document for document in yaml.safe_load_all(path.read_text()) if document]


def test_text_protos_are_read_by_the_server() -> None:
    from tensorflow_serving.config import model_server_config_pb2

    message = model_server_config_pb2.ModelServerConfig()
    parse_text(CONFIG / "models.config", message)
    (model,) = model_configs(message)
    assert (model.name, model.policy.latest) == ("images", 2)
    batching = read_batching(str(CONFIG / "batching.config"))
    assert batching == BatchingConfig(1024, 0, 1000, 2, (), True, 16)
    assert read_metrics_path(str(CONFIG / "monitoring.config")) == METRICS_PATH
    tls = read_tls(str(CONFIG / "ssl.config"))
    assert tls is not None
    assert tls.client_verify


def test_the_batching_file_accepts_the_warm_up_of_every_export() -> None:
    largest = read_batching(str(BATCHING_FILE)).max_batch_size
    assert ExportOptions(warmup_batch_size=largest)
    with pytest.raises(ValidationError):
        ExportOptions(warmup_batch_size=largest + 1)
    check_warmup_size(largest, "serving_default")
    message = "serving_default: expected warm-up requests of at most 1024 images .* got one of 1025"
    with pytest.raises(InputError, match=message):
        check_warmup_size(largest + 1, "serving_default")


@pytest.mark.parametrize(
    "file",
    [
        "compose.yaml",
        "k8s/base/deployment.yaml",
        "kserve/servingruntime.yaml",
        "kserve/embeddedruntime.yaml",
    ],
)
def test_all_servers_accept_as_many_grpc_requests(file: str) -> None:
    assert f"- --grpc_max_threads={GRPC_MAX_THREADS}\n" in (SERVING / file).read_text()


@pytest.mark.parametrize("name", ["models", "batching", "monitoring"])
def test_the_cluster_uses_the_same_text_protos(name: str) -> None:
    assert (BASE / f"{name}.config").read_bytes() == (CONFIG / f"{name}.config").read_bytes()


@pytest.mark.parametrize("path", KUBERNETES, ids=lambda p: p.name)
def test_kubernetes_files_match_their_schema(path: Path) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    for document in documents(path):
        validate.validate(document, "1.31", strict=True)


@pytest.mark.parametrize("path", sorted((SERVING / "k8s").rglob("kustomization.yaml")), ids=str)
def test_kustomizations_list_existing_files(path: Path) -> None:
    (found,) = documents(path)
    assert found["kind"] == "Kustomization"
    names = [
        *found["resources"],
        *(patch["path"] for patch in found.get("patches", []) if "path" in patch),
    ]
    for generator in found.get("configMapGenerator", []):
        names += generator["files"]
    for name in names:
        assert (path.parent / name).exists()


def merged(base: Any, patch: Any) -> Any:
    """Merge as kustomize does: objects by key, lists of named containers by name."""
    if isinstance(base, dict) and isinstance(patch, dict):
        return base | {k: merged(base.get(k), v) for k, v in patch.items()}
    if isinstance(base, list) and isinstance(patch, list) and "name" in patch[0]:
        by_name = {item["name"]: item for item in base}
        return list(
            (by_name | {i["name"]: merged(by_name.get(i["name"]), i) for i in patch}).values()
        )
    return patch


@pytest.mark.parametrize("overlay", ["cpu", "gpu"])
def test_overlays_yield_a_valid_deployment(overlay: str) -> None:
    validate = pytest.importorskip("kubernetes_validate")
    (base,) = documents(BASE / "deployment.yaml")
    (patch,) = documents(SERVING / "k8s" / "overlays" / overlay / "resources.yaml")
    whole = merged(base, patch)
    validate.validate(whole, "1.31", strict=True)
    (container,) = whole["spec"]["template"]["spec"]["containers"]
    assert ("nvidia.com/gpu" in container["resources"]["limits"]) == (overlay == "gpu")
    assert container["image"] == serving_image()


def test_an_overlay_and_compose_serve_in_bfloat16() -> None:
    folder = SERVING / "k8s" / "overlays" / "cpu-bfloat16"
    (found,) = documents(folder / "kustomization.yaml")
    (patch,) = found["patches"]
    assert patch["target"] == {"kind": "Deployment", "name": "regraft-serving"}
    (change,) = yaml.safe_load(patch["patch"])
    (base,) = documents(BASE / "deployment.yaml")
    (container,) = base["spec"]["template"]["spec"]["containers"]
    assert change["op"] == "add" and change["path"] == "/spec/template/spec/containers/0/args/-"
    known = [change["value"], "--model_base_path=/models"]
    assert parse_flags(known).mixed_precision == "bfloat16"
    assert not any("mixed_precision" in argument for argument in container["args"])
    (compose,) = documents(SERVING / "compose.yaml")
    (flag,) = [one for one in compose["services"]["serving"]["command"] if "mixed" in one]
    assert flag == "--mixed_precision=${MIXED_PRECISION:-}"
    assert parse_flags(["--mixed_precision=", "--model_base_path=/models"]).mixed_precision == ""


def test_the_deployment_is_locked_down_and_probed() -> None:
    (deployment,) = documents(BASE / "deployment.yaml")
    pod = deployment["spec"]["template"]["spec"]
    (container,) = pod["containers"]
    assert pod["securityContext"]["runAsNonRoot"] is True
    assert pod["securityContext"]["seccompProfile"] == {"type": "RuntimeDefault"}
    assert container["securityContext"] == {
        "allowPrivilegeEscalation": False,
        "readOnlyRootFilesystem": True,
        "capabilities": {"drop": ["ALL"]},
    }
    assert {"startupProbe", "readinessProbe", "livenessProbe"} <= set(container)
    assert {"requests", "limits"} == set(container["resources"])


def test_the_gpu_container_image_has_the_same_version() -> None:
    (found,) = documents(SERVING / "k8s" / "overlays" / "gpu" / "kustomization.yaml")
    name, tag = serving_image().split(":")
    assert found["images"] == [{"name": name, "newTag": f"{tag}-gpu"}]


VARIABLES = {"NVIDIA_TF32_OVERRIDE": "0", "TF_FORCE_GPU_ALLOW_GROWTH": "true"}


def test_gpu_servers_compute_as_verified_and_share_the_card() -> None:
    (patch,) = documents(SERVING / "k8s" / "overlays" / "gpu" / "resources.yaml")
    (compose,) = documents(SERVING / "compose.yaml")
    runtimes = [
        container
        for name in ("servingruntime.yaml", "embeddedruntime.yaml")
        for document in documents(SERVING / "kserve" / name)
        for container in document["spec"]["containers"]
    ]
    for container in (*patch["spec"]["template"]["spec"]["containers"], *runtimes):
        assert {one["name"]: one["value"] for one in container["env"]} == VARIABLES
    assert compose["services"]["serving"]["environment"] == VARIABLES


def test_compose_is_locked_down() -> None:
    (found,) = documents(SERVING / "compose.yaml")
    service = found["services"]["serving"]
    assert service["image"] == serving_image()
    assert service["read_only"] is True
    assert service["cap_drop"] == ["ALL"]
    assert service["user"] == "1000:1000"
    assert all(port.startswith("127.0.0.1:") for port in service["ports"])


def test_kserve_pins_its_runtime_and_splits_traffic() -> None:
    (runtime,) = documents(SERVING / "kserve" / "servingruntime.yaml")
    (service,) = documents(SERVING / "kserve" / "inferenceservice.yaml")
    assert runtime["apiVersion"] == "serving.kserve.io/v1alpha1"
    assert service["apiVersion"] == "serving.kserve.io/v1beta1"
    predictor = service["spec"]["predictor"]
    assert predictor["model"]["runtime"] == runtime["metadata"]["name"]
    formats = [item["name"] for item in runtime["spec"]["supportedModelFormats"]]
    assert predictor["model"]["modelFormat"]["name"] in formats
    assert 0 < predictor["canaryTrafficPercent"] < 100
    (container,) = runtime["spec"]["containers"]
    assert container["image"] == serving_image()
    assert container["securityContext"]["readOnlyRootFilesystem"] is True
    assert [mount["mountPath"] for mount in container["volumeMounts"]] == ["/tmp"]
    assert [volume["name"] for volume in runtime["spec"]["volumes"]] == ["tmp"]


def test_the_embedded_server_is_a_runtime_of_kserve_for_both_protocols() -> None:
    (runtime,) = documents(SERVING / "kserve" / "embeddedruntime.yaml")
    assert runtime["spec"]["protocolVersions"] == ["v1", "grpc-v1", "v2", "grpc-v2"]
    (container,) = runtime["spec"]["containers"]
    assert container["image"].endswith(f":{VERSION}")
    options = parse_flags([one.replace("{{.Name}}", "images") for one in container["args"]])
    assert (options.host, options.model_name) == ("0.0.0.0", "images")
    probe = container["readinessProbe"]["httpGet"]
    assert probe == {"path": "/v2/health/ready", "port": options.rest_api_port}
