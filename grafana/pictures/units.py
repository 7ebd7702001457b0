"""Values as Grafana writes them: a number and its unit, scaled to three or so digits."""

from __future__ import annotations

from math import floor, isfinite, log10

_SCALED = {
    "watt": ("W", "kW", "MW"),
    "kwatth": ("kWh", "MWh", "GWh"),
    "joule": ("J", "kJ", "MJ"),
    "hertz": ("Hz", "kHz", "MHz", "GHz"),
}
_TIMES = ((86400.0, "day"), (3600.0, "hour"), (60.0, "min"), (1.0, "s"), (1e-3, "ms"), (1e-6, "µs"))


def shown(value: float, unit: str, decimals: int | None = None) -> tuple[str, str]:
    """Number and unit of a value in one of Grafana's units."""
    if not isfinite(value):
        return "–", ""
    if unit == "bytes":
        return _scale(value, 1024.0, ("B", "KiB", "MiB", "GiB", "TiB"), decimals)
    if unit in _SCALED:
        return _scale(value, 1000.0, _SCALED[unit], decimals)
    if unit == "s":
        size, name = next((step for step in _TIMES if abs(value) >= step[0]), (1.0, "s"))
        plural = "s" if size > 60 and round(value / size, decimals or 0) != 1 else ""
        return _number(value / size, decimals), f" {name}{plural}"
    if unit == "sci":
        return f"{value:.{1 if decimals is None else decimals}e}", ""
    factor, name = {"percentunit": (100.0, "%"), "celsius": (1.0, "°C")}.get(unit, (1.0, ""))
    return _number(value * factor, decimals), name


def _scale(value: float, base: float, names: tuple[str, ...], decimals: int | None) -> tuple[str, str]:
    step = 0
    while abs(value) >= base and step < len(names) - 1:
        value /= base
        step += 1
    name = names[step]
    number = _number(value, decimals if decimals is not None and step == 0 else None)
    return number, f" {name}" if name and not name.startswith(" ") else name


def _number(value: float, decimals: int | None) -> str:
    if decimals is None:
        size = floor(log10(abs(value))) if value else 0
        decimals = min(3, max(0, 2 - size))
        text = f"{value:.{decimals}f}"
        return text.rstrip("0").rstrip(".") if "." in text else text
    return f"{value:.{decimals}f}"
