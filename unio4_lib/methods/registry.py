"""All methods by name; each is imported when somebody asks for it."""

from functools import cache
from importlib import import_module

from unio4_lib.errors import InputError
from unio4_lib.methods.method import Method

DEFAULT = "unio4"
METHODS = {
    "unio4": "unio4_lib.methods.unio4.method:UNIO4",
    "iql": "unio4_lib.methods.iql:METHOD",
    "td3": "unio4_lib.methods.td3:METHOD",
    "td3_bc": "unio4_lib.methods.td3_bc:METHOD",
    "rebrac": "unio4_lib.methods.rebrac:METHOD",
    "sac_n": "unio4_lib.methods.sac_n:METHOD",
    "cql": "unio4_lib.methods.cql:METHOD",
    "spot": "unio4_lib.methods.spot:METHOD",
    "apl": "unio4_lib.methods.apl:METHOD",
    "apl_td3_bc": "unio4_lib.methods.apl_td3_bc:METHOD",
    "pex": "unio4_lib.methods.pex:METHOD",
    "famo2o": "unio4_lib.methods.famo2o:METHOD",
    "famo2o_cql": "unio4_lib.methods.famo2o_cql:METHOD",
    "e2o": "unio4_lib.methods.e2o:METHOD",
    "opt": "unio4_lib.methods.opt:METHOD",
    "opt_spot": "unio4_lib.methods.opt_spot:METHOD",
    "cfdg": "unio4_lib.methods.cfdg:METHOD",
    "cfdg_pex": "unio4_lib.methods.cfdg_pex:METHOD",
    "cfdg_apl": "unio4_lib.methods.cfdg_apl:METHOD",
    "edis": "unio4_lib.methods.edis:METHOD",
    "edis_cql": "unio4_lib.methods.edis_cql:METHOD",
    "baq": "unio4_lib.methods.baq:METHOD",
    "tournament": "unio4_lib.methods.tournament.method:TOURNAMENT",
}


@cache
def find_method(name: str) -> Method:
    """The method of a name."""
    if name not in METHODS:
        raise InputError(f"method {name}: no such method; expected one of {', '.join(METHODS)}")
    module, _, constant = METHODS[name].partition(":")
    found: Method = getattr(import_module(module), constant)
    return found
