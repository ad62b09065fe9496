"""What every section of the configuration is made of: the kinds of values, and how strict a section is.

Left out: the sections (config.py, config_policy.py, config_hostnet.py), what a text must look like (config_values.py).
"""

from __future__ import annotations

from ipaddress import IPv4Network, IPv6Network
from typing import Annotated

from pydantic import BaseModel, BeforeValidator, ConfigDict, Field, PlainSerializer, PlainValidator

from cachelb.config_values import (
    Address,
    as_list,
    check_header_rule,
    check_host,
    check_host_rule,
    check_label,
    check_name,
    check_path_rule,
    check_query_rule,
    check_regex,
    parse_address,
    parse_network,
    parse_ports,
)

WEEK_S = 7 * 86400.0

Seconds = Annotated[float, Field(gt=0, le=WEEK_S, allow_inf_nan=False)]
Port = Annotated[int, Field(ge=1, le=65535)]
SecondsOrNone = Annotated[float, Field(ge=0, le=WEEK_S, allow_inf_nan=False)]  # 0: not at all
Share = Annotated[float, Field(ge=0, le=1, allow_inf_nan=False)]
Addresses = Annotated[
    tuple[Annotated[Address, PlainValidator(parse_address), PlainSerializer(str, return_type=str)], ...],
    BeforeValidator(as_list),
]
Network = Annotated[IPv4Network | IPv6Network, PlainValidator(parse_network), PlainSerializer(str, return_type=str)]
Ports = tuple[Annotated[int | str, PlainValidator(parse_ports)], ...]

# One value may stand for a list of one.
Name = Annotated[str, BeforeValidator(check_name)]
Names = Annotated[tuple[Name, ...], BeforeValidator(as_list)]
Label = Annotated[str, BeforeValidator(check_label)]  # a name, or "" for none
Labels = Annotated[tuple[Label, ...], BeforeValidator(as_list)]
Hosts = Annotated[tuple[Annotated[str, BeforeValidator(check_host)], ...], BeforeValidator(as_list)]
HostRules = Annotated[tuple[Annotated[str, BeforeValidator(check_host_rule)], ...], BeforeValidator(as_list)]
PathRules = Annotated[tuple[Annotated[str, BeforeValidator(check_path_rule)], ...], BeforeValidator(as_list)]
HeaderRules = Annotated[tuple[Annotated[str, BeforeValidator(check_header_rule)], ...], BeforeValidator(as_list)]
Regexes = Annotated[tuple[Annotated[str, BeforeValidator(check_regex)], ...], BeforeValidator(as_list)]
QueryRules = Annotated[tuple[Annotated[str, BeforeValidator(check_query_rule)], ...], BeforeValidator(as_list)]
Networks = Annotated[tuple[Network, ...], BeforeValidator(as_list)]
PortList = Annotated[Ports, BeforeValidator(as_list)]


class Section(BaseModel):
    """What all sections have in common: no unknown keys, no silent conversions, no changes."""

    model_config = ConfigDict(frozen=True, extra="forbid", strict=True)
