"""The project's benchmarks; each module has ``run(arguments) -> Figures``."""
