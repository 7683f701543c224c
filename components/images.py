"""The images that components run in, named for this release."""

from unio4_lib import __version__

REGISTRY = "unio4"


def image(name: str) -> str:
    """An image of ``make images``; a pipeline compiled with other settings replaces it."""
    return f"{REGISTRY}/{name}:{__version__}"


LIGHT = image("prepare-dataset")
CLONING = image("clone-behavior")
TRAINING = image("improve-policy")
ONLINE = image("finetune-online")
