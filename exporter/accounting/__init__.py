"""DIVIDE: meters make joules of readings, the baseline parts idle from active, attribution shares, the ledger keeps."""
