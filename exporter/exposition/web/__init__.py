"""An HTTP server with TLS, logins and limits for each client; it knows nothing of energy."""
