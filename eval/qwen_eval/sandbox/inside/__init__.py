"""What runs in the sandbox's own interpreters. Standard library and relative imports only: the folder above is their path."""
