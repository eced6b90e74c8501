"""The watch over running machines: what they use, what is wrong with them, and how much memory their balloons take."""
