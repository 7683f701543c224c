"""Can the place that Minari downloads from be reached? Minari itself takes half a minute to find out."""

import http.client
import os
import ssl
import threading
import urllib.error
import urllib.request

from unio4_lib.errors import without_user_info

DEFAULT_ENDPOINT = "https://huggingface.co"
HUB_SECONDS = 8.0


def unreachable_hub(seconds: float | None = None) -> str | None:
    """What to tell the user if the Hugging Face hub cannot be reached; None where a download may work.

    Only the plain case is judged: behind a proxy, offline by choice or with another store, Minari speaks.
    """
    elsewhere = not os.environ.get("MINARI_REMOTE", "hf://").startswith("hf://")
    if elsewhere or os.environ.get("HF_HUB_OFFLINE") or urllib.request.getproxies():
        return None
    seconds = HUB_SECONDS if seconds is None else seconds
    endpoint = os.environ.get("HF_ENDPOINT", DEFAULT_ENDPOINT)
    # Looking up a name has no time limit of its own, and a host may have many addresses to try.
    reasons: list[str | None] = [f"no answer within {seconds:.0f} seconds"]
    attempt = threading.Thread(target=lambda: reasons.append(_attempt(endpoint)), daemon=True)
    attempt.start()
    attempt.join(seconds)
    reason = reasons[-1]
    return None if reason is None else f"{without_user_info(endpoint)} cannot be reached ({reason})"


def _attempt(endpoint: str) -> str | None:
    """Why ``endpoint`` does not answer, None if it does."""
    try:
        request = urllib.request.Request(endpoint, method="HEAD")
        urllib.request.urlopen(request, timeout=HUB_SECONDS).close()
    except (urllib.error.HTTPError, http.client.HTTPException):
        return None  # no good answer, but an answer
    except (OSError, ValueError) as error:
        reason = getattr(error, "reason", error)
        if isinstance(reason, ssl.SSLError):
            return None  # which certificate is good enough is up to the library that downloads
        return str(getattr(reason, "strerror", None) or reason)
    return None
