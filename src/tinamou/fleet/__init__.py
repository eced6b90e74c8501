"""Other hosts: which there are, and how they are reached. What is done there a tinamou of theirs does."""
