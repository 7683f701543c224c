"""The servers are those of the services' tests."""

import sys
from pathlib import Path

sys.path.insert(0, str(Path(__file__).parents[1]))
from services.conftest import bucket, mlflow_home, mlflow_server, rclone_program, s3_server

__all__ = ["bucket", "mlflow_home", "mlflow_server", "rclone_program", "s3_server"]
