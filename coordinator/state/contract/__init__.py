"""The parts of the contract in :mod:`coordinator.state.store`."""
