"""Energy counters of Cray and HPE Cray EX nodes."""
