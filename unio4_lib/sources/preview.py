"""What is known of a dataset without reading its rows: its environment, and how many bytes they are."""

import h5py
import numpy as np

from unio4_lib.data.flatten import flat_dim
from unio4_lib.data.preview import Preview
from unio4_lib.errors import InputError
from unio4_lib.files import local_path
from unio4_lib.sources.d4rl_source import env_of_file
from unio4_lib.sources.grammar import Source, collect_spec, parse_source
from unio4_lib.sources.hdf5_file import find, hdf5_file
from unio4_lib.sources.minari_metadata import dataset_info, dataset_spaces, sizes
from unio4_lib.sources.minari_source import datasets_root, read_metadata


def preview(dataset: str) -> Preview:
    """Look at what is on this machine; of what would have to be fetched nothing is known."""
    source = parse_source(dataset)
    look = {"minari": _minari, "d4rl": _d4rl, "transitions": _transitions, "collect": _collect}.get(
        source.scheme
    )
    try:
        return Preview() if look is None else look(source)
    except InputError as error:
        raise InputError(f"dataset {dataset}: {error}") from error


def _minari(source: Source) -> Preview:
    if not (datasets_root() / source.place / "data").is_dir():
        return Preview(source.options.get("env"))
    metadata = read_metadata(source.place)
    observations, actions = dataset_spaces(source.place, metadata)
    info = dataset_info(source.place, metadata, actions, source.options.get("env"))
    width = flat_dim("observation_space", observations)
    return Preview(info.env_id, info.env_kwargs, sizes(metadata)[0], width, int(np.prod(actions.shape)))


def _d4rl(source: Source) -> Preview:
    path = local_path(source.place)
    with hdf5_file(path) as file:
        shapes = [_shape(file, name) for name in ("observations", "actions")]
    env_id = source.options.get("env") or env_of_file(path)
    return Preview(env_id, {}, shapes[0][0], shapes[0][1], shapes[1][1])


def _shape(file: h5py.File, name: str) -> tuple[int, int]:
    found = find(file, name)
    shape = found.shape if isinstance(found, h5py.Dataset) else None
    if shape is None or len(shape) != 2:
        raise InputError(f"{name}: shape {shape}, must be [rows, dimensions]")
    return shape[0], shape[1]


def _transitions(source: Source) -> Preview:
    return Preview.of_rows(local_path(source.place))


def _collect(source: Source) -> Preview:
    spec = collect_spec(source)
    steps = spec.steps if spec.level in ("random", "policy") else None
    return Preview(spec.env_id, spec.env_kwargs, rows=spec.steps, env_steps=steps)
