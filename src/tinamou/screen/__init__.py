"""What a guest shows and what is typed to it, pure: pictures, their text, keys."""
