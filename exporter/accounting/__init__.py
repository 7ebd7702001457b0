"""DIVIDE: meters turn readings into joules, the baseline separates idle from active, attribution shares them out."""
