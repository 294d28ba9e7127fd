"""The command line: arguments in, files and text out."""
