"""A few seconds of each policy, side by side, drawn without a screen."""

import importlib
import io
import os
from collections.abc import Mapping
from pathlib import Path
from typing import Any

import gymnasium
import numpy as np
from gymnasium import spaces
from PIL import Image, ImageDraw, ImageFont

from unio4_lib.data.flatten import sorted_space
from unio4_lib.errors import InputError
from unio4_lib.nets.files import load_policy
from unio4_lib.nets.policy import Policy
from unio4_lib.sim.registry import make_env

POLICIES = {"behavior": "a clone", "offline": "offline", "online": "online"}
STEPS_PER_FRAME = 4
FRAMES_PER_SECOND = 15
TITLE = 20  # pixels above each picture
GAP = 6
COLORS = 64
LAST_FRAME_MILLISECONDS = 900


class NoRenderer(RuntimeError):  # noqa: N818 - reads as a statement of what is missing
    """This machine cannot draw the environment."""


def film_of_run(folder: Path, *, frames: int, size: int, seed: int) -> bytes:
    """The policies of a run's folder as one GIF."""
    found: dict[str, Policy] = {}
    task: dict[str, Any] = {}
    for name, title in POLICIES.items():
        place = folder / "policies" / name
        if place.is_dir():
            policy, task = load_policy(place)
            found[title] = policy
    if not found or "env_id" not in task:
        raise InputError(f"{folder}: no policies here; expected the folder of a run, with policies/")
    return film(found, task["env_id"], task.get("env_kwargs", {}), frames=frames, size=size, seed=seed)


def film(
    policies: Mapping[str, Policy],
    env_id: str,
    env_kwargs: dict[str, Any],
    *,
    frames: int,
    size: int,
    seed: int,
) -> bytes:
    """A GIF of the first member of each policy, from the same start; the last picture of a fall stays."""
    _find_renderer(size)
    rows = [_play(policy, env_id, env_kwargs, frames, size, seed) for policy in policies.values()]
    strip = [_compose(list(policies), pictures, size) for pictures in zip(*rows, strict=True)]
    palette = strip[len(strip) // 2].quantize(COLORS)
    images = [picture.quantize(palette=palette, dither=Image.Dither.NONE) for picture in strip]
    durations = [1000 // FRAMES_PER_SECOND] * (len(images) - 1) + [LAST_FRAME_MILLISECONDS]
    target = io.BytesIO()
    images[0].save(
        target, "GIF", save_all=True, append_images=images[1:], duration=durations, loop=0, optimize=True
    )
    return target.getvalue()


def _find_renderer(size: int) -> None:
    """Try the graphics library that Gymnasium will use; it would fail with pages of noise."""
    # Without a screen, unless someone chose another.
    library = os.environ.setdefault("MUJOCO_GL", "egl")
    try:
        importlib.import_module(f"mujoco.{library}").GLContext(size, size).free()
    except Exception as error:  # each graphics library fails in classes of its own
        text = " ".join(str(error).split())[:160]
        raise NoRenderer(f"MuJoCo cannot draw with MUJOCO_GL={library} ({text}); try osmesa") from error


def _play(
    policy: Policy, env_id: str, env_kwargs: dict[str, Any], frames: int, size: int, seed: int
) -> list[Image.Image]:
    """Pictures of one episode of the mean action."""
    env = _drawable(env_id, env_kwargs, size)
    try:
        space = sorted_space(env.observation_space)
        observation, _ = env.reset(seed=seed)
        pictures, ended = [_picture(env)], False
        for frame in range(1, frames):
            for _ in range(0 if ended else STEPS_PER_FRAME):
                flat = np.asarray(spaces.flatten(space, observation))[None]
                action = policy.act(flat)[0].astype(env.action_space.dtype)
                observation, _, terminated, truncated, _ = env.step(action)
                ended = bool(terminated or truncated)
                if ended:
                    break
            still = ended and frame > 1 and pictures[-1].info.get("ended")
            pictures.append(pictures[-1] if still else _picture(env))
            pictures[-1].info["ended"] = ended
        return pictures
    finally:
        env.close()


def _drawable(env_id: str, env_kwargs: dict[str, Any], size: int) -> gymnasium.Env:
    options = {**env_kwargs, "render_mode": "rgb_array", "width": size, "height": size}
    try:
        return make_env(env_id, options)
    except InputError as error:
        raise NoRenderer(f"{env_id} offers no pictures: {error}") from error


def _picture(env: gymnasium.Env) -> Image.Image:
    return Image.fromarray(np.asarray(env.render(), np.uint8))


def _compose(titles: list[str], pictures: tuple[Image.Image, ...], size: int) -> Image.Image:
    """One picture of all policies with their names above."""
    strip = Image.new("RGB", (len(titles) * (size + GAP) - GAP, size + TITLE), "white")
    pen, font = ImageDraw.Draw(strip), ImageFont.load_default(12)
    for index, (title, picture) in enumerate(zip(titles, pictures, strict=True)):
        left = index * (size + GAP)
        pen.text((left + 2, 2), title, fill="black", font=font)
        strip.paste(picture.resize((size, size)), (left, TITLE))
    return strip
