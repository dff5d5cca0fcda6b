"""What a run will take, before anything is loaded: memory, time, and where the weights will be."""

from framewake.pipeline.forecast.choose import Forecast, forecast
from framewake.pipeline.forecast.links import Links, keep_links, known_links, measured_links
from framewake.pipeline.forecast.place import Placement, about, gib, parse_memory
from framewake.pipeline.forecast.probe import (
    ProbedParts,
    Rates,
    Taken,
    busy_note,
    busy_since,
    largest_file,
    measured_rates,
    rates_from_plain,
    rates_to_plain,
    taken,
)
from framewake.pipeline.forecast.setup import Setup

__all__ = [
    "Forecast",
    "Links",
    "Placement",
    "ProbedParts",
    "Rates",
    "Setup",
    "Taken",
    "about",
    "busy_note",
    "busy_since",
    "forecast",
    "gib",
    "keep_links",
    "known_links",
    "largest_file",
    "measured_links",
    "measured_rates",
    "parse_memory",
    "rates_from_plain",
    "rates_to_plain",
    "taken",
]
