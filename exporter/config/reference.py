"""Writes docs/configuration.md from the table of settings: ``python -m exporter.config.reference``."""

from __future__ import annotations

import itertools
import sys
from collections.abc import Iterator

from .command_line import TITLES, show_default
from .settings_table import TABLE, Setting

_HEAD = """\
# Configuration

<!-- Written by `make docs` from exporter/config/settings.py; change the table there. -->

Every setting is a flag, an environment variable and a key of the YAML file named by `--config.file`.
Flags override the environment, the environment overrides the file, the file overrides the defaults; a higher layer
replaces a list or mapping as a whole. All layers are checked, including overridden values: an unknown key, a value out
of range or a duplicate key is an error that names the file and line, and the exporter exits with status 2.
`--config.check` checks and exits.

```yaml
# keys are nested or dotted
web:
  listen-address: ["127.0.0.1:9400", "[::1]:9400"]
sample.interval: 2s
idle:
  watts: {package-0: 45, package-1: 43.5}
```

The same on the command line and in the environment:

```sh
ai-energy-exporter --sample.interval 2s --idle.watts package-0=45 --idle.watts package-1=43.5
AI_ENERGY_SAMPLE_INTERVAL=2s AI_ENERGY_IDLE_WATTS=package-0=45,package-1=43.5 ai-energy-exporter
```

Durations have units: `500ms`, `1s`, `5m`, `1h30m`. An empty environment variable counts as unset; an
`AI_ENERGY_` variable that is not a setting is an error, except the `…_SERVICE_HOST` and `…_PORT` variables that
Kubernetes sets by itself.

On SIGHUP all layers are reloaded. Settings marked "reload" take effect at once; for other changed settings the log has
a warning that a restart is needed. If there is an error, the current settings stay in force, the error is logged and
`energy_config_last_reload_successful` is 0.

SIGHUP also retries at once, right settings or wrong ones: a source that is down is read with the next tick, and an
API server or engine that is down is asked again, without waiting for the end of the backoff of up to a minute. A source
whose read still hangs gets no second one.
"""


def document() -> str:
    """Return the page as Markdown."""
    return "\n".join([_HEAD, *_sections()])


def _sections() -> Iterator[str]:
    for prefix, rows in itertools.groupby(TABLE.values(), lambda row: row.name.partition(".")[0]):
        yield f"## {TITLES[prefix]}\n\n| setting | value | default | reload | description |\n|---|---|---|---|---|"
        yield from map(_line, rows)
        yield ""


def _line(row: Setting) -> str:
    value = f"`{row.value_type.placeholder or 'true|false'}`".replace("|", "\\|")
    default = f"`{show_default(row)}`" if show_default(row) else "–"
    reload = "yes" if row.reloadable else "no"
    about = row.help if row.in_file else f"{row.help} Flag and environment only."
    return f"| `{row.name}` | {value} | {default} | {reload} | {about} |"


if __name__ == "__main__":
    sys.stdout.write(document())
