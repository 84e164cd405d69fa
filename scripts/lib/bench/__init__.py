"""The parts of scripts/bench, one topic each."""
