"""Users' networks: import into Relax, task extraction, compilation. Runs as child jobs only."""
