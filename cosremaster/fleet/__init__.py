"""Fleets: many images of one base, written down in a TOML file (docs/fleet.md)."""

from cosremaster.fleet.read import Fleet, FleetSite, read_fleet
from cosremaster.fleet.run import FleetOptions, FleetReport, run_fleet

__all__ = ["Fleet", "FleetOptions", "FleetReport", "FleetSite", "read_fleet", "run_fleet"]
