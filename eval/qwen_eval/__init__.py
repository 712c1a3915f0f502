"""The shared package behind the benchmark scripts. Importing it does nothing and pulls in nothing heavy."""

__version__ = "0.2.0"
