"""What agents are told and what they say: registration, leases, reports, heartbeats."""
