"""The command line of ollamad."""
