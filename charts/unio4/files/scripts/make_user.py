"""Make MLflow's user for the pipeline's pods, who is no administrator. Running it again changes nothing."""

from typing import Any

from services import Http, RefusedError, basic_auth, log, run, setting, wait_for

USERS, OTHERS = "/api/2.0/mlflow/users", "/api/2.0/mlflow"
GRANT = "/api/3.0/mlflow/users/permissions/grant"


class Mlflow:
    """MLflow, asked as its administrator."""

    def __init__(self, address: str) -> None:
        self.http = Http("MLflow", address, basic_auth)

    def call(self, method: str, path: str, body: Any = None, **query: str) -> Any:
        """One request, repeated while MLflow is starting."""
        return wait_for("MLflow", lambda: self.http.call(method, path, body, **query))

    def knows(self, name: str) -> bool:
        """Whether there is a user of that name."""
        try:
            self.call("GET", f"{USERS}/get", username=name)
        except RefusedError as error:
            if "RESOURCE_DOES_NOT_EXIST" not in str(error):
                raise
            return False
        return True

    def listed(self, kind: str, field: str) -> list[dict[str, Any]]:
        """All experiments or models, which come in pages."""
        found: list[dict[str, Any]] = []
        query = {"max_results": "1000"}
        while True:
            page = self.call("GET", f"{OTHERS}/{kind}/search", **query)
            found += page.get(field, [])
            if not page.get("next_page_token"):
                return found
            query["page_token"] = page["next_page_token"]

    def hand_over(self, user: str) -> None:
        """Earlier pipelines were the administrator: the user goes on with what they made."""
        wanted = [("experiment", one["experiment_id"]) for one in self.listed("experiments", "experiments")]
        models = self.listed("registered-models", "registered_models")
        wanted += [("registered_model", one["name"]) for one in models]
        for kind, identity in wanted:
            body = {"username": user, "resource_type": kind, "resource_id": identity, "permission": "EDIT"}
            self.call("POST", GRANT, body)
        log.info("user %s may go on with %d experiments and models", user, len(wanted))


def main() -> None:
    """Name and password come from the job's environment, and so do the administrator's."""
    mlflow, name, password = (
        Mlflow(setting("MLFLOW_TRACKING_URI")),
        setting("NEW_USERNAME"),
        setting("NEW_PASSWORD"),
    )
    user = {"username": name, "password": password}
    if name == setting("MLFLOW_TRACKING_USERNAME"):
        raise RefusedError(f"the secret of the pipeline's pods names MLflow's administrator, {name}")
    if mlflow.knows(name):
        mlflow.call("PATCH", f"{USERS}/update-password", user)
        log.info("user %s is there, with the password of the secret", name)
        return
    mlflow.call("POST", f"{USERS}/create", user)
    log.info("user %s made", name)
    mlflow.hand_over(name)


if __name__ == "__main__":
    run(main)
