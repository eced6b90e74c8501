"""The only place that touches Linux: commands, files, processes, ioctls."""
