"""Models that order trials, behind one interface."""
