"""The servers are those of the services' tests."""

from servers import bucket, mlflow_home, mlflow_server, rclone_program, s3_server

__all__ = ["bucket", "mlflow_home", "mlflow_server", "rclone_program", "s3_server"]
