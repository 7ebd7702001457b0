"""BUDGET: turns a file of budgets of energy, carbon and money into recording and alerting rules for Prometheus."""
