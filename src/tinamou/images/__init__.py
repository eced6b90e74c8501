"""Images on this host: what they are, whether they can be trusted, where they come from and who depends on them."""
