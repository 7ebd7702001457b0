"""An HTTP server with TLS, basic authentication and per-client limits; the handlers it serves are passed in."""
