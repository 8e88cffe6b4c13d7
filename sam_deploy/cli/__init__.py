"""The commands. stdout is the result, stderr the progress and the errors."""
