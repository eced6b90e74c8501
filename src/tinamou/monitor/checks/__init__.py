"""The checks of the watch: one file is one finding, judged from what a look has seen."""
