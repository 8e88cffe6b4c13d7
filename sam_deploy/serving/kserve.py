"""Manifests for KServe: a bundle in a container of ours, or in Triton's.

KServe's v1beta1 `InferenceService` and v1alpha1 `ServingRuntime`. KServe puts what `storageUri`
points to into /mnt/models; for Triton that is a repository as `sam-serve --triton` writes it.
"""

from __future__ import annotations

import re
from dataclasses import dataclass
from typing import Any, Literal

from sam_deploy.errors import InputError
from sam_deploy.manifest import Manifest

Runtime = Literal["sam-serve", "triton"]
CPU_IMAGE, GPU_IMAGE = "sam-serve:cpu", "sam-serve:gpu"
_MODELS = "/mnt/models"
_HTTP_PORT, _GRPC_PORT, _METRICS_PORT = 8080, 9000, 8002
_DRAIN_S, _TIMEOUT_S = 10, 60
_BASE_MIB, _STEP_MIB = 512, 256
_NAME_CHARS = 53  # KServe adds to it, and 63 is DNS's limit


@dataclass(frozen=True)
class Deployment:
    """What a cluster is asked for. `name` is None for the bundle's; `image` for our own."""

    storage_uri: str
    runtime: Runtime = "sam-serve"
    name: str | None = None
    image: str | None = None
    gpu: bool = False
    min_replicas: int = 1
    max_replicas: int = 3

    def __post_init__(self) -> None:
        """Refuse what no cluster takes.

        Raises:
            InputError: replicas out of order, or a storage URI that is none.
        """
        if not 0 <= self.min_replicas <= max(self.max_replicas, 1) or self.max_replicas < 1:
            raise InputError(
                f"replicas {self.min_replicas} to {self.max_replicas}: expected 0 or more to 1 or "
                "more, in order."
            )
        if not re.fullmatch(r"[a-z][a-z0-9+.-]*://\S+", self.storage_uri):
            raise InputError(
                f"{self.storage_uri!r} is no storage URI; expected s3://, pvc:// or the like."
            )
        if self.runtime == "triton" and self.image:
            raise InputError("KServe brings Triton's image; --image is for sam-serve's.")


def kserve_name(name: str) -> str:
    """`name` as a cluster takes it: RFC 1123, lower case and dashes; smt_t becomes smt-t.

    Raises:
        InputError: nothing is left of it.
    """
    found = re.sub(r"[^a-z0-9]+", "-", name.lower()).strip("-")[:_NAME_CHARS].strip("-")
    if not found or not found[0].isalpha():
        raise InputError(f"{name!r} cannot be a name in a cluster: it must begin with a letter.")
    return found


def manifests(manifest: Manifest, asked: Deployment) -> list[dict[str, Any]]:
    """The objects to apply, in their order.

    Raises:
        InputError: the name is none for a cluster.
    """
    name = kserve_name(asked.name or manifest.name)
    model: dict[str, Any] = {
        "protocolVersion": "v2",
        "storageUri": asked.storage_uri,
        "resources": _resources(manifest, gpu=asked.gpu),
    }
    objects = []
    if asked.runtime == "triton":
        model |= {"runtime": "kserve-tritonserver", "modelFormat": {"name": "triton"}}
    else:
        runtime = _serving_runtime(asked)
        objects.append(runtime)
        model |= {
            "runtime": runtime["metadata"]["name"],
            "modelFormat": {"name": "sam-deploy", "version": "1"},
        }
    service = {
        "apiVersion": "serving.kserve.io/v1beta1",
        "kind": "InferenceService",
        "metadata": {"name": name},
        "spec": {
            "predictor": {
                "minReplicas": asked.min_replicas,
                "maxReplicas": asked.max_replicas,
                "terminationGracePeriodSeconds": _DRAIN_S + _TIMEOUT_S + 10,
                "model": model,
            }
        },
    }
    return [*objects, service]


def _serving_runtime(asked: Deployment) -> dict[str, Any]:
    """Our container; KServe fills in the service's name, which is the model's."""
    container = {
        "name": "kserve-container",
        "image": asked.image or (GPU_IMAGE if asked.gpu else CPU_IMAGE),
        "args": [
            f"{{{{.Name}}}}={_MODELS}",
            "--host=0.0.0.0",
            f"--http-port={_HTTP_PORT}",
            f"--grpc-port={_GRPC_PORT}",
            f"--metrics-port={_METRICS_PORT}",
            f"--timeout-s={_TIMEOUT_S}",
            f"--drain-s={_DRAIN_S}",
            "--no-reload",  # KServe starts other pods for another version
        ],
        "ports": [{"containerPort": _HTTP_PORT, "protocol": "TCP"}],
        "readinessProbe": _probe("ready", period_s=5),
        "livenessProbe": _probe("live", period_s=10),
        "securityContext": {
            "allowPrivilegeEscalation": False,
            "runAsNonRoot": True,
            "capabilities": {"drop": ["ALL"]},
        },
    }
    return {
        "apiVersion": "serving.kserve.io/v1alpha1",
        "kind": "ServingRuntime",
        "metadata": {"name": "sam-serve-gpu" if asked.gpu else "sam-serve"},
        "spec": {
            "annotations": {
                "prometheus.kserve.io/port": str(_METRICS_PORT),
                "prometheus.kserve.io/path": "/metrics",
            },
            "supportedModelFormats": [{"name": "sam-deploy", "version": "1"}],
            "protocolVersions": ["v2"],
            "containers": [container],
        },
    }


def _probe(what: str, period_s: int) -> dict[str, Any]:
    return {
        "httpGet": {"path": f"/v2/health/{what}", "port": _HTTP_PORT},
        "periodSeconds": period_s,
        "failureThreshold": 6,
    }


def _resources(manifest: Manifest, *, gpu: bool) -> dict[str, dict[str, str]]:
    """Memory for the server, its engine and a copy of the files; twice that at most."""
    files_mib = sum(info.bytes for info in manifest.files.values()) / 2**20
    mib = -(-int(_BASE_MIB + 8 * files_mib) // _STEP_MIB) * _STEP_MIB
    requests, limits = {"cpu": "2", "memory": f"{mib}Mi"}, {"cpu": "4", "memory": f"{2 * mib}Mi"}
    if gpu:
        requests["nvidia.com/gpu"] = limits["nvidia.com/gpu"] = "1"
    return {"requests": requests, "limits": limits}
