"""What every call passes through: who may make it, how often and how long, what is believed."""
