"""The demo site with what only scripts/bench needs."""
