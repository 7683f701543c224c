"""Sets of values that the chart is rendered with: what a team may write, and what must be refused."""

from typing import Any

import yaml
from rendered_chart import CHART

Values = dict[str, Any]


def _example(name: str) -> Values:
    return dict(yaml.safe_load((CHART / "examples" / f"{name}.yaml").read_text()))


DATABASE_OUTSIDE: dict[str, Any] = {
    "mode": "external",
    "external": {
        "host": "db.example",
        "existingSecret": "db",
        "userKey": "user",
        "egressCIDRs": ["10.0.0.0/8"],
    },
}
NOBODY = {"podSecurityContext": {"runAsUser": None, "runAsGroup": None, "fsGroup": None}}
MORE: dict[str, Any] = {
    "extraEnv": [{"name": "MORE", "value": "1"}],
    "extraVolumes": [{"name": "more", "configMap": {"name": "more"}}],
    "extraVolumeMounts": [{"name": "more", "mountPath": "/more", "readOnly": True}],
    "priorityClassName": "higher",
}
S3_OUTSIDE = {
    "internal": {"enabled": False},
    "external": {"endpoint": "http://s3.example:9000", "existingSecret": "keys"},
}
GOOD: dict[str, Values] = {
    "defaults": {},
    "laptop": _example("laptop"),
    "team-aws": _example("team-aws"),
    "air-gapped": _example("air-gapped"),
    "external-secrets": _example("external-secrets"),
    "single-sign-on": _example("single-sign-on"),
    "mlflow elsewhere": {
        "mlflow": {
            "enabled": False,
            "external": {"trackingUri": "https://mlflow.example", "existingSecret": "login"},
        }
    },
    "authentication": {"mlflow": {"auth": {"enabled": True}, "staticPrefix": "/mlflow"}},
    "authentication with sqlite": {"mlflow": {"auth": {"enabled": True}}, "database": {"mode": "sqlite"}},
    "prefix": {"mlflow": {"staticPrefix": "/mlflow", "serviceMonitor": {"enabled": True}}},
    "ingress": {"mlflow": {"ingress": {"enabled": True, "host": "mlflow.example", "tlsSecret": "tls"}}},
    "gateway": {
        "mlflow": {
            "httpRoute": {"enabled": True, "parentRefs": [{"name": "gate"}], "hostnames": ["a.example"]},
            "service": {"type": "LoadBalancer", "port": 80},
        }
    },
    "many pods": {
        "mlflow": {
            "autoscaling": {"enabled": True},
            "podDisruptionBudget": {"enabled": True},
            "serviceMonitor": {"enabled": True},
        }
    },
    "database elsewhere": {"database": DATABASE_OUTSIDE},
    "verified database": {
        "global": {"caBundle": {"existingConfigMap": "corp-ca"}},
        "database": DATABASE_OUTSIDE
        | {"external": DATABASE_OUTSIDE["external"] | {"sslMode": "verify-full"}},
        "mlflow": {"extraEnv": [{"name": "HTTPS_PROXY", "value": "http://proxy.example:3128"}]},
        "networkPolicy": {
            "extraEgress": [{"ports": [{"port": 3128}], "to": [{"ipBlock": {"cidr": "10.9.0.0/16"}}]}]
        },
    },
    "users chosen by OpenShift": {
        "s3": {"internal": NOBODY},
        "database": {"internal": NOBODY},
        "mlflow": NOBODY,
        "jobs": NOBODY,
    },
    "s3 elsewhere": {"s3": S3_OUTSIDE, "kfp": {"launcher": {"create": True}}},
    "no kfp": {"kfp": {"enabled": False}},
    "more for each part": {
        "global": {"listenAddress": "::"},
        "scheduling": {"priorityClassName": "high"},
        "s3": {"internal": MORE},
        "database": {"internal": MORE},
        "mlflow": MORE,
        "jobs": MORE,
        "maintenance": {name: {"enabled": True} for name in ("artifactGc", "mlflowGc", "databaseBackup")},
    },
    "kfp of many users": {
        "kfp": {
            "multiUser": True,
            "launcher": {"create": True},
            "namespace": "team",
            "recurringRun": {"enabled": True, "parameters": {"dataset": "d4rl:a.hdf5", "seed": 3}},
        }
    },
    "surroundings of the pipeline": {
        "global": {"caBundle": {"existingConfigMap": "corp-ca", "key": "all.pem"}},
        "pipeline": {
            "environment": {"HTTPS_PROXY": "http://proxy.example:3128"},
            "claims": [{"name": "datasets", "mountPath": "/data"}],
            "parameters": {
                "preset": "standard",
                "seed": 3,
                "cpu_request": "2",
                "node_selector": {"pool": "rl"},
            },
        },
    },
    "maintenance": {
        "maintenance": {name: {"enabled": True} for name in ("artifactGc", "mlflowGc", "databaseBackup")},
        "mlflow": {"auth": {"enabled": True}},
    },
    "profile with roles": {
        "kfp": {"multiUser": True, "pipelineName": "rl"},
        "s3": {
            "createBucket": {"enabled": False},
            "internal": {"enabled": False},
            "external": {
                "serviceAccountAnnotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/a"}
            },
        },
        "pipeline": {
            "serviceAccount": {"annotations": {"eks.amazonaws.com/role-arn": "arn:aws:iam::1:role/b"}}
        },
    },
    "own volumes and secrets": {
        "s3": {"internal": {"existingSecret": "keys", "persistence": {"existingClaim": "a"}}},
        "database": {"internal": {"existingSecret": "login", "persistence": {"existingClaim": "b"}}},
        "mlflow": {"auth": {"enabled": True, "existingSecret": "admin"}},
        "pipeline": {
            "serviceAccount": {"create": False, "name": "runner"},
            "s3Secret": "a",
            "mlflowSecret": "b",
        },
    },
    "bare": {
        "networkPolicy": {"enabled": False},
        "kfp": {"enabled": False},
        "s3": {"createBucket": {"enabled": False}},
    },
    "labels and placement": {
        "commonLabels": {"team": "rl", "app.kubernetes.io/name": "other"},
        "podLabels": {"team": "other", "azure.workload.identity/use": "true"},
        "podAnnotations": {"note": "x"},
        "scheduling": {
            "nodeSelector": {"disk": "ssd"},
            "tolerations": [{"key": "gpu", "operator": "Exists"}],
            "priorityClassName": "high",
        },
        "jobs": {"activeDeadlineSeconds": 1000000},
        "image": {"digests": {"prepare-dataset": "sha256:" + "a" * 64}},
    },
}

# Values, and what the message must name.
BAD: dict[str, tuple[Values, str]] = {
    "unknown section": ({"mlfow": {}}, "mlfow"),
    "unknown key": ({"mlflow": {"replica": 2}}, "replica"),
    "text for a number": ({"mlflow": {"replicas": "2"}}, "/mlflow/replicas"),
    "no pod": ({"mlflow": {"replicas": 0}}, "/mlflow/replicas"),
    "image without version": ({"mlflow": {"image": {"tag": "latest"}}}, "/mlflow/image/tag"),
    "image with neither tag nor digest": ({"mlflow": {"image": {"tag": ""}}}, "mlflow.image.tag"),
    "number in the environment": ({"pipeline": {"environment": {"N": 1000000}}}, "/pipeline/environment/N"),
    "name with a digit first": ({"fullnameOverride": "1st"}, "/fullnameOverride"),
    "number as tag": ({"s3": {"internal": {"image": {"tag": 4.34}}}}, "/s3/internal/image/tag"),
    "no digest": ({"image": {"digests": {"report": "abc"}}}, "/image/digests/report"),
    "bucket name": ({"s3": {"bucket": "My_Bucket"}}, "/s3/bucket"),
    "unknown database": ({"database": {"mode": "mysql"}}, "/database/mode"),
    "size without unit": ({"s3": {"internal": {"persistence": {"size": "20"}}}}, "persistence/size"),
    "five fields of cron": ({"kfp": {"recurringRun": {"cron": "0 3 * * *"}}}, "/kfp/recurringRun/cron"),
    "no limit of memory": ({"jobs": {"resources": {"limits": {"memory": None}}}}, "/jobs/resources/limits"),
    "root": ({"mlflow": {"podSecurityContext": {"runAsUser": 0}}}, "/mlflow/podSecurityContext/runAsUser"),
    "address without scheme": ({"kfp": {"endpoint": "ml-pipeline:8888"}}, "/kfp/endpoint"),
    "database elsewhere, but where": ({"database": {"mode": "external"}}, "database.external.host"),
    "database elsewhere, no password": (
        {"database": {"mode": "external", "external": {"host": "db"}}},
        "database.external.existingSecret",
    ),
    "certificate of whom": (
        {
            "database": {
                "mode": "external",
                "external": {"host": "db", "existingSecret": "a", "sslMode": "verify-ca"},
            }
        },
        "database.external.sslMode",
    ),
    "two pods on sqlite": ({"database": {"mode": "sqlite"}, "mlflow": {"replicas": 2}}, "mlflow.replicas"),
    "two S3": ({"s3": {"external": {"endpoint": "https://s3.example"}}}, "s3.internal.enabled"),
    "S3 without identity": (
        {"s3": {"internal": {"enabled": False}, "external": {"endpoint": "https://s3.example"}}},
        "s3.external",
    ),
    "no mlflow at all": ({"mlflow": {"enabled": False}}, "mlflow.external.trackingUri"),
    "two mlflow": ({"mlflow": {"external": {"trackingUri": "http://a"}}}, "mlflow.enabled"),
    "ingress without host": ({"mlflow": {"ingress": {"enabled": True}}}, "mlflow.ingress.host"),
    "route without gateway": ({"mlflow": {"httpRoute": {"enabled": True}}}, "mlflow.httpRoute"),
    "fewest above most": (
        {"mlflow": {"autoscaling": {"enabled": True, "minReplicas": 9}}},
        "mlflow.autoscaling.minReplicas",
    ),
    "recurring without kfp": (
        {"kfp": {"enabled": False, "recurringRun": {"enabled": True}}},
        "kfp.recurringRun.enabled",
    ),
    "no account for the pipeline": (
        {"pipeline": {"serviceAccount": {"create": False}}},
        "pipeline.serviceAccount.name",
    ),
    "database elsewhere, but internal": (
        {"database": {"external": {"host": "db.example"}}},
        "database.mode is internal",
    ),
    "ingress without mlflow": (
        {
            "mlflow": {
                "enabled": False,
                "external": {"trackingUri": "http://a"},
                "ingress": {"enabled": True, "host": "a"},
            }
        },
        "mlflow.ingress.enabled",
    ),
    "authentication without mlflow": (
        {
            "mlflow": {
                "enabled": False,
                "external": {"trackingUri": "http://a"},
                "auth": {"enabled": True},
            }
        },
        "mlflow.auth.enabled",
    ),
    "secret of another mlflow": ({"mlflow": {"external": {"existingSecret": "a"}}}, "mlflow.external"),
    "namespace of a KFP without": ({"kfp": {"namespace": "team"}}, "kfp.namespace"),
    "replicas and autoscaling": (
        {"mlflow": {"replicas": 3, "autoscaling": {"enabled": True}}},
        "mlflow.replicas",
    ),
    "misspelt variable": ({"mlflow": {"extraEnv": [{"name": "A", "vaule": "1"}]}}, "/mlflow/extraEnv/0"),
    "variable of two sources": (
        {"mlflow": {"extraEnv": [{"name": "A", "value": "1", "valueFrom": {"fieldRef": {}}}]}},
        "/mlflow/extraEnv/0",
    ),
    "mount of no volume": ({"jobs": MORE | {"extraVolumes": []}}, "jobs.extraVolumeMounts: more is none of"),
    "folder of the node": (
        {"mlflow": {"extraVolumes": [{"name": "a", "hostPath": {"path": "/"}}]}},
        "/mlflow/extraVolumes/0",
    ),
    "request above limit": (
        {"mlflow": {"resources": {"requests": {"memory": "3000Mi"}}}},
        "requests.memory is 3000Mi, more than limits.memory, which is 2Gi",
    ),
    "no quantity": ({"jobs": {"resources": {"requests": {"cpu": "1 core"}}}}, "/jobs/resources/requests/cpu"),
    "deadline before the last try": ({"kfp": {"timeoutSeconds": 600}}, "jobs.activeDeadlineSeconds"),
    "unknown parameter": ({"pipeline": {"parameters": {"presett": "quick"}}}, "pipeline.parameters.presett"),
    "number for text": ({"pipeline": {"parameters": {"preset": 1}}}, "pipeline.parameters.preset"),
    "no variable": ({"pipeline": {"environment": {"A B": "1"}}}, "/pipeline/environment"),
    "claim nowhere": ({"pipeline": {"claims": [{"name": "a"}]}}, "/pipeline/claims/0"),
    "volume that no one mounts": ({"pipeline": {"cache": {"enabled": True}}}, "/pipeline"),
    "backup of a file": (
        {"database": {"mode": "sqlite"}, "maintenance": {"databaseBackup": {"enabled": True}}},
        "maintenance.databaseBackup",
    ),
    "six fields of a CronJob": (
        {"maintenance": {"artifactGc": {"schedule": "0 0 3 * * *"}}},
        "/maintenance/artifactGc/schedule",
    ),
}
