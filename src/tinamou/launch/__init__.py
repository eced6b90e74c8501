"""From plan to process: spelling the arguments, opening what is handed over, starting QEMU confined."""
