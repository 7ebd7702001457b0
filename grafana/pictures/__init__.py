"""Pictures of the dashboards without a Grafana: `python -m grafana.pictures` draws them from JSON and data."""
