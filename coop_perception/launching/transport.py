"""How camera images travel: Fast DDS's profile for a process that publishes them."""

from __future__ import annotations

from collections.abc import Mapping
from pathlib import Path

from coop_perception.resources import share
from coop_perception.ros.shared_memory import PROFILE_VARIABLES


def default_profile(environment: Mapping[str, str]) -> str:
    """The profile that the environment names, whichever version its variable is of; else the installed one."""
    named = (environment[variable] for variable in PROFILE_VARIABLES if environment.get(variable))
    return next(named, str(share("config/fastdds.xml")))


def profile_environment(profile: str) -> dict[str, str]:
    """Environment variables that make a process that is started with them use a profile.

    Args:
        profile: a file of Fast DDS profiles (XML); empty or `none`, as `ros2 launch` takes no empty argument: no
            variables.

    Raises:
        FileNotFoundError: there is no such file, which Fast DDS would pass over.
    """
    if profile in ("", "none"):
        return {}
    path = Path(profile).expanduser()
    if not path.is_file():
        raise FileNotFoundError(f"rmw_profile: {profile} is no file; name Fast DDS profiles (XML), or none")
    return dict.fromkeys(PROFILE_VARIABLES, str(path.resolve()))
