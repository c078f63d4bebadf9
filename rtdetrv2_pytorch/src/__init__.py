"""The engine. `core.YAMLConfig` builds everything that `solver.DetSolver` trains."""
