"""The dashboards as Grafana's own components draw them: `python -m grafana.render` takes pictures and checks them."""
