"""PUBLISH: turn a snapshot into scrape bodies and a status page, and serve them."""
