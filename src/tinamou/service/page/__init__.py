"""The page: what the API knows, rendered here for people; no script is needed but for the console and for what is live."""
