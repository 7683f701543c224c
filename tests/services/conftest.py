"""The servers are of a module with a name of its own: tests of other folders want them, too."""

from servers import (
    bucket,
    mlflow_home,
    mlflow_server,
    proxy,
    rclone_program,
    s3_server,
    seaweedfs,
    weed_bucket,
)

__all__ = [
    "bucket",
    "mlflow_home",
    "mlflow_server",
    "proxy",
    "rclone_program",
    "s3_server",
    "seaweedfs",
    "weed_bucket",
]
