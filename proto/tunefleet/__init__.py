"""TuneFleet's contract: the messages, what both sides must agree on, and the users' client."""

__version__ = "0.1.0"
