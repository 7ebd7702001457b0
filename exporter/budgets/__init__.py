"""BUDGET: turns a file of energy budgets into recording and alerting rules for Prometheus."""
