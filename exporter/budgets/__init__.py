"""BUDGET: turns a file of energy budgets into the rules and alerts that Prometheus evaluates."""
