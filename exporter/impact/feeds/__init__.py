"""Live carbon intensity and prices: one file for each service, polled in a thread of its own."""
