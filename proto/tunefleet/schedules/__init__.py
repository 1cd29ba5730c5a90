"""Schedules as their traces tell them, without TVM: what both sides describe programs by."""
